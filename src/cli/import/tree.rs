//! A foreign file as a tree that knows its lines, whatever it was written in.

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// A value and where it stands.
pub(super) struct Node {
    /// The line of the value, or of its name if it has one; from 1.
    pub line: usize,
    /// What stands there.
    pub data: Data,
}

/// What may stand in such a file.
pub(super) enum Data {
    /// Nothing.
    Null,
    /// True or false.
    Truth(bool),
    /// A number, as text.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Named values in the order of the file.
    Table(Vec<(String, Node)>),
}

/// A line, and why the file cannot be read from there on.
pub(super) type Unreadable = (usize, String);

impl Node {
    /// The value called `name`: the last, if there are several.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.table().iter().rfind(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The named values; none if it is no table.
    pub(super) fn table(&self) -> &[(String, Self)] {
        match &self.data {
            Data::Table(fields) => fields,
            _ => &[],
        }
    }

    /// The values; none if it is no list.
    pub(super) fn list(&self) -> &[Self] {
        match &self.data {
            Data::List(values) => values,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it says `truth`.
    pub(super) fn is(&self, truth: bool) -> bool {
        matches!(self.data, Data::Truth(said) if said == truth)
    }

    fn at(self, line: usize) -> Self {
        Self { line, ..self }
    }
}

/// Reads JSON, with the comments and trailing commas that clients allow.
pub(super) fn json(source: &str) -> Result<Node, Unreadable> {
    let line = |place: usize| 1 + memchr::memchr_iter(b'\n', &source.as_bytes()[..place.min(source.len())]).count();
    match parse_to_ast(source, &CollectOptions::default(), &ParseOptions::default()) {
        Ok(parsed) => Ok(parsed.value.map_or(Node { line: 1, data: Data::Null }, |root| of_json(&root, &line))),
        Err(error) => Err((line(error.range().start), format!("this is not JSON: {}", error.kind()))),
    }
}

fn of_json(value: &Value<'_>, line: &impl Fn(usize) -> usize) -> Node {
    let data = match value {
        Value::StringLit(text) => Data::Text(text.value.to_string()),
        Value::NumberLit(number) => Data::Number(number.value.to_owned()),
        Value::BooleanLit(truth) => Data::Truth(truth.value),
        Value::NullKeyword(_) => Data::Null,
        Value::Array(array) => Data::List(array.elements.iter().map(|element| of_json(element, line)).collect()),
        Value::Object(object) => {
            let field = |prop: &jsonc_parser::ast::ObjectProp<'_>| {
                (prop.name.as_str().to_owned(), of_json(&prop.value, line).at(line(prop.range().start)))
            };
            Data::Table(object.properties.iter().map(field).collect())
        }
    };
    Node { line: line(value.range().start), data }
}

/// Reads YAML: the first document.
pub(super) fn yaml(source: &str) -> Result<Node, Unreadable> {
    let documents = MarkedYaml::load_from_str(source);
    // The error's own text may hold some of the file's.
    let documents = documents.map_err(|error| (error.marker().line(), "this is not YAML".to_owned()))?;
    Ok(documents.first().map_or(Node { line: 1, data: Data::Null }, of_yaml))
}

fn of_yaml(node: &MarkedYaml<'_>) -> Node {
    let data = match &node.data {
        YamlData::Value(Scalar::Boolean(truth)) => Data::Truth(*truth),
        YamlData::Value(Scalar::Integer(number)) => Data::Number(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Data::Number(number.to_string()),
        YamlData::Value(Scalar::String(text)) => Data::Text(text.to_string()),
        YamlData::Sequence(values) => Data::List(values.iter().map(of_yaml).collect()),
        YamlData::Tagged(_, node) => return of_yaml(node),
        YamlData::Mapping(fields) => {
            let field = |(key, value): (&MarkedYaml<'_>, &MarkedYaml<'_>)| {
                let Data::Text(name) = of_yaml(key).data else { return None };
                Some((name, of_yaml(value).at(key.span.start.line())))
            };
            Data::Table(fields.iter().filter_map(field).collect())
        }
        _ => Data::Null,
    };
    Node { line: node.span.start.line(), data }
}
