//! The upstream by itself, for what no client can have it do yet: modern servers, and streams of what is said unasked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;
use tollbridge::config::{self, Inputs, Launch, LoadOptions, RequestValues};
use tollbridge::http_client;
use tollbridge::memory::Memory;
use tollbridge::metrics::Gauge;
use tollbridge::upstream::UpstreamError;
use tollbridge::upstream::http::{HttpServer, HttpServers};
use tollbridge::upstream::process::group::Graces;
use tollbridge::user::UserId;

use super::fixture::{Act, Fixture, Request, answer, polite};
use super::rmcp_server::RmcpServer;
use super::support::mcp::MODERN;
use super::support::{Bridge, Client};
use super::{bridge, call};

const PATIENCE: Duration = Duration::from_mins(1);

const GRACES: Graces = Graces { eof: PATIENCE, term: PATIENCE };

/// A conversation with the server at `url`.
fn open(url: &str, extra: Vec<(HeaderName, HeaderValue)>) -> HttpServer {
    open_with(&json!({ "url": url }), extra)
}

fn open_with(elsewhere: &Value, extra: Vec<(HeaderName, HeaderValue)>) -> HttpServer {
    let text = json!({ "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "elsewhere": elsewhere } })
    .to_string();
    let config = config::parse(&text, Path::new("tollbridge.json"), &LoadOptions::default()).unwrap();
    let server = config.servers.values().next().unwrap();
    let inputs = Inputs::of(&UserId::local("alice").unwrap().into(), None, RequestValues::default());
    let Launch::Http(launch) = server.fill(&inputs).unwrap() else { panic!("a server elsewhere") };
    let servers = HttpServers::new(http_client::build().unwrap());
    let memory = Memory::new(Some(1 << 30), 1 << 20, Gauge::default());
    let share = memory.share(&UserId::local("alice").unwrap(), 64 << 20);
    let mut server = servers.open(&server.name, &launch, server.process.line, &share).unwrap();
    server.mirror(extra);
    server
}

fn modern(id: u32, method: &str, mut params: Value) -> String {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": "tests", "version": "1" });
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// A conversation whose call waits until it is cancelled.
async fn waiting(real: &RmcpServer) -> HttpServer {
    let mut server = open(&real.url(), Vec::new());
    server.send(&modern(1, "tools/call", json!({ "name": "wait" })));
    tokio::select! {
        heard = server.receive() => panic!("nothing is said: {heard:?}"),
        () = real.inside.waits.notified() => {}
    }
    server
}

async fn next(server: &mut HttpServer) -> Value {
    let message: Bytes = timeout(PATIENCE, server.receive()).await.expect("in time").unwrap();
    assert!(!message.contains(&b'\n'));
    serde_json::from_slice(&message).unwrap()
}

async fn initialize(server: &mut HttpServer) {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "tests", "version": "1" } });
    server.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string());
    assert!(next(server).await["result"]["protocolVersion"].is_string());
    server.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
}

#[tokio::test]
async fn a_modern_server_is_told_by_headers_what_the_body_says() {
    let real = RmcpServer::start(true).await;
    let mut server = open(&real.url(), Vec::new());
    server.send(&modern(1, "server/discover", json!({})));
    assert!(next(&mut server).await["result"]["supportedVersions"].as_array().unwrap().contains(&json!(MODERN)));
    server.send(&modern(2, "tools/call", json!({ "name": "gr\u{fc}\u{df}e", "arguments": {} })));
    assert_eq!(next(&mut server).await["result"]["content"][0]["text"], "hallo");
    server.send(&modern(3, "tools/call", json!({ "name": "steps", "_meta": { "progressToken": "p" } })));
    for step in 1..=3 {
        assert_eq!(next(&mut server).await["params"]["progress"], f64::from(step));
    }
    assert_eq!(next(&mut server).await["id"], 3);
    server.send(&modern(4, "no/such", json!({})));
    assert_eq!(next(&mut server).await["error"]["code"], -32601, "HTTP 404, and the message all the same");
    server.close(GRACES).await;
}

#[tokio::test]
async fn a_modern_request_is_cancelled_by_no_longer_listening() {
    let real = RmcpServer::start(true).await;
    let mut server = waiting(&real).await;
    server.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    assert!(matches!(server.receive().await, Err(UpstreamError::Ended)), "nothing more can come");
    timeout(PATIENCE, real.inside.cancelled.notified()).await.expect("the tool sees it");
}

#[tokio::test]
async fn a_modern_server_gets_no_message_that_a_request_is_cancelled() {
    let never = Arc::new(Notify::new());
    let fixture = Fixture::start(move |_| vec![Act::Wait(Arc::clone(&never))]).await;
    let mut server = open(&fixture.url("/mcp"), Vec::new());
    server.send(&modern(1, "tools/call", json!({ "name": "wait" })));
    tokio::select! {
        heard = server.receive() => panic!("nothing is said: {heard:?}"),
        _ = fixture.until("tools/call") => {}
    }
    server.send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    assert!(matches!(timeout(PATIENCE, server.receive()).await, Ok(Err(UpstreamError::Ended))));
    server.close(GRACES).await;
    assert_eq!(fixture.asked(), ["tools/call"]);
}

