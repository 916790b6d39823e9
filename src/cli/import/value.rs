//! One value: a secret and what a client would put in become references, everything else stays as it is.

use serde_json::{Value as Json, json};
use url::Url;

use super::report::{Place, Report, variable_name};
use super::tree::{Data, Node};
use crate::config::{named_argument, names_secret, why_secret};

/// What a value is part of, which says how it is called.
pub(super) enum Role<'a> {
    /// The variable of this name.
    Variable(&'a str),
    /// The header of this name.
    Header(&'a str),
    /// An argument, and the one before it.
    Argument(Option<&'a str>),
    /// Any other field, by its name.
    Field(&'a str),
}

impl Role<'_> {
    /// What `text` is called, and the text without its name.
    fn named<'a>(&'a self, text: &'a str) -> (Option<&'a str>, &'a str) {
        match self {
            Self::Variable(name) | Self::Header(name) => (Some(name), text),
            Self::Field(_) => (None, text),
            Self::Argument(before) => match text.split_once(':').filter(|(name, _)| names_secret(name)) {
                // as in `--header "Authorization: Bearer …"`
                Some((name, value)) if !name.contains(['=', ' ', '/']) => (Some(name), value.trim_start()),
                _ => named_argument(*before, text),
            },
        }
    }
}

/// The value at `place` as ours; `None` if it cannot be kept. `own` are the names of its server's own variables.
pub(super) fn value(report: &mut Report, place: &Place, role: &Role<'_>, node: &Node, own: &[&str]) -> Option<Json> {
    let text = match &node.data {
        Data::Text(text) => text.clone(),
        Data::Number(number) => number.clone(),
        Data::Truth(truth) => truth.to_string(),
        Data::Table(fields) => return reference(report, place, fields),
        Data::Null | Data::List(_) => {
            report.say(place, "left out: it is no text");
            return None;
        }
    };
    if let Some(name) = only_expansion(&text) {
        let variable = report.variable(&variable_of(name), &place.server, &text);
        let default = if name.contains(":-") { ", without its default" } else { "" };
        let asked = if name.starts_with("input:") { "the client asked for it" } else { "the client put it in" };
        report.say(place, format!("{asked}; now $env {variable}{default}"));
        return Some(json!({ "$env": variable }));
    }
    let expanded = expansions(&text);
    if expanded.iter().any(|name| !own.contains(name)) {
        let variable = report.variable(&wanted(place, role, &text), &place.server, &text);
        report
            .say(place, format!("the client put parts of it in; now $env {variable}, which must hold the whole text"));
        return Some(json!({ "$env": variable }));
    }
    let (name, bare) = role.named(&text);
    if expanded.is_empty() && is_secret(name, bare, &text) {
        let wanted = if let Role::Variable(name) = role { (*name).to_owned() } else { wanted(place, role, &text) };
        let variable = report.variable(&wanted, &place.server, &text);
        let whole = if matches!(role, Role::Variable(_)) { "" } else { ", which must hold the whole text" };
        report.say(place, format!("a secret; now $env {variable}{whole}"));
        return Some(json!({ "$env": variable }));
    }
    Some(Json::String(text))
}

/// Words of names that only an import takes for those of a secret.
const NAMES: [&str; 5] = ["auth", "bearer", "cookie", "jwt", "session"];

/// How long a word is at least that nobody has made up, and how much of it is in one piece.
const RANDOM: (usize, usize) = (20, 16);

/// `{"$env": …}` and `{"$userToken": …}`, as mcp-front writes them.
fn reference(report: &mut Report, place: &Place, fields: &[(String, Node)]) -> Option<Json> {
    let [(kind, node)] = fields else {
        report.say(place, "left out: it is no text");
        return None;
    };
    match (kind.as_str(), node.text()) {
        ("$env", Some(name)) => {
            let known = report.variable(name, &place.server, &format!("${{{name}}}"));
            if known != name {
                report.say(place, format!("another value has this variable's name; now $env {known}"));
            }
            Some(json!({ "$env": known }))
        }
        ("$userToken", Some(text)) => {
            report.say(place, "{{token}} is now <<token>>");
            Some(json!({ "$userToken": text.replace("{{token}}", "<<token>>") }))
        }
        _ => {
            report.say(place, "left out: this kind of reference is not known here");
            None
        }
    }
}

/// Whether `text`, which is `value` with the name `name` around it, is to be replaced. An import takes more for a secret
/// than `check` warns of: what is none stands in a variable then, which does no harm.
pub(super) fn is_secret(name: Option<&str>, value: &str, text: &str) -> bool {
    let by_name = |name: &str, value: &str| {
        let is_switch = matches!(value, "" | "true" | "false" | "none" | "null");
        let lower = name.to_ascii_lowercase();
        let is_named = names_secret(name) || NAMES.iter().any(|word| lower.contains(word));
        is_named && !is_switch && !value.starts_with('-') && !value.contains("://")
    };
    let in_query = || {
        let url = Url::parse(value).or_else(|_| Url::parse(text)).ok();
        url.is_some_and(|url| url.query_pairs().any(|(name, value)| by_name(&name, &value)))
    };
    let is_credential = ["Bearer ", "Basic ", "bearer ", "basic "].iter().any(|scheme| value.starts_with(scheme));
    why_secret(name, value, text).is_some()
        || is_credential
        || name.is_some_and(|name| by_name(name, value))
        || in_query()
        || is_random(value)
}

/// Whether `value` is one word with a long piece of letters and digits, as keys without a shape of their own are.
fn is_random(value: &str) -> bool {
    let (word, piece) = RANDOM;
    let is_mixed = |piece: &str| {
        let digits = piece.bytes().filter(u8::is_ascii_digit).count();
        digits >= 2 && piece.len() - digits >= 2
    };
    value.len() >= word
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte))
        && value.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part.len() >= piece && is_mixed(part))
}

/// The name inside `${…}`, if `text` is nothing else.
fn only_expansion(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("${")?.strip_suffix('}')?;
    (!inside.contains('}') && (is_of_environment(inside) || inside.starts_with("input:"))).then_some(inside)
}

/// Whether `${inside}` is the value of a variable, or asked of a person; others are paths that only the client knows.
fn is_of_environment(inside: &str) -> bool {
    const PATHS: [&str; 5] = ["workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "/"];
    let name = inside.strip_prefix("env:").unwrap_or(inside);
    !PATHS.contains(&name) && !name.split(":-").next().unwrap_or_default().contains(':')
}

/// What stands inside of each `${…}` in `text`.
fn expansions(text: &str) -> Vec<&str> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}').map(|(inside, _)| inside)).collect()
}

/// The variable that `${inside}` names.
fn variable_of(inside: &str) -> String {
    if let Some(id) = inside.strip_prefix("input:") {
        return variable_name(&[id]);
    }
    let name = inside.strip_prefix("env:").unwrap_or(inside);
    name.split(":-").next().unwrap_or(name).to_owned()
}

/// The name of a variable for what stands at `place`.
fn wanted(place: &Place, role: &Role<'_>, text: &str) -> String {
    let named = match role {
        Role::Variable(name) | Role::Header(name) | Role::Field(name) => Some(*name),
        Role::Argument(_) => role.named(text).0,
    };
    let is_name = |name: &&str| name.len() <= 40 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    variable_name(&[&place.server, named.filter(is_name).unwrap_or("ARGUMENT")])
}
