//! Who may use a server, and which of its tools. For anybody else it does not exist, nor do they.

mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::load::Loader;
use super::written::file::{self, Object};
use super::written::path::Path;
use super::{Server, ServerName};
use crate::user::{Caller, UserId};

pub use tools::Tools;

/// How an entry begins that means a group.
const GROUP: &str = "group:";

/// Who may use a server, and what of it.
#[derive(Debug)]
pub struct Access {
    /// Who may use it, if not everybody.
    pub allow: Option<Allow>,
    /// Which of its tools they may use, if not all.
    pub tools: Option<Tools>,
}

/// The users and groups who may use a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    users: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Allow {
    /// Whether `caller` is one of them, or in one of the groups.
    #[must_use]
    pub fn admits(&self, caller: &Caller) -> bool {
        self.users.contains(caller.user.subject()) || caller.groups.iter().any(|group| self.groups.contains(group))
    }
}

impl Server {
    /// Whether `caller` may use it.
    #[must_use]
    pub fn allows(&self, caller: &Caller) -> bool {
        self.access.allow.as_ref().is_none_or(|allow| allow.admits(caller))
    }
}

/// As it was written.
impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups.iter().map(|group| format!("{GROUP}{group}"));
        let all: Vec<String> = self.users.iter().cloned().chain(groups).collect();
        f.write_str(&all.join(", "))
    }
}

impl Loader<'_> {
    /// Who may use the server at `at`, and what of it.
    pub(super) fn access(
        &mut self,
        at: &Path,
        allow: Option<Vec<Option<String>>>,
        tools: Option<Object<file::Tools>>,
    ) -> Access {
        let allow = self.allow(&at.key("allow"), allow);
        Access { allow, tools: tools.map(|Object(tools)| self.tools(&at.key("tools"), tools)) }
    }

    /// Who may use the server whose `allow` stands at `at`: everybody if there is none.
    fn allow(&mut self, at: &Path, written: Option<Vec<Option<String>>>) -> Option<Allow> {
        if self.document.kind(at) == "nothing" {
            return None;
        }
        let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
        let numbered = written.into_iter().flatten().enumerate();
        for (index, entry) in numbered.filter_map(|(index, entry)| Some((index, entry?))) {
            let at = at.index(index);
            match entry.strip_prefix(GROUP) {
                Some(group) => groups.extend(self.group(&at, group)),
                None if UserId::local(&entry).is_ok_and(|user| user.subject() == entry) => drop(users.insert(entry)),
                None => self.report(&at, "this cannot be the name of a user", "write a user's name, or \"group:NAME\""),
            }
        }
        if users.is_empty() && groups.is_empty() && self.document.kind(at) == "a list" {
            let help = "name users and groups, for example [\"alice\", \"group:engineering\"], or take this out";
            self.report(at, "nobody could use this server", help);
        }
        Some(Allow { users, groups })
    }

    /// The groups that are named at `at`.
    pub(super) fn groups(&mut self, at: &Path, written: Option<Vec<Option<String>>>) -> Arc<[String]> {
        let numbered = written.into_iter().flatten().enumerate();
        let named: Vec<_> = numbered.filter_map(|(index, group)| Some((index, group?))).collect();
        named.into_iter().filter_map(|(index, group)| self.group(&at.index(index), &group)).collect()
    }

    /// A group's name: one that a header can carry beside others.
    fn group(&mut self, at: &Path, name: &str) -> Option<String> {
        let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',');
        if name.is_empty() || !is_plain || name.trim() != name {
            self.report(at, "this cannot be the name of a group", "use printable ASCII without a comma");
            return None;
        }
        Some(name.to_owned())
    }

    /// A name alone does not say whose user it is where several issuers name theirs.
    pub(super) fn refuse_ambiguous_users(&mut self, servers: &BTreeMap<ServerName, Arc<Server>>) {
        if !self.callers.share_names() {
            return;
        }
        for (name, server) in servers {
            if server.access.allow.as_ref().is_some_and(|allow| !allow.users.is_empty()) {
                let at = Path::root().key("mcpServers").key(name.as_str()).key("allow");
                let message = "users of several issuers may call, and a name alone does not say which of them is meant";
                self.report(&at, message, "put the user into a group, and allow \"group:NAME\"");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_or_in_a_group_that_is_named_may_use_it() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let allow = Allow { users: names(&["alice"]), groups: names(&["staff"]) };
        let caller = |user: &str, groups: &[&str]| Caller {
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..UserId::local(user).unwrap().into()
        };
        assert!(allow.admits(&caller("alice", &[])) && allow.admits(&caller("bob", &["other", "staff"])));
        for (user, groups) in [("bob", &[][..]), ("Alice", &["Staff"]), ("staff", &["alice"]), ("group:staff", &[])] {
            assert!(!allow.admits(&caller(user, groups)), "{user} {groups:?}");
        }
    }
}
