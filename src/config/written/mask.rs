//! The file's text with its values blotted out, so that an excerpt in an error can be shown to anyone.
//!
//! Every character keeps its place and its length in bytes: positions in the text hold in the excerpt.

use std::collections::BTreeSet;
use std::ops::Range;

use super::file;

/// `source` with every string, number, word and comment blotted out, except object keys, `<<name>>` holes, the words
/// of JSON, those of `known` and what starts in `shown`.
///
/// It needs no parsed document, so that an excerpt of a file with a syntax error is as safe as any other.
pub(in crate::config) fn mask(source: &str, shown: &[Range<usize>], known: &BTreeSet<String>) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = 0;
    let mut before = b'{'; // the last character that was neither space nor part of a comment
    while rest < source.len() {
        let (length, kind) = token(&source[rest..]);
        let text = &source[rest..rest + length];
        let is_known = known.contains(text.trim_matches(['"', '\'']));
        let visible = is_known || shown.iter().any(|range| range.contains(&rest));
        match kind {
            Kind::Space | Kind::Punctuation => out.push_str(text),
            Kind::Word if visible || matches!(text, "true" | "false" | "null") => out.push_str(text),
            Kind::String if visible || is_key(before, &source[rest + length..]) => out.push_str(text),
            Kind::String => blot_string(text, &mut out),
            Kind::Word | Kind::Comment => blot(text, &mut out),
        }
        if !matches!(kind, Kind::Space | Kind::Comment) {
            before = text.as_bytes()[0];
        }
        rest += length;
    }
    out
}

/// The names of all fields, and what other languages write for the words of JSON.
pub(super) fn known_words() -> BTreeSet<String> {
    let mut words: BTreeSet<String> =
        ["True", "False", "None", "NaN", "Infinity", "undefined", "yes", "no"].map(str::to_owned).into();
    words.extend(file::field_names());
    words
}

#[derive(Clone, Copy)]
enum Kind {
    Space,
    Comment,
    Punctuation,
    Word,
    String,
}

/// The length and the kind of the token that `text` starts with. A string ends at its quote or at the end of the line.
fn token(text: &str) -> (usize, Kind) {
    let until = |end: Option<usize>| end.unwrap_or(text.len());
    match text.as_bytes() {
        [b'/', b'/', ..] => (until(text.find(['\n', '\r'])), Kind::Comment),
        [b'/', b'*', ..] => (until(text.find("*/").map(|end| end + 2)), Kind::Comment),
        [b'"', ..] => (string_length(text), Kind::String),
        [b'{' | b'}' | b'[' | b']' | b':' | b',', ..] => (1, Kind::Punctuation),
        _ if text.starts_with(char::is_whitespace) => (until(text.find(|c: char| !c.is_whitespace())), Kind::Space),
        _ => {
            let ends = |c: char| c.is_whitespace() || "{}[]:,\"/".contains(c);
            let first = text.chars().next().map_or(1, char::len_utf8);
            (text[first..].find(ends).map_or(text.len(), |end| end + first), Kind::Word)
        }
    }
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            '\n' | '\r' => return place,
            '"' if !escaped => return place + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// Whether a string between the token `before` and the text `after` is an object's key.
fn is_key(before: u8, after: &str) -> bool {
    matches!(before, b'{' | b',') && after.trim_start().starts_with(':')
}

/// Blots a string's inside, except `<<name>>` holes.
fn blot_string(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(start) = rest.find("<<") {
        let name = rest[start + 2..].find(|c: char| !c.is_ascii_alphanumeric() && !"_.".contains(c)).unwrap_or(0);
        let end = start + 2 + name;
        let hole = (1..=20).contains(&name) && rest[end..].starts_with(">>");
        blot(&rest[..start], out);
        out.push_str(if hole { &rest[start..end + 2] } else { "<<" });
        rest = &rest[if hole { end + 2 } else { start + 2 }..];
    }
    blot(rest, out);
}

/// Puts a blot of the same length in bytes for every character, except quotes and the ends of lines.
fn blot(text: &str, out: &mut String) {
    for c in text.chars() {
        out.push(match (c, c.len_utf8()) {
            ('"' | '\n' | '\r', _) => c,
            (_, 1) => '*',
            (_, 2) => '\u{b7}',
            (_, 3) => '\u{2022}',
            (..) => '\u{1f784}',
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_holes_stay_and_values_go() {
        let source = "{ \"a\": \"sk-1\", // old: sk-0\n \"b\": [\"x<<token>>y\", 42, true], \"c\": sk-2 }";
        let masked = mask(source, &[], &BTreeSet::new());
        assert_eq!(masked, "{ \"a\": \"****\", ************\n \"b\": [\"*<<token>>*\", **, true], \"c\": **** }");
    }

    #[test]
    fn what_is_shown_is_shown() {
        let source = r#"{ "listen": "127.0.0.1:80", "secret": "abc" }"#;
        assert_eq!(
            mask(source, std::slice::from_ref(&(12..26)), &BTreeSet::new()),
            r#"{ "listen": "127.0.0.1:80", "secret": "***" }"#
        );
    }

    #[test]
    fn a_broken_file_shows_no_value_either() {
        for source in [r#"{ "a": "sk-1" : 2 }"#, "{ \"a\": \"sk-1\n \"b\": 'sk-1', sk-1/sk-1 }", r#"{"a" "sk-1": 1}"#] {
            assert!(!mask(source, &[], &BTreeSet::new()).contains("sk"), "{source}");
        }
    }

    #[test]
    fn known_words_are_shown_wherever_they_stand() {
        let known = ["listen".to_owned(), "True".to_owned()].into();
        let source = "{ listen: 'sk-1', 'listen' \"listen\" listens: True, \"a\": \"listen sk-2\" }";
        let masked = mask(source, &[], &known);
        assert_eq!(masked, "{ listen: ******, 'listen' \"listen\" *******: True, \"a\": \"***********\" }");
    }

    proptest::proptest! {
        #[test]
        fn every_character_keeps_its_place(source in "[\\PC\\n\"/*{}:,<>]{0,80}") {
            let masked = mask(&source, &[], &BTreeSet::new());
            let places = |text: &str| text.char_indices().map(|(place, _)| place).collect::<Vec<_>>();
            proptest::prop_assert_eq!(places(&masked), places(&source));
        }
    }
}
