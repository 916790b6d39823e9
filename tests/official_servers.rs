//! Servers as the quick starts of the official SDKs have them, with their defaults, behind the bridge: what a tool asks
//! in the middle of a call reaches a client of either era, on whatever its server's era is. A server that has both is met
//! in its client's.

#[path = "official_servers/eras.rs"]
mod eras;
#[path = "official_servers/extensions.rs"]
mod extensions;
#[path = "official_servers/real.rs"]
mod real;
#[path = "official_servers/rounds.rs"]
mod rounds;
mod support;
#[path = "official_servers/unasked.rs"]
mod unasked;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use support::http::{Connection, Reply};
use support::mcp::LEGACY;
use support::{Bridge, Client, Elsewhere};

/// How long something that is on its way may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "{} is missing: run ./scripts/test, which installs it", path.display());
    path
}

/// A program that is a server on stdio.
fn program(sdk: &str) -> Vec<PathBuf> {
    let script = |runtime, script| vec![installed(runtime), installed(script)];
    match sdk {
        "python" => script("tests/.tools/python/mcp2/bin/python", "tests/python/server_v2.py"),
        "fastmcp" => script("tests/.tools/python/fastmcp/bin/python", "tests/python/server_fastmcp.py"),
        "go" => vec![installed("tests/.tools/go-tools"), "server".into()],
        "typescript 1" => script("tests/.tools/node22", "tests/node/quick-start-v1.mjs"),
        "typescript 2" => script("tests/.tools/node22", "tests/node/quick-start-v2.mjs"),
        _ => panic!("no server is made with {sdk}"),
    }
}

/// The configuration of a server on stdio, with these fields.
fn on_stdio(sdk: &str, fields: &Value) -> Value {
    let program = program(sdk);
    let mut entry = json!({ "command": program[0], "args": program[1..], "startTimeout": "1m" });
    for (name, value) in fields.as_object().expect("fields") {
        entry[name] = value.clone();
    }
    entry
}

/// A server that listens by itself.
fn elsewhere(sdk: &str) -> Elsewhere {
    Elsewhere::start(&program(sdk), &[], || {})
}

/// The configuration of such a server.
fn over_http(elsewhere: &Elsewhere) -> Value {
    json!({ "url": elsewhere.url(), "startTimeout": "1m", "requestTimeout": "1m" })
}

fn bridge(server: &Value) -> Bridge {
    Bridge::start(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "quick": server } }))
}

/// A legacy client that can be asked everything.
async fn legacy(bridge: &Bridge) -> Client {
    let mut client = Client::without_session(bridge, "quick", None);
    let capabilities = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
    let answer = client.initialize(LEGACY, capabilities).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}\n{}", answer.response(), bridge.log());
    client
}

/// A modern client that can be asked everything.
fn modern(bridge: &Bridge) -> Client {
    let mut client = Client::modern(bridge, "quick", None);
    client.capabilities = json!({ "elicitation": { "form": {} }, "sampling": {}, "roots": {} });
    client
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

/// What a client answers to a question.
fn answer_to(method: &str) -> Value {
    match method {
        // FastMCP asks for `value` where it is asked for a text alone.
        "elicitation/create" => json!({ "action": "accept", "content": { "name": "Ada", "value": "Ada" } }),
        "sampling/createMessage" => {
            json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "words" } })
        }
        "roots/list" => json!({ "roots": [{ "uri": "file:///work", "name": "work" }] }),
        method => panic!("nobody answers {method}"),
    }
}

fn text(message: &Value) -> String {
    let text = message.pointer("/result/content/0/text").and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no text in {message}")).to_owned()
}

/// Calls a tool as a legacy client, answers what it is asked meanwhile, and returns what the tool said, and what was
/// logged.
async fn call_live(client: &mut Client, tool: &str) -> (String, Vec<Value>) {
    let mut connection = Connection::open(client.address()).await.expect("it listens");
    let mut elsewhere = client.twin();
    let params = json!({ "name": tool, "arguments": {} });
    let mut stream = client.start(&mut connection, "tools/call", params).await.expect("an answer");
    let mut logged = Vec::new();
    loop {
        let message = next(&mut stream).await;
        match message["method"].as_str() {
            None => return (text(&message), logged),
            Some("notifications/message") => logged.push(message["params"]["data"].clone()),
            Some(method) if !message["id"].is_null() => {
                let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": answer_to(method) });
                assert_eq!(elsewhere.tell(&answer).await.expect("a status"), 202);
            }
            Some(_) => {}
        }
    }
}

/// Calls a tool as a modern client, calls again with what it is asked for, each time at the next of these addresses, and
/// returns what the tool said, and how often it was called.
async fn call_in_rounds(clients: &mut [Client], tool: &str) -> (String, usize) {
    let mut params = json!({ "name": tool, "arguments": {} });
    let count = clients.len();
    for round in 0..10 {
        let answer = clients[round % count].request("tools/call", params.clone()).await.expect("an answer");
        let message = answer.response();
        let result = &message["result"];
        if result["resultType"] != "input_required" {
            return (text(&message), round + 1);
        }
        let questions = result["inputRequests"].as_object().cloned().unwrap_or_default();
        let answers = questions
            .iter()
            .map(|(key, question)| (key.clone(), answer_to(question["method"].as_str().expect("a method"))));
        params["inputResponses"] = answers.collect::<serde_json::Map<_, _>>().into();
        params["requestState"] = result["requestState"].clone();
    }
    panic!("{tool} asks without end");
}
