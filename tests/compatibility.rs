//! Compatibility, in two tables. [`matrix`]: each official client in front of a server of each official SDK, as they are
//! by default. And here: a client of every revision in front of a server of every kind, each doing everything that its
//! revision has. Clients and servers are made with the official TypeScript SDKs, see
//! `tests/node/compatible-client.mjs` and `tests/node/compatible-server.mjs`.
//!
//! One bridge and one server of each kind elsewhere serve all cells that run at the same time.

#[path = "compatibility/cells.rs"]
mod cells;
#[path = "compatibility/matrix.rs"]
mod matrix;
mod support;
#[path = "compatibility/table.rs"]
mod table;
#[path = "compatibility/whole.rs"]
mod whole;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use support::mcp::Era;
use support::{Bridge, Client, Home};
use tempfile::TempDir;

/// Each kind of server behind the bridge: its name there, its era, its transport.
const KINDS: [(&str, &str, &str); 5] = [
    ("legacy-stdio", "legacy", "stdio"),
    ("modern-stdio", "modern", "stdio"),
    ("legacy-http", "legacy", "http"),
    ("modern-http", "modern", "http"),
    ("sse", "legacy", "sse"),
];

/// The bridge, what is behind it, and where that leaves its traces.
struct Setting {
    // The bridge ends before what it needs does.
    bridge: Bridge,
    _elsewhere: Vec<Elsewhere>,
    directory: TempDir,
    _home: Home,
}

/// A server that listens by itself; it ends when dropped.
struct Elsewhere(Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Setting {
    /// The setting that other cells use now, or a new one.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Setting>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let setting = Arc::new(Self::start());
            *shared = Arc::downgrade(&setting);
            setting
        })
    }

    fn start() -> Self {
        let (home, mut elsewhere) = (Home::without_key(), Vec::new());
        let directory = tempfile::Builder::new().prefix("tollbridge-shared-").tempdir().expect("a directory");
        let mut servers = json!({});
        for (name, era, transport) in KINDS {
            let program = [script("compatible-server.mjs"), PathBuf::from(era), PathBuf::from(transport)];
            let arguments = [&program[..], &[directory.path().to_owned(), PathBuf::from(home.marker())]].concat();
            servers[name] = if transport == "stdio" {
                json!({ "command": node(), "args": arguments, "startTimeout": "60s" })
            } else {
                // Not of the bridge's home: its processes are counted by that.
                let (server, url) = start_elsewhere(&arguments[..4]);
                elsewhere.push(server);
                let path = if transport == "sse" { "sse" } else { "mcp" };
                json!({ "url": format!("{url}/{path}"), "startTimeout": "60s" })
            };
        }
        let local = json!([{ "kind": "local", "user": "alice" }]);
        let bridge = home.serve(json!({ "identity": local, "mcpServers": servers }));
        Self { bridge, _elsewhere: elsewhere, directory, _home: home }
    }
}

fn start_elsewhere(arguments: &[PathBuf]) -> (Elsewhere, String) {
    let mut command = Command::new(node());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut server = command.spawn().expect("the server can be started");
    let mut first = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut first).expect("it says where it listens");
    let server = Elsewhere(server);
    let url = first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}"));
    (server, url.to_owned())
}

fn node() -> PathBuf {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/node22");
    assert!(node.exists(), "{} is missing: run ./scripts/test, which installs it", node.display());
    node
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(name)
}

