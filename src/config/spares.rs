//! Spares: servers that are started before the request that they are for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::load::{Loader, Zero};
use super::written::choices::{EnvironmentCopies, Hold};
use super::written::file;
use super::written::path::Path;
use super::{Config, Limits, Plan, RunAs, Server, ServerName, StdioPlan, Template};

/// How old one gets, unless something else is written.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The spares of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spares {
    /// How many wait at most; never zero.
    pub count: usize,
    /// Where they wait.
    pub hold: Hold,
    /// What copies of the environment are while a spare on Python imports its modules.
    pub environment_copies: EnvironmentCopies,
    /// After that one is replaced.
    pub max_age: Duration,
    /// Whether every server of the same system user may have the tokens of all users.
    pub same_user: bool,
}

impl Config {
    /// How many spares each server gets of `limits.spares`: all that it asks for, or one each in turn, in the order of
    /// names, until there are no more. Servers that get none are left out.
    #[must_use]
    pub fn spares(&self) -> BTreeMap<&ServerName, usize> {
        let wanted = self.servers.values().filter_map(|server| Some((&server.name, server.spares?.count)));
        share_out(self.limits.spares, wanted.collect())
    }
}

fn share_out(mut left: usize, mut wanted: Vec<(&ServerName, usize)>) -> BTreeMap<&ServerName, usize> {
    let mut shares = BTreeMap::new();
    while left > 0 && !wanted.is_empty() {
        let turn = left.min(wanted.len());
        for (name, wanted) in &mut wanted[..turn] {
            *shares.entry(*name).or_default() += 1;
            *wanted -= 1;
        }
        left -= turn;
        wanted.retain(|(_, wanted)| *wanted > 0);
    }
    shares
}

