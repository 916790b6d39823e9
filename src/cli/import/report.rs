//! What an import says on stderr, and the variables that stand for what it does not print.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use super::tree::Node;
use crate::telemetry::encode_for_log;

/// Where something stands in the file that is imported.
#[derive(Clone)]
pub(super) struct Place {
    /// The name of its server, as it will be.
    pub server: String,
    /// `mcpServers.notion.env.TOKEN`.
    pub path: String,
    /// From 1.
    pub line: usize,
}

impl Place {
    /// The field `name` here, which is `node`.
    pub(super) fn field(&self, name: &str, node: &Node) -> Self {
        Self { server: self.server.clone(), path: format!("{}.{name}", self.path), line: node.line }
    }

    /// The element `index` here, which is `node`.
    pub(super) fn item(&self, index: usize, node: &Node) -> Self {
        Self { server: self.server.clone(), path: format!("{}[{index}]", self.path), line: node.line }
    }
}

/// What was changed and what cannot be kept, without a single value of the file.
#[derive(Default)]
pub(super) struct Report {
    said: Vec<(usize, String)>,
    /// The variables by name, and the text that each stands for.
    variables: BTreeMap<String, String>,
}

impl Report {
    /// Something is to be said of what stands at `place`.
    pub(super) fn say(&mut self, place: &Place, what: impl Display) {
        let said = format!("line {}: {}: {what}", place.line, place.path);
        self.said.push((place.line, encode_for_log(&said).into_owned()));
    }

    /// The name of the variable that stands for `text`: the wanted one, unless that stands for something else already.
    pub(super) fn variable(&mut self, wanted: &str, server: &str, text: &str) -> String {
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let wanted = if is_name(wanted) { wanted.to_owned() } else { variable_name(&[wanted]) };
        let longer = variable_name(&[server, &wanted]);
        let numbered = (2..).map(|number| format!("{longer}_{number}"));
        let mut names = [wanted, longer.clone()].into_iter().chain(numbered);
        let free = |name: &String| self.variables.get(name).is_none_or(|other| other == text);
        let name = names.find(free).expect("there are more numbers than variables");
        self.variables.insert(name.clone(), text.to_owned());
        name
    }

    /// The names of all variables.
    pub(super) fn variables(&self) -> Vec<&str> {
        self.variables.keys().map(String::as_str).collect()
    }
}

/// One line for each thing, in the order of the file.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<_> = self.said.iter().collect();
        said.sort_by_key(|(line, _)| *line);
        said.into_iter().try_for_each(|(_, text)| writeln!(f, "{text}"))
    }
}

/// The name of a variable made of these words: `my-server`, `apiKey` give `MY_SERVER_API_KEY`.
pub(super) fn variable_name(parts: &[&str]) -> String {
    let mut name = String::new();
    let mut after_small = false;
    for c in parts.join("_").chars() {
        if !c.is_ascii_alphanumeric() || (after_small && c.is_ascii_uppercase()) {
            name.push('_');
        }
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_uppercase());
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
    let name = words.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() { format!("MCP_{name}") } else { name }
}
