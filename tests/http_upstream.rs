//! Servers elsewhere: Streamable HTTP of both eras and HTTP+SSE, real servers first, faults by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "http_upstream/by_token.rs"]
mod by_token;
#[path = "http_upstream/direct.rs"]
mod direct;
#[path = "http_upstream/eras.rs"]
mod eras;
#[path = "http_upstream/everything.rs"]
mod everything;
#[path = "http_upstream/faults.rs"]
mod faults;
#[path = "http_upstream/fields.rs"]
mod fields;
#[path = "http_upstream/fixture.rs"]
mod fixture;
#[path = "http_upstream/probe.rs"]
mod probe;
#[path = "http_upstream/rmcp_server.rs"]
mod rmcp_server;
mod support;
#[path = "http_upstream/tls.rs"]
mod tls;
#[path = "http_upstream/transports.rs"]
mod transports;

use everything::Everything;
use rmcp_server::RmcpServer;
use serde_json::{Value, json};
use support::mcp::Answer;
use support::{Bridge, Client};

/// How long something that is on its way may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

fn bridge(mut server: Value) -> Bridge {
    // What is asked of a server to learn its era is not the matter here, where nothing else is said.
    server.as_object_mut().unwrap().entry("protocol").or_insert_with(|| json!("legacy"));
    Bridge::start(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        // A status is asserted however long it takes.
        "limits": { "commitDelay": "1m" },
        "mcpServers": { "elsewhere": server },
    }))
}

/// Calls a tool as a legacy client without a session, as request 1.
async fn call(bridge: &Bridge) -> Answer {
    Client::without_session(bridge, "elsewhere", None).call("x", json!({})).await.unwrap()
}

/// What every server that speaks the legacy era must be able to do through the bridge.
async fn visit(bridge: &Bridge) {
    let mut client = Client::legacy(bridge, "elsewhere", None).await;
    let tools = client.request("tools/list", json!({})).await.expect("an answer").response();
    assert!(tools["result"]["tools"].as_array().is_some_and(|tools| tools.len() > 5), "{tools}");
    let answer = client.call("echo", json!({ "message": "ëcho \u{2028}" })).await.expect("an answer");
    assert_eq!(answer.text(), "Echo: ëcho \u{2028}");
    let steps = json!({ "duration": 0.2, "steps": 4 });
    let answer = client.call_with_progress("trigger-long-running-operation", steps).await.expect("an answer");
    let progress = answer.messages().iter().filter(|message| message["method"] == "notifications/progress").count();
    assert_eq!((progress, answer.response()["error"].is_null()), (4, true), "{answer:?}");

    let mut client = Client::modern(bridge, "elsewhere", None);
    let answer = client.call("get-sum", json!({ "a": 2, "b": 3 })).await.expect("an answer");
    assert!(answer.text().contains('5'), "{answer:?}");
    let unknown = client.call("no-such-tool", json!({})).await.expect("an answer");
    assert_eq!(unknown.status, 200, "{unknown:?}");
}

#[tokio::test]
async fn a_server_elsewhere_has_only_the_tools_that_its_caller_may_use() {
    let real = RmcpServer::start(true).await;
    for protocol in ["legacy", "modern"] {
        let rules = json!({ "allow": ["echo", "st*"] });
        let bridge = bridge(json!({ "url": real.url(), "protocol": protocol, "tools": rules }));
        let (modern, legacy) =
            (Client::modern(&bridge, "elsewhere", None), Client::legacy(&bridge, "elsewhere", None).await);
        for mut client in [modern, legacy] {
            let list = client.request("tools/list", json!({})).await.unwrap().response();
            let mut names: Vec<_> =
                list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
            names.sort_unstable();
            assert_eq!(names, ["echo", "steps"], "{list}");
            assert_eq!(client.call("echo", json!({ "text": "here" })).await.unwrap().text(), "here");
            let unknown = client.call("change", json!({})).await.unwrap();
            assert_eq!((unknown.status, unknown.error_code()), (200, Some(-32602)));
        }
    }
}

/// Waits until the server has said of both visits that their conversations began, and of each that it ended.
async fn until_all_ended(server: &Everything, began: &str, ended: &str) {
    let all_ended = || {
        let said = server.said();
        let (began, ended) = (said.matches(began).count(), said.matches(ended).count());
        (began >= 12 && ended == began).then_some(())
    };
    let waited = support::procs::eventually(PATIENCE, all_ended).await;
    assert!(waited.is_some(), "something was left open: {}", server.said());
}

#[tokio::test]
async fn a_streamable_server_is_called_and_every_session_is_ended() {
    let server = Everything::start("streamableHttp");
    let bridges = ["auto", "streamable"]
        .map(|transport| bridge(json!({ "url": server.url("/mcp"), "transport": transport, "protocol": "auto" })));
    for bridge in &bridges {
        visit(bridge).await;
    }
    until_all_ended(&server, "Session initialized with ID", "Received session termination request").await;
}

#[tokio::test]
async fn a_server_of_2024_is_called_over_sse() {
    let server = Everything::start("sse");
    let bridges = ["auto", "sse"]
        .map(|transport| bridge(json!({ "url": server.url("/sse"), "transport": transport, "protocol": "auto" })));
    for bridge in &bridges {
        visit(bridge).await;
    }
    until_all_ended(&server, "Client Connected", "Client Disconnected").await;
}
