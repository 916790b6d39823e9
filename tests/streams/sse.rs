//! HTTP+SSE, 2024-11-05.

use super::*;
use crate::support::http::{Connection, Reply};
use crate::support::procs;

const ALICE: &str = "a-bearer-token-of-alice-that-is-long-enough";
const BOB: &str = "a-bearer-token-of-bob-that-is-long-enough-to";

fn headers(bearer: Option<&str>) -> Vec<(String, String)> {
    let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    headers.extend(bearer.map(|bearer| ("Authorization".to_owned(), format!("Bearer {bearer}"))));
    headers
}

/// Opens a stream; answers it and where its messages go.
async fn open<'a>(connection: &'a mut Connection, server: &str, bearer: Option<&str>) -> (Reply<'a>, String) {
    let reply = connection.send("GET", &format!("/{server}/sse"), &headers(bearer), b"").await;
    let mut reply = reply.expect("it answers");
    assert_eq!((reply.status, reply.is_stream()), (200, true));
    let first = reply.event().await.expect("the stream goes on").expect("an event");
    assert_eq!(first.kind.as_deref(), Some("endpoint"));
    (reply, String::from_utf8(first.data).expect("a relative reference"))
}

async fn post(bridge: &Bridge, endpoint: &str, bearer: Option<&str>, message: &Value) -> u16 {
    let mut connection = connect(bridge).await;
    connection.send("POST", endpoint, &headers(bearer), message.to_string().as_bytes()).await.expect("an answer").status
}

async fn connect(bridge: &Bridge) -> Connection {
    Connection::open(bridge.address()).await.expect("it listens")
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    assert_eq!(event.kind, None);
    serde_json::from_slice(&event.data).expect("a message")
}

fn initialize() -> Value {
    let client = json!({ "name": "tests", "version": "1" });
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })
}

fn request(id: u32, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// The same server, which stays for as long as a stream.
fn staying(mut server: Value) -> Value {
    server["sse"] = json!("session");
    server
}

/// Initializes a server and asks it three times, by posts to either node. What the first request sets holds for the
/// others.
async fn three_requests(stream: &mut Reply<'_>, endpoint: &str, [here, there]: [&Bridge; 2]) {
    assert!(endpoint.starts_with("/one/message?sessionId="), "{endpoint}");
    assert_eq!(post(there, endpoint, None, &initialize()).await, 202);
    let initialized = next(stream).await;
    assert_eq!((&initialized["id"], &initialized["result"]["serverInfo"]["name"]), (&json!(0), &json!("watcher")));
    let notice = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(post(here, endpoint, None, &notice).await, 202);
    for (id, node) in [(1, there), (2, here), (3, there)] {
        let level = json!({ "level": "error" });
        let (method, params) =
            if id == 1 { ("logging/setLevel", level) } else { ("tools/call", json!({ "name": "act" })) };
        assert_eq!(post(node, endpoint, None, &request(id, method, &params)).await, 202);
        let answer = next(stream).await;
        assert_eq!(answer["id"], json!(id));
        let kept = answer.pointer("/result/content/0/text");
        assert!(id == 1 || kept == Some(&json!("error")), "the server knows the level: {answer}");
    }
}

/// Once a stream is closed, its servers end, and no node takes messages for it.
async fn nothing_is_left(home: &Home, endpoint: &str, nodes: [&Bridge; 2]) {
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:?}", procs::with_marker(home.marker()));
    for node in nodes {
        assert_eq!(post(node, endpoint, None, &request(9, "ping", &json!({}))).await, 404, "the stream is gone");
    }
}

#[tokio::test]
async fn a_message_may_be_posted_to_any_node_and_each_request_gets_a_server_of_its_own() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": watched.server(&home, "legacy") }));
    let mut connection = connect(&here).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    three_requests(&mut stream, &endpoint, [&here, &there]).await;
    assert_eq!(watched.everything().len(), 3, "one for the handshake and for each call");
    let idle = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(idle.is_some(), "{:?}", procs::with_marker(home.marker()));

    assert_eq!(post(&there, &endpoint, None, &request(4, "tools/call", &json!({ "name": "change" }))).await, 202);
    let (said, more) = (next(&mut stream).await, next(&mut stream).await);
    let (changed, answer) = if said["id"].is_null() { (said, more) } else { (more, said) };
    assert_eq!((&answer["id"], &changed["method"]), (&json!(4), &json!("notifications/tools/list_changed")));

    let uri = json!({ "uri": "a://" });
    assert_eq!(post(&there, &endpoint, None, &request(5, "resources/subscribe", &uri)).await, 202);
    assert_eq!(next(&mut stream).await["id"], json!(5));
    watched.until_heard("tollbridge:subscribe").await;
    watched.happens("updated a://");
    assert_eq!(next(&mut stream).await["params"], uri);

    drop(connection);
    nothing_is_left(&home, &endpoint, [&here, &there]).await;
}

