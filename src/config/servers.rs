//! The servers of `mcpServers`: what they have in common. `launch_plan` has what tells them apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::load::Loader;
use super::template::placeholder::{Placeholders, takes_credential};
use super::written::file::{self, Object, ServerKind};
use super::written::path::Path;
use super::{Plan, ProcessLimits, Protocol, Server, ServerName, SseServers, StdioPlan, Template, WithoutToken};

/// Fields that say how a container is started from an image.
const OF_IMAGES: &[&str] = &["engine", "network", "readOnly", "user", "mounts"];

/// First segments of paths that are ours.
const OUR_PATHS: &[&str] = &["account", "api", "oauth"];

/// Fields that only a server with `command`, or with `image`, has.
const OF_PROGRAMS: &[&str] = &[
    "args",
    "env",
    "cwd",
    "allowTokenInArgs",
    "eofGrace",
    "termGrace",
    "memory",
    "cpus",
    "pids",
    "oomScoreAdj",
    "nice",
    "runAs",
    "privateDirectory",
    "durableTasks",
    "taskLease",
    "spares",
];

/// Fields that may hold a `$userToken`, and those in which it is refused as what it is.
const FILLED: &[&str] = &["args", "command", "cwd", "env", "headers", "image", "url"];

/// The servers of a file.
#[derive(Default)]
pub(super) struct Servers {
    /// Those to serve.
    pub served: BTreeMap<ServerName, Arc<Server>>,
    /// The names of the disabled ones.
    pub disabled: Vec<ServerName>,
    /// The names of those that lack a variable.
    pub incomplete: Vec<ServerName>,
}

