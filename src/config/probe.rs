//! How what a person gives is tried before it is saved.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Probe;
use super::load::Loader;
use super::written::file::{self, Value};
use super::written::path::Path;

/// What is filled in elsewhere.
const REFERENCES: [&str; 4] = ["$env", "$userToken", "$userTokenFile", "$header"];

impl Loader<'_> {
    /// The probe at `at`, which is of a server that takes something of its users.
    pub(super) fn probe(&mut self, at: &Path, written: file::Probe) -> Option<Probe> {
        // What only the probe is filled with goes nowhere.
        let filled = self.placeholders.pause();
        let probe = self.read_probe(at, written);
        self.placeholders.resume(filled);
        // A server that is tried is started for a form, or for a program that asks for no more.
        if let Some(Probe::Tools | Probe::Tool { .. }) = &probe
            && let Some(header) = self.placeholders.required_header()
        {
            let message = format!("the server needs the {} header of a client, and a probe has none", header.name);
            self.report_key(at, &message, "give that `$header` a `default`, or probe { \"url\": … }");
        }
        probe
    }

    fn read_probe(&mut self, at: &Path, written: file::Probe) -> Option<Probe> {
        const HELP: &str =
            "write \"tools/list\", { \"tool\": \"…\", \"arguments\": {…} } or { \"url\": \"https://…\" }";
        let call = match written {
            file::Probe::Method(method) if method == "tools/list" => return Some(Probe::Tools),
            file::Probe::Method(_) => {
                self.report(at, "only `tools/list` can be asked without more", HELP);
                return None;
            }
            file::Probe::Call(call) => call,
        };
        match (call.tool, call.url) {
            (Some(name), None) if call.headers.is_none() => {
                let name = self.required(&at.key("tool"), Some(name), "name one of the server's tools")?;
                let arguments = match call.arguments {
                    None => "{}".to_owned(),
                    Some(_) if self.refuses_reference(&at.key("arguments")) => return None,
                    Some(arguments @ Json::Object(_)) => arguments.to_string(),
                    Some(_) => {
                        self.report(&at.key("arguments"), "a tool's arguments are an object", "write { \"name\": … }");
                        return None;
                    }
                };
                Some(Probe::Tool { name, arguments })
            }
            (None, Some(url)) if call.arguments.is_none() => self.probed_url(at, url, call.headers.unwrap_or_default()),
            _ => {
                self.report(at, "this is neither a call of a tool nor a request", HELP);
                None
            }
        }
    }

    /// Reports what looks like a value to be put into a tool's arguments, which are sent as they are written.
    fn refuses_reference(&mut self, at: &Path) -> bool {
        let refused = REFERENCES.iter().find(|name| self.document.holds_key(at, name, |_| true));
        if let Some(name) = refused {
            let message = format!("arguments are sent as they are written: nothing would be put in for `{name}`");
            self.report(at, message, "the server has the values already, from its own fields; take this out");
        }
        refused.is_some()
    }

    fn probed_url(&mut self, at: &Path, url: Value, headers: BTreeMap<String, Option<Value>>) -> Option<Probe> {
        let of_request = headers.iter().filter(|(_, value)| matches!(value, Some(Value::Header(_))));
        let of_request: Vec<_> = of_request.map(|(name, _)| at.key("headers").key(name)).collect();
        if !of_request.is_empty() {
            let help = "write a text that does for all who try, or take it out";
            for at in of_request {
                self.report(&at, "a probe has no request of a client, so there is no header to take", help);
            }
            return None;
        }
        let server = file::Server { url: Some(url), headers: Some(headers), ..file::Server::default() };
        let plan = self.http_plan(at, server)?;
        let is_local = ["127.0.0.1", "[::1]", "localhost"].iter().any(|host| {
            let rest = plan.origin.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        if !plan.origin.starts_with("https://") && !is_local {
            self.report(&at.key("url"), "a token would be sent here unencrypted", "write https://…");
            return None;
        }
        Some(Probe::Get(plan))
    }
}
