//! The servers of MCP clients and of mcp-front.

use serde_json::{Map, Value as Json, json};

use super::program::{arguments, headers, variables};
use super::report::{Place, Report};
use super::tree::{Data, Node};
use super::value::{Role, value};

/// Fields that only tell people about a server.
const TELLING: &[&str] = &["$schema", "description", "displayName", "gallery", "icon", "name", "title", "version"];

/// The server at `place` as ours; `None` if it cannot be kept.
pub(super) fn server(report: &mut Report, place: &Place, node: &Node) -> Option<Map<String, Json>> {
    if let Some(why) = not_ours(node) {
        report.say(place, format!("cannot be kept: {why}"));
        return None;
    }
    let mut server = Map::new();
    let mut env = Map::new();
    if let Some(node) = node.get("env") {
        env = variables(report, &place.field("env", node), node);
    }
    for (name, node) in node.table() {
        let at = place.field(name, node);
        match name.as_str() {
            "command" => server.extend(field(report, &at, "command", node)),
            "cwd" => server.extend(directory(report, &at, node)),
            "url" | "serverUrl" => server.extend(field(report, &at, "url", node)),
            "headers" => drop(server.insert("headers".into(), headers(report, &at, node).into())),
            "type" | "transportType" | "transport" => server.extend(kind(report, &at, node)),
            "disabled" if node.is(true) => drop(server.insert("disabled".into(), true.into())),
            "enabled" if node.is(false) => drop(server.insert("disabled".into(), true.into())),
            // Read by themselves, or following from others.
            "args" | "env" | "disabled" | "enabled" | "requiresUserToken" => {}
            "userAuthentication" => drop(server.insert("tokenSetup".into(), token_setup(report, &at, node))),
            "timeout" => server.extend(timeout(report, &at, node)),
            "options" => options(report, &at, node, &mut server),
            "disabledTools" | "excludeTools" => tools(&mut server, "deny", node),
            "enabledTools" | "includeTools" => tools(&mut server, "allow", node),
            "alwaysAllow" | "autoApprove" => {
                report.say(&at, "left out: each person's client decides whether it asks before a call");
            }
            "envFile" => report.say(&at, "left out: copy the variables of that file into `env`"),
            "serviceAuths" => {
                report.say(&at, "left out: say who may call in `identity`, and who may use this server in `allow`");
            }
            telling if TELLING.contains(&telling) => {}
            _ => report.say(&at, "left out: tollbridge has no such setting"),
        }
    }
    if let Some(node) = node.get("args") {
        let is_engine = matches!(server.get("command").and_then(Json::as_str), Some("docker" | "podman"));
        let args = arguments(report, &place.field("args", node), node, &mut env, is_engine);
        server.insert("args".into(), args.into());
    }
    if !env.is_empty() {
        server.insert("env".into(), env.into());
    }
    Some(server)
}

/// Why a server cannot be kept at all.
fn not_ours(node: &Node) -> Option<&'static str> {
    let kind = node.get("transportType").or_else(|| node.get("type")).and_then(Node::text);
    match kind {
        Some("inline") => Some("its tools are written in the file itself; put them behind a program that speaks MCP"),
        Some("aggregate") => {
            Some("it joins several servers into one; with tollbridge, clients connect to each of them")
        }
        _ if node.get("command").is_none() && node.get("url").is_none() && node.get("serverUrl").is_none() => {
            Some("it has neither `command` nor `url`")
        }
        _ => None,
    }
}

fn field(report: &mut Report, at: &Place, name: &'static str, node: &Node) -> Option<(String, Json)> {
    value(report, at, &Role::Field(name), node, &[]).map(|value| (name.to_owned(), value))
}

/// A directory, unless it is one that only the client knows.
fn directory(report: &mut Report, at: &Place, node: &Node) -> Option<(String, Json)> {
    if node.text().is_some_and(|text| text.contains("${")) {
        report.say(at, "left out: only the client knows this directory; each request gets an empty one");
        return None;
    }
    field(report, at, "cwd", node)
}

/// How a server elsewhere is spoken to; what follows from the other fields is left out.
fn kind(report: &mut Report, at: &Place, node: &Node) -> Option<(String, Json)> {
    let written = node.get("type").unwrap_or(node).text()?.to_ascii_lowercase().replace(['-', '_'], "");
    let kind = match written.as_str() {
        "stdio" | "local" | "remote" => return None,
        "sse" => "sse",
        "http" | "streamable" | "streamablehttp" | "streamableclient" => "http",
        _ => {
            report.say(at, "left out: this transport is unknown; tollbridge finds the right one by itself");
            return None;
        }
    };
    Some(("type".to_owned(), kind.into()))
}

/// How a person gets a token, as mcp-front says it.
fn token_setup(report: &mut Report, at: &Place, node: &Node) -> Json {
    let mut setup = Map::new();
    for (name, node) in node.table() {
        let at = at.field(name, node);
        let ours = match name.as_str() {
            "displayName" | "instructions" | "helpUrl" | "tokenFormat" => name,
            "validation" => "tokenFormat",
            "type" if node.text() == Some("manual") => continue,
            "type" => {
                report.say(&at, "left out: with tollbridge a person pastes a token, or an operator saves it");
                continue;
            }
            _ => {
                report.say(&at, "left out: tollbridge has no such setting");
                continue;
            }
        };
        setup.extend(node.text().map(|text| (ours.to_owned(), Json::from(text))));
    }
    report.say(at, "now `tokenSetup`");
    setup.into()
}

/// A time with its unit; a number says none.
fn timeout(report: &mut Report, at: &Place, node: &Node) -> Option<(String, Json)> {
    let is_time = |text: &&str| {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < text.len() && matches!(unit, "ms" | "s" | "m" | "h")
    };
    let Some(time) = node.text().filter(is_time) else {
        report.say(at, "left out: write `requestTimeout`, with its unit");
        return None;
    };
    report.say(at, "now `requestTimeout`");
    Some(("requestTimeout".to_owned(), time.into()))
}

/// The options of mcp-front.
fn options(report: &mut Report, at: &Place, node: &Node, server: &mut Map<String, Json>) {
    for (name, node) in node.table() {
        let at = at.field(name, node);
        match (name.as_str(), node.get("mode").and_then(Node::text), node.get("list")) {
            ("toolFilter", Some("allow"), Some(list)) => tools(server, "allow", list),
            ("toolFilter", Some("block"), Some(list)) => tools(server, "deny", list),
            ("authTokens", ..) => {
                report.say(&at, "left out: say who may call in `identity`, and who may use this server in `allow`");
            }
            _ => report.say(&at, "left out: tollbridge has no such setting"),
        }
    }
}

fn tools(server: &mut Map<String, Json>, rule: &str, list: &Node) {
    let names: Vec<&str> = list.list().iter().filter_map(Node::text).collect();
    if !names.is_empty() && !matches!(list.data, Data::Null) {
        server.entry("tools").or_insert_with(|| json!({}))[rule] = json!(names);
    }
}
