//! The file as text and tree: JSON with comments and trailing commas, and where everything in it stands.

use std::collections::BTreeSet;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use jsonc_parser::ast::{ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::mask::{known_words, mask};
use super::path::{Path, Step};
use super::problem::Problem;

/// Fields whose text is no secret by nature: an excerpt may show it.
const SHOWN: &[&str] = &[
    "$env",
    "abandonedGrace",
    "admin",
    "allowedHosts",
    "allowedOrigins",
    "body",
    "bodyIdle",
    "commitDelay",
    "connectionIdle",
    "connections",
    "connectionsPerAddress",
    "cwd",
    "displayName",
    "eofGrace",
    "file",
    "header",
    "headerTimeout",
    "helpUrl",
    "id",
    "issuer",
    "keepAlive",
    "kind",
    "line",
    "listen",
    "parkedPerUser",
    "path",
    "perServer",
    "perUser",
    "prefix",
    "protocol",
    "queue",
    "requestTimeout",
    "secretHeader",
    "sessionLifetime",
    "preStopDelay",
    "shutdownGrace",
    "startTimeout",
    "termGrace",
    "tokenFormat",
    "total",
    "transport",
    "trustedPeers",
    "type",
    "user",
    "writeStall",
];

/// Objects and lists whose fields are named by the operator and hold values.
const HIDDEN: &[&str] = &["args", "env", "headers"];

/// A parsed file.
pub(in crate::config) struct Document<'a> {
    name: String,
    source: &'a str,
    masked: String,
    root: Option<Value<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `source`, the text of the file `name`.
    pub(in crate::config) fn parse(name: String, source: &'a str) -> Result<Self, Problem> {
        let options = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        match parse_to_ast(source, &CollectOptions::default(), &options) {
            Ok(parsed) => {
                let mut shown = Vec::new();
                if let Some(root) = &parsed.value {
                    show(root, false, &mut shown);
                }
                Ok(Self { name, source, masked: mask(source, &shown, &BTreeSet::new()), root: parsed.value })
            }
            Err(error) => {
                // What is wrong is often the name of a field itself, which the file's syntax no longer tells from a value.
                let document = Self { name, source, masked: mask(source, &[], &known_words()), root: None };
                let range = error.range();
                let message = format!("this is not JSON: {}", lower_first(&error.kind().to_string()));
                let help = "correct the syntax here; comments and trailing commas are fine";
                Err(document.problem(&Path::root(), range.start..range.end, message, help.to_owned()))
            }
        }
    }

    /// The file as untyped JSON; of keys that appear twice, the last.
    pub(in crate::config) fn json(&self) -> serde_json::Value {
        self.root.as_ref().map_or(serde_json::Value::Null, json)
    }

    /// What kind of JSON stands at `path`, for people.
    pub(in crate::config) fn kind(&self, path: &Path) -> &'static str {
        match self.node(path) {
            None => "nothing",
            Some(Value::StringLit(_)) => "text",
            Some(Value::NumberLit(_)) => "a number",
            Some(Value::BooleanLit(_)) => "true or false",
            Some(Value::Object(_)) => "an object",
            Some(Value::Array(_)) => "a list",
            Some(Value::NullKeyword(_)) => "null",
        }
    }

    /// Whether anything at or below `path` has a field `name` whose text `is_meant`, or that is no text.
    pub(in crate::config) fn holds_key(&self, path: &Path, name: &str, is_meant: fn(&str) -> bool) -> bool {
        self.node(path).is_some_and(|value| holds_key(value, name, is_meant))
    }

    /// A problem at `path`: at its value if that is short, else at its key, else at the nearest thing around it.
    pub(in crate::config) fn problem_at(&self, path: &Path, message: String, help: String) -> Problem {
        self.problem(path, self.range(path), message, help)
    }

    /// As [`Document::problem_at`], about something that is allowed.
    pub(in crate::config) fn warning_at(&self, path: &Path, message: String, help: String) -> Problem {
        self.render(&Level::WARNING, path, self.range(path), message, help)
    }

    /// The text at `path`, if it is one.
    pub(in crate::config) fn text(&self, path: &Path) -> Option<&str> {
        match self.node(path)? {
            Value::StringLit(text) => Some(text.value.as_ref()),
            _ => None,
        }
    }

    /// A problem with the key at the end of `path`.
    pub(in crate::config) fn problem_at_key(&self, path: &Path, message: String, help: String) -> Problem {
        let range = self.prop(path).map_or_else(|| self.range(path), |prop| range_of(&prop.name));
        self.problem(path, range, message, help)
    }

    /// A problem within the text at `path`; `part` counts bytes of that text as meant, without its escapes.
    pub(in crate::config) fn problem_within(
        &self,
        path: &Path,
        part: Range<usize>,
        message: String,
        help: String,
    ) -> Problem {
        let range = match self.node(path) {
            Some(Value::StringLit(text)) => {
                let inside = text.range.start + 1;
                let raw = &self.source[inside..text.range.end - 1];
                inside + raw_offset(raw, part.start)..inside + raw_offset(raw, part.end)
            }
            _ => self.range(path),
        };
        self.problem(path, range, message, help)
    }

    /// Keys that appear twice and values that are null: neither says what is meant.
    pub(in crate::config) fn ambiguities(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        if let Some(root) = &self.root {
            self.find_ambiguities(root, &Path::root(), &mut found);
        }
        found
    }

    fn find_ambiguities(&self, value: &Value<'_>, at: &Path, found: &mut Vec<Problem>) {
        match value {
            Value::Object(object) => {
                let mut seen = BTreeSet::new();
                for prop in &object.properties {
                    let at = at.key(prop.name.as_str());
                    if !seen.insert(prop.name.as_str().to_owned()) {
                        let message = format!("`{}` appears twice in the same object", prop.name.as_str());
                        found.push(self.problem(&at, range_of(&prop.name), message, "keep one of them".into()));
                    }
                    self.find_ambiguities(&prop.value, &at, found);
                }
            }
            Value::Array(array) => {
                for (index, element) in array.elements.iter().enumerate() {
                    self.find_ambiguities(element, &at.index(index), found);
                }
            }
            Value::NullKeyword(null) => {
                let help = "leave it out to get the default".to_owned();
                found.push(self.problem(at, range_of(null), "null is no value here".into(), help));
            }
            Value::StringLit(_) | Value::NumberLit(_) | Value::BooleanLit(_) => {}
        }
    }

    fn problem(&self, path: &Path, range: Range<usize>, message: String, help: String) -> Problem {
        self.render(&Level::ERROR, path, range, message, help)
    }

    fn render(&self, level: &Level<'_>, path: &Path, range: Range<usize>, message: String, help: String) -> Problem {
        let start = floor(self.source, range.start.min(self.source.len()));
        let end = floor(self.source, range.end.min(self.source.len())).max(start);
        let path = path.to_string();
        let title = if path.is_empty() { message.clone() } else { format!("{path}: {message}") };
        let snippet = Snippet::source(self.masked.as_str())
            .path(self.name.as_str())
            .annotation(AnnotationKind::Primary.span(start..end));
        let group = level.clone().primary_title(&title).element(snippet).element(Level::HELP.message(&help));
        let rendered = Renderer::plain().render(&[group]);
        let before = &self.source[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        Problem { path, position: Some((line, column)), message, help, rendered }
    }

    pub(in crate::config) fn range(&self, path: &Path) -> Range<usize> {
        let mut path = path.clone();
        loop {
            match (self.node(&path), self.prop(&path)) {
                (Some(Value::Object(_) | Value::Array(_)), Some(prop)) => return range_of(&prop.name),
                (Some(value @ (Value::Object(_) | Value::Array(_))), None) => {
                    return value.range().start..value.range().start + 1;
                }
                (Some(value), _) => return range_of(value),
                (None, _) if path.steps().is_empty() => return 0..0,
                (None, _) => path = path.parent(),
            }
        }
    }

    fn node(&self, path: &Path) -> Option<&Value<'a>> {
        path.steps().iter().try_fold(self.root.as_ref()?, |value, step| match (value, step) {
            (Value::Object(object), Step::Key(key)) => {
                object.properties.iter().rfind(|prop| prop.name.as_str() == key).map(|prop| &prop.value)
            }
            (Value::Array(array), Step::Index(index)) => array.elements.get(*index),
            _ => None,
        })
    }

    fn prop(&self, path: &Path) -> Option<&ObjectProp<'a>> {
        match (self.node(&path.parent()), path.last()) {
            (Some(Value::Object(object)), Some(Step::Key(key))) => {
                object.properties.iter().rfind(|prop| prop.name.as_str() == key)
            }
            _ => None,
        }
    }
}