#[tokio::test]
async fn a_request_is_not_sent_before_the_notification_in_front_of_it_is_accepted() {
    let (accepts, seen) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (waits, early) = (Arc::clone(&accepts), Arc::clone(&seen));
    let fixture = Fixture::start(move |request: &Request| match request.asks() {
        "notifications/initialized" => [vec![Act::Wait(Arc::clone(&waits))], polite(request)].concat(),
        "tools/list" => {
            early.store(true, Ordering::Relaxed);
            polite(request)
        }
        _ => polite(request),
    })
    .await;
    let mut server = open(&fixture.url("/mcp"), Vec::new());
    initialize(&mut server).await;
    server.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert!(timeout(Duration::from_millis(300), server.receive()).await.is_err());
    assert!(!seen.load(Ordering::Relaxed), "{:?}", fixture.asked());
    accepts.notify_one();
    assert_eq!(next(&mut server).await["id"], 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n401\r\n{}", "x".repeat(1025));
    let announced = format!("{head}Content-Length: 1025\r\n\r\n");
    for written in [chunked, announced] {
        let never = Arc::new(Notify::new());
        let fixture =
            Fixture::start(move |_| vec![Act::Write(written.clone().into()), Act::Wait(Arc::clone(&never))]).await;
        let mut server = open_with(&json!({ "url": fixture.url("/mcp"), "line": "1KiB" }), Vec::new());
        server.send(&modern(1, "tools/list", json!({})));
        let refused = timeout(PATIENCE, server.receive()).await.expect("in time");
        assert!(matches!(refused, Err(UpstreamError::LineTooLong(1024))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_dropped_conversation_is_seen_by_the_tool() {
    let real = RmcpServer::start(true).await;
    let server = waiting(&real).await;
    drop(server);
    timeout(PATIENCE, real.inside.cancelled.notified()).await.expect("the tool sees it");
}

#[tokio::test]
async fn modern_requests_carry_the_headers_given_at_open_and_legacy_ones_do_not() {
    let fixture = Fixture::start(polite).await;
    let extra = (HeaderName::from_static("mcp-param-region"), HeaderValue::from_static("us-west1"));
    let mut server = open(&fixture.url("/mcp"), vec![extra]);
    initialize(&mut server).await;
    server.send(&modern(1, "resources/read", json!({ "uri": " padded" })));
    next(&mut server).await;
    server.close(GRACES).await;
    let seen = fixture.seen();
    assert_eq!((seen[0].header("mcp-param-region"), seen[0].header("mcp-method")), (None, None));
    let request = seen.iter().find(|request| request.asks() == "resources/read").unwrap();
    let headers =
        ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region"].map(|name| request.header(name));
    let expected = [MODERN, "resources/read", "=?base64?IHBhZGRlZA==?=", "us-west1"].map(Some);
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn clients_of_both_eras_are_served_by_an_rmcp_server_in_both_with_and_without_sessions() {
    for (protocol, sessions) in [("legacy", true), ("legacy", false), ("modern", true), ("auto", true)] {
        let real = RmcpServer::start(sessions).await;
        let bridge: Bridge = bridge(json!({ "url": real.url(), "protocol": protocol }));
        let legacy = Client::legacy(&bridge, "elsewhere", None).await;
        for mut client in [legacy, Client::modern(&bridge, "elsewhere", None)] {
            let answer = client.call("echo", json!({ "text": "a\u{2028}b" })).await.unwrap();
            assert_eq!(answer.text(), "a\u{2028}b", "{protocol}, sessions: {sessions}");
            let answer = client.call_with_progress("steps", json!({})).await.unwrap();
            assert_eq!((answer.messages().len(), answer.text()), (4, "done".to_owned()), "{protocol}, {sessions}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_tool_of_a_server_in_either_era() {
    for protocol in ["legacy", "modern"] {
        let real = RmcpServer::start(true).await;
        let bridge = bridge(json!({ "url": real.url(), "protocol": protocol }));
        let mut client = Client::modern(&bridge, "elsewhere", None);
        let connection = client.post("tools/call", json!({ "name": "wait", "arguments": {} })).await.unwrap();
        timeout(PATIENCE, real.inside.waits.notified()).await.expect("it is called");
        drop(connection);
        timeout(PATIENCE, real.inside.cancelled.notified()).await.unwrap_or_else(|_| panic!("{protocol}: not told"));
    }
}

#[tokio::test]
async fn what_a_legacy_server_says_unasked_is_heard_while_it_is_listened_to() {
    let real = RmcpServer::start(true).await;
    let mut server = open(&real.url(), Vec::new());
    initialize(&mut server).await;
    server.listen();
    server.send(
        &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "change" } }).to_string(),
    );
    let said = [next(&mut server).await, next(&mut server).await];
    assert!(said.iter().any(|message| message["method"] == "notifications/tools/list_changed"), "{said:?}");
    assert!(said.iter().any(|message| message["id"] == 1), "{said:?}");
    server.close(GRACES).await;
}

#[tokio::test]
async fn a_server_that_offers_no_listening_is_silent_and_not_at_its_end() {
    let fixture = Fixture::start(polite).await;
    let mut server = open(&fixture.url("/mcp"), Vec::new());
    initialize(&mut server).await;
    server.listen();
    tokio::select! {
        heard = server.receive() => panic!("nothing is said: {heard:?}"),
        _ = fixture.until("GET") => {}
    }
    let silence = timeout(Duration::from_millis(300), server.receive()).await;
    assert!(silence.is_err(), "{silence:?}");
    server.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(next(&mut server).await["id"], 1);
}

#[tokio::test]
async fn another_message_may_be_sent_after_one_was_refused() {
    let fixture =
        Fixture::start(
            |request: &Request| {
                if request.asks() == "server/discover" { answer(400, &[], "what?") } else { polite(request) }
            },
        )
        .await;
    let mut server = open(&fixture.url("/mcp"), Vec::new());
    server.send(&modern(1, "server/discover", json!({})));
    assert!(matches!(server.receive().await, Err(UpstreamError::Status(400))));
    initialize(&mut server).await;
    server.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(next(&mut server).await["id"], 1);
}

#[tokio::test]
async fn a_session_may_be_opened_when_what_was_asked_before_is_never_answered() {
    for refusal in [None, Some(405)] {
        let never = Arc::new(Notify::new());
        // It answers a probe not at all, or by a status, and a GET without saying where messages go.
        let fixture =
            Fixture::start(move |request: &Request| match (request.asks(), request.method.as_str(), refusal) {
                ("server/discover", _, Some(status)) => answer(status, &[], ""),
                ("server/discover", _, None) | (_, "GET", _) => vec![Act::Wait(Arc::clone(&never))],
                _ => polite(request),
            })
            .await;
        let mut server = open(&fixture.url("/mcp"), Vec::new());
        server.send(&modern(1, "server/discover", json!({})));
        assert!(timeout(Duration::from_millis(300), server.receive()).await.is_err());
        timeout(PATIENCE, initialize(&mut server)).await.expect("in time");
        server.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        assert_eq!(next(&mut server).await["id"], 1);
    }
}

#[tokio::test]
async fn a_session_that_the_server_has_forgotten_is_the_end() {
    let fixture = Fixture::start(|request: &Request| {
        let lost = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
        let json = [("Content-Type", "application/json")];
        if request.asks() == "tools/list" { answer(404, &json, lost) } else { polite(request) }
    })
    .await;
    let mut server = open(&fixture.url("/mcp"), Vec::new());
    initialize(&mut server).await;
    server.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert!(matches!(server.receive().await, Err(UpstreamError::Ended)));
}

#[tokio::test]
async fn a_reading_request_is_sent_again_when_an_idle_connection_turns_out_to_be_closed_and_a_call_is_not() {
    for (method, sent) in [("tools/list", 2), ("tools/call", 1)] {
        let fixture = Fixture::start(move |request: &Request| {
            let is_reused = request.connection == 0;
            if request.asks() == method && is_reused { vec![Act::Close] } else { polite(request) }
        })
        .await;
        let mut server = open(&fixture.url("/mcp"), Vec::new());
        initialize(&mut server).await;
        server.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "name": "x" } }).to_string());
        assert_eq!(server.receive().await.is_ok(), sent == 2, "{method}");
        assert_eq!(fixture.asked().iter().filter(|asked| *asked == method).count(), sent, "{method}");
    }
}

#[tokio::test]
async fn the_connection_of_a_stream_that_has_been_read_is_used_again() {
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let fixture = Fixture::start(move |request: &Request| {
        if request.asks() != "tools/call" {
            return polite(request);
        }
        let event = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}}}}\n\n", request.message["id"]);
        vec![Act::Write(format!("{chunked}{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into())]
    })
    .await;
    let bridge = bridge(json!({ "url": fixture.url("/mcp") }));
    for calls in 1..=5 {
        assert_eq!(call(&bridge).await.status, 200);
        fixture.until_again("DELETE", calls).await;
    }
    let connections = fixture.seen().iter().map(|request| request.connection).max().unwrap() + 1;
    // A connection is free again only a moment after its answer, and then another may have been opened.
    assert!(connections <= 4, "{connections} connections");
}
