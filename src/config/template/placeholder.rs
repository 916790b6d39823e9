//! Placeholders for the user's token in text, however they are spelled.

use std::ops::Range;

/// Where `text` holds `<<token>>` or `{{token}}`, however spelled.
pub(in crate::config) fn find_token(text: &str) -> Option<Range<usize>> {
    find_token_between(text, "<<", ">>").or_else(|| find_token_between(text, "{{", "}}"))
}

/// Where `text` holds the word `token` between `open` and `close`, however spelled.
pub(in crate::config) fn find_token_between(text: &str, open: &str, close: &str) -> Option<Range<usize>> {
    let mut from = 0;
    while let Some(start) = text[from..].find(open).map(|start| start + from) {
        let inside = start + open.len();
        let end = text[inside..].find(close)? + inside;
        let name = text[inside..end].trim_matches([' ', '<', '{']);
        if name.eq_ignore_ascii_case("token") {
            return Some(start..end + close.len());
        }
        from = inside;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_placeholder_is_found_however_it_is_spelled() {
        for text in
            ["a <<token>>", "<< token >>", "{{token}}", "x{{ Token }}", "<<TOKEN>>", "<<a<<token>>", "<<<token>>"]
        {
            assert!(find_token(text).is_some(), "{text}");
        }
        for text in ["", "<<", "cat <<EOF", "{{x}}", "<<tokens>>", "<token>", "<<token>"] {
            assert!(find_token(text).is_none(), "{text}");
        }
    }
}
