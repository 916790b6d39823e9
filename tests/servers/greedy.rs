//! `greedy`: a legacy MCP server on stdio that asks for much of the bridge's memory.
//!
//! `greedy BEHAVIOUR [kib=N] [marker=TEXT]`:
//!
//! | behaviour | what it does |
//! |---|---|
//! | `large` | answers each call with a text of so many KiB, or of as many as the argument `kib` of the call says |
//! | `keys` | answers each call with an object of as many keys as there are in so many KiB |
//! | `schema` | has one tool, with a schema of as many elements as there are in so many KiB |
//! | `waits` | tells its progress when it is called, and answers nothing |
//! | `introduces` | says so much of itself when it is met |
//! | `states` | is modern; on a call, asks for the roots once, with a state so long to be brought back |
//! | `asks` | on a call, asks by elicitation without end and without a pause, each question so long, and reads nothing |
//! | `pings` | on a call, pings without end, each with so much in it, and reads nothing |
//! | `announces` | before it answers `initialize`, a hundred notifications, each so long |

use std::fmt::Display;
use std::io::{BufRead, Write};

use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kib = arguments.iter().find_map(|argument| argument.strip_prefix("kib=")?.parse().ok()).unwrap_or(1);
    let behaviour = arguments.first().map_or("", String::as_str);
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let (id, params) = (&message["id"], &message["params"]);
        match message["method"].as_str() {
            Some("initialize") if behaviour != "states" => {
                if behaviour == "announces" {
                    let params = json!({ "level": "info", "data": text(kib) });
                    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
                    (0..100).for_each(|_| say(&note));
                }
                let (version, about) = (&params["protocolVersion"], json!({ "name": "greedy", "version": "1" }));
                let instructions = text(if behaviour == "introduces" { kib } else { 0 });
                let capabilities = json!({ "tools": {}, "logging": {} });
                result(
                    id,
                    &json!({ "protocolVersion": version, "capabilities": capabilities, "serverInfo": about, "instructions": instructions }),
                );
            }
            Some("server/discover") if behaviour == "states" => result(id, &discovered()),
            Some("tools/list") if behaviour == "schema" => {
                let elements = "0,".repeat(kib << 9);
                say(&format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{{"name":"x","inputSchema":{{"x-mcp-header":"x","default":[{elements}0]}}}}]}}}}"#
                ));
            }
            Some("tools/call") => match behaviour {
                "waits" => {
                    let params = json!({ "progressToken": params["_meta"]["progressToken"], "progress": 1 });
                    say(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }));
                }
                "keys" => {
                    let keys: Vec<_> = (0..kib << 6).map(|key| format!(r#""{key:012}":0"#)).collect();
                    say(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{}}}}}"#, keys.join(",")));
                }
                "states" => result(id, &wanted_back(kib)),
                "asks" => ask_without_end("elicitation/create", kib),
                "pings" => ask_without_end("ping", kib),
                _ => {
                    let kib = params["arguments"]["kib"].as_u64().map_or(kib, |kib| usize::try_from(kib).unwrap_or(0));
                    result(id, &json!({ "content": [{ "type": "text", "text": text(kib) }] }));
                }
            },
            Some(_) if !id.is_null() => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                say(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
            }
            _ => {}
        }
    }
}

/// What a modern server says of itself.
fn discovered() -> Value {
    let about = json!({ "name": "greedy", "version": "1" });
    json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "serverInfo": about })
}

/// A question, with so much to be brought back.
fn wanted_back(kib: usize) -> Value {
    let questions = json!({ "k": { "method": "roots/list", "params": {} } });
    json!({ "resultType": "input_required", "inputRequests": questions, "requestState": text(kib) })
}

fn text(kib: usize) -> String {
    "x".repeat(kib << 10)
}

/// Asks for as long as somebody listens.
fn ask_without_end(method: &str, kib: usize) {
    let schema = json!({ "type": "object", "properties": {} });
    let params = json!({ "message": text(kib), "requestedSchema": schema }).to_string();
    let mut out = std::io::stdout().lock();
    for number in 0_u64.. {
        let question =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":\"q{number}\",\"method\":\"{method}\",\"params\":{params}}}\n");
        if out.write_all(question.as_bytes()).is_err() {
            return;
        }
    }
}

fn result(id: &Value, result: &Value) {
    say(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
}

/// One line on stdout; nobody listening is none of its business.
fn say(message: &impl Display) {
    let _ = std::io::stdout().write_all(format!("{message}\n").as_bytes());
}
