//! `scripted`: an MCP server on stdio that says what a file says, for what no library would write.
//!
//! `scripted FILE`. The file is a JSON object of texts by method: a request is answered with the lines of its method's text,
//! any other with -32601, and a notification with nothing. In a line `@id@` is the request's id, `@line@` the request as it
//! was read, within a string, and `@heard@` likewise what was heard last. A line `@wait@` waits for what is heard next.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use serde_json::Value;

fn main() {
    let file = std::env::args().nth(1).expect("a file");
    let script = std::fs::read_to_string(file).expect("the file can be read");
    let script: HashMap<String, String> = serde_json::from_str(&script).expect("an object of texts");
    let mut input = std::io::stdin().lock().lines();
    while let Some(Ok(line)) = input.next() {
        let id = id(&line);
        let method = method(&line);
        if id.is_empty() {
            continue;
        }
        let unknown = r#"{"jsonrpc":"2.0","id":@id@,"error":{"code":-32601,"message":"Method not found"}}"#;
        let mut heard = String::new();
        for said in script.get(&method).map_or(unknown, String::as_str).lines() {
            if said == "@wait@" {
                heard = input.next().and_then(Result::ok).unwrap_or_default();
                continue;
            }
            let quoted = |text: &str| Value::from(text).to_string();
            let said = said.replace("@id@", &id).replace("@line@", &quoted(&line)).replace("@heard@", &quoted(&heard));
            writeln!(std::io::stdout(), "{said}").expect("somebody reads");
        }
    }
}

/// The method of a message, which may hold numbers that no parser takes.
fn method(line: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Method {
        method: Option<String>,
    }
    serde_json::from_str::<Method>(line).ok().and_then(|message| message.method).unwrap_or_default()
}

/// Its id as written; empty if it has none.
fn id(line: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: Option<&'a serde_json::value::RawValue>,
    }
    serde_json::from_str::<Id<'_>>(line)
        .ok()
        .and_then(|message| message.id)
        .map_or_else(String::new, |id| id.get().into())
}
