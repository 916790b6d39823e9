//! `asker`: a legacy MCP server on stdio whose tools ask their client before they answer.
//!
//! `asker DIRECTORY [marker=TEXT]`. What a call does outside of its process is a line in a file of DIRECTORY, so that a
//! test sees how often it was done:
//!
//! | tool | arguments | what it does |
//! |---|---|---|
//! | `ask` | `name`, `times` | writes `NAME PID` to `effects`, asks that many times by elicitation, and answers `PID: ANSWER ANSWER …` |
//! | `ask` | `quotes` | the same, with that many quotation marks behind the answers |
//! | `ask` | `then: "hang"` | the same, but writes `NAME` to `hangs` when it has its answers, and never answers |
//! | `wait` | `name` | writes `NAME` to `waits`, waits until its call is cancelled, and writes `NAME REQUEST-ID` to `cancelled` |

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

/// A call of `ask` that has not been answered.
struct Asking {
    id: Value,
    name: String,
    times: usize,
    hangs: bool,
    quotes: usize,
    answers: Vec<String>,
}

struct Server {
    directory: PathBuf,
    asking: Option<Asking>,
    /// The names of calls that wait, by their ids as written.
    waiting: HashMap<String, String>,
}

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).expect("a directory"));
    let mut server = Server { directory, asking: None, waiting: HashMap::new() };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        if let Ok(message) = serde_json::from_str::<Value>(&line) {
            server.take(&message);
        }
    }
}

impl Server {
    fn take(&mut self, message: &Value) {
        let (id, params) = (&message["id"], &message["params"]);
        match message["method"].as_str() {
            Some("initialize") => {
                let version = &params["protocolVersion"];
                let about = json!({ "name": "asker", "version": "1" });
                result(
                    id,
                    &json!({ "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": about }),
                );
            }
            Some("tools/call") if params["name"] == "wait" => {
                let name = text(&params["arguments"]["name"]);
                self.waiting.insert(id.to_string(), name.clone());
                self.write("waits", &name);
            }
            Some("tools/call") => self.ask_for(id, &params["arguments"]),
            Some("notifications/cancelled") => {
                let cancelled = params["requestId"].to_string();
                if let Some(name) = self.waiting.remove(&cancelled) {
                    self.write("cancelled", &format!("{name} {cancelled}"));
                }
            }
            Some(_) if !id.is_null() => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                say(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
            }
            Some(_) => {}
            None => self.take_answer(id, message),
        }
    }

    fn ask_for(&mut self, id: &Value, arguments: &Value) {
        let number = |name: &str| arguments[name].as_u64().map(|n| usize::try_from(n).expect("a small number"));
        let (times, quotes) = (number("times").unwrap_or(1), number("quotes").unwrap_or(0));
        let (name, hangs) = (text(&arguments["name"]), arguments["then"] == "hang");
        self.write("effects", &format!("{name} {}", std::process::id()));
        self.asking = Some(Asking { id: id.clone(), name, times, hangs, quotes, answers: Vec::new() });
        self.ask_or_answer();
    }

    fn ask_or_answer(&mut self) {
        let Some(asking) = &self.asking else { return };
        if asking.answers.len() < asking.times {
            let number = asking.answers.len() + 1;
            let schema = json!({ "type": "object", "properties": { "answer": { "type": "string" } } });
            let message = format!("{} {number}", asking.name);
            let params = json!({ "message": message, "requestedSchema": schema });
            say(&json!({ "jsonrpc": "2.0", "id": number, "method": "elicitation/create", "params": params }));
        } else if asking.hangs {
            self.write("hangs", &asking.name);
        } else {
            let quotes = "\"".repeat(asking.quotes);
            let answer = format!("{}: {}{quotes}", std::process::id(), asking.answers.join(" "));
            result(&asking.id, &json!({ "content": [{ "type": "text", "text": answer }] }));
        }
    }

    fn take_answer(&mut self, id: &Value, message: &Value) {
        let Some(asking) = &mut self.asking else { return };
        if *id != json!(asking.answers.len() + 1) {
            return;
        }
        let answer = message.pointer("/result/content/answer").or_else(|| message.pointer("/error/message"));
        asking.answers.push(answer.map_or_else(|| "none".to_owned(), text));
        self.ask_or_answer();
    }

    fn write(&self, file: &str, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.directory.join(file));
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("a writable directory");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn result(id: &Value, result: &Value) {
    say(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
}

/// One line on stdout in one write; nobody listening is none of its business.
fn say(message: &Value) {
    let _ = std::io::stdout().write_all(format!("{message}\n").as_bytes());
}