/// Collects the ranges of what an excerpt may show of `value`.
fn show(value: &Value<'_>, shown: bool, ranges: &mut Vec<Range<usize>>) {
    match value {
        Value::Object(object) => show_fields(&object.properties, false, ranges),
        Value::Array(array) => array.elements.iter().for_each(|element| show(element, shown, ranges)),
        Value::StringLit(_) | Value::NumberLit(_) if shown => ranges.push(range_of(value)),
        _ => {}
    }
}

fn show_fields(fields: &[ObjectProp<'_>], hidden: bool, ranges: &mut Vec<Range<usize>>) {
    for field in fields {
        let name = field.name.as_str();
        match &field.value {
            Value::Object(inner) if HIDDEN.contains(&name) => show_fields(&inner.properties, true, ranges),
            // A command line written as one word, or a URL with a password, may carry anything.
            Value::StringLit(text) if name == "command" || name == "publicUrl" => {
                show(&field.value, !hidden && !text.value.contains([' ', '@']), ranges);
            }
            value => show(value, !hidden && SHOWN.contains(&name), ranges),
        }
    }
}

fn holds_key(value: &Value<'_>, name: &str, is_meant: fn(&str) -> bool) -> bool {
    match value {
        Value::Object(object) => object.properties.iter().any(|prop| match &prop.value {
            Value::StringLit(text) => prop.name.as_str() == name && is_meant(&text.value),
            value => prop.name.as_str() == name || holds_key(value, name, is_meant),
        }),
        Value::Array(array) => array.elements.iter().any(|element| holds_key(element, name, is_meant)),
        _ => false,
    }
}

fn json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::StringLit(text) => text.value.as_ref().into(),
        // A number that is out of range is a misfit like any other.
        Value::NumberLit(number) => number.value.parse::<serde_json::Number>().map_or(0.5.into(), Into::into),
        Value::BooleanLit(truth) => truth.value.into(),
        Value::Object(object) => {
            let fields = object.properties.iter().map(|prop| (prop.name.as_str().to_owned(), json(&prop.value)));
            serde_json::Value::Object(fields.collect())
        }
        Value::Array(array) => array.elements.iter().map(json).collect(),
        Value::NullKeyword(_) => serde_json::Value::Null,
    }
}

