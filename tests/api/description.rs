//! The description of the API, to which answers are held, and what of it has been seen.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Value, json};

use crate::program::Answer;

/// A kind of answer: the operation, the status and the type of problem.
type Kind = (String, u16, String);

/// The description, and the kinds of answers that have been seen.
pub(crate) struct Description {
    document: Value,
    seen: BTreeSet<Kind>,
}

impl Description {
    pub(crate) fn of(document: Value) -> Self {
        Self { document, seen: BTreeSet::new() }
    }

    /// Holds an answer to what is said of it.
    pub(crate) fn check(&mut self, method: &str, path: &str, answer: Answer) -> Answer {
        let path = path.split('?').next().unwrap_or_default();
        let templates = self.document["paths"].as_object().expect("there are paths").keys();
        let fits = |template: &&String| {
            let pattern = Regex::new("\\{[a-z]+\\}").expect("an expression").replace_all(template, "[^/]+");
            Regex::new(&format!("^{pattern}$")).expect("an expression").is_match(path)
        };
        let template = templates.clone().find(fits).unwrap_or_else(|| panic!("{path} is not described")).clone();
        let operation = &self.document["paths"][&template][method.to_lowercase()];
        let told = self.followed(&operation["responses"][answer.status.to_string()]);
        assert!(told.is_object(), "{method} {template} is not said to answer {answer:?}");
        for (name, header) in told["headers"].as_object().into_iter().flatten() {
            let is_there = !answer.header(&name.to_lowercase()).is_empty();
            assert!(is_there || header["required"] != true, "{method} {template}: no {name}: {answer:?}");
        }
        match told["content"].as_object().and_then(|content| content.iter().next()) {
            Some((content_type, body)) => {
                assert_eq!(answer.header("content-type"), content_type, "{method} {template}");
                let schema = json!({ "components": self.document["components"], "allOf": [body["schema"]] });
                let validator = jsonschema::validator_for(&schema).expect("a schema");
                let faults: Vec<String> =
                    validator.iter_errors(&answer.json()).map(|fault| fault.to_string()).collect();
                assert!(faults.is_empty(), "{method} {template}: {faults:?}: {answer:?}");
            }
            None => assert_eq!(answer.text, "", "{method} {template}"),
        }
        let kind = (format!("{method} {template}"), answer.status, answer.problem().unwrap_or_default());
        self.seen.insert(kind);
        answer
    }

    /// What it says of answers that nobody has seen.
    pub(crate) fn unseen(&self) -> Vec<Kind> {
        self.described().difference(&self.seen).cloned().collect()
    }

    fn described(&self) -> BTreeSet<Kind> {
        let mut all = BTreeSet::new();
        for (path, operations) in self.document["paths"].as_object().expect("there are paths") {
            for (method, operation) in operations.as_object().expect("an object") {
                for (status, told) in operation["responses"].as_object().into_iter().flatten() {
                    let problem = &self.followed(told)["content"]["application/problem+json"]["schema"]["allOf"][1];
                    let types = problem["properties"]["type"]["enum"].as_array().cloned().unwrap_or(vec![json!("")]);
                    for problem in types {
                        let name = problem.as_str().expect("text").rsplit(':').next().unwrap_or_default().to_owned();
                        let operation = format!("{} {path}", method.to_uppercase());
                        all.insert((operation, status.parse().expect("a status"), name));
                    }
                }
            }
        }
        all
    }

    /// What a reference leads to.
    fn followed<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).expect("it leads somewhere"),
            None => value,
        }
    }
}
