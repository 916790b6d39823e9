//! The listening stream of a legacy session.

use super::*;
use crate::support::http::{Connection, Reply};
use crate::support::mcp::LEGACY;
use crate::support::procs;

/// Opens the client's listening stream.
async fn listen<'a>(client: &Client, connection: &'a mut Connection) -> Reply<'a> {
    connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it answers")
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

async fn connect(bridge: &Bridge) -> Connection {
    Connection::open(bridge.address()).await.expect("it listens")
}

fn method(message: &Value) -> &str {
    message["method"].as_str().unwrap_or_default()
}

async fn no_server_left(home: &Home) {
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "left: {:?}", procs::with_marker(home.marker()));
}

#[tokio::test]
async fn a_change_reaches_the_session_that_listens() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let mut client = Client::without_session(&bridge, "one", None);
    let promised = client.initialize(LEGACY, json!({})).await.unwrap().response();
    assert_eq!(promised.pointer("/result/capabilities/resources/subscribe"), Some(&json!(true)), "{promised}");
    assert_eq!(promised.pointer("/result/capabilities/tools/listChanged"), Some(&json!(true)));
    client.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    client.request("logging/setLevel", json!({ "level": "warning" })).await.unwrap();
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    let heard = watched.until_heard("tollbridge:subscribe").await;
    let methods: Vec<_> = heard.iter().map(method).collect();
    let replayed = ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"];
    assert_eq!(methods, replayed);

    for event in ["updated b://", "log info", "updated a://", "log error", "list tools"] {
        watched.happens(event);
    }
    let updated = next(&mut stream).await;
    assert_eq!((method(&updated), &updated["params"]["uri"]), ("notifications/resources/updated", &json!("a://")));
    let logged = next(&mut stream).await;
    assert_eq!((method(&logged), &logged["params"]["level"]), ("notifications/message", &json!("error")));
    assert_eq!(method(&next(&mut stream).await), "notifications/tools/list_changed");

    drop(connection);
    no_server_left(&home).await;
    let ended = procs::eventually(SOON, || bridge.log().contains("stream ended").then_some(())).await;
    assert!(ended.is_some(), "{}", bridge.log());
}

#[tokio::test]
async fn what_is_set_on_one_node_reaches_the_listener_on_another() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": watched.server(&home, "legacy") }));
    let client = Client::legacy(&here, "one", None).await;
    let mut elsewhere = on(&client, &there, "one");
    let mut connection = connect(&here).await;
    let mut stream = listen(&client, &mut connection).await;

    elsewhere.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    watched.until_heard("tollbridge:subscribe").await;
    elsewhere.request("resources/subscribe", json!({ "uri": "b://" })).await.unwrap();
    elsewhere.request("logging/setLevel", json!({ "level": "error" })).await.unwrap();
    watched.until_heard("tollbridge:setLevel").await;
    watched.happens("log info");
    watched.happens("updated a://");
    assert_eq!(method(&next(&mut stream).await), "notifications/resources/updated");

    elsewhere.request("resources/unsubscribe", json!({ "uri": "b://" })).await.unwrap();
    watched.until_heard(r#""id":"tollbridge:subscribe","method":"resources/unsubscribe""#).await;
    elsewhere.request("resources/unsubscribe", json!({ "uri": "a://" })).await.unwrap();
    no_server_left(&home).await;
    let still = client.twin().request("tools/call", json!({ "name": "act", "arguments": {} })).await.unwrap();
    assert_eq!(still.text(), "error", "a fresh server is told the level, too");
}

#[tokio::test]
async fn a_session_has_one_listener_on_all_nodes() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": watched.server(&home, "legacy") }));
    let client = Client::legacy(&here, "one", None).await;
    let elsewhere = on(&client, &there, "one");
    let mut first = connect(&here).await;
    assert_eq!(listen(&client, &mut first).await.status, 200);
    assert_eq!(listen(&elsewhere, &mut connect(&there).await).await.status, 409);
    assert_eq!(listen(&client, &mut connect(&here).await).await.status, 409);
    let other = Client::legacy(&there, "one", None).await;
    assert_eq!(listen(&other, &mut connect(&there).await).await.status, 200, "another session listens beside it");

    drop(first);
    let deadline = std::time::Instant::now() + SOON;
    while listen(&elsewhere, &mut connect(&there).await).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "its place is not free again");
    }
}

