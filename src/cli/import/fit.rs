//! A server that `check` accepts: what it would refuse is switched off or left out, and named.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::report::{Place, Report};
use crate::config::{LoadOptions, Problem, parse};

/// The server that is `written`, so that `check` accepts it; `None` if it cannot be kept.
pub(super) fn fit(report: &mut Report, place: &Place, mut server: Map<String, Json>) -> Option<Map<String, Json>> {
    let mut switched_off: Option<String> = None;
    // Every step takes something out, or switches it off.
    for _ in 0..32 {
        let Some(problem) = problem(&place.server, &server) else {
            if let Some(why) = switched_off {
                report.say(place, why);
            }
            return Some(server);
        };
        let (message, help) = (&problem.message, &problem.help);
        let wanted = |header: &&String| problem.path.ends_with(&format!("headers.{header}"));
        let headers = server.get_mut("headers").and_then(Json::as_object_mut);
        if let Some((header, headers)) = headers.and_then(|all| Some((all.keys().find(wanted)?.clone(), all))) {
            headers.remove(&header);
            report.say(place, format!("headers.{header}: left out: {message}"));
        } else if problem.path.contains(".tokenSetup") {
            server.remove("tokenSetup");
            report.say(place, format!("tokenSetup: left out: {message}"));
        } else if let Some(option) = permission(help) {
            let allowed = server.entry("allowUnsafe").or_insert_with(|| json!([]));
            allowed.as_array_mut().expect("nothing else writes it").push(option.into());
            server.insert("disabled".into(), true.into());
            report.say(place, format!("switched off: {message}; take `disabled` out if {option} is meant"));
        } else if server.insert("disabled".into(), true.into()) != Some(true.into()) {
            switched_off = Some(format!("switched off: {message}; {help}"));
        } else {
            report.say(place, format!("cannot be kept: {message}; {help}"));
            return None;
        }
    }
    report.say(place, "cannot be kept: tollbridge refuses too many of its settings");
    None
}

/// What `check` says first of the server, if anything.
fn problem(name: &str, server: &Map<String, Json>) -> Option<Problem> {
    let text = document(std::iter::once((name, server)));
    let options = LoadOptions { allow_missing_env: true, ..LoadOptions::default() };
    parse(&text, Path::new("tollbridge.json"), &options).err().and_then(|problems| problems.iter().next().cloned())
}

/// The option that would have to be named in `allowUnsafe`, if `help` says so.
fn permission(help: &str) -> Option<&str> {
    let (_, rest) = help.split_once("\"allowUnsafe\": [\"")?;
    rest.split_once('"').map(|(option, _)| option)
}

/// The configuration with these servers.
pub(super) fn document<'a>(servers: impl Iterator<Item = (&'a str, &'a Map<String, Json>)>) -> String {
    let servers: Map<String, Json> = servers.map(|(name, server)| (name.to_owned(), server.clone().into())).collect();
    let mut document = Map::new();
    if servers.values().any(takes_token) {
        let keys = json!([{ "id": "k1", "file": "./tollbridge-data/k1.key" }]);
        let store = json!({ "kind": "embedded", "path": "./tollbridge-data", "keys": keys });
        document.insert("tokenStore".into(), store);
    }
    document.insert("mcpServers".into(), servers.into());
    serde_json::to_string_pretty(&document).expect("a table is JSON")
}

/// Whether users' tokens go into anything of `value`.
pub(super) fn takes_token(value: &Json) -> bool {
    match value {
        Json::Object(fields) => fields.iter().any(|(name, value)| name == "$userToken" || takes_token(value)),
        Json::Array(values) => values.iter().any(takes_token),
        _ => false,
    }
}