impl Loader<'_> {
    /// The spares that `written` asks for, of a server that is started from `plan`.
    pub(super) fn spares(&mut self, at: &Path, written: file::Spares, plan: Option<&Plan>) -> Option<Spares> {
        let settings = match written {
            file::Spares::Count(count) => file::SpareSettings { count: Some(count), ..Default::default() },
            file::Spares::Settings(settings) => settings,
        };
        if settings.count.is_none() && self.document.kind(&at.key("count")) == "nothing" {
            self.report(at, "this does not say how many", "add \"count\": 2");
        }
        let max_age = self.time(&at.key("maxAge"), settings.max_age.as_ref(), MAX_AGE, Zero::Refused);
        let is_for_all = plan.and_then(Plan::process).is_none_or(StdioPlan::is_for_all);
        let hold = settings.hold.unwrap_or(if is_for_all { Hold::Ready } else { Hold::Start });
        if hold != Hold::Python && settings.environment_copies.is_some() {
            self.report_key(&at.key("environmentCopies"), "this is for spares on Python", "write \"hold\": \"python\"");
        }
        let count = settings.count.filter(|&count| count > 0)?;
        if let Some(plan) = plan.filter(|_| hold.is_gate()) {
            self.check_gate(at, plan);
        }
        if let Some(plan) = plan.filter(|_| !is_for_all) {
            self.check_late(at, plan, hold, settings.same_user == Some(true));
        }
        let environment_copies = settings.environment_copies.unwrap_or_default();
        let same_user = settings.same_user == Some(true);
        Some(Spares { count, hold, environment_copies, max_age, same_user })
    }

    /// Refuses spares of a server that could not be given what is the user's once there is a request, or not safely.
    fn check_late(&mut self, at: &Path, plan: &Plan, hold: Hold, same_user: bool) {
        let Some(process) = plan.process() else { return };
        if hold == Hold::Ready {
            let message =
                "something of its user or of the request goes into this server: it cannot be got ready before one";
            self.report(&at.key("hold"), message, "write \"start\", or take `hold` out");
        }
        if process.args.iter().any(Template::has_holes) {
            let message =
                "something of its user or of the request stands in `args`, which are fixed before there is one";
            self.report(at, message, "pass it in `env`, or take `spares` out");
        }
        if !process.token_files.is_empty() {
            let message =
                "the file of a `$userTokenFile` is made before a server is started, and spares are started before";
            self.report(at, message, "pass the token with `$userToken`, or take `spares` out");
        }
        if matches!(plan, Plan::Stdio(_)) && user_range(process).is_none() && !same_user {
            let message = "whoever runs as the same system user can change a program that waits, and would be given the next \
                user's token";
            let help = "give it a range in `runAs`, or a container (`image`); or write \"sameUser\": true, if every server of \
                that system user may have the tokens of all users";
            self.report(at, message, help);
        }
    }

    /// Refuses to have a runtime wait that cannot.
    fn check_gate(&mut self, at: &Path, plan: &Plan) {
        let Plan::Stdio(process) = plan else {
            let help = "write \"start\", or take `hold` out";
            return self.report(&at.key("hold"), "only a program's runtime waits, not that of an image", help);
        };
        let late = process.env.iter().filter(|(_, value)| value.has_holes());
        let is_unseen = |name: &str| UNSEEN.contains(&name) || UNSEEN_OF.iter().any(|of| name.starts_with(of));
        for (name, _) in late.filter(|(name, _)| is_unseen(name)) {
            let message = format!(
                "`{name}` is read where nothing can wait, and something of the user or of the request stands in it"
            );
            self.report(&at.key("hold"), message, "write \"start\", or take `hold` out");
        }
    }

    /// Refuses gates beside a program that could change them: they are files of the bridge's own user.
    pub(super) fn check_gates(&mut self, servers: &BTreeMap<ServerName, Arc<Server>>) {
        let is_ours =
            |server: &&Arc<Server>| matches!(&server.plan, Plan::Stdio(plan) if plan.confinement.run_as.is_none());
        let Some(ours) = servers.values().find(is_ours) else { return };
        for server in servers.values() {
            let is_for_all = server.plan.process().is_none_or(StdioPlan::is_for_all);
            if server.spares.is_some_and(|spares| spares.hold.is_gate() && !spares.same_user) && !is_for_all {
                let message =
                    format!("`{}` runs as the bridge's own user, who can change what this one waits with", ours.name);
                let help = format!(
                    "give `{}` a `runAs`; or write \"sameUser\": true, if every server may have the tokens of all users",
                    ours.name
                );
                let table = Path::root().key("mcpServers");
                self.report(&table.key(server.name.as_str()).key("spares").key("hold"), message, help);
            }
        }
    }

    /// Warns where there will be fewer spares than are asked for.
    pub(super) fn warn_of_spares(&mut self, servers: &BTreeMap<ServerName, Arc<Server>>, limits: &Limits) {
        let table = Path::root().key("mcpServers");
        let counted = servers.values().filter_map(|server| Some((server, server.spares?.count)));
        let all: usize = counted.clone().map(|(_, count)| count).fold(0, usize::saturating_add);
        if all > limits.spares {
            let message = format!("the servers ask for {all} spares, and {} is the most", limits.spares);
            self.warn(&Path::root().key("limits").key("spares"), message, format!("write {all}, or fewer there"));
        }
        for (server, _) in counted.clone() {
            let range_of = |server: &Server| server.plan.process().and_then(user_range);
            let Some(range) = range_of(server) else { continue };
            let users = u64::from(range.last - range.first) + 1;
            let waiting = counted.clone().filter(|(other, _)| range_of(other) == Some(range));
            let wanted = waiting.map(|(_, count)| count).fold(limits.per_server, usize::saturating_add);
            if users < wanted as u64 {
                let message = format!(
                    "{users} users are fewer than the requests that may run at once (`limits.perServer`) and the spares that \
                     wait beside them, {wanted} in all: a request may have to end a spare first"
                );
                let help = "name more users, or fewer requests or spares";
                self.warn(&table.key(server.name.as_str()).key("runAs"), message, help);
            }
        }
    }
}

