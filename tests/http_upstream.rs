//! Servers elsewhere: Streamable HTTP of both eras and HTTP+SSE, real servers first, faults by hand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "http_upstream/direct.rs"]
mod direct;
#[path = "http_upstream/everything.rs"]
mod everything;
#[path = "http_upstream/faults.rs"]
mod faults;
#[path = "http_upstream/fixture.rs"]
mod fixture;
#[path = "http_upstream/rmcp_server.rs"]
mod rmcp_server;
mod support;
#[path = "http_upstream/tls.rs"]
mod tls;
#[path = "http_upstream/transports.rs"]
mod transports;

use std::time::Duration;

use everything::Everything;
use serde_json::{Value, json};
use support::mcp::Answer;
use support::{Bridge, Client};

fn bridge(mut server: Value) -> Bridge {
    // What is asked of a server to learn its era is not the matter here, where nothing else is said.
    server.as_object_mut().unwrap().entry("protocol").or_insert_with(|| json!("legacy"));
    Bridge::start(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
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
async fn a_streamable_server_is_called_and_every_session_is_ended() {
    let server = Everything::start("streamableHttp");
    for transport in ["auto", "streamable"] {
        let bridge = bridge(json!({ "url": server.url("/mcp"), "transport": transport, "protocol": "auto" }));
        visit(&bridge).await;
    }
    let sessions = |what: &str| server.said().matches(what).count();
    let began = sessions("Session initialized with ID");
    assert!(began >= 12, "{}", server.said());
    support::procs::wait_for(Duration::from_secs(5), || {
        (sessions("Received session termination request") == began).then_some(())
    })
    .unwrap_or_else(|| panic!("a session was left open: {}", server.said()));
}

#[tokio::test]
async fn a_server_of_2024_is_called_over_sse() {
    let server = Everything::start("sse");
    for transport in ["auto", "sse"] {
        let bridge = bridge(json!({ "url": server.url("/sse"), "transport": transport, "protocol": "auto" }));
        visit(&bridge).await;
    }
    let sessions = |what: &str| server.said().matches(what).count();
    let began = sessions("Client Connected");
    support::procs::wait_for(Duration::from_secs(5), || (sessions("Client Disconnected") == began).then_some(()))
        .unwrap_or_else(|| panic!("a stream was left open: {}", server.said()));
}