#[tokio::test]
async fn of_two_that_listen_at_the_same_moment_one_may() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": watched.server(&home, "legacy") }));
    for _ in 0..8 {
        let client = Client::legacy(&here, "one", None).await;
        let elsewhere = on(&client, &there, "one");
        let (mut first, mut second) = (connect(&here).await, connect(&there).await);
        let (one, other) = tokio::join!(listen(&client, &mut first), listen(&elsewhere, &mut second));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

#[tokio::test]
async fn ending_the_session_ends_its_listener_on_another_node() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": watched.server(&home, "legacy") }));
    let client = Client::legacy(&here, "one", None).await;
    let mut connection = connect(&here).await;
    let mut stream = listen(&client, &mut connection).await;
    let ended = connect(&there).await.send("DELETE", &client.path(), &client.headers(b"{}"), b"").await.unwrap().status;
    assert_eq!(ended, 204);
    assert_eq!(stream.event().await.expect("a clean end"), None);
    no_server_left(&home).await;
    assert_eq!(listen(&client, &mut connect(&here).await).await.status, 404);
}

#[tokio::test]
async fn a_question_of_a_listening_server_is_answered_through_the_other_node() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": always(watched.server(&home, "legacy")) }));
    let mut client = Client::without_session(&here, "one", None);
    client.initialize(LEGACY, json!({ "roots": {} })).await.unwrap();
    let mut connection = connect(&here).await;
    let mut stream = listen(&client, &mut connection).await;
    watched.until_heard("notifications/initialized").await;
    watched.happens(r#"say {"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
    watched.happens(r#"say {"jsonrpc":"2.0","id":8,"method":"sampling/createMessage","params":{}}"#);
    let question = next(&mut stream).await;
    assert_eq!(method(&question), "roots/list");

    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [{ "uri": "file:///r" }] } });
    let mut elsewhere = on(&client, &there, "one");
    assert_eq!(elsewhere.exchange(answer.to_string().as_bytes()).await.unwrap().status, 202);
    watched.until_heard("file:///r").await;
    // The same server: by now it has heard both answers.
    let heard = watched.until_heard("-32601").await;
    let answered = heard.iter().find(|message| message["id"] == json!(7)).expect("the server's own id");
    assert_eq!(answered["result"], answer["result"]);
    let declined = heard.iter().find(|message| message["id"] == json!(8)).expect("an answer to what it may not ask");
    assert_eq!(declined["error"]["code"], json!(-32601));
}

#[tokio::test]
async fn questions_of_a_listening_server_are_declined_where_their_ids_would_take_its_memory() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let mut server = always(watched.server(&home, "legacy"));
    server["line"] = json!("4MiB");
    let bridge = home.serve(config(&json!({ "one": server })));
    let mut client = Client::without_session(&bridge, "one", None);
    client.initialize(LEGACY, json!({ "roots": {} })).await.unwrap();
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    watched.until_heard("notifications/initialized").await;
    // Eight MiB, and a little, are what a conversation may hold.
    for number in 0..4 {
        let id = "x".repeat(1 << 20);
        watched.happens(&format!(r#"say {{"jsonrpc":"2.0","id":"{number}{id}","method":"roots/list"}}"#));
    }
    for _ in 0..2 {
        assert_eq!(method(&next(&mut stream).await), "roots/list");
    }
    watched.until_heard("-32601").await;
}

#[tokio::test]
async fn a_server_that_ends_is_started_again_and_nothing_that_changed_meanwhile_is_missed() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let mut client = Client::legacy(&bridge, "one", None).await;
    client.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    watched.until_heard("tollbridge:subscribe").await;
    watched.happens("exit");
    let updated = next(&mut stream).await;
    assert_eq!((method(&updated), &updated["params"]), ("notifications/resources/updated", &json!({ "uri": "a://" })));
    assert!(bridge.log().contains("the server of a stream failed"), "{}", bridge.log());
}

#[tokio::test]
async fn a_bridge_that_stops_ends_the_stream_cleanly() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let mut config = config(&json!({ "one": always(watched.server(&home, "legacy")) }));
    config["limits"] = json!({ "shutdownGrace": "10m" });
    let mut bridge = home.serve(config);
    let client = Client::legacy(&bridge, "one", None).await;
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    watched.until_heard("notifications/initialized").await;
    bridge.signal(rustix::process::Signal::TERM);
    assert_eq!(stream.event().await.expect("a clean end"), None);
    assert!(bridge.ended(SOON).is_some_and(|status| status.success()), "it waits for a stream");
}

