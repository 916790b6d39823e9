//! A server does not take a token that should be good, on a stream that is open.

use std::time::Duration;

use serde_json::{Value, json};

use crate::service::Service;
use crate::support::http::{Connection, Reply};
use crate::support::{Client, Home, Redis, procs};
use crate::{ALICE, Setting, config, found};

/// More than anybody asks.
const ALWAYS: u64 = 1_000_000;

/// How long something may take that is done in seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// What who is refused with a fresh token too is told.
const REFUSED: &str = "because Guarded & Co refused what had just been renewed. Connect again: http";

/// Alice is connected to a server that is always listened to, and whose clients of HTTP+SSE each keep one.
async fn listening() -> Setting {
    let (service, home, redis) = (Service::start(&json!({})), Home::new(), Redis::start());
    let mut configured = config(&home, &redis, &service, &found());
    configured["mcpServers"]["guarded"]["listen"] = json!("always");
    configured["mcpServers"]["guarded"]["sse"] = json!("session");
    let nodes = vec![home.serve(configured)];
    let setting = Setting { service, nodes, home, redis };
    setting.connected().await;
    setting
}

async fn connect(setting: &Setting) -> Connection {
    Connection::open(setting.nodes[0].address()).await.expect("it listens")
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

/// How often the server has refused a token, and the service has renewed one.
async fn counted(setting: &Setting) -> (u64, u64) {
    let renewed = setting.service.count("token refresh_token 200").await;
    (setting.service.count("refused by the server").await, renewed)
}

#[tokio::test]
async fn a_subscription_whose_token_is_refused_goes_on_with_a_fresh_one_or_ends_with_the_link() {
    let setting = listening().await;
    let mut client = Client::modern(&setting.nodes[0], "guarded", Some(ALICE));
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    setting.service.set(&json!({ "refuses": 1 })).await;
    let mut connection = connect(&setting).await;
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted.clone()).await.expect("an answer");
    assert_eq!(next(&mut stream).await["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(counted(&setting).await, (1, 1));

    setting.service.set(&json!({ "refuses": ALWAYS })).await;
    let ended = client.request("subscriptions/listen", wanted).await.expect("an answer").response();
    assert!(ended["error"]["message"].as_str().is_some_and(|said| said.contains(REFUSED)), "{ended}");
    assert_eq!(counted(&setting).await, (3, 2), "once more, and no more");
}

#[tokio::test]
async fn a_stream_of_http_sse_whose_token_is_refused_goes_on_with_a_fresh_one_or_ends_with_the_link() {
    let setting = listening().await;
    let headers = [("Authorization", format!("Bearer {ALICE}")), ("Content-Type", "application/json".to_owned())];
    let headers = headers.map(|(name, value)| (name.to_owned(), value));
    for (refuses, is_answered) in [(1, true), (ALWAYS, false)] {
        let (mut connection, mut posts) = (connect(&setting).await, connect(&setting).await);
        let mut stream = connection.send("GET", "/guarded/sse", &headers, b"").await.expect("an answer");
        assert_eq!(stream.status, 200);
        let endpoint = stream.event().await.expect("the stream goes on").expect("an event").data;
        let endpoint = String::from_utf8(endpoint).expect("a path");
        setting.service.set(&json!({ "refuses": refuses })).await;
        let client = json!({ "name": "tests", "version": "1" });
        let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client });
        let initialize = json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params });
        let posted = posts.send("POST", &endpoint, &headers, initialize.to_string().as_bytes()).await;
        assert_eq!(posted.expect("an answer").status, 202);
        let answer = next(&mut stream).await;
        assert_eq!(answer["id"], 7);
        if is_answered {
            assert_eq!((&answer["result"]["serverInfo"]["name"], counted(&setting).await), (&json!("guarded"), (1, 1)));
        } else {
            assert!(answer["error"]["message"].as_str().is_some_and(|said| said.contains(REFUSED)), "{answer}");
            assert!(stream.event().await.expect("a whole answer").is_none(), "the stream ends");
            assert_eq!(counted(&setting).await, (3, 2), "once more, and no more");
        }
    }
}

#[tokio::test]
async fn a_listener_whose_token_is_refused_gets_a_server_with_a_fresh_one_and_asks_nobody_who_must_sign_in() {
    // At the handshake, after it, and always.
    for (lets, refuses, counts) in [(0, 1, (1, 1)), (1, 1, (1, 1)), (0, ALWAYS, (2, 1))] {
        let setting = listening().await;
        let client = Client::legacy(&setting.nodes[0], "guarded", Some(ALICE)).await;
        setting.service.set(&json!({ "lets": lets, "refuses": refuses })).await;
        let mut connection = connect(&setting).await;
        let stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("an answer");
        assert_eq!(stream.status, 200);
        until(&setting, counts).await;
        if refuses == ALWAYS {
            assert_eq!(setting.audited("sign-in-needed", 1).len(), 1);
        }
        let said = setting.said(0, ALICE).await;
        assert!(if refuses == ALWAYS { said.contains(REFUSED) } else { said == "alice-there read" }, "{said}");
        assert_eq!(counted(&setting).await, counts, "once, and nobody is asked who must sign in");
    }
}

async fn until(setting: &Setting, wanted: (u64, u64)) {
    let until = std::time::Instant::now() + PATIENCE;
    while counted(setting).await != wanted {
        assert!(std::time::Instant::now() < until, "{:?} {}", counted(setting).await, setting.nodes[0].log());
        procs::eventually(Duration::from_millis(50), || None::<()>).await;
    }
}
