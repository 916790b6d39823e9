//! Arguments and variables of a program. What a container engine would show in ps moves to the variables.

use serde_json::{Map, Value as Json, json};

use super::report::{Place, Report};
use super::tree::Node;
use super::value::{Role, is_secret, value};

/// The `env` at `place`.
pub(super) fn variables(report: &mut Report, place: &Place, env: &Node) -> Map<String, Json> {
    let mut variables = Map::new();
    for (name, node) in env.table() {
        let kept = value(report, &place.field(name, node), &Role::Variable(name), node, &[]);
        variables.extend(kept.map(|kept| (name.clone(), kept)));
    }
    variables
}

/// The `headers` at `place`.
pub(super) fn headers(report: &mut Report, place: &Place, headers: &Node) -> Map<String, Json> {
    let mut kept = Map::new();
    for (name, node) in headers.table() {
        let header = value(report, &place.field(name, node), &Role::Header(name), node, &[]);
        kept.extend(header.map(|header| (name.clone(), header)));
    }
    kept
}

/// The `args` at `place`; the secrets of `docker run -e NAME=VALUE` go to `env`.
pub(super) fn arguments(
    report: &mut Report,
    place: &Place,
    args: &Node,
    env: &mut Map<String, Json>,
    is_engine: bool,
) -> Vec<Json> {
    let mut kept = Vec::new();
    let mut before: Option<&str> = None;
    for (index, node) in args.list().iter().enumerate() {
        let place = place.item(index, node);
        let text = node.text();
        match text.filter(|_| is_engine).and_then(|text| assignment(before, text)) {
            Some((option, name, text)) if is_secret(Some(name), text, text) && !env.contains_key(name) => {
                let variable = report.variable(name, &place.server, text);
                report.say(&place, format!("a secret; now the variable {name} in `env`, as $env {variable}"));
                kept.extend(option.map(Json::from));
                kept.push(name.into());
                env.insert(name.to_owned(), json!({ "$env": variable }));
            }
            _ => {
                let own: Vec<&str> = env.keys().map(String::as_str).collect();
                kept.extend(value(report, &place, &Role::Argument(before), node, &own));
            }
        }
        before = text;
    }
    kept
}

/// The name and the value of `-e NAME=VALUE`, and the option itself if it is in the same argument.
fn assignment<'a>(before: Option<&str>, text: &'a str) -> Option<(Option<&'static str>, &'a str, &'a str)> {
    let (option, rest) = match before {
        Some("-e" | "--env") => (None, text),
        _ => (Some("-e"), text.strip_prefix("--env=").or_else(|| text.strip_prefix("-e"))?),
    };
    let (name, value) = rest.split_once('=')?;
    Some((option, name, value))
}