/// Variables that a runtime, or a library of the system, reads by itself.
const UNSEEN: [&str; 2] = ["HOME", "TZ"];
const UNSEEN_OF: [&str; 6] = ["NODE_", "PYTHON", "LD_", "LC_", "SSL_CERT_", "OPENSSL_"];

/// The users of whom each process gets one of its own.
fn user_range(process: &StdioPlan) -> Option<RunAs> {
    process.confinement.run_as.filter(|range| range.first != range.last)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{load, server, try_server};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_is_a_count_and_an_object_says_more() {
        let spares = |written: serde_json::Value| server(&json!({ "command": "/bin/cat", "spares": written })).spares;
        let environment_copies = EnvironmentCopies::Wait;
        let max_age = Duration::from_mins(10);
        let two = Spares { count: 2, hold: Hold::Ready, environment_copies, max_age, same_user: false };
        assert_eq!(spares(json!(2)), Some(two));
        assert_eq!(spares(json!({ "count": 2, "hold": "ready" })), Some(two));
        let young = Some(Spares { max_age: Duration::from_secs(30), ..two });
        assert_eq!(spares(json!({ "count": 2, "maxAge": "30s" })), young);
        assert_eq!(spares(json!(0)), None);
        assert_eq!(server(&json!({ "command": "/bin/cat" })).spares, None, "off by default");
    }

    #[test]
    fn where_something_is_the_users_they_wait_for_it_before_the_first_instruction() {
        const TOKEN: &str = r#""env": { "T": { "$userToken": "<<token>>" } }"#;
        let hold = |fields: &str| try_server(&format!("{{ {fields} }}")).unwrap().spares.map(|spares| spares.hold);
        for fields in [
            format!(r#""command": "/bin/cat", "runAs": "2000-2300", "spares": 1, {TOKEN}"#),
            format!(r#""command": "/bin/cat", "spares": {{ "count": 1, "sameUser": true }}, {TOKEN}"#),
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "start" }"#.to_owned(),
        ] {
            assert_eq!(hold(&fields), Some(Hold::Start), "{fields}");
        }
        assert_eq!(hold(r#""command": "/bin/cat", "spares": 1"#), Some(Hold::Ready));
        assert_eq!(hold(&format!(r#""command": "/bin/cat", "spares": 0, {TOKEN}"#)), None, "there are none to refuse");
    }

    #[test]
    fn a_runtime_waits_where_that_is_asked_for() {
        const TOKEN: &str = r#""env": { "T": { "$userToken": "<<token>>" } }"#;
        let spares = |more: &str| {
            let fields = format!(
                r#"{{ "command": "/bin/cat", "spares": {{ "count": 1, "sameUser": true, {more} }}, {TOKEN} }}"#
            );
            try_server(&fields).unwrap().spares.map(|spares| (spares.hold, spares.environment_copies))
        };
        assert_eq!(spares(r#""hold": "node""#), Some((Hold::Node, EnvironmentCopies::Wait)));
        assert_eq!(spares(r#""hold": "python""#), Some((Hold::Python, EnvironmentCopies::Wait)));
        let without = r#""hold": "python", "environmentCopies": "without""#;
        assert_eq!(spares(without), Some((Hold::Python, EnvironmentCopies::Without)));
    }

    #[test]
    fn a_gate_is_refused_beside_a_program_that_could_change_it() {
        let problems = |run_as: &str, same_user: bool| {
            let gated = json!({ "command": "/bin/cat", "runAs": "61000-61100", "env": { "T": { "$userToken": "<<token>>" } },
                "spares": { "count": 1, "hold": "node", "sameUser": same_user } });
            let mut other = json!({ "command": "/bin/cat" });
            if !run_as.is_empty() {
                other["runAs"] = run_as.into();
            }
            let store = json!({ "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] });
            let text = json!({ "tokenStore": store, "mcpServers": { "gated": gated, "other": other } }).to_string();
            load(&text, &[]).err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        let said = problems("", false);
        assert!(said.contains("`other` runs as the bridge's own user") && said.contains("sameUser"), "{said}");
        assert_eq!((problems("62000", false), problems("", true)), (String::new(), String::new()));
    }

    #[test]
    fn what_cannot_be_started_before_a_request_has_no_spares() {
        for fields in [
            r#""command": "/bin/cat", "spares": 1, "env": { "T": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "runAs": "2000", "spares": 1, "env": { "T": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": 1, "env": { "T": { "$userToken": "<<user.id>>" } }"#,
            r#""command": "/bin/cat", "spares": 1, "env": { "T": { "$header": { "name": "X-A", "format": "a" } } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "ready", "sameUser": true }, "env": { "T": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "sameUser": true }, "env": { "T": { "$userTokenFile": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "sameUser": true }, "allowTokenInArgs": true, "args": [{ "$userToken": "--t=<<token>>" }]"#,
            r#""url": "https://x.example/", "spares": 1"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "sameUser": "yes" }"#,
            r#""command": "/bin/cat", "spares": -1"#,
            r#""command": "/bin/cat", "spares": 1.5"#,
            r#""command": "/bin/cat", "spares": "2""#,
            r#""command": "/bin/cat", "spares": true"#,
            r#""command": "/bin/cat", "spares": {}"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "soon" }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "node" }, "env": { "T": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "node", "sameUser": true }, "env": { "NODE_OPTIONS": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "python", "sameUser": true }, "env": { "PYTHONPATH": { "$userToken": "<<token>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "node", "sameUser": true }, "env": { "HOME": { "$userToken": "/data/<<user.id>>" } }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "node", "environmentCopies": "wait" }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "hold": "python", "environmentCopies": "never" }"#,
            r#""image": "i", "spares": { "count": 1, "hold": "node" }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "maxAge": "0s" }"#,
            r#""command": "/bin/cat", "spares": { "count": 1, "other": 1 }"#,
        ] {
            assert!(try_server(&format!("{{ {fields} }}")).is_err(), "{fields}");
        }
    }

    #[test]
    fn what_there_is_room_for_is_shared_out_in_turn_and_said() {
        let servers = r#"{ "a": { "command": "/bin/cat", "spares": 5 }, "b": { "command": "/bin/cat", "spares": 1 },
            "c": { "command": "/bin/cat", "spares": 2 }, "d": { "command": "/bin/cat" } }"#;
        let config = |limit: usize| {
            load(&format!(r#"{{ "limits": {{ "spares": {limit} }}, "mcpServers": {servers} }}"#), &[]).unwrap()
        };
        let shares = |limit| {
            config(limit).spares().into_iter().map(|(name, count)| format!("{name}{count}")).collect::<Vec<_>>()
        };
        assert_eq!(shares(8), ["a5", "b1", "c2"]);
        assert_eq!(shares(5), ["a2", "b1", "c2"]);
        assert_eq!(shares(2), ["a1", "b1"]);
        assert_eq!(shares(0), [""; 0]);
        assert!(config(8).warnings.is_empty());
        assert!(config(7).warnings[0].to_string().contains("the servers ask for 8 spares, and 7 is the most"));
    }

    #[test]
    fn users_that_do_not_suffice_for_requests_and_spares_are_warned_of() {
        let warnings = |range: &str| {
            let text = format!(
                r#"{{ "limits": {{ "perServer": 10 }}, "mcpServers": {{ "a": {{ "command": "/bin/cat", "runAs": "{range}", "spares": 2 }} }} }}"#
            );
            load(&text, &[]).unwrap().warnings.len()
        };
        assert_eq!((warnings("2000-2010"), warnings("2000-2011"), warnings("2000")), (1, 0, 0));
    }
}
