//! Finds a secret in text that others wrote, in every form that it usually takes there.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use zeroize::Zeroizing;

use super::Secret;

/// What stands where a secret stood.
const MARK: &str = "[token]";
/// What stands for the whole text if the secret is too short to be told from ordinary text: taking out every `a` would
/// say that the secret is `a`.
const WITHHELD: &str = "[withheld: the token is too short to be found in text]";
/// The shortest secret that is searched for, and the shortest form of one, in bytes.
const MIN_FORM: usize = 4;

/// Takes secrets out of text: as they are, in base64 at any alignment, in hex, and escaped for URLs, JSON or HTML. What
/// holds one, such as `Bearer <secret>`, is found with it. One that is split over two texts is not found, so give whole
/// lines, and of a line that has not ended what [`Redactor::whole`] leaves of it. Of a secret of several lines each is a
/// form. Its copies of the secrets are zeroed on drop.
pub struct Redactor {
    /// Without duplicates.
    forms: Vec<Zeroizing<Vec<u8>>>,
    /// Whether a secret is too short to be found.
    withholds: bool,
}

impl Redactor {
    /// What to look for.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let (mut forms, mut withholds) = (Vec::new(), false);
        for secret in secrets.into_iter().map(Secret::expose) {
            if secret.len() < MIN_FORM {
                withholds = true;
                continue;
            }
            forms.push(Zeroizing::new(secret.as_bytes().to_vec()));
            forms.extend(secret.lines().map(|line| Zeroizing::new(line.as_bytes().to_vec())));
            base64_forms(secret.as_bytes(), &mut forms);
            forms.push(escaped(secret, |char, out| each_byte(char, |byte| write!(out, "{byte:02x}"))));
            forms.push(escaped(secret, |char, out| each_byte(char, |byte| write!(out, "{byte:02X}"))));
            url_forms(secret, &mut forms);
            json_forms(secret, &mut forms);
            html_forms(secret, &mut forms);
        }
        forms.retain(|form| form.len() >= MIN_FORM);
        forms.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        forms.dedup_by(|one, other| **one == **other);
        Self { forms, withholds }
    }

    /// `text` without the secrets.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.withholds {
            return Cow::Borrowed(if text.is_empty() { text } else { WITHHELD });
        }
        let spans = self.spans(text.as_bytes());
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut redacted = String::with_capacity(text.len());
        let mut kept = 0;
        for (start, end) in spans {
            redacted.push_str(&text[kept..start]);
            redacted.push_str(MARK);
            kept = end;
        }
        redacted.push_str(&text[kept..]);
        Cow::Owned(redacted)
    }

    /// Of text that breaks off, what stands before a beginning of a secret: nothing of the rest may be told.
    #[must_use]
    pub fn whole<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let begun = self.forms.iter().map(|form| beginning_at_end(form, text)).max().unwrap_or(0);
        let end = text.len() - begun;
        // A whole one that reaches into it would be cut in two.
        let reaches_in = self.spans(text).into_iter().find(|span| span.0 < end && end < span.1);
        &text[..reaches_in.map_or(end, |span| span.0)]
    }

    /// Where a form stands, in order; what overlaps is one span.
    fn spans(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for form in &self.forms {
            let finder = memmem::Finder::new(form.as_slice());
            let mut from = 0;
            while let Some(at) = finder.find(&text[from..]) {
                let start = from + at;
                found.push((start, start + form.len()));
                // One further only: a secret may overlap itself. Forms start with whole characters.
                from = start + 1;
            }
        }
        found.sort_unstable();
        found.dedup_by(|next, last| {
            let overlaps = next.0 <= last.1;
            if overlaps {
                last.1 = last.1.max(next.1);
            }
            overlaps
        });
        found
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}