#[tokio::test]
async fn a_question_is_answered_and_a_call_is_cancelled_by_posts_to_the_other_node() {
    let (home, redis) = (Home::new(), Redis::start());
    let directory = home.path().to_string_lossy().into_owned();
    let marker = format!("marker={}", home.marker());
    let asker = json!({ "command": support::server("asker"), "args": [directory, marker], "abandonedGrace": "1m" });
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": asker }));
    let mut connection = connect(&here).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    let mut hello = initialize();
    hello["params"]["capabilities"] = json!({ "elicitation": {} });
    assert_eq!(post(&there, &endpoint, None, &hello).await, 202);
    next(&mut stream).await;
    let ask = json!({ "name": "ask", "arguments": { "name": "n", "times": 1 } });
    assert_eq!(post(&there, &endpoint, None, &request(1, "tools/call", &ask)).await, 202);
    let question = next(&mut stream).await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let result = json!({ "action": "accept", "content": { "value": "yes" } });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(post(&there, &endpoint, None, &answer).await, 202);
    assert_eq!(next(&mut stream).await["id"], json!(1));

    let wait = json!({ "name": "wait", "arguments": { "name": "w" } });
    assert_eq!(post(&there, &endpoint, None, &request(2, "tools/call", &wait)).await, 202);
    let file = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap_or_default();
    procs::eventually(SOON, || file("waits").contains('w').then_some(())).await.expect("it waits");
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    assert_eq!(post(&there, &endpoint, None, &cancel).await, 202);
    procs::eventually(SOON, || file("cancelled").contains('w').then_some(())).await.expect("it is told");
}

#[tokio::test]
async fn a_server_may_stay_for_as_long_as_the_stream() {
    let (home, redis, watched) = (Home::new(), Redis::start(), Watched::new());
    let [here, there] = two_nodes(&home, &redis, &json!({ "one": staying(watched.server(&home, "legacy")) }));
    let mut connection = connect(&here).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    three_requests(&mut stream, &endpoint, [&here, &there]).await;
    watched.happens("list tools");
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
    let of_extension = json!({ "jsonrpc": "2.0", "method": "notifications/com.example/done", "params": { "n": 1 } });
    assert_eq!(post(&there, &endpoint, None, &of_extension).await, 202);
    assert_eq!(watched.until_heard("com.example").await.last(), Some(&of_extension), "as it was said");
    watched.happens(&format!("say {of_extension}"));
    assert_eq!(next(&mut stream).await, of_extension);
    assert_eq!(watched.everything().len(), 1, "one process");

    drop(connection);
    nothing_is_left(&home, &endpoint, [&here, &there]).await;
}

#[tokio::test]
async fn a_stream_takes_messages_of_its_own_user_and_server_only() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let mut config = config(&json!({ "one": watched.server(&home, "legacy"), "two": watched.server(&home, "legacy") }));
    config["identity"] = support::bearer_identity(&[("alice", ALICE), ("bob", BOB)]);
    let bridge = home.serve(config);
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", Some(ALICE)).await;
    let ping = request(1, "ping", &json!({}));
    assert_eq!(post(&bridge, &endpoint, Some(BOB), &ping).await, 404);
    assert_eq!(post(&bridge, &endpoint, None, &ping).await, 401);
    assert_eq!(post(&bridge, &endpoint.replace("/one/", "/two/"), Some(ALICE), &ping).await, 404);
    assert_eq!(post(&bridge, "/one/message?sessionId=made-up", Some(ALICE), &ping).await, 404);
    assert_eq!(post(&bridge, "/one/message", Some(ALICE), &ping).await, 404);
    let mut foreign = headers(Some(ALICE));
    foreign.push(("Origin".to_owned(), "https://evil.example".to_owned()));
    let status =
        connect(&bridge).await.send("POST", &endpoint, &foreign, ping.to_string().as_bytes()).await.unwrap().status;
    assert_eq!(status, 403);
    let status = connect(&bridge).await.send("GET", "/one/sse", &foreign, b"").await.unwrap().status;
    assert_eq!(status, 403);
    assert_eq!(post(&bridge, &endpoint, Some(ALICE), &initialize()).await, 202);
    assert_eq!(next(&mut stream).await["id"], json!(0));
}

