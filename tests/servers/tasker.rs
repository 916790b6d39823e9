//! `tasker`: an MCP server on stdio whose tool answers with a task, of whichever era its client is.
//!
//! `tasker DIRECTORY [durable] [marker=TEXT]`. Its tasks are in its memory, or as `durable` in files of DIRECTORY, where each
//! process finds them; their ids are `task-1`, `task-2`, … as the server counts, so that anybody can guess them. What it
//! hears is a line in a file of DIRECTORY.
//!
//! | request | what it does |
//! |---|---|
//! | `tools/call` of `work` | writes `PID` to `begun`, and answers with a task that works; a legacy client that wants none gets a text |
//! | `tools/call` of `declared` | answers the client's capabilities as text |
//! | `tasks/get` | the task, with `PID` as its `statusMessage` |
//! | `tasks/update` | with an answer `end` the task is completed; with `crash` the process ends, with `hang` nothing is answered, but a line written to `hung` |
//! | `tasks/cancel` | the task is cancelled |
//! | `tasks/list` | for a legacy client: an empty list |
//! | `subscriptions/listen` | acknowledges it as it is, tells of `task-1` and `task-2`, and that `com.example/other` happened |
//! | any notification | writes its method to `heard` |

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

struct Server {
    directory: PathBuf,
    durable: bool,
    /// The status of each task, by its id.
    tasks: HashMap<String, String>,
    /// The capabilities of a legacy client.
    legacy: Option<Value>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let durable = arguments.any(|argument| argument == "durable");
    let mut server = Server { directory, durable, tasks: HashMap::new(), legacy: None };
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
        let method = message["method"].as_str().unwrap_or_default();
        if id.is_null() {
            return self.write("heard", method);
        }
        let answered = match method {
            "server/discover" => Ok(discovered()),
            "initialize" => Ok(self.initialized(params)),
            "tools/call" => self.call(params),
            "subscriptions/listen" => return listen(params),
            "tasks/list" => Ok(json!({ "tasks": [] })),
            "tasks/get" => self.status(params).map(|status| task(&params["taskId"], &status)),
            "tasks/cancel" => self.end(params, "cancelled"),
            "tasks/update" if params["inputResponses"].get("crash").is_some() => std::process::exit(1),
            "tasks/update" if params["inputResponses"].get("hang").is_some() => return self.write("hung", ""),
            "tasks/update" => self.end(params, "completed"),
            _ => Err((-32601, "Method not found")),
        };
        let answer = match answered {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, why)) => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": why } }),
        };
        writeln!(std::io::stdout(), "{answer}").expect("somebody reads");
    }

    fn initialized(&mut self, params: &Value) -> Value {
        self.legacy = Some(params["capabilities"].clone());
        let tasks = json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } });
        json!({
            "protocolVersion": params["protocolVersion"],
            "capabilities": { "tools": {}, "tasks": tasks },
            "serverInfo": { "name": "tasker", "version": "1" },
        })
    }

    fn call(&mut self, params: &Value) -> Result<Value, (i64, &'static str)> {
        let declared = self.legacy.as_ref().unwrap_or(&params["_meta"][CAPABILITIES]);
        match params["name"].as_str() {
            Some("declared") => Ok(text(&declared.to_string())),
            Some("work") if self.legacy.is_some() && params.get("task").is_none() => Ok(text("no task is wanted")),
            Some("work") => {
                self.write("begun", &std::process::id().to_string());
                let id = json!(format!("task-{}", self.count() + 1));
                self.set(id.as_str().unwrap_or_default(), "working");
                let mut begun = task(&id, "working");
                begun["resultType"] = json!("task");
                Ok(if self.legacy.is_some() { json!({ "task": begun }) } else { begun })
            }
            _ => Err((-32602, "Unknown tool")),
        }
    }

    fn status(&self, params: &Value) -> Result<String, (i64, &'static str)> {
        let id = params["taskId"].as_str().unwrap_or_default();
        let status = if self.durable {
            std::fs::read_to_string(self.directory.join(id)).ok()
        } else {
            self.tasks.get(id).cloned()
        };
        status.ok_or((-32602, "Task not found"))
    }

    fn end(&mut self, params: &Value, status: &str) -> Result<Value, (i64, &'static str)> {
        self.status(params)?;
        self.set(params["taskId"].as_str().unwrap_or_default(), status);
        Ok(json!({ "resultType": "complete" }))
    }

    fn set(&mut self, id: &str, status: &str) {
        if self.durable {
            std::fs::write(self.directory.join(id), status).expect("the directory can be written to");
        }
        self.tasks.insert(id.to_owned(), status.to_owned());
    }

    fn count(&self) -> usize {
        if !self.durable {
            return self.tasks.len();
        }
        let all = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with("task-")).count()
    }

    fn write(&self, file: &str, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.directory.join(file));
        writeln!(file.expect("the directory can be written to"), "{line}").expect("it is written");
    }
}

fn discovered() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": { "tools": {}, "extensions": { EXTENSION: {}, "com.example/other": { "kept": 1.0 } } },
        "ttlMs": 0,
        "cacheScope": "private",
    })
}

fn listen(params: &Value) {
    let tell = |method: &str, params: &Value| {
        let told = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        writeln!(std::io::stdout(), "{told}").expect("somebody reads");
    };
    let acknowledged = json!({ "notifications": params["notifications"] });
    tell("notifications/subscriptions/acknowledged", &acknowledged);
    for id in ["task-1", "task-2"] {
        tell("notifications/tasks", &task(&json!(id), "working"));
    }
    tell("notifications/com.example/happened", &json!({ "kept": 1.0 }));
}

fn task(id: &Value, status: &str) -> Value {
    let mut task = json!({
        "resultType": "complete",
        "taskId": id,
        "status": status,
        "statusMessage": std::process::id().to_string(),
        "createdAt": "2026-11-21T12:00:00Z",
        "lastUpdatedAt": "2026-11-21T12:00:00Z",
        "ttlMs": null,
    });
    if status == "completed" {
        task["result"] = text("done");
    }
    task
}

fn text(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] })
}
