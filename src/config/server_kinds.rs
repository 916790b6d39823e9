//! What is launched: the program or the URL of one server, with its templates compiled.

use std::collections::BTreeMap;

use http::HeaderName;
use zeroize::Zeroizing;

use super::container;
use super::container::run::{Rules, of_client};
use super::load::Loader;
use super::program::DEFAULT_PATH;
use super::template::placeholder::Placeholder;
use super::template::{self, Fault, Source, Template, url_template};
use super::value::{Draft, Expansion};
use super::written::file::{self, ServerKind, Value};
use super::written::path::Path;
use super::{HttpPlan, MAX_VALUE, Plan, StdioPlan, TokenFilePlan, Transport};

/// Headers that the bridge or the connection sets, besides `mcp-*`.
pub(super) const OWN_HEADERS: &[&str] = &[
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Variables that every program gets from the bridge's own environment, and their values if the bridge has none.
const INHERITED: [(&str, Option<&str>); 4] =
    [("PATH", Some(DEFAULT_PATH)), ("HOME", None), ("LANG", Some("C.UTF-8")), ("TMPDIR", None)];

/// What goes into a program's environment.
#[derive(Default)]
pub(super) struct Variables {
    pub env: Vec<(String, Template)>,
    pub token_files: Vec<TokenFilePlan>,
}

/// How a template of some kind is made of its text and its holes.
pub(super) type Compile = fn(Source, &str, &[Placeholder]) -> Result<Template, Fault>;

impl Loader<'_> {
    /// What is started by `command`: a program, which may be the client of a container engine.
    pub(super) fn program_plan(&mut self, at: &Path, file: file::Server) -> Option<Plan> {
        let resolve = file.disabled != Some(true);
        let confinement = self.confinement(at, &file);
        let own_directory = file.private_directory.is_some().then_some(confinement.private_directory).flatten();
        let command = self.command(&at.key("command"), file.command, resolve);
        let cwd = file.cwd.and_then(|cwd| self.cwd(&at.key("cwd"), cwd, resolve));
        let mut variables = self.variables(&at.key("env"), file.env.unwrap_or_default(), resolve);
        let drafts = self.drafts(&at.key("args"), file.args, resolve);
        let words: Vec<&str> = drafts.iter().map(|draft| draft.text.as_ref().map_or("?", |text| text)).collect();
        if let Some(command) = command.as_deref().filter(|_| resolve) {
            self.warn_of_slow_start(&at.key("command"), command, &words);
        }
        let engine = command.as_deref().is_some_and(|command| container::is_engine(command));
        let hidden = command.as_deref().and_then(|command| container::hidden_engine(command, &words));
        let permitted = Rules::new(at, file.allow_unsafe, file.require_digest);
        let run = if engine { self.run_of(&drafts, container::read(&words), &permitted) } else { None };
        let roles = run.as_ref().map(|run| run.roles(words.len()));
        let allowed = file.allow_token_in_args == Some(true);
        let args = self.args(&drafts, roles.as_deref(), allowed, &mut variables.env);
        self.inherit(&mut variables.env, run.is_none() && confinement.private_directory.is_some());
        let program = command.filter(|_| resolve).map(|command| self.program(&at.key("command"), &command));
        let Variables { env, token_files } = variables;
        let client =
            StdioPlan { program: program.flatten().unwrap_or_default(), args, env, token_files, cwd, confinement };
        let has_program = !client.program.as_os_str().is_empty();
        let Some(run) = run else {
            if !engine {
                self.refuse_rules(&permitted);
            }
            if let Some(index) = hidden {
                let help = "write the engine itself as `command`, and what it is told in `args`";
                let message = "the container that is started here would not be ended with its request";
                self.report(&drafts[index].at, message, help);
            }
            self.check_token_files(at, &client);
            return has_program.then_some(Plan::Stdio(client));
        };
        self.refuse_run_as(at);
        let completed = self.complete(&drafts, &run, &permitted, &confinement)?;
        let client = StdioPlan { confinement: of_client(own_directory), ..client };
        let plan = self.container(client, run.command, completed);
        self.check_client(&at.key("env"), &plan.client);
        has_program.then_some(Plan::Container(plan))
    }

    /// The arguments as written, resolved.
    pub(super) fn drafts(&mut self, at: &Path, written: Option<Vec<Option<Value>>>, resolve: bool) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (index, value) in written.unwrap_or_default().into_iter().enumerate() {
            let at = at.index(index);
            drafts.extend(value.and_then(|value| self.draft(&at, value, Expansion::Whole, resolve)));
        }
        drafts
    }

    fn command(&mut self, at: &Path, value: Option<Value>, resolve: bool) -> Option<Zeroizing<String>> {
        match value? {
            value @ Value::Env(_) => self.draft(at, value, Expansion::Whole, resolve)?.text,
            value => self.setting(at, Some(value)).known().map(|command| Zeroizing::new(command.to_owned())),
        }
    }

    fn cwd(&mut self, at: &Path, value: Value, resolve: bool) -> Option<std::path::PathBuf> {
        if !resolve && matches!(value, Value::Env(_)) {
            return None;
        }
        let path = self.file_path(at, Some(value), "name a directory")?;
        if resolve && !path.is_dir() {
            self.report(at, "there is no such directory", "make it, or write another one");
        }
        Some(path)
    }

    /// The variables as written, and the files that some of them name.
    pub(super) fn variables(
        &mut self,
        at: &Path,
        written: BTreeMap<String, Option<Value>>,
        resolve: bool,
    ) -> Variables {
        let mut variables = Variables::default();
        for (name, value) in written {
            let at = at.key(&name);
            self.check_env_name(&at, &name);
            let Some(draft) = value.and_then(|value| self.draft(&at, value, Expansion::Variable, resolve)) else {
                continue;
            };
            if draft.text.as_ref().is_some_and(|text| name.len() + 1 + text.len() > MAX_VALUE) {
                let message = format!("a variable takes at most {MAX_VALUE} bytes, with its name");
                self.report(&at, message, "pass a file's name instead");
            }
            let Some(template) = self.compile(&draft, template::env) else { continue };
            if draft.source == Source::UserTokenFile {
                variables.token_files.extend(self.token_file(&at, name, template));
            } else {
                variables.env.push((name, template));
            }
        }
        variables
    }

    fn check_env_name(&mut self, at: &Path, name: &str) {
        if name.is_empty() || name.contains(['=', '\0']) {
            self.report_key(at, "this cannot be the name of a variable", "use a name without `=`");
        } else if self.placeholders.find(name).is_some() {
            self.report_key(at, "a placeholder cannot be part of a variable's name", "put it into the value");
        }
    }

    /// Variables that are not declared and that every program needs. A program with a directory of its own is told of
    /// that one when it is started.
    pub(super) fn inherit(&mut self, env: &mut Vec<(String, Template)>, private_directory: bool) {
        for (name, default) in INHERITED {
            if private_directory && name == "TMPDIR" {
                continue;
            }
            if env.iter().all(|(declared, _)| declared != name) {
                let own = self.options.environment.read(name).and_then(|value| value.into_string().ok());
                let value = own.as_deref().filter(|value| !value.is_empty()).or(default);
                env.extend(value.map(|value| (name.to_owned(), Template::fixed(Source::Bridge, value))));
            }
        }
    }

    pub(super) fn http_plan(&mut self, at: &Path, file: file::Server) -> Option<HttpPlan> {
        let resolve = file.disabled != Some(true);
        let transport = self.transport(&at.key("transport"), file.transport, file.kind);
        let headers = self.headers(&at.key("headers"), file.headers.unwrap_or_default(), resolve);
        let draft = self.draft(&at.key("url"), file.url?, Expansion::Part, resolve)?;
        let text = draft.text.as_ref()?;
        let compiled = self.holes(&draft).and_then(|holes| url_template::compile(draft.source.clone(), text, &holes));
        let (url, origin) = compiled.map_err(|fault| self.report_fault(&draft, fault)).ok()?;
        Some(HttpPlan { url, origin, headers, transport })
    }

    fn transport(&mut self, at: &Path, written: Option<Transport>, kind: Option<ServerKind>) -> Transport {
        let of_kind = match kind {
            Some(ServerKind::Sse) => Transport::Sse,
            Some(ServerKind::Http | ServerKind::StreamableHttp) => Transport::Streamable,
            Some(ServerKind::Stdio) | None => Transport::Auto,
        };
        match written {
            Some(written) if of_kind != Transport::Auto && written != of_kind => {
                self.report(at, "`transport` and `type` do not agree", "take one of them out");
                written
            }
            written => written.unwrap_or(of_kind),
        }
    }

    fn headers(
        &mut self,
        at: &Path,
        written: BTreeMap<String, Option<Value>>,
        resolve: bool,
    ) -> Vec<(HeaderName, Template)> {
        let mut headers: Vec<(HeaderName, Template)> = Vec::new();
        for (name, value) in written {
            let at = at.key(&name);
            let name = self.settable_header(&at, &name);
            if name.as_ref().is_some_and(|name| headers.iter().any(|(other, _)| other == name)) {
                self.report_key(&at, "this header is written twice, in different case", "keep one of them");
            }
            let Some(draft) = value.and_then(|value| self.draft(&at, value, Expansion::Header, resolve)) else {
                continue;
            };
            headers.extend(name.zip(self.compile(&draft, template::header)));
        }
        headers
    }

    fn settable_header(&mut self, at: &Path, name: &str) -> Option<HeaderName> {
        if self.placeholders.find(name).is_some() {
            self.report_key(at, "a placeholder cannot be part of a header's name", "put it into the value");
            return None;
        }
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            self.report_key(at, "this is not the name of a header", "use letters, digits and `-`");
            return None;
        };
        if OWN_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("mcp-") {
            self.report_key(at, "the bridge sets this header itself", "take it out");
            return None;
        }
        Some(header)
    }

    /// Compiles what `draft` says; a variable that is not set here makes an empty template.
    pub(super) fn compile(&mut self, draft: &Draft, compile: Compile) -> Option<Template> {
        let Some(text) = &draft.text else { return Some(Template::empty(draft.source.clone())) };
        let compiled = self.holes(draft).and_then(|holes| compile(draft.source.clone(), text, &holes));
        compiled.map_err(|fault| self.report_fault(draft, fault)).ok()
    }

    /// Only `$userToken` has holes, and `$header` is one: what comes from elsewhere is taken as it is.
    fn holes(&mut self, draft: &Draft) -> Result<Vec<Placeholder>, Fault> {
        if let Some(input) = &draft.whole {
            return Ok(vec![Placeholder { range: 0..0, input: input.clone() }]);
        }
        match (&draft.source, &draft.text) {
            (Source::UserToken | Source::UserTokenFile, Some(text)) => self.placeholders.read(text, &self.callers),
            _ => Ok(Vec::new()),
        }
    }

    fn report_fault(&mut self, draft: &Draft, fault: Fault) {
        // The text of a variable does not stand in the file.
        if matches!(draft.source, Source::Env(_)) {
            self.report(&draft.at, fault.message, fault.help);
        } else {
            let part = fault.part.start + draft.from..fault.part.end + draft.from;
            self.report_within(&draft.at, part, fault.message, fault.help);
        }
    }
}