/// The length of the longest beginning of `form`, but not all of it, that `text` ends with (Knuth, Morris and Pratt).
fn beginning_at_end(form: &[u8], text: &[u8]) -> usize {
    let text = &text[text.len().saturating_sub(form.len() - 1)..];
    // For each beginning of the form, the longest shorter one that it ends with.
    let mut shorter = vec![0; text.len() + 1];
    let longest = |shorter: &[usize], mut matched: usize, byte: u8| {
        while matched > 0 && form[matched] != byte {
            matched = shorter[matched - 1];
        }
        matched + usize::from(form[matched] == byte)
    };
    for length in 1..text.len() {
        shorter[length] = longest(&shorter, shorter[length - 1], form[length]);
    }
    text.iter().fold(0, |matched, &byte| longest(&shorter, matched, byte))
}

/// The characters of the secret's base64 that do not depend on what stands before and after it, for each of the three
/// places where it may start within a group, in either alphabet.
fn base64_forms(secret: &[u8], forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    for before in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; before + secret.len()]);
        bytes[before..].copy_from_slice(secret);
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let mut encoded = Zeroizing::new(vec![0; bytes.len() * 2]);
            alphabet.encode_slice(&bytes, &mut encoded).expect("base64 is never twice as long");
            forms.push(Zeroizing::new(encoded[own.clone()].to_vec()));
        }
    }
}

/// Escaped for a URL's path or query: as RFC 3986 has it, in either case, as browsers do, and as forms do.
fn url_forms(secret: &str, forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    let strict = |char: char| char.is_ascii_alphanumeric() || "-._~".contains(char);
    let browser = |char: char| strict(char) || "!'()*".contains(char);
    forms.push(escaped(secret, |char, out| percent(char, strict(char), out)));
    forms.push(escaped(secret, |char, out| percent(char, browser(char), out)));
    forms.push(escaped(secret, |char, out| {
        if strict(char) { out.write_char(char) } else { each_byte(char, |byte| write!(out, "%{byte:02x}")) }
    }));
    forms.push(escaped(secret, |char, out| match char {
        ' ' => out.write_char('+'),
        '*' => out.write_char('*'),
        '~' => out.write_str("%7E"),
        char => percent(char, strict(char), out),
    }));
}

/// Escaped for a JSON string: only what must be, with `/` too, all but ASCII too, what HTML minds too; and twice, for
/// JSON within JSON.
fn json_forms(secret: &str, forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    let plain = escaped(secret, json_char);
    let again = str::from_utf8(&plain).map(|plain| escaped(plain, json_char));
    forms.push(plain);
    forms.extend(again);
    forms.push(escaped(secret, |char, out| if char == '/' { out.write_str("\\/") } else { json_char(char, out) }));
    forms.push(escaped(secret, |char, out| if char.is_ascii() { json_char(char, out) } else { utf16(char, out) }));
    forms.push(escaped(secret, |char, out| match char {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => utf16(char, out),
        char => json_char(char, out),
    }));
}

fn json_char(char: char, out: &mut String) -> fmt::Result {
    match char {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\u{8}' => out.write_str("\\b"),
        '\u{c}' => out.write_str("\\f"),
        '\0'..'\u{20}' => utf16(char, out),
        char => out.write_char(char),
    }
}

/// Escaped for HTML: without quotes, and with them in each of the usual ways.
fn html_forms(secret: &str, forms: &mut Vec<Zeroizing<Vec<u8>>>) {
    for [quote, apostrophe] in [["\"", "'"], ["&quot;", "&#39;"], ["&quot;", "&#x27;"], ["&#34;", "&#39;"]] {
        forms.push(escaped(secret, |char, out| match char {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            '"' => out.write_str(quote),
            '\'' => out.write_str(apostrophe),
            char => out.write_char(char),
        }));
    }
}

