//! Long streams in front of a server elsewhere: another bridge, so that both ends of it are seen.

use super::*;
use crate::support::http::{Connection, Reply};
use crate::support::procs;

/// A bridge in front of a bridge, and what the server behind both watches.
struct Chain {
    front: Bridge,
    _back: Bridge,
    watched: Watched,
    homes: [Home; 2],
}

impl Chain {
    fn of(era: &str) -> Self {
        let (homes, watched) = ([Home::without_key(), Home::without_key()], Watched::new());
        let back = homes[0].serve(config(&json!({ "one": always(watched.server(&homes[0], era)) })));
        let server = always(json!({ "url": back.url("one"), "protocol": era }));
        let front = homes[1].serve(config(&json!({ "one": server })));
        Self { front, _back: back, watched, homes }
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.front.address()).await.expect("it listens")
    }

    async fn nothing_left(&self) {
        let gone =
            procs::eventually(SOON, || procs::with_marker(self.homes[0].marker()).is_empty().then_some(())).await;
        assert!(gone.is_some(), "{:?}", procs::with_marker(self.homes[0].marker()));
    }
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

#[tokio::test]
async fn a_change_elsewhere_reaches_the_session_that_listens() {
    let chain = Chain::of("legacy");
    let mut client = Client::without_session(&chain.front, "one", None);
    let initialized = client.initialize(crate::support::mcp::LEGACY, json!({})).await.expect("an answer");
    assert_eq!(initialized.response().pointer("/result/serverInfo/name"), Some(&json!("watcher")), "{initialized:?}");
    let mut connection = chain.connect().await;
    let mut stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it answers");
    assert_eq!(stream.status, 200, "{}", chain.front.log());
    client.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    // Nobody says when the listener at the far end has been subscribed, too.
    let changes = async {
        loop {
            chain.watched.happens("updated a://");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let updated = tokio::select! {
        updated = next(&mut stream) => updated,
        () = changes => unreachable!("changes go on"),
    };
    assert_eq!(updated["params"]["uri"], "a://");
    drop(connection);
    chain.nothing_left().await;
}

#[tokio::test]
async fn a_subscription_reaches_a_modern_server_elsewhere() {
    let chain = Chain::of("modern");
    let (mut client, mut connection) = (Client::modern(&chain.front, "one", None), chain.connect().await);
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = client.start(&mut connection, "subscriptions/listen", params).await.expect("it answers");
    assert_eq!(next(&mut stream).await["method"], "notifications/subscriptions/acknowledged");
    chain.watched.happens("list tools");
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
    drop(connection);
    chain.nothing_left().await;
}

#[tokio::test]
async fn a_client_of_2024_reaches_a_server_elsewhere() {
    let chain = Chain::of("legacy");
    let mut connection = chain.connect().await;
    let mut stream = connection.send("GET", "/one/sse", &[], b"").await.expect("it answers");
    let endpoint = stream.event().await.expect("the stream goes on").expect("an event");
    let endpoint = String::from_utf8(endpoint.data).expect("a relative reference");
    let client = json!({ "name": "tests", "version": "1" });
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client });
    for (message, answered) in [
        (json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }), true),
        (json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), false),
        (json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "act" } }), true),
    ] {
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let body = message.to_string();
        let mut post = chain.connect().await;
        assert_eq!(post.send("POST", &endpoint, &headers, body.as_bytes()).await.expect("an answer").status, 202);
        if answered {
            let answer = next(&mut stream).await;
            assert_eq!((&answer["id"], answer.get("error")), (&message["id"], None));
        }
    }
    drop(connection);
    chain.nothing_left().await;
}
