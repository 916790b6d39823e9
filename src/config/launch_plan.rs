//! What is launched: the program or the URL of one server, with its templates compiled.

use std::collections::BTreeMap;
use std::ops::Range;

use http::HeaderName;
use zeroize::Zeroizing;

use super::container::{self, Role};
use super::file::{self, ServerKind, Value};
use super::load::Loader;
use super::path::Path;
use super::program::DEFAULT_PATH;
use super::template::{self, Fault, Source, Template};
use super::value::{Draft, Expansion};
use super::{HttpPlan, MAX_VALUE, StdioPlan, Transport, url_template};

/// Headers that the bridge or the connection sets, besides `mcp-*`.
const OWN_HEADERS: &[&str] = &[
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

/// How a template of some kind is made of its text and its holes.
type Compile = fn(Source, &str, &[Range<usize>]) -> Result<Template, Fault>;

impl Loader<'_> {
    pub(super) fn stdio_plan(&mut self, at: &Path, file: file::Server) -> Option<StdioPlan> {
        let resolve = file.disabled != Some(true);
        let command = self.command(&at.key("command"), file.command, resolve);
        let cwd = file.cwd.and_then(|cwd| self.cwd(&at.key("cwd"), cwd, resolve));
        let mut drafts = Vec::new();
        for (index, value) in file.args.unwrap_or_default().into_iter().enumerate() {
            let at = at.key("args").index(index);
            drafts.extend(value.and_then(|value| self.draft(&at, value, Expansion::Whole, resolve)));
        }
        let mut env = self.env(&at.key("env"), file.env.unwrap_or_default(), resolve);
        let roles = command.as_deref().filter(|command| container::is_engine(command)).and_then(|_| {
            let words: Vec<&str> = drafts.iter().map(|draft| draft.text.as_ref().map_or("?", |text| text)).collect();
            container::roles(&words)
        });
        let mut args = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            let role = roles.as_ref().map_or(Role::Program, |roles| roles[index]);
            let in_engine = roles.is_some();
            if in_engine && draft.source == Source::UserToken {
                if let Some(moved) = self.container_arg(role, &draft) {
                    self.move_to_env(moved, &draft, &mut args, &mut env);
                    continue;
                }
                if matches!(role, Role::Env(_) | Role::Image | Role::EnvFile) {
                    continue;
                }
            }
            args.extend(self.arg(&draft, file.allow_token_in_args == Some(true)));
        }
        self.inherit(&mut env);
        let program = command.filter(|_| resolve).map(|command| self.program(&at.key("command"), &command));
        Some(StdioPlan { program: program??, args, env, cwd })
    }

    fn command(&mut self, at: &Path, value: Option<Value>, resolve: bool) -> Option<Zeroizing<String>> {
        let draft = match value? {
            value @ Value::Env(_) => self.draft(at, value, Expansion::Whole, resolve)?.text?,
            value => Zeroizing::new(self.setting(at, Some(value)).known()?.to_owned()),
        };
        Some(draft)
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

    fn env(&mut self, at: &Path, written: BTreeMap<String, Option<Value>>, resolve: bool) -> Vec<(String, Template)> {
        let mut env = Vec::new();
        for (name, value) in written {
            let at = at.key(&name);
            self.check_env_name(&at, &name);
            let Some(draft) = value.and_then(|value| self.draft(&at, value, Expansion::Whole, resolve)) else {
                continue;
            };
            if draft.text.as_ref().is_some_and(|text| name.len() + 1 + text.len() > MAX_VALUE) {
                let message = format!("a variable takes at most {MAX_VALUE} bytes, with its name");
                self.report(&at, message, "pass a file's name instead");
            }
            env.extend(self.compile(&draft, template::env).map(|template| (name, template)));
        }
        env
    }

    fn check_env_name(&mut self, at: &Path, name: &str) {
        if name.is_empty() || name.contains(['=', '\0']) {
            self.report_key(at, "this cannot be the name of a variable", "use a name without `=`");
        } else if super::value::find_token(name).is_some() {
            self.report_key(at, "the token cannot be part of a variable's name", "put it into the value");
        }
    }

    /// Variables that are not declared and that every program needs.
    fn inherit(&mut self, env: &mut Vec<(String, Template)>) {
        for (name, default) in INHERITED {
            if env.iter().all(|(declared, _)| declared != name) {
                let own = self.options.environment.read(name).and_then(|value| value.into_string().ok());
                let value = own.as_deref().filter(|value| !value.is_empty()).or(default);
                env.extend(value.map(|value| (name.to_owned(), Template::fixed(Source::Bridge, value))));
            }
        }
    }

    /// The `NAME=VALUE` of a container's variable that holds the token: name, and where the value starts.
    fn container_arg(&mut self, role: Role, draft: &Draft) -> Option<(String, usize, usize)> {
        let text = draft.text.as_ref()?;
        match role {
            Role::Env(start) => {
                let name = text[start..].split_once('=').map_or("", |(name, _)| name);
                if name.is_empty() || name.contains("<<") {
                    let help = "write NAME=<<token>>";
                    self.report(&draft.at, "the token cannot be part of a variable's name", help);
                    return None;
                }
                Some((name.to_owned(), start, start + name.len() + 1))
            }
            Role::Image => {
                self.report(
                    &draft.at,
                    "the token cannot choose an image",
                    "pass it to the container by `env` and `-e NAME`",
                );
                None
            }
            Role::EnvFile => {
                let help = "pass it to the container by `env` and `-e NAME`";
                self.report(&draft.at, "the token cannot choose a file of variables", help);
                None
            }
            Role::Option | Role::Program => None,
        }
    }

    /// `-e NAME=<<token>>` would show the token in ps: it becomes `-e NAME` and a variable of the engine's client.
    fn move_to_env(
        &mut self,
        (name, start, value): (String, usize, usize),
        draft: &Draft,
        args: &mut Vec<Template>,
        env: &mut Vec<(String, Template)>,
    ) {
        let text = draft.text.as_ref().map_or("", |text| text);
        if env.iter().any(|(declared, _)| *declared == name) {
            let message = format!("`{name}` is declared in `env`, too");
            self.report(&draft.at, message, format!("write only \"-e\", \"{name}\" here and its value in `env`"));
        }
        if start > 0 {
            let flags = container::bundled_flags(&text[..start]);
            args.extend(flags.map(|flags| Template::fixed(Source::Plain, flags)));
            args.push(Template::fixed(Source::Plain, "-e"));
        }
        args.push(Template::fixed(Source::Plain, &name));
        let rest = Draft {
            at: draft.at.clone(),
            source: Source::UserToken,
            text: Some(Zeroizing::new(text[value..].to_owned())),
        };
        env.extend(self.compile(&rest, template::env).map(|template| (name, template)));
    }

    fn arg(&mut self, draft: &Draft, allowed: bool) -> Option<Template> {
        if draft.source == Source::UserToken && !allowed {
            let help = "pass it in `env`; if the program takes it in no other way, add \"allowTokenInArgs\": true";
            self.report(&draft.at, "arguments are visible in ps to every user of this machine", help);
        }
        self.compile(draft, template::arg)
    }

    pub(super) fn http_plan(&mut self, at: &Path, file: file::Server) -> Option<HttpPlan> {
        let resolve = file.disabled != Some(true);
        let transport = self.transport(&at.key("transport"), file.transport, file.kind);
        let headers = self.headers(&at.key("headers"), file.headers.unwrap_or_default(), resolve);
        let draft = self.draft(&at.key("url"), file.url?, Expansion::Part, resolve)?;
        let text = draft.text.as_ref()?;
        let compiled = holes(&draft).and_then(|holes| url_template::compile(draft.source.clone(), text, &holes));
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
            let Some(draft) = value.and_then(|value| self.draft(&at, value, Expansion::Part, resolve)) else {
                continue;
            };
            headers.extend(name.zip(self.compile(&draft, template::header)));
        }
        headers
    }

    fn settable_header(&mut self, at: &Path, name: &str) -> Option<HeaderName> {
        if super::value::find_token(name).is_some() {
            self.report_key(at, "the token cannot be part of a header's name", "put it into the value");
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
    fn compile(&mut self, draft: &Draft, compile: Compile) -> Option<Template> {
        let Some(text) = &draft.text else { return Some(Template::empty(draft.source.clone())) };
        let compiled = holes(draft).and_then(|holes| compile(draft.source.clone(), text, &holes));
        compiled.map_err(|fault| self.report_fault(draft, fault)).ok()
    }

    fn report_fault(&mut self, draft: &Draft, fault: Fault) {
        // The text of a variable does not stand in the file.
        if matches!(draft.source, Source::Env(_)) {
            self.report(&draft.at, fault.message, fault.help);
        } else {
            self.report_within(&draft.at, fault.part, fault.message, fault.help);
        }
    }
}

/// Only `$userToken` has holes: what comes from elsewhere is taken as it is.
fn holes(draft: &Draft) -> Result<Vec<Range<usize>>, Fault> {
    match (&draft.source, &draft.text) {
        (Source::UserToken, Some(text)) => template::holes(text),
        _ => Ok(Vec::new()),
    }
}
