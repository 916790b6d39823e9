//! The official clients, unmodified, against real servers behind the bridge. What each client does is in
//! `tests/node/visit.mjs` and `tests/python/visit.py`; it prints what it saw as one line of JSON, which is judged here.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::Bridge;

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
const BEARER: &str = "a-bearer-token-of-alice-that-is-long-enough";
const EVERYTHING: &str = "tests/.tools/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// An official client; those of the second generation with the `mode` they are told, if any.
#[derive(Clone, Copy)]
enum Client {
    TypeScriptV1,
    /// Over HTTP+SSE.
    TypeScriptV1Sse,
    TypeScriptV2(Option<&'static str>),
    PythonV1,
    /// Over HTTP+SSE.
    PythonV1Sse,
    PythonV2(Option<&'static str>),
}

impl Client {
    fn command(self) -> Command {
        let (program, script) = match self {
            Self::TypeScriptV1 => ("tests/.tools/node22", "tests/node/client-v1.mjs"),
            Self::TypeScriptV1Sse => ("tests/.tools/node22", "tests/node/client-sse.mjs"),
            Self::TypeScriptV2(_) => ("tests/.tools/node22", "tests/node/client-v2.mjs"),
            Self::PythonV1 | Self::PythonV1Sse => ("tests/.tools/python/mcp1/bin/python", "tests/python/client_v1.py"),
            Self::PythonV2(_) => ("tests/.tools/python/mcp2/bin/python", "tests/python/client_v2.py"),
        };
        let mut command = Command::new(installed(program));
        command.arg(root().join(script));
        command
    }

    fn mode(self) -> Option<&'static str> {
        match self {
            Self::TypeScriptV1 | Self::TypeScriptV1Sse | Self::PythonV1 | Self::PythonV1Sse => None,
            Self::TypeScriptV2(mode) | Self::PythonV2(mode) => mode,
        }
    }

    /// Has the client do its visit, and returns what it saw.
    fn visit(self, bridge: &Bridge, server: &str, visit: &Value) -> Value {
        let mut task = visit.clone();
        let url = bridge.url(server);
        task["url"] = match self {
            Self::TypeScriptV1Sse | Self::PythonV1Sse => url.replace("/mcp", "/sse"),
            _ => url,
        }
        .into();
        task["bearer"] = BEARER.into();
        task["mode"] = self.mode().into();
        let output = self.command().arg(task.to_string()).output().expect("the client can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the client gave up:\n{stderr}\nthe bridge's log:\n{}", bridge.log());
        serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error} in the client's answer: {stdout}\n{stderr}"))
    }
}

/// A bridge in front of the real servers.
fn bridge() -> Bridge {
    Bridge::start(json!({
        "identity": support::bearer_identity(&[("alice", BEARER)]),
        "mcpServers": {
            "everything": { "command": installed("tests/.tools/node22"), "args": [installed(EVERYTHING)] },
            "ends": { "command": support::server("hostile"), "args": ["exits", "at=call", "code=1", "spares=other"] },
            "time": { "command": installed("tests/.tools/python/servers/bin/mcp-server-time") },
        },
    }))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "{} is missing: run ./scripts/test, which installs it", path.display());
    path
}

/// What is done at `server-everything`.
fn everything() -> Value {
    json!({
        "call": { "name": "echo", "arguments": { "message": "h\u{e4}llo" } },
        "progress": { "name": "trigger-long-running-operation", "arguments": { "duration": 0.3, "steps": 3 } },
        "failing": { "name": "get-sum", "arguments": { "a": "not a number" } },
    })
}

fn saw_all_progress(seen: &Value) -> bool {
    let progress = seen["progress"].as_array().expect("a list of progress events");
    let steps = progress.iter().map(|event| (event[0].as_f64(), event[1].as_f64()));
    steps.eq([1.0, 2.0, 3.0].map(|step| (Some(step), Some(3.0))))
}

