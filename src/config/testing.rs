//! What the tests of this module share.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::{Config, Environment, Inputs, Launch, LoadOptions, Problems, RequestValues, Server, StdioLaunch, parse};
use crate::secret::{Credential, Secret};
use crate::user::UserId;

/// These variables and no others.
pub(super) fn given(variables: &[(&str, &str)]) -> LoadOptions {
    let variables: BTreeMap<String, OsString> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    LoadOptions { environment: Environment::Given(variables), ..LoadOptions::default() }
}

/// Loads `text` with these variables and no others.
pub(super) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    parse(text, Path::new("/etc/tollbridge.json"), &given(variables))
}

/// The server that `fields` describe, in a file that has what it needs.
pub(super) fn try_server(fields: &str) -> Result<Arc<Server>, Problems> {
    const STORE: &str = r#"{ "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] }"#;
    let text = format!(r#"{{ "tokenStore": {STORE}, "mcpServers": {{ "s": {fields} }} }}"#);
    load(&text, &[("PATH", "/usr/bin:/bin")]).map(|config| Arc::clone(&config.servers["s"]))
}

/// As [`try_server`], for fields that are right.
pub(super) fn server(fields: &serde_json::Value) -> Arc<Server> {
    try_server(&fields.to_string()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Of a user who saved this token.
pub(super) fn inputs(token: Option<&str>) -> Inputs {
    let credential = token.map(|token| Credential::token(Secret::new(token.to_owned())));
    Inputs::of(&UserId::local("alice").unwrap().into(), credential, RequestValues::default())
}

/// The launch of a program for `token`.
pub(super) fn stdio(server: &Server, token: &str) -> StdioLaunch {
    match server.fill(&inputs(Some(token))) {
        Ok(Launch::Stdio(launch)) => launch,
        Ok(Launch::Container(launch)) => launch.client,
        Ok(Launch::Http(_)) => panic!("a program was expected"),
        Err(error) => panic!("{error}"),
    }
}

/// The variable `name` of a launch.
pub(super) fn variable<'a>(launch: &'a StdioLaunch, name: &str) -> &'a str {
    let found = launch.env.iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no variable {name}")).1.expose()
}