fn utf16(char: char, out: &mut String) -> fmt::Result {
    char.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

fn percent(char: char, plain: bool, out: &mut String) -> fmt::Result {
    if plain { out.write_char(char) } else { each_byte(char, |byte| write!(out, "%{byte:02X}")) }
}

fn each_byte(char: char, write: impl FnMut(u8) -> fmt::Result) -> fmt::Result {
    char.encode_utf8(&mut [0; 4]).bytes().try_for_each(write)
}

/// The text with each character as `escape` writes it. The space is reserved beforehand, because a string that grows
/// leaves copies behind that nobody zeroes.
fn escaped(text: &str, escape: impl Fn(char, &mut String) -> fmt::Result) -> Zeroizing<Vec<u8>> {
    let mut out = String::with_capacity(text.len() * 6);
    text.chars().try_for_each(|char| escape(char, &mut out)).expect("writing to a string does not fail");
    Zeroizing::new(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new([&Secret::new(secret.to_owned())])
    }

    fn hex(secret: &str) -> String {
        secret.bytes().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    }

    fn form(secret: &str) -> String {
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()
    }

    #[test]
    fn a_secret_is_taken_out_as_it_is_and_with_what_holds_it() {
        let redactor = redactor("ntn_5ecr3t");
        assert_eq!(redactor.redact("a ntn_5ecr3t b ntn_5ecr3t"), "a [token] b [token]");
        assert_eq!(redactor.redact(r#"{"Key": "Bearer ntn_5ecr3t"}"#), r#"{"Key": "Bearer [token]"}"#);
    }

    #[test]
    fn text_without_the_secret_is_left_as_it_is() {
        let redactor = redactor("ntn_5ecr3t");
        for text in ["", "ntn_", "NTN_5ECR3T", "ordinary text, 世界"] {
            assert!(matches!(redactor.redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn base64_is_found_at_every_alignment() {
        let secret = "ntn_5ecr3t?>~token";
        for before in ["", "x", "xy", "Bearer ", "user:"] {
            for after in ["", "z", "zz"] {
                let whole = format!("{before}{secret}{after}");
                for encoded in [STANDARD.encode(&whole), URL_SAFE.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                    let redacted = redactor(secret).redact(&encoded).into_owned();
                    assert!(redacted.contains(MARK), "{whole}: {redacted}");
                    let left = redacted.replace(MARK, "").len();
                    let most = (before.len() + after.len()).div_ceil(3) * 4 + 6;
                    assert!(left <= most, "{whole}: {redacted}");
                }
            }
        }
    }

    #[test]
    fn every_escaped_form_is_found() {
        let secret = "a/b+c=\"d\\e' é%&<🙂~*!";
        let json = serde_json::to_string(secret).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        let forms = [
            hex(secret),
            hex(secret).to_uppercase(),
            form(secret),
            "a%2Fb%2Bc%3D%22d%5Ce%27%20%C3%A9%25%26%3C%F0%9F%99%82~%2A%21".to_owned(),
            "a%2fb%2bc%3d%22d%5ce%27%20%c3%a9%25%26%3c%f0%9f%99%82~%2a%21".to_owned(),
            "a%2Fb%2Bc%3D%22d%5Ce'%20%C3%A9%25%26%3C%F0%9F%99%82~*!".to_owned(),
            json.trim_matches('"').to_owned(),
            twice[3..twice.len() - 3].to_owned(),
            json.trim_matches('"').replace('/', "\\/"),
            json.trim_matches('"').replace('é', "\\u00e9").replace('🙂', "\\ud83d\\ude42"),
            json.trim_matches('"').replace('&', "\\u0026").replace('<', "\\u003c"),
            secret.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#x27;"),
            secret.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;").replace('\'', "&#39;"),
        ];
        for form in forms {
            assert_eq!(redactor(secret).redact(&format!("<{form}>")), "<[token]>", "{form}");
        }
    }

    #[test]
    fn overlapping_finds_leave_no_rest() {
        assert_eq!(redactor("abcabc").redact("xabcabcabcx"), "x[token]x");
        assert_eq!(redactor("aaaa").redact("aaaaaaa"), MARK);
        assert_eq!(redactor("éééé").redact("«éééééé»"), "«[token]»");
    }

    #[test]
    fn of_text_that_breaks_off_no_beginning_of_the_secret_is_left() {
        let redactor = redactor("abcabd");
        let whole = |text: &'static str| str::from_utf8(redactor.whole(text.as_bytes())).unwrap();
        for (text, left) in
            [("", ""), ("x", "x"), ("xabcab", "x"), ("abcabc", "abc"), ("xabcabd", "xabcabd"), ("abda", "abd")]
        {
            assert_eq!(whole(text), left, "{text}");
        }
        let redactor = self::redactor("aaaa");
        assert_eq!(redactor.whole(b"xaaaaaa"), b"x", "what is whole is not cut in two");
        let redactor = self::redactor("sécret");
        assert_eq!(redactor.whole(&"x sécret".as_bytes()[..4]), b"x ", "not even where a character is cut");
    }

    #[test]
    fn each_line_of_a_secret_of_several_is_taken_out() {
        assert_eq!(redactor("first line\r\nsecond\n").redact("a first line b"), "a [token] b");
    }

    #[test]
    fn a_secret_too_short_to_be_found_withholds_the_text() {
        for secret in ["", "a", "abc"] {
            assert_eq!(redactor(secret).redact("a cab came"), WITHHELD);
            assert_eq!(redactor(secret).redact(""), "");
        }
        assert_eq!(redactor("abcd").redact("a cab, abcd"), "a cab, [token]");
    }

    #[test]
    fn all_of_several_secrets_are_taken_out_and_of_none_nothing() {
        let [one, two, short] = ["ntn_5ecr3t", "xoxb-17", "ab"].map(|secret| Secret::new(secret.to_owned()));
        assert_eq!(Redactor::new([&one, &two]).redact("ntn_5ecr3t or xoxb-17"), "[token] or [token]");
        assert_eq!(Redactor::new([&one, &short]).redact("a cab"), WITHHELD);
        assert_eq!(Redactor::new([]).redact("ntn_5ecr3t"), "ntn_5ecr3t");
    }

    #[test]
    fn a_redactor_does_not_show_what_it_looks_for() {
        assert_eq!(format!("{:?}", redactor("ntn_5ecr3t")), "Redactor(…)");
    }

    proptest! {
        #[test]
        fn no_form_of_any_secret_remains(secret in "\\PC{4,40}", before in "\\PC{0,5}", after in "\\PC{0,5}") {
            let redactor = redactor(&secret);
            let json = serde_json::to_string(&secret).unwrap();
            for form in [secret.clone(), json[1..json.len() - 1].to_owned(), hex(&secret), form(&secret)] {
                let redacted = redactor.redact(&format!("{before}{form}{after}")).into_owned();
                prop_assert!(redacted.contains(MARK), "{}", redacted);
                prop_assert!(MARK.contains(&form) || !redacted.contains(&form), "{}", redacted);
            }
        }

        #[test]
        fn no_part_of_any_form_is_left_wherever_text_breaks_off(
            secret in "\\PC{4,40}|[ab]{4,12}",
            before in "\\PC{0,5}|[ab]{0,9}",
            cut in any::<prop::sample::Index>(),
        ) {
            let redactor = redactor(&secret);
            let json = serde_json::to_string(&secret).unwrap();
            let strict = [STANDARD.encode(&secret), URL_SAFE.encode(&secret)].map(|mut encoded| {
                // The last characters depend on what follows the secret.
                encoded.truncate(secret.len() * 8 / 6);
                encoded
            });
            let forms = [secret.clone(), json[1..json.len() - 1].to_owned(), hex(&secret), form(&secret)];
            for form in forms.into_iter().chain(strict) {
                let text = [before.as_bytes(), &form.as_bytes()[..cut.index(form.len())]].concat();
                let whole = redactor.whole(&text);
                prop_assert!(before.as_bytes().starts_with(whole), "{:?} of {:?}", whole, text);
            }
        }

        #[test]
        fn any_text_is_survived(secret in any::<String>(), text in any::<String>()) {
            let redacted = redactor(&secret).redact(&text).into_owned();
            prop_assert!(redacted == text || !redacted.is_empty());
        }
    }
}