#[tokio::test]
async fn a_server_that_ends_answers_what_was_asked_with_an_error_and_the_stream_goes_on() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "one": hostile(&home, &["exits", "at=call", "code=3"]) })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    next(&mut stream).await;
    for id in [1, 2] {
        let call = request(id, "tools/call", &json!({ "name": "act" }));
        assert_eq!(post(&bridge, &endpoint, None, &call).await, 202);
        let failed = next(&mut stream).await;
        assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(id), &json!(-32603)));
    }
    assert_eq!(post(&bridge, &endpoint, None, &request(3, "tools/list", &json!({}))).await, 202);
    let listed = next(&mut stream).await;
    assert_eq!((&listed["id"], listed.get("error")), (&json!(3), None));
}

#[tokio::test]
async fn a_server_that_stays_and_ends_answers_what_was_asked_with_an_error() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "one": staying(hostile(&home, &["exits", "at=call", "code=3"])) })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    next(&mut stream).await;
    assert_eq!(post(&bridge, &endpoint, None, &request(1, "tools/call", &json!({ "name": "act" }))).await, 202);
    let failed = next(&mut stream).await;
    assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(1), &json!(-32603)));
    assert_eq!(stream.event().await.expect("a clean end"), None);
}

#[tokio::test]
async fn a_bridge_that_stops_lets_a_running_call_finish_and_ends_the_stream() {
    let home = Home::without_key();
    let mut bridge = home.serve(config(&json!({ "one": hostile(&home, &["polite", "delay=700"]) })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    next(&mut stream).await;
    assert_eq!(post(&bridge, &endpoint, None, &request(1, "tools/call", &json!({ "name": "act" }))).await, 202);
    bridge.signal(rustix::process::Signal::TERM);
    let answer = next(&mut stream).await;
    assert_eq!(answer.pointer("/result/content/0/text"), Some(&json!("done")), "{answer}");
    assert_eq!(stream.event().await.expect("a clean end"), None);
    assert!(bridge.ended(SOON).is_some_and(|status| status.success()));
}

#[tokio::test]
async fn a_modern_server_is_translated_for_a_client_of_2024() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "modern") })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    let initialized = next(&mut stream).await;
    assert_eq!(initialized["result"]["protocolVersion"], "2024-11-05", "{initialized}");
    let subscribe = request(1, "resources/subscribe", &json!({ "uri": "a://" }));
    assert_eq!(post(&bridge, &endpoint, None, &subscribe).await, 202);
    assert_eq!(next(&mut stream).await, json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    watched.until_heard("tollbridge:listen:1").await;
    watched.happens("updated a://");
    let updated = next(&mut stream).await;
    assert_eq!(
        (&updated["method"], &updated["params"]),
        (&json!("notifications/resources/updated"), &json!({ "uri": "a://" }))
    );
    let call = request(2, "tools/call", &json!({ "name": "act" }));
    assert_eq!(post(&bridge, &endpoint, None, &call).await, 202);
    let answer = next(&mut stream).await;
    assert_eq!(answer.pointer("/result/content/0/text"), Some(&json!("debug")), "{answer}");
}

#[tokio::test]
async fn a_client_without_a_token_is_told_where_to_save_it_if_it_may_not_connect() {
    let (home, redis) = (Home::new(), Redis::start());
    let whoami = json!({ "command": support::server("whoami"), "env": { "TOKEN": { "$userToken": "<<token>>" } },
        "withoutToken": "error" });
    let [bridge, _] = two_nodes(&home, &redis, &json!({ "one": whoami, "kept": staying(whoami.clone()) }));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    let told = next(&mut stream).await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(0), &json!(1401)), "{told}");
    assert!(told["error"]["data"]["setupUrl"].as_str().is_some_and(|link| link.ends_with("/one/connect")), "{told}");
    assert_eq!(
        connect(&bridge).await.send("GET", "/kept/sse", &headers(None), b"").await.expect("it answers").status,
        403
    );
}