/// A server written with the TypeScript SDK 1.x, which sends `list_changed` and questions of its own accord.
fn visits_everything(client: Client, version: &str) {
    let bridge = bridge();
    let seen = client.visit(&bridge, "everything", &everything());
    assert_eq!(seen["protocolVersion"], version);
    // A Python client that was told the version does not ask who the server is.
    if !matches!(client, Client::PythonV2(Some(MODERN))) {
        assert_eq!(seen["server"], "mcp-servers/everything");
    }
    let tools = seen["tools"].as_array().expect("a list of tools");
    assert!(tools.contains(&json!("echo")), "{tools:?}");
    assert_eq!(seen["text"], "Echo: h\u{e4}llo");
    assert!(saw_all_progress(&seen), "{seen}");
    assert_eq!(seen["progressText"], "Long running operation completed. Duration: 0.3 seconds, Steps: 3.");
    assert_eq!(seen["failure"]["isError"], true);
    assert!(seen["failure"]["text"].as_str().is_some_and(|text| text.contains("expected number")), "{seen}");
}

/// A server written with the Python SDK.
fn visits_time(client: Client, version: &str) {
    let bridge = bridge();
    let seen = client.visit(
        &bridge,
        "time",
        &json!({
            "call": { "name": "get_current_time", "arguments": { "timezone": "Europe/Paris" } },
            "failing": { "name": "get_current_time", "arguments": { "timezone": "Nowhere/Land" } },
        }),
    );
    assert_eq!(seen["protocolVersion"], version);
    assert_eq!(seen["tools"], json!(["get_current_time", "convert_time"]));
    assert!(seen["text"].as_str().is_some_and(|text| text.contains("Europe/Paris")), "{seen}");
    assert_eq!(seen["failure"]["isError"], true);
    assert!(seen["failure"]["text"].as_str().is_some_and(|text| text.contains("Nowhere/Land")), "{seen}");
}

/// A server that ends when it is called: its client hears so, and goes on.
fn goes_on_after_a_crash(client: Client) {
    let bridge = bridge();
    let call = |name| json!({ "name": name, "arguments": {} });
    let seen = client.visit(&bridge, "ends", &json!({ "failing": call("act"), "again": call("other") }));
    assert!(seen["failure"]["text"].as_str().is_some_and(|text| text.contains("ended before it answered")), "{seen}");
    assert_eq!(seen["again"], "done");
}

/// One test for each client and server, so that a failure names both.
macro_rules! official_clients {
    ($($name:ident: $client:expr => $version:expr;)*) => {
        mod everything {
            use super::*;
            $(#[test] fn $name() { visits_everything($client, $version); })*
        }
        mod time {
            use super::*;
            $(#[test] fn $name() { visits_time($client, $version); })*
        }
        mod ends {
            use super::*;
            $(#[test] fn $name() { goes_on_after_a_crash($client); })*
        }
    };
}

official_clients! {
    is_served_to_typescript_v1: Client::TypeScriptV1 => LEGACY;
    is_served_to_typescript_v2_as_it_comes: Client::TypeScriptV2(None) => LEGACY;
    is_served_to_typescript_v2_that_finds_out: Client::TypeScriptV2(Some("auto")) => MODERN;
    is_served_to_typescript_v2_that_is_modern: Client::TypeScriptV2(Some(MODERN)) => MODERN;
    is_served_to_python_v1: Client::PythonV1 => LEGACY;
    is_served_to_python_v2_as_it_comes: Client::PythonV2(None) => MODERN;
    is_served_to_python_v2_that_is_legacy: Client::PythonV2(Some("legacy")) => LEGACY;
    is_served_to_python_v2_that_is_modern: Client::PythonV2(Some(MODERN)) => MODERN;
}

#[test]
fn typescript_v1_is_served_over_http_sse() {
    let (bridge, client) = (bridge(), Client::TypeScriptV1Sse);
    // A client that does not run for a moment reads the last progress together with the answer, and loses it.
    let seen = (0..5).map(|_| client.visit(&bridge, "everything", &everything())).find(saw_all_progress);
    let seen = seen.expect("progress is held apart from the answer");
    assert_eq!((&seen["server"], &seen["text"]), (&json!("mcp-servers/everything"), &json!("Echo: h\u{e4}llo")));
    assert_eq!(seen["failure"]["isError"], true);
}

#[test]
fn typescript_v1_goes_on_after_a_crash_over_http_sse() {
    goes_on_after_a_crash(Client::TypeScriptV1Sse);
}

#[test]
fn python_v1_goes_on_after_a_crash_over_http_sse() {
    goes_on_after_a_crash(Client::PythonV1Sse);
}
