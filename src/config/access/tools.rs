//! Which tools of a server its callers may use, by their names.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::load::Loader;
use crate::config::written::file::{self, Object};
use crate::config::written::path::Path;
use crate::user::Caller;

/// Which tools of a server its callers may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// For who is in none of the groups.
    general: Rule,
    groups: BTreeMap<String, Rule>,
}

/// Which tools may be used: those that are allowed, or all if it says nothing of those, without those that are denied.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
}

impl Tools {
    /// Whether `caller` may use the tool of this name. Who is in groups that have rules of their own may use what any of
    /// those permits.
    #[must_use]
    pub fn permit(&self, caller: &Caller, tool: &str) -> bool {
        let mut own = caller.groups.iter().filter_map(|group| self.groups.get(group)).peekable();
        if own.peek().is_none() { self.general.permits(tool) } else { own.any(|rule| rule.permits(tool)) }
    }

    /// What is permitted, as one line for everybody and one for each group.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let groups = self.groups.iter().map(|(group, rule)| format!("{rule}, for group:{group}"));
        std::iter::once(self.general.to_string()).chain(groups)
    }
}

impl Rule {
    fn permits(&self, tool: &str) -> bool {
        let has = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, tool));
        !has(&self.deny) && self.allow.as_deref().is_none_or(has)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.allow.as_deref() {
            None => f.write_str("all")?,
            Some([]) => f.write_str("none")?,
            Some(allow) => f.write_str(&allow.join(", "))?,
        }
        if self.deny.is_empty() { Ok(()) } else { write!(f, " except {}", self.deny.join(", ")) }
    }
}

/// Whether a pattern, in which `*` stands for any characters or none, says `name`. Takes a time that grows with the length
/// of both, whatever they are.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = name.strip_prefix(start).and_then(|left| left.strip_suffix(end)) else { return false };
    // Where each part stands first is where it leaves the most for those after it.
    middle.split('*').all(|part| match left.split_once(part) {
        Some((_, after)) => {
            left = after;
            true
        }
        None => false,
    })
}

impl Loader<'_> {
    /// Which tools may be used of the server whose `tools` stand at `at`.
    pub(super) fn tools(&mut self, at: &Path, written: file::Tools) -> Tools {
        let general = self.rule(at, written.allow, written.deny);
        let mut groups = BTreeMap::new();
        for (group, rule) in written.groups.unwrap_or_default() {
            let at = at.key("groups").key(&group);
            let Some(Object(rule)) = rule else { continue };
            let rule = self.rule(&at, rule.allow, rule.deny);
            groups.extend(self.group(&at, &group).map(|group| (group, rule)));
        }
        Tools { general, groups }
    }

    fn rule(&mut self, at: &Path, allow: Option<Vec<Option<String>>>, deny: Option<Vec<Option<String>>>) -> Rule {
        let is_absent = |key: &str| self.document.kind(&at.key(key)) == "nothing";
        if is_absent("allow") && (is_absent("deny") || deny.as_ref().is_some_and(Vec::is_empty)) {
            let help = r#"write "allow": ["*"] for all tools, "allow": [] for none, or name some in "allow" or "deny""#;
            self.report(at, "this does not say which tools may be used", help);
        }
        let allow = allow.map(|patterns| self.patterns(&at.key("allow"), patterns));
        Rule { allow, deny: self.patterns(&at.key("deny"), deny.unwrap_or_default()) }
    }

    fn patterns(&mut self, at: &Path, written: Vec<Option<String>>) -> Vec<String> {
        let mut patterns = Vec::with_capacity(written.len());
        for (index, pattern) in written.into_iter().enumerate() {
            match pattern {
                Some(pattern) if pattern.is_empty() || pattern.trim() != pattern => {
                    let help = "write a tool's name as the server does; `*` stands for any characters";
                    self.report(&at.index(index), "this cannot be the name of a tool", help);
                }
                pattern => patterns.extend(pattern),
            }
        }
        patterns
    }
}

#[cfg(test)]
mod tests;