/// What its tool asks in the middle of a call is known to its legacy era only.
#[tokio::test]
async fn a_server_with_both_eras_is_met_in_that_of_its_client() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("tests/.tools/python/mcp2/bin/python");
    assert!(python.exists(), "{} is missing: run ./scripts/test, which installs it", python.display());
    let server = json!({ "command": python, "args": [root.join("tests/python/server_v2.py")], "startTimeout": "1m" });
    let bridge = Bridge::start(config(&json!({ "one": server })));
    // A modern client before it: what was learned from it does not decide for others.
    let listed = Client::modern(&bridge, "one", None).request("tools/list", json!({})).await.expect("an answer");
    assert!(listed.response()["result"]["tools"].is_array(), "{listed:?}");
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    let mut hello = initialize();
    hello["params"]["capabilities"] = json!({ "elicitation": {} });
    assert_eq!(post(&bridge, &endpoint, None, &hello).await, 202);
    assert_eq!(next(&mut stream).await["id"], json!(0));
    let ask = json!({ "name": "ask_live", "arguments": {} });
    assert_eq!(post(&bridge, &endpoint, None, &request(1, "tools/call", &ask)).await, 202);
    let question = next(&mut stream).await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let result = json!({ "action": "accept", "content": { "name": "Ada" } });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(post(&bridge, &endpoint, None, &answer).await, 202);
    let answer = next(&mut stream).await;
    let text = answer.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default();
    assert!(text.starts_with("hello Ada"), "{answer}");
}

#[tokio::test]
async fn a_stream_has_only_the_tools_that_its_user_may_use() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let mut modern = watched.server(&home, "modern");
    modern["tools"] = json!({ "allow": ["other"] });
    let tiny = json!({ "command": support::server("tiny"), "tools": { "deny": ["p*", "big"] } });
    let line = r#"{"jsonrpc":"2.0","id":@id@,"result":{"tools":"act"}}"#;
    let mut odd = hostile(&home, &["lists"]);
    (odd["env"], odd["tools"]) = (json!({ "HOSTILE_LINE": line }), json!({ "allow": ["*"], "deny": ["act"] }));
    let (kept, kept_odd) = (staying(tiny.clone()), staying(odd.clone()));
    let servers = json!({ "modern": modern, "legacy": tiny, "odd": odd, "kept": kept, "kept-odd": kept_odd });
    let bridge = home.serve(config(&servers));
    for (server, hidden, shown) in [
        ("modern", "act", json!([])),
        ("legacy", "big", json!(["echo"])),
        ("odd", "act", Value::Null),
        ("kept", "big", json!(["echo"])),
        ("kept-odd", "act", Value::Null),
    ] {
        let mut connection = connect(&bridge).await;
        let (mut stream, endpoint) = open(&mut connection, server, None).await;
        assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
        assert_eq!(next(&mut stream).await["id"], json!(0));
        assert_eq!(post(&bridge, &endpoint, None, &request(1, "tools/list", &json!({}))).await, 202);
        let list = next(&mut stream).await;
        assert_eq!(list["id"], json!(1));
        let names = list.pointer("/result/tools").and_then(Value::as_array);
        let names = names.map(|tools| tools.iter().map(|tool| tool["name"].clone()).collect::<Value>());
        assert_eq!(names.unwrap_or_default(), shown, "{list}");
        assert_eq!(post(&bridge, &endpoint, None, &request(2, "tools/call", &json!({ "name": hidden }))).await, 202);
        let refused = next(&mut stream).await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(2), &json!(-32602)), "{refused}");
        assert_eq!(refused["error"]["message"], json!(format!("Unknown tool: {hidden}")));
    }
}

#[tokio::test]
async fn an_id_that_a_server_cannot_represent_comes_back_as_it_was_written() {
    let bridge = Bridge::start(config(&json!({ "everything": everything() })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "everything", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    assert_eq!(next(&mut stream).await["id"], 0);
    for id in [json!(9_007_199_254_740_993_u64), json!(1.5)] {
        let arguments = json!({ "duration": 0.1, "steps": 1 });
        let params = json!({ "name": "trigger-long-running-operation", "arguments": arguments, "_meta": { "progressToken": id } });
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        assert_eq!(post(&bridge, &endpoint, None, &call).await, 202);
        let (mut told, mut answered) = (false, false);
        while !(told && answered) {
            let message = next(&mut stream).await;
            told |= message.pointer("/params/progressToken") == Some(&id);
            answered |= message["id"] == id && message["result"].is_object();
        }
    }
}

#[tokio::test]
async fn text_that_is_no_message_does_not_reach_the_client() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "one": hostile(&home, &["garbage", "lines=6"]) })));
    let mut connection = connect(&bridge).await;
    let (mut stream, endpoint) = open(&mut connection, "one", None).await;
    assert_eq!(post(&bridge, &endpoint, None, &initialize()).await, 202);
    assert_eq!(next(&mut stream).await["id"], json!(0));
}