fn range_of(node: &impl Ranged) -> Range<usize> {
    node.range().start..node.range().end
}

/// Where byte `meant` of a string's text stands in its raw form, between the quotes.
fn raw_offset(raw: &str, meant: usize) -> usize {
    let (mut at, mut length) = (0, 0);
    while length < meant && at < raw.len() {
        let rest = &raw[at..];
        let (step, bytes) = match rest.as_bytes() {
            [b'\\', b'u', ..] => unicode_escape(rest),
            [b'\\', ..] => (2, 1),
            _ => rest.chars().next().map_or((1, 1), |c| (c.len_utf8(), c.len_utf8())),
        };
        at += step;
        length += bytes;
    }
    at.min(raw.len())
}

/// The length of the escape that `raw` starts with, and of what it means in UTF-8.
fn unicode_escape(raw: &str) -> (usize, usize) {
    let unit = |from: usize| raw.get(from + 2..from + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    match unit(0) {
        Some(0..=0x7f) => (6, 1),
        Some(0x80..=0x7ff) => (6, 2),
        Some(0xd800..=0xdbff) => (12, 4),
        _ => (6, 3),
    }
}

fn floor(text: &str, mut place: usize) -> usize {
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(source: &str) -> Document<'_> {
        Document::parse("f.json".into(), source).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn comments_and_trailing_commas_are_fine_and_other_dialects_are_not() {
        assert_eq!(document("{ \"a\": [1, 2,], /* x */ } // y").json(), serde_json::json!({ "a": [1, 2] }));
        for source in ["{a: 1}", "{'a': 1}", "{\"a\": 0x1}", "{\"a\": 1 \"b\": 2}", "{\"a\": NaN}", "{\"a\": +1}", "{"]
        {
            assert!(Document::parse("f.json".into(), source).is_err(), "{source}");
        }
    }

    #[test]
    fn a_part_of_a_text_is_found_behind_its_escapes() {
        let source = "{\n  \"a\": \"\\u00e9\\n\\ud83d\\ude00 <<x>>\"\n}";
        let at = Path::root().key("a");
        let start = "\u{e9}\n\u{1f600} ".len();
        let problem = document(source).problem_within(&at, start..start + 5, "no".into(), "yes".into());
        let column = source.lines().nth(1).unwrap().find("<<").unwrap() + 1;
        assert_eq!(problem.position, Some((2, column)));
        assert!(problem.rendered.contains("^^^^^"), "{problem}");
    }

    #[test]
    fn an_excerpt_shows_names_and_no_values() {
        let source = "{ \"listen\": \"127.0.0.1:1\", \"env\": { \"listen\": \"sk-1\", \"B\": { \"$env\": \"NAME\" } }, \"x\": \"sk-2\" }";
        let problem = document(source).problem_at(&Path::root().key("x"), "no".into(), "yes".into());
        let text = problem.to_string();
        assert!(text.contains("127.0.0.1:1") && text.contains("NAME") && !text.contains("sk-"), "{text}");
    }

    #[test]
    fn a_missing_field_is_reported_where_it_should_be() {
        let problem = document("{\n \"a\": {}\n}").problem_at(&Path::root().key("a").key("b"), "no".into(), "y".into());
        assert_eq!((problem.path.as_str(), problem.position), ("a.b", Some((2, 2))));
    }
}