#[tokio::test]
async fn a_stream_that_is_listened_on_has_no_server_until_it_is_subscribed_to_something() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let mut client = Client::legacy(&bridge, "one", None).await;
    no_server_left(&home).await;
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    let first = stream.piece().await.expect("the stream goes on").expect("something is said at once");
    assert!(first.starts_with(b": "), "{first:?}");
    assert!(procs::with_marker(home.marker()).is_empty(), "{:?}", procs::with_marker(home.marker()));
    client.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    watched.until_heard("tollbridge:subscribe").await;
    watched.happens("updated a://");
    assert_eq!(method(&next(&mut stream).await), "notifications/resources/updated");
    client.request("resources/unsubscribe", json!({ "uri": "a://" })).await.unwrap();
    no_server_left(&home).await;
    client.request("resources/subscribe", json!({ "uri": "b://" })).await.unwrap();
    let running = procs::eventually(SOON, || (!procs::with_marker(home.marker()).is_empty()).then_some(())).await;
    assert!(running.is_some(), "another is started");
}

#[tokio::test]
async fn what_a_call_says_of_changed_lists_reaches_the_listener_on_another_node() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let mut noisy = watched.server(&home, "legacy");
    noisy["args"].as_array_mut().expect("arguments").push(json!("noisy"));
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": noisy }));
    let client = Client::legacy(&here, "one", None).await;
    let mut connection = connect(&here).await;
    let mut stream = listen(&client, &mut connection).await;
    let mut elsewhere = on(&client, &there, "one");
    // Each of these servers says that its prompts have changed when it is initialized, which is not so.
    for _ in 0..3 {
        elsewhere.request("prompts/list", json!({})).await.unwrap();
        elsewhere.call("act", json!({})).await.unwrap();
    }
    let began = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(elsewhere.call("change", json!({})).await.unwrap().status, 200);
    }
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    for _ in 0..2 {
        assert_eq!(next(&mut stream).await, changed, "the first and the last");
    }
    let said_in = began.elapsed();
    assert!(said_in >= std::time::Duration::from_secs(1), "one a second: {said_in:?}");
    drop(connection);
    let none = Client::legacy(&here, "one", None).await;
    assert_eq!(on(&none, &there, "one").call("change", json!({})).await.unwrap().status, 200, "nobody listens");
}

#[tokio::test]
async fn a_listener_of_a_modern_server_hears_what_a_legacy_one_would_say() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "modern") })));
    let mut client = Client::without_session(&bridge, "one", None);
    let promised = client.initialize(LEGACY, json!({})).await.unwrap().response();
    assert_eq!(promised.pointer("/result/capabilities/resources"), Some(&json!({ "subscribe": true })), "{promised}");
    let mut connection = connect(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    for (uri, number) in [("a://", 1), ("b://", 2)] {
        let agreed = client.request("resources/subscribe", json!({ "uri": uri })).await.unwrap();
        assert_eq!(agreed.response()["result"], json!({}));
        watched.until_heard(&format!("tollbridge:listen:{number}")).await;
    }
    let heard = watched.until_heard("tollbridge:listen:2").await;
    let asked = heard.last().expect("it heard that");
    assert_eq!(asked["params"]["notifications"], json!({ "resourceSubscriptions": ["a://", "b://"] }));
    watched.happens("updated a://");
    let updated = next(&mut stream).await;
    assert_eq!((method(&updated), &updated["params"]), ("notifications/resources/updated", &json!({ "uri": "a://" })));
}

#[tokio::test]
async fn only_a_legacy_session_can_be_listened_to() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let modern = Client::modern(&bridge, "one", None);
    assert_eq!(listen(&modern, &mut connect(&bridge).await).await.status, 405);
    let without = Client::without_session(&bridge, "one", None);
    assert_eq!(listen(&without, &mut connect(&bridge).await).await.status, 405);
    let client = Client::legacy(&bridge, "one", None).await;
    let mut headers = client.headers(b"{}");
    headers.retain(|(name, _)| name != "Accept");
    let mut connection = connect(&bridge).await;
    assert_eq!(connection.send("GET", &client.path(), &headers, b"").await.unwrap().status, 406);
}