impl Loader<'_> {
    pub(super) fn servers(&mut self, written: Option<BTreeMap<String, Json>>, defaults: &ProcessLimits) -> Servers {
        let table = Path::root().key("mcpServers");
        let mut servers = Servers::default();
        if written.is_none() && self.document.kind(&table) == "nothing" {
            self.report(
                &table,
                "no servers are configured",
                "add \"mcpServers\": { \"name\": { \"command\": \"…\" } }",
            );
        }
        for (key, json) in written.unwrap_or_default() {
            let at = table.key(&key);
            let name = ServerName::parse(&key);
            if name.is_none() {
                let help = "use 1 to 64 of A-Z a-z 0-9 . _ - and do not start with a dot: the name is part of a URL";
                self.report_key(&at, "this cannot be the name of a server", help);
            }
            if OUR_PATHS.contains(&key.as_str()) {
                let message = format!("pages of the bridge itself are at /{key}");
                self.report_key(&at, message, "choose another name for the server: it is part of a URL");
            }
            if json.is_null() {
                continue;
            }
            let problems = self.problems.len();
            let Some(file) = self.read::<file::Server>(&at, json) else { continue };
            let is_disabled = file.disabled == Some(true);
            let name = name.unwrap_or_else(|| ServerName("?".into()));
            let server = self.server(&at, name.clone(), file, defaults);
            // Where something else is wrong, that may be why a field goes nowhere.
            if server.as_ref().is_some_and(|server| server.requires_user_token) && self.problems.len() == problems {
                self.refuse_unused(&at.key("tokenSetup").key("fields"));
            }
            match server {
                _ if is_disabled => servers.disabled.push(name),
                Some(server) => drop(servers.served.insert(name, Arc::new(server))),
                None => servers.incomplete.push(name),
            }
        }
        servers
    }

    /// Refuses fields at `at` that nothing is filled with.
    fn refuse_unused(&mut self, at: &Path) {
        let unused: Vec<_> = self.placeholders.unused().map(str::to_owned).collect();
        for name in unused {
            let help = format!("write <<{name}>> where it goes, or take it out");
            self.report_key(&at.key(&name), "this field goes nowhere", help);
        }
    }

    fn server(
        &mut self,
        at: &Path,
        name: ServerName,
        mut file: file::Server,
        defaults: &ProcessLimits,
    ) -> Option<Server> {
        let process = self.process(at, &file, defaults);
        let rate = self.rate(at, file.rate.as_ref(), file.burst);
        let at_setup = at.key("tokenSetup");
        let written_setup = self.token_setup(&at_setup, file.token_setup.take().map(|Object(setup)| setup));
        let has_setup = written_setup.is_some();
        let token_setup = written_setup.unwrap_or_default();
        self.placeholders = Placeholders::of(&token_setup);
        let (required, protocol) = (file.requires_user_token, file.protocol.unwrap_or_default());
        let without_token = file.without_token;
        let (questions, listen) = (file.questions.unwrap_or_default(), file.listen.unwrap_or_default());
        let (tasks, probe, spares) = (self.tasks(at, &file), file.probe.take(), file.spares.take());
        let (sse, access) = (file.sse.unwrap_or_default(), self.access(at, file.allow.take(), file.tools.take()));
        let oauth = self.oauth(&at.key("oauth"), (&name, &token_setup), file.oauth.take());
        let may_hold = self.takes_credential(at) | imply_token(oauth.is_some(), &mut file);
        let plan = self.plan(at, file);
        let requires_user_token = self.requires_user_token(at, required, may_hold);
        self.check_oauth_of(&at.key("oauth"), (oauth.as_ref(), plan.as_ref()), requires_user_token);
        if !requires_user_token && has_setup {
            let help = "put { \"$userToken\": \"<<token>>\" } where the token goes, or take `tokenSetup` out";
            self.report_key(&at_setup, "this server takes no user token", help);
        }
        if !requires_user_token && without_token.is_some() {
            self.report_key(&at.key("withoutToken"), "this server takes no user token", "take it out");
        }
        if without_token == Some(WithoutToken::Start) {
            self.check_left_out(&at.key("withoutToken"), plan.as_ref());
        }
        if (sse, protocol) == (SseServers::Session, Protocol::Modern) {
            let help = "take out `sse`, and each request gets a server of its own, or `protocol`";
            self.report_key(&at.key("sse"), "a server of the modern era knows no sessions", help);
        }
        if !requires_user_token && self.document.kind(&at.key("probe")) != "nothing" {
            self.report_key(
                &at.key("probe"),
                "this server takes no user token: there is nothing to try",
                "take it out",
            );
        }
        let probe = probe.and_then(|probe| self.probe(&at.key("probe"), probe));
        let spares = spares.and_then(|written| self.spares(&at.key("spares"), written, plan.as_ref()));
        Some(Server {
            name,
            plan: plan?,
            requires_user_token,
            without_token: without_token.unwrap_or_default(),
            token_setup,
            probe,
            oauth,
            names_user: self.placeholders.names_user(),
            request_headers: self.placeholders.take_headers(),
            rate,
            process,
            protocol,
            questions,
            listen,
            sse,
            tasks,
            access,
            spares,
        })
    }

    /// Refuses to start a server without what a user saves where it cannot be left out.
    fn check_left_out(&mut self, at: &Path, plan: Option<&Plan>) {
        if let Some(field) = plan.and_then(needs_credential) {
            let message = format!("what a user has saved stands in `{field}`, which cannot be left out");
            self.report(at, message, "put it in `env` or `headers`, or take this out");
        }
    }

    /// Whether the server at `at` is filled with something that a user has saved.
    pub(super) fn takes_credential(&self, at: &Path) -> bool {
        let takes = |field: &&str| {
            let holds = |key| self.document.holds_key(&at.key(field), key, takes_credential);
            holds("$userToken") || holds("$userTokenFile")
        };
        FILLED.iter().any(takes)
    }

    /// Whether a request needs the user's token: it does if the token goes anywhere.
    fn requires_user_token(&mut self, at: &Path, written: Option<bool>, holds_token: bool) -> bool {
        let at = at.key("requiresUserToken");
        match (written, holds_token) {
            (Some(true), false) => {
                let help = "put { \"$userToken\": \"<<token>>\" } where it goes, for example in `env` or `headers`";
                self.report(&at, "the user's token would go nowhere", help);
            }
            (Some(false), true) => {
                let help = "take this out: it follows from `$userToken`";
                self.report(&at, "the user's token stands in this server's fields", help);
            }
            _ => {}
        }
        holds_token
    }

    fn plan(&mut self, at: &Path, file: file::Server) -> Option<Plan> {
        use ServerKind::{Http, Sse, Stdio, StreamableHttp};
        let present = |name: &str| self.document.kind(&at.key(name)) != "nothing";
        let written = [present("command"), present("image"), present("url")];
        if written.iter().filter(|written| **written).count() != 1 {
            self.not_one_kind(at, written);
            return None;
        }
        let [command, image, url] = written;
        if url {
            if file.kind == Some(Stdio) {
                self.report(&at.key("type"), "a server with `url` is not of type stdio", "take `type` out");
            }
            self.refuse_fields(at, OF_PROGRAMS, "command");
        } else {
            if matches!(file.kind, Some(Http | StreamableHttp | Sse)) {
                let owner = if command { "command" } else { "image" };
                let message = format!("a server with `{owner}` is of type stdio");
                self.report(&at.key("type"), message, "take `type` out");
            }
            self.refuse_fields(at, &["url", "headers", "transport"], "url");
        }
        if !image {
            self.refuse_fields(at, OF_IMAGES, "image");
        }
        if url {
            self.refuse_fields(at, &["allowUnsafe", "requireDigest"], "image");
            self.http_plan(at, file).map(Plan::Http)
        } else if image {
            self.refuse_fields(at, &["cwd", "privateDirectory"], "command");
            self.refuse_run_as(at);
            self.image_plan(at, file).map(Plan::Container)
        } else {
            self.program_plan(at, file)
        }
    }

    fn not_one_kind(&mut self, at: &Path, written: [bool; 3]) {
        let (message, help) = match written {
            [false, false, false] => (
                "this server is neither a program nor elsewhere",
                "add \"command\" for a program, \"image\" for a container, or \"url\" for a server elsewhere",
            ),
            [true, true, _] => (
                "this server is both a program and a container",
                "keep `command` for a program, or `image` for a container",
            ),
            [false, true, true] => (
                "this server is both a container and elsewhere",
                "keep `image` for a container, or `url` for a server elsewhere",
            ),
            _ => (
                "this server is both a program and elsewhere",
                "keep `command` for a program, or `url` for a server elsewhere",
            ),
        };
        self.report(at, message, help);
    }

    fn refuse_fields(&mut self, at: &Path, names: &[&str], owner: &str) {
        for name in names {
            let at = at.key(name);
            if self.document.kind(&at) != "nothing" {
                self.report_key(&at, format!("`{name}` belongs to a server with `{owner}`"), "take it out");
            }
        }
    }
}

/// The field without which the server cannot be started, and which something goes into that a user has saved.
fn needs_credential(plan: &Plan) -> Option<&'static str> {
    let in_args = |plan: &StdioPlan| plan.args.iter().any(Template::takes_credential).then_some("args");
    match plan {
        Plan::Stdio(plan) => in_args(plan),
        Plan::Container(plan) => in_args(&plan.client),
        Plan::Http(plan) => plan.url.takes_credential().then_some("url"),
    }
}

/// Where users sign in, the token goes into the header that such servers read, unless the file says where it goes;
/// whether it does.
fn imply_token(has_oauth: bool, file: &mut file::Server) -> bool {
    let headers = file.headers.iter().flatten();
    let is_written = headers.into_iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let is_implied = has_oauth && file.url.is_some() && !is_written;
    if is_implied {
        let value = file::Value::UserToken("Bearer <<token>>".to_owned());
        file.headers.get_or_insert_default().insert("Authorization".to_owned(), Some(value));
    }
    is_implied
}
