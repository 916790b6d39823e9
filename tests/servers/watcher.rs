//! `watcher`: an MCP server on stdio whose resources live outside of it, so that every process of it sees them change.
//!
//! `watcher DIRECTORY [era=modern] [noisy] [marker=TEXT]`. Each line that is appended to `DIRECTORY/events` while a
//! process runs makes that process say something; what it reads on stdin is appended to `DIRECTORY/heard.PID`, line by
//! line.
//!
//! | event | what is said |
//! |---|---|
//! | `updated URI` | `notifications/resources/updated`, by a legacy process if it was subscribed to |
//! | `list AREA` | `notifications/AREA/list_changed` |
//! | `log LEVEL` | `notifications/message`, by a legacy process if the level that was set allows it |
//! | `say JSON` | that line |
//! | `exit` | nothing any more |
//!
//! A call of `change` says that the tools have changed, and a process that is `noisy` says that of its prompts once it
//! is initialized. A subscription to `no:…` is refused. A modern process acknowledges every `subscriptions/listen` and
//! then says everything, whatever was asked for.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Between two looks at the events.
const LOOK: Duration = Duration::from_millis(10);
/// The severities, least severe first.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// `_meta` of what belongs to a subscription.
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

struct Server {
    directory: PathBuf,
    is_modern: bool,
    is_noisy: bool,
    level: String,
    subscriptions: Vec<String>,
    listening: Option<Value>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let arguments: Vec<String> = arguments.collect();
    let [is_modern, is_noisy] = ["era=modern", "noisy"].map(|name| arguments.iter().any(|argument| argument == name));
    let (level, subscriptions) = ("debug".into(), Vec::new());
    let server = Server { directory, is_modern, is_noisy, level, subscriptions, listening: None };
    let (seen, server) = (length(&server.directory), Arc::new(Mutex::new(server)));
    let watching = Arc::clone(&server);
    std::thread::spawn(move || watch(&watching, seen));
    let heard = server.lock().expect("no panic").directory.join(format!("heard.{}", std::process::id()));
    let mut heard: File = OpenOptions::new().create(true).append(true).open(heard).expect("a writable directory");
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        server.lock().expect("no panic").take(&message);
        writeln!(heard, "{line}").expect("a writable directory");
    }
}

fn length(directory: &Path) -> usize {
    std::fs::read(directory.join("events")).map_or(0, |events| events.len())
}

fn watch(server: &Mutex<Server>, mut seen: usize) {
    let events = server.lock().expect("no panic").directory.join("events");
    loop {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        while let Some(end) = text.get(seen..).and_then(|rest| rest.find('\n')) {
            server.lock().expect("no panic").happens(&text[seen..seen + end]);
            seen += end + 1;
        }
        std::thread::sleep(LOOK);
    }
}

impl Server {
    fn happens(&self, event: &str) {
        let (kind, rest) = event.split_once(' ').unwrap_or((event, ""));
        match kind {
            "updated" if self.is_modern || self.subscriptions.iter().any(|uri| uri == rest) => {
                self.notify("notifications/resources/updated", json!({ "uri": rest }));
            }
            "list" => self.notify(&format!("notifications/{rest}/list_changed"), json!({})),
            "log" if rank(rest) >= rank(&self.level) => {
                self.notify("notifications/message", json!({ "level": rest, "data": "logged" }));
            }
            "say" => say(rest),
            "exit" => std::process::exit(3),
            _ => {}
        }
    }

    fn notify(&self, method: &str, mut params: Value) {
        match &self.listening {
            Some(id) => params["_meta"] = json!({ SUBSCRIPTION_ID: id }),
            None if self.is_modern => return,
            None => {}
        }
        say(&json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string());
    }

    fn take(&mut self, message: &Value) {
        let Some(method) = message["method"].as_str() else { return };
        let (id, params) = (&message["id"], &message["params"]);
        let uri = params["uri"].as_str().unwrap_or_default();
        match method {
            "notifications/cancelled" if self.listening.as_ref() == Some(&params["requestId"]) => self.listening = None,
            "notifications/initialized" if self.is_noisy => self.happens("list prompts"),
            _ if id.is_null() => {}
            "server/discover" if self.is_modern => result(id, &discovered()),
            "subscriptions/listen" if self.is_modern => {
                self.listening = Some(id.clone());
                self.notify(
                    "notifications/subscriptions/acknowledged",
                    json!({ "notifications": params["notifications"] }),
                );
            }
            _ if self.is_modern && params["_meta"]["io.modelcontextprotocol/protocolVersion"].is_null() => {
                error(id, -32602, "params._meta is required");
            }
            "initialize" if !self.is_modern => {
                let mut answer = discovered();
                answer["protocolVersion"] = params["protocolVersion"].clone();
                result(id, &answer);
            }
            "resources/subscribe" if !self.is_modern && !uri.starts_with("no:") => {
                self.subscriptions.push(uri.to_owned());
                result(id, &json!({}));
            }
            "resources/unsubscribe" if !self.is_modern => {
                self.subscriptions.retain(|subscribed| subscribed != uri);
                result(id, &json!({}));
            }
            "logging/setLevel" if !self.is_modern => {
                params["level"].as_str().unwrap_or_default().clone_into(&mut self.level);
                result(id, &json!({}));
            }
            "tools/list" => result(id, &json!({ "tools": [{ "name": "act", "inputSchema": { "type": "object" } }] })),
            "tools/call" if params["name"] == "change" => {
                self.happens("list tools");
                result(id, &json!({ "content": [] }));
            }
            "tools/call" => result(id, &json!({ "content": [{ "type": "text", "text": self.level }] })),
            "ping" if !self.is_modern => result(id, &json!({})),
            _ => error(id, -32601, "Method not found"),
        }
    }
}

/// What it says of itself in either era.
fn discovered() -> Value {
    json!({
        "supportedVersions": ["2026-07-28"], "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
        "serverInfo": { "name": "watcher", "version": "1" },
        "capabilities": {
            "logging": {}, "tools": { "listChanged": true }, "prompts": {},
            "resources": { "subscribe": true, "listChanged": true },
        },
    })
}

fn rank(level: &str) -> Option<usize> {
    LEVELS.iter().position(|name| *name == level)
}

fn result(id: &Value, result: &Value) {
    say(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string());
}

fn error(id: &Value, code: i64, message: &str) {
    say(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string());
}

/// One line on stdout in one write; nobody listening is none of its business.
fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}
