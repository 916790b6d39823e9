//! From untyped JSON to the types of `file`, with every misfit reported and none of them fatal.
//!
//! serde stops at the first error. So a misfit is reported, blotted out of the document, and the rest read again, until
//! it fits: fields in `file` are optional and list elements may be null for this reason alone.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::Document;
use super::file::Object;
use super::path::{Path, Step};
use super::problem::Problem;

/// Settings that other MCP clients keep in the same table and that mean nothing to a bridge.
const OF_CLIENTS: &[&str] = &[
    "alwaysAllow",
    "autoApprove",
    "autoStart",
    "description",
    "dev",
    "disabledTools",
    "enabled",
    "gallery",
    "icon",
    "includeTools",
    "excludeTools",
    "name",
    "oauth",
    "timeout",
    "trust",
    "version",
];

/// What `json`, the part of the document at `at`, says as a `T`, without the parts that do not fit; those are in
/// `problems`. `None` if it does not fit at all.
pub(in crate::config) fn read<T: DeserializeOwned>(
    document: &Document<'_>,
    at: &Path,
    mut json: Value,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize(&json) {
            Ok(Object(read)) => return Some(read),
            Err(error) => error,
        };
        let inside = Path::from(error.path());
        let message = error.inner().to_string();
        if let Some(rest) = message.strip_prefix("unknown field ") {
            let (message, help) = unknown_field(rest);
            problems.push(document.problem_at_key(&at.join(&inside), message, help));
            remove(&mut json, &inside)?;
        } else {
            let path = at.join(&inside);
            let (message, help) = misfit(&message, document.kind(&path));
            problems.push(document.problem_at(&path, message, help));
            blot(&mut json, inside)?;
        }
    }
}

/// Takes the field at `path` away. What is left of an object that held nothing else is not worth a second complaint.
fn remove(json: &mut Value, path: &Path) -> Option<()> {
    let parent = path.parent();
    let around = find(json, &parent)?;
    match (&mut *around, path.last()?) {
        (Value::Object(fields), Step::Key(key)) => fields.remove(key)?,
        _ => return None,
    };
    if parent.last().is_some() && around.as_object().is_some_and(serde_json::Map::is_empty) {
        *around = Value::Null;
    }
    Some(())
}

/// Makes the value at `path` null, or the nearest one around it that is not null yet.
fn blot(json: &mut Value, mut path: Path) -> Option<()> {
    loop {
        path.last()?;
        match find(json, &path) {
            Some(value) if !value.is_null() => {
                *value = Value::Null;
                return Some(());
            }
            _ => path = path.parent(),
        }
    }
}

fn find<'a>(json: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.steps().iter().try_fold(json, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

/// What to say of "`x`, expected one of `a`, `b`".
fn unknown_field(rest: &str) -> (String, String) {
    let mut names = rest.split('`').skip(1).step_by(2);
    let name = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let near = |known: &&&str| strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase());
    let help = match known.iter().min_by_key(near) {
        _ if OF_CLIENTS.contains(&name) => "take it out: it is a setting of MCP clients, not of a server".to_owned(),
        Some(best) if near(&best) <= 2.max(name.len() / 3) => format!("did you mean `{best}`?"),
        _ => format!("take it out, or use one of: {}", known.join(", ")),
    };
    (format!("unknown field `{name}`"), help)
}

/// What to say of serde's `message` about a value of this kind, without the value that serde quotes.
fn misfit(message: &str, found: &str) -> (String, String) {
    let mends = |expected: &str| match (expected, found) {
        (text, "a number" | "true or false") if text.starts_with("text") => "put it in quotes".to_owned(),
        ("a list", _) => "write a list, for example [\"\u{2026}\"]".to_owned(),
        _ => format!("write {expected}"),
    };
    let Some((start, expected)) = message.split_once(", expected ") else {
        return (message.to_owned(), "see `tollbridge schema` for what may stand here".to_owned());
    };
    let expected = in_words(expected);
    if start.starts_with("unknown variant") {
        (format!("this may only be {expected}"), format!("write {expected}"))
    } else {
        (format!("expected {expected}, found {found}"), mends(&expected))
    }
}

/// serde's names of types, for people.
fn in_words(expected: &str) -> String {
    match expected {
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "usize" | "u64" | "u32" => "a whole number".to_owned(),
        _ if expected.starts_with("struct ") => "an object".to_owned(),
        _ => expected.replace('`', "\"").replace("one of ", ""),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: Option<String>,
        list: Option<Vec<Option<u32>>>,
        map: Option<BTreeMap<String, Option<String>>>,
    }

    fn sample(source: &str) -> (Option<Sample>, Vec<(String, String, String)>) {
        let document = Document::parse("f.json".into(), source).expect("JSON");
        let mut problems = Vec::new();
        let read = read(&document, &Path::root(), document.json(), &mut problems);
        (read, problems.into_iter().map(|problem| (problem.path, problem.message, problem.help)).collect())
    }

    #[test]
    fn every_misfit_is_reported_and_the_rest_is_read() {
        let (read, problems) =
            sample(r#"{ "nmae": 1, "list": [1, "sk-1", 3, -4], "map": { "a": "x", "b": 5 }, "name": ["sk-1"] }"#);
        let map = BTreeMap::from([("a".to_owned(), Some("x".to_owned())), ("b".to_owned(), None)]);
        let list = Some(vec![Some(1), None, Some(3), None]);
        assert_eq!(read, Some(Sample { name: None, list, map: Some(map) }));
        let mut paths: Vec<&str> = problems.iter().map(|(path, ..)| path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["list[1]", "list[3]", "map.b", "name", "nmae"]);
        assert!(problems.iter().any(|(_, message, help)| message == "unknown field `nmae`" && help.contains("`name`")));
        assert!(problems.iter().any(|(_, message, _)| message == "expected text, found a list"));
        assert!(!format!("{problems:?}").contains("sk-1"));
    }

    #[test]
    fn what_does_not_fit_at_all_is_nothing() {
        let (read, problems) = sample("[1]");
        assert_eq!(read, None);
        assert_eq!(problems[0].1, "expected an object, found a list");
    }
}
