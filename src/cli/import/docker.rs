//! The servers of a catalogue of Docker's MCP gateway. What its gateway reads from files of its own becomes variables.

use serde_json::{Map, Value as Json, json};

use super::program::headers;
use super::report::{Place, Report, variable_name};
use super::tree::Node;
use super::value::{Role, value};

/// Fields that only tell people about a server, or say what follows from others here.
const TELLING: &[&str] = &[
    "config",
    "dateAdded",
    "description",
    "icon",
    "metadata",
    "name",
    "prefix",
    "prompts",
    "readme",
    "ref",
    "resources",
    "source",
    "title",
    "tools",
    "toolsUrl",
    "type",
    "upstream",
];

/// The server at `place` as ours; `None` if it cannot be kept.
pub(super) fn server(report: &mut Report, place: &Place, node: &Node) -> Option<Map<String, Json>> {
    if ["image", "remote", "sseEndpoint"].iter().all(|name| node.get(name).is_none()) {
        report.say(place, "cannot be kept: it names neither an image nor a URL");
        return None;
    }
    let is_elsewhere = node.get("image").is_none();
    let mut server = Map::new();
    let mut env = Map::new();
    for (name, node) in node.table() {
        let at = place.field(name, node);
        match name.as_str() {
            "image" => server.extend(filled(report, &at, &Role::Field(name), node).map(|image| (name.clone(), image))),
            "user" if node.text().is_some_and(|user| !user.contains("{{")) => {
                server.extend(node.text().map(|user| (name.clone(), user.into())));
            }
            "user" => report.say(&at, "left out: write who runs in the container, as text"),
            "remote" => remote(report, &at, node, &mut server),
            "sseEndpoint" => {
                server.extend(filled(report, &at, &Role::Field("url"), node).map(|url| ("url".to_owned(), url)));
                server.insert("type".into(), "sse".into());
            }
            "command" => {
                let args = node.list().iter().enumerate();
                let args =
                    args.filter_map(|(index, node)| filled(report, &at.item(index, node), &Role::Argument(None), node));
                let args: Vec<Json> = args.collect();
                server.insert("args".into(), args.into());
            }
            "env" if is_elsewhere => report.say(&at, "left out: a server that is reached by its URL gets no variables"),
            "env" => {
                for node in node.list() {
                    let Some((name, text)) = node.get("name").and_then(Node::text).zip(node.get("value")) else {
                        continue;
                    };
                    let kept = filled(report, &at.field(name, node), &Role::Variable(name), text);
                    env.extend(kept.map(|kept| (name.to_owned(), kept)));
                }
            }
            // Its headers hold them, and have variables of their own.
            "secrets" if is_elsewhere => {}
            "secrets" => node.list().iter().for_each(|node| env.extend(secret(report, &at, node))),
            "disableNetwork" if node.is(true) => drop(server.insert("network".into(), "none".into())),
            "disableNetwork" => {}
            "volumes" => report.say(&at, "left out: write `mounts`, as source:target"),
            "allowHosts" => {
                report.say(&at, "left out: to limit what it reaches, give it a `network` that leads nowhere else");
            }
            "oauth" => {
                report.say(&at, "left out: with tollbridge a person pastes a token; write `$userToken` where it goes");
            }
            "longLived" => report.say(&at, "left out: each request has a server of its own"),
            telling if TELLING.contains(&telling) => {}
            _ => report.say(&at, "left out: tollbridge has no such setting"),
        }
    }
    if !env.is_empty() {
        server.insert("env".into(), env.into());
    }
    Some(server)
}

/// A value in which the gateway fills `{{server.setting}}`.
fn filled(report: &mut Report, at: &Place, role: &Role<'_>, node: &Node) -> Option<Json> {
    let Some((_, hole)) = node.text().and_then(|text| text.split_once("{{")) else {
        return value(report, at, role, node, &[]);
    };
    let setting = hole.split(['}', '|']).next().unwrap_or_default();
    let wanted = match role {
        Role::Variable(name) => (*name).to_owned(),
        _ => variable_name(&[setting]),
    };
    let variable = report.variable(&wanted, &at.server, node.text().unwrap_or_default());
    report
        .say(at, format!("Docker's gateway put a value in here; now $env {variable}, which must hold the whole text"));
    Some(json!({ "$env": variable }))
}

/// The variable that holds a secret of the gateway's.
fn secret(report: &mut Report, at: &Place, node: &Node) -> Option<(String, Json)> {
    let name = node.get("env").and_then(Node::text)?;
    let stored = node.get("name").and_then(Node::text).unwrap_or(name);
    let place = at.field(name, node);
    let variable = report.variable(name, &place.server, stored);
    report.say(&place, format!("a secret that Docker's gateway kept; now $env {variable}"));
    Some((name.to_owned(), json!({ "$env": variable })))
}

/// A server elsewhere.
fn remote(report: &mut Report, at: &Place, node: &Node, server: &mut Map<String, Json>) {
    for (name, node) in node.table() {
        let at = at.field(name, node);
        match (name.as_str(), node.text()) {
            ("url", _) => {
                server.extend(filled(report, &at, &Role::Field("url"), node).map(|url| ("url".to_owned(), url)));
            }
            ("transport_type", Some("sse")) => drop(server.insert("type".into(), "sse".into())),
            ("transport_type", Some("http" | "streamable-http")) => drop(server.insert("type".into(), "http".into())),
            // Entries that say so lead to servers of both kinds.
            ("transport_type", Some("streaming" | "streamable")) => {}
            ("headers", _) => drop(server.insert("headers".into(), headers(report, &at, node).into())),
            _ => report.say(&at, "left out: tollbridge has no such setting"),
        }
    }
}