/// Has a client of a revision do everything in front of a server.
fn visit(revision: &str, server: &str) {
    let setting = Setting::shared();
    let era = KINDS.iter().find(|(name, ..)| *name == server).map(|(_, era, _)| *era).expect("a kind of server");
    let (is_modern, name) = (revision == "2026-07-28", format!("{revision}-{server}"));
    let mut url = setting.bridge.url(server);
    if revision == "2024-11-05" {
        url = url.replace("/mcp", "/sse");
    }
    let task = json!({ "url": url, "revision": revision, "name": name, "directory": setting.directory.path() });
    let client = Command::new(node()).arg(script("compatible-client.mjs")).arg(task.to_string()).output();
    let output = client.expect("the client can be started");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = || setting.bridge.log();
    assert!(output.status.success(), "the client gave up:\n{stdout}{stderr}\nthe bridge's log:\n{}", log());
    let seen: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));

    assert_eq!(seen["version"], revision);
    assert_eq!(seen["server"], format!("compatible-{era}"));
    assert_eq!(seen["tools"], json!(["echo", "fail", "steps", "log", "ask", "sample", "wait"]));
    assert_eq!(seen["echo"], format!("echo: {name}"));
    assert_eq!(seen["steps"], "three steps");
    // The client of 2024 loses progress that it reads together with the answer, as when it does not run for a moment.
    let lost_the_last = revision == "2024-11-05" && seen["progress"] == json!([[1, 3], [2, 3]]);
    assert!(lost_the_last || seen["progress"] == json!([[1, 3], [2, 3], [3, 3]]), "{}", seen["progress"]);
    assert_eq!((&seen["waited"], &seen["cancelled"]), (&json!("no answer"), &json!(true)), "the tool sees the cancel");
    assert_eq!(seen["elicited"], format!("{name}: accept blue-{name}"));
    assert_eq!(seen["sampled"], format!("{name}: word-{name} of a-model"));
    assert_eq!(seen["logs"], json!(["warning", "error"]));
    assert_eq!(seen["wasUpdated"], true, "{}", log());
    let updated = seen["updated"].as_array().expect("a list");
    assert!(updated.iter().all(|uri| *uri == json!(format!("shared://{name}"))), "{updated:?}");
    assert_eq!(seen["failed"], json!([true, "it failed"]));
    // What legacy revisions call a resource that is not there; the modern one has no code of its own for it.
    let missing = if era == "legacy" && !is_modern { -32002 } else { -32602 };
    assert_eq!(seen["missing"], missing);
}

/// What a program in JavaScript cannot tell from another number, or not hold at all.
#[tokio::test]
async fn an_id_that_a_server_cannot_represent_comes_back_as_written() {
    let setting = Setting::shared();
    for (name, ..) in KINDS {
        let (legacy, modern) =
            (Client::legacy(&setting.bridge, name, None), Client::modern(&setting.bridge, name, None));
        for (mut client, arguments) in [(legacy.await, json!({ "name": "n" })), (modern, json!({}))] {
            // What it compares with a header is there for a client of its own era to say.
            if name == "modern-http" && client.era == Era::Modern {
                continue;
            }
            for id in ["9007199254740993", "1.5", "1e400"] {
                let params = json!({ "name": "steps", "arguments": arguments, "_meta": { "progressToken": "@" } });
                let plain = client.message("tools/call", params);
                let parsed: Value = serde_json::from_str(&plain).expect("JSON");
                let params = parsed["params"].to_string().replace(r#""@""#, id);
                let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
                let answer = client.exchange_as(message.as_bytes(), plain.as_bytes()).await.expect("an answer");
                let raw = answer.raw.iter().map(|raw| String::from_utf8_lossy(raw)).collect::<Vec<_>>().join("\n");
                let count = |key: &str| raw.matches(&format!(r#""{key}":{id}"#)).count();
                assert_eq!((count("progressToken"), count("id")), (3, 1), "{name} {id}: {raw}");
                assert!(raw.contains("three steps"), "{name} {id}: {raw}");
            }
        }
    }
}

/// One test for each cell, so that a failure names both.
macro_rules! table {
    ($($client:ident: $revision:literal;)*) => {
        $(mod $client {
            #[test] fn is_served_by_a_legacy_server_on_stdio() { super::visit($revision, "legacy-stdio"); }
            #[test] fn is_served_by_a_modern_server_on_stdio() { super::visit($revision, "modern-stdio"); }
            #[test] fn is_served_by_a_legacy_server_over_http() { super::visit($revision, "legacy-http"); }
            #[test] fn is_served_by_a_modern_server_over_http() { super::visit($revision, "modern-http"); }
            #[test] fn is_served_by_a_server_over_sse() { super::visit($revision, "sse"); }
        })*
    };
}

table! {
    a_client_of_2024_11_05_over_sse: "2024-11-05";
    a_client_of_2025_03_26: "2025-03-26";
    a_client_of_2025_06_18: "2025-06-18";
    a_client_of_2025_11_25: "2025-11-25";
    a_client_of_2026_07_28: "2026-07-28";
}
