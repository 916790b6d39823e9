//! What a file says, without a single value of it: to tell two files apart, and where they differ.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use super::written::path::{Path, Step};

/// How much of a digest is kept, bytes.
const KEPT: usize = 8;

/// How many hexadecimal digits a fingerprint has.
const FINGERPRINT: usize = 12;

/// What a file says, with a digest in place of each value. Comments, blanks and the order of fields are not part of it, and
/// neither are the variables and key files that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// A value, or a list of values.
    Value([u8; KEPT]),
    Object(BTreeMap<String, Node>),
    /// A list of objects.
    List(Vec<Node>),
}

/// Where two files differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field, as a JSON path.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

/// What became of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It says something else.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        write!(f, "{}: {what}", self.path)
    }
}

impl Outline {
    pub(super) fn of(json: &Value) -> Self {
        Self(Node::of(json))
    }

    /// Twelve hexadecimal digits that are the same for two files that say the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Context::new(&SHA256);
        self.0.digest(&mut digest);
        let hash = digest.finish();
        let first = u64::from_be_bytes(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"));
        format!("{:0FINGERPRINT$x}", first >> (64 - 4 * FINGERPRINT))
    }

    /// Where `new` says something else.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        compare(&Path::root(), Some(&self.0), Some(&new.0), &mut changes);
        changes
    }
}

impl Node {
    fn of(json: &Value) -> Self {
        match json {
            Value::Object(fields) => {
                Self::Object(fields.iter().map(|(name, value)| (name.clone(), Self::of(value))).collect())
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                Self::List(items.iter().map(Self::of).collect())
            }
            value => {
                let mut digest = Context::new(&SHA256);
                digest.update(value.to_string().as_bytes());
                let hash = digest.finish();
                Self::Value(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"))
            }
        }
    }

    fn digest(&self, digest: &mut Context) {
        match self {
            Self::Value(value) => {
                digest.update(b"v");
                digest.update(value);
            }
            Self::Object(fields) => {
                digest.update(b"{");
                for (name, value) in fields {
                    digest.update(&(name.len() as u64).to_be_bytes());
                    digest.update(name.as_bytes());
                    value.digest(digest);
                }
                digest.update(b"}");
            }
            Self::List(items) => {
                digest.update(b"[");
                for item in items {
                    item.digest(digest);
                }
                digest.update(b"]");
            }
        }
    }
}

fn compare(at: &Path, old: Option<&Node>, new: Option<&Node>, changes: &mut Vec<Change>) {
    let mut change = |kind| changes.push(Change { path: at.to_string(), kind });
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {}
        (None, Some(_)) => change(ChangeKind::Added),
        (Some(_), None) => change(ChangeKind::Removed),
        (Some(Node::Object(old)), Some(Node::Object(new))) => {
            let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                compare(&at.key(name), old.get(name), new.get(name), changes);
            }
        }
        (Some(Node::List(old)), Some(Node::List(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(&at.step(Step::Index(index)), old.get(index), new.get(index), changes);
            }
        }
        (Some(_), Some(_)) => change(ChangeKind::Changed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(old: &Value, new: &Value) -> Vec<String> {
        Outline::of(old).changes(&Outline::of(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_difference_has_the_path_of_the_highest_thing_that_differs() {
        let old = json!({ "listen": "a", "limits": { "queue": "1s" }, "identity": [{ "tokens": [{ "user": "a" }] }],
            "mcpServers": { "gone": { "command": "x" }, "there": { "args": ["1", "2"] } } });
        let new = json!({ "listen": "b", "limits": { "queue": "1s", "total": 3 },
            "identity": [{ "tokens": [{ "user": "a" }, { "user": "b" }] }],
            "mcpServers": { "there": { "args": ["1"] }, "new": {} } });
        let changes = [
            "identity[0].tokens[1]: added",
            "limits.total: added",
            "listen: changed",
            "mcpServers.gone: removed",
            "mcpServers.new: added",
            "mcpServers.there.args: changed",
        ];
        assert_eq!(told(&old, &new), changes);
        assert!(told(&old, &old).is_empty());
    }

    #[test]
    fn a_fingerprint_is_of_what_is_said_and_not_of_how() {
        let of = |text: &str| Outline::of(&serde_json::from_str(text).unwrap()).fingerprint();
        assert_eq!(of(r#"{"a":1,"b":[{"c":"x"}]}"#), of(r#"{ "b": [ { "c": "x" } ], "a": 1 }"#));
        let others =
            [r#"{"a":1,"b":[{"c":"y"}]}"#, r#"{"a":1}"#, r#"{"a":1,"b":[{"c":"x"},{}]}"#, r#"{"b":1,"a":[{"c":"x"}]}"#];
        for other in others {
            assert_ne!(of(other), of(r#"{"a":1,"b":[{"c":"x"}]}"#), "{other}");
        }
        assert_eq!(of("{}").len(), FINGERPRINT);
    }

    #[test]
    fn no_value_is_kept() {
        let outline = Outline::of(&json!({ "secret": "hunter2", "list": ["hunter2"] }));
        assert!(!format!("{outline:?}").contains("hunter2"));
    }
}
