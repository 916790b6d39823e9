//! What servers elsewhere do wrong, and what the caller is told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::fixture::{Act, Fixture, Request, answer, events, polite};
use super::support::{Bridge, Client, Home, bearer_identity, free_address, procs, random_hex};
use super::{bridge, call};

const BEARER: &str = "a-bearer-of-the-tests-that-is-long-enough";

/// A fixture that is polite until a tool is called.
async fn when_called(act: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> Fixture {
    Fixture::start(move |request| if request.asks() == "tools/call" { act(request) } else { polite(request) }).await
}

fn streamable(server: &Fixture) -> Value {
    json!({ "url": server.url("/mcp"), "transport": "streamable" })
}

/// A bridge whose user alice has `token` for the server.
#[expect(clippy::needless_pass_by_value, reason = "a configuration is made where it is used")]
fn bridge_with_token(server: Value, token: &str) -> (Home, Bridge) {
    let home = Home::new();
    home.write(json!({
        "identity": bearer_identity(&[("alice", BEARER)]),
        "tokenStore": home.embedded(),
        "limits": { "commitDelay": "1m" },
        "mcpServers": { "elsewhere": server },
    }));
    home.set_token("alice", "elsewhere", token);
    let bridge = Bridge::start_in(&home, &[("TOLLBRIDGE_LOG", "trace"), ("RUST_LOG", "trace")]);
    (home, bridge)
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed_as_the_same_post() {
    let server = Fixture::start(|request| match request.target.as_str() {
        "/a" => answer(307, &[("Location", "b")], ""),
        "/b" => answer(301, &[("Location", "/mcp")], ""),
        _ => polite(request),
    })
    .await;
    let bridge = bridge(json!({ "url": server.url("/a"), "transport": "streamable" }));
    assert_eq!(call(&bridge).await.text(), "done");
    // Where it led is known for the rest of the conversation.
    let targets: Vec<_> = server.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[..3], ["/a", "/b", "/mcp"]);
    assert!(targets[3..].iter().all(|target| target == "/mcp"), "{targets:?}");
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_not_followed_and_takes_no_token_there() {
    let other = Fixture::start(polite).await;
    let to = other.url("/mcp");
    let elsewhere = Fixture::start(move |_| answer(307, &[("Location", &to)], "")).await;
    let server = json!({ "url": elsewhere.url("/mcp"), "headers": { "X-Token": { "$userToken": "<<token>>" } } });
    let (_home, bridge) = bridge_with_token(server, "token");
    let answer = Client::without_session(&bridge, "elsewhere", Some(BEARER)).call("x", json!({})).await.unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(elsewhere.seen()[0].header("x-token"), Some("token"));
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_redirects_in_circles_is_given_up() {
    let server = Fixture::start(|_| answer(308, &[("Location", "/mcp")], "")).await;
    assert_eq!(call(&bridge(streamable(&server))).await.status, 502);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn an_event_over_the_limit_is_an_error_before_it_has_ended() {
    let never = Arc::new(Notify::new());
    let server = when_called(move |_| {
        let mut acts = events(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}", "x".repeat(9000)));
        acts.push(Act::Wait(Arc::clone(&never)));
        acts
    })
    .await;
    let mut config = streamable(&server);
    config["line"] = json!("8KiB");
    let answer = call(&bridge(config)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.response().to_string().contains("8192"), "{answer:?}");
}

#[tokio::test]
async fn events_are_read_whatever_their_line_ends() {
    let server = when_called(|_| {
        events("\u{feff}: hi\r\rid: 1\rdata:\r\rdata: {\"jsonrpc\":\"2.0\",\rdata: \"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"\u{2028}1.0\"}]}}\r\r")
    })
    .await;
    assert_eq!(call(&bridge(streamable(&server))).await.text(), "\u{2028}1.0");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_start_deadline() {
    let never = Arc::new(Notify::new());
    let server = Fixture::start(move |_| vec![Act::Wait(Arc::clone(&never))]).await;
    let mut config = streamable(&server);
    config["startTimeout"] = json!("200ms");
    assert_eq!(call(&bridge(config)).await.status, 504);
}

#[tokio::test]
async fn a_connection_that_breaks_mid_stream_is_an_error_with_the_id() {
    let server = when_called(|_| {
        let mut acts = events(
            "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n",
        );
        acts.push(Act::Reset);
        acts
    })
    .await;
    let bridge = bridge(streamable(&server));
    let answer = call(&bridge).await;
    let response = answer.response();
    assert_eq!((response["id"].as_i64(), answer.error_code()), (Some(1), Some(-32603)), "{answer:?}");
    server.until("DELETE").await;
}

#[tokio::test]
async fn a_stream_that_ends_without_the_answer_is_an_error() {
    let server = when_called(|_| [events("data: \n\n"), vec![Act::Close]].concat()).await;
    assert_eq!(call(&bridge(streamable(&server))).await.status, 502);
}

#[tokio::test]
async fn a_refused_token_reaches_the_caller_as_their_token_with_the_link() {
    for status in [401, 403] {
        let server = Fixture::start(move |_| answer(status, &[("WWW-Authenticate", "Bearer")], "")).await;
        let config = json!({ "url": server.url("/mcp"), "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } },
            "tokenSetup": { "displayName": "Elsewhere" } });
        let (_home, bridge) = bridge_with_token(config, "stale");
        for mut client in [
            Client::modern(&bridge, "elsewhere", Some(BEARER)),
            Client::without_session(&bridge, "elsewhere", Some(BEARER)),
        ] {
            let answer = client.call("x", json!({})).await.unwrap();
            assert_eq!((answer.status, answer.header("www-authenticate")), (200, None), "{answer:?}");
            assert_eq!(answer.response()["result"]["isError"], true);
            let text = answer.text();
            assert!(text.starts_with("Your token for Elsewhere was refused"), "{text}");
            assert!(text.contains("/elsewhere/connect"), "{text}");
            let answer = client.request("tools/list", json!({})).await.unwrap();
            assert_eq!(answer.response()["result"]["tools"][0]["name"], "connect_account", "{answer:?}");
            let answer = client.request("resources/read", json!({ "uri": "a://" })).await.unwrap();
            let link = answer.response()["error"]["data"]["setupUrl"].clone();
            assert!(link.as_str().is_some_and(|link| link.ends_with("/elsewhere/connect")), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_credential_of_the_operator_is_not_the_callers_token() {
    let server = Fixture::start(|_| answer(401, &[], "")).await;
    let answer = call(&bridge(streamable(&server))).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (502, None), "{answer:?}");
}

#[tokio::test]
async fn a_busy_server_says_when_to_try_again() {
    for (status, after) in [(429, "7"), (503, "Fri, 20 Nov 2026 10:00:07 GMT")] {
        let headers = [("Retry-After", after), ("Date", "Fri, 20 Nov 2026 10:00:00 GMT")];
        let server = when_called(move |_| answer(status, &headers, "")).await;
        let answer = call(&bridge(streamable(&server))).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")), "{answer:?}");
    }
    let server = when_called(|_| answer(503, &[], "")).await;
    assert!(call(&bridge(streamable(&server))).await.header("retry-after").is_some());
}

#[tokio::test]
async fn an_error_status_with_a_message_is_that_message_and_without_one_a_bad_gateway() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":1.0}}"#;
    let json = [("Content-Type", "application/json")];
    let server = when_called(move |_| answer(400, &json, error)).await;
    let said = call(&bridge(streamable(&server))).await;
    assert_eq!(said.raw, [error.as_bytes()], "{said:?}");

    let nameless = error.replace("\"id\":1", "\"id\":null");
    let server = when_called(move |_| answer(400, &json, &nameless)).await;
    let said = call(&bridge(streamable(&server))).await;
    assert_eq!((said.response()["id"].as_i64(), said.error_code()), (Some(1), Some(-32602)), "{said:?}");

    for (status, body) in [(400, "{}"), (404, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{}}"), (500, "secret trace")]
    {
        let server = when_called(move |_| answer(status, &json, body)).await;
        let said = call(&bridge(streamable(&server))).await;
        assert_eq!((said.status, said.error_code()), (502, Some(-32603)), "{said:?}");
        assert!(!said.response().to_string().contains("trace"), "{said:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_mcp_is_a_bad_gateway() {
    let server = when_called(|_| answer(200, &[("Content-Type", "text/html")], "<p>Sign in</p>")).await;
    assert_eq!(call(&bridge(streamable(&server))).await.status, 502);
}

#[tokio::test]
async fn nobody_there_is_a_bad_gateway_at_once() {
    let nobody = free_address();
    let answer = call(&bridge(json!({ "url": format!("http://{nobody}/mcp") }))).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.response().to_string().contains("refused the connection"), "{answer:?}");
}

#[tokio::test]
async fn no_token_is_seen_in_the_log_or_in_an_error_whatever_fails() {
    let canary = random_hex(16);
    for failure in ["refuses", "redirects", "breaks", "lies", "nobody"] {
        let server = when_called(move |request| match failure {
            "refuses" => answer(500, &[], request.target.as_bytes()),
            "redirects" => answer(307, &[("Location", "http://127.0.0.1:1/")], ""),
            "breaks" => vec![Act::Reset],
            _ => answer(200, &[("Content-Type", "text/plain")], request.target.as_bytes()),
        })
        .await;
        let nobody = format!("http://{}", free_address());
        let base = if failure == "nobody" { nobody } else { server.url("") };
        let token = json!({ "$userToken": format!("{base}/u/<<token>>/mcp?key=<<token>>") });
        let (_home, bridge) =
            bridge_with_token(json!({ "url": token, "headers": { "X-Key": { "$userToken": "<<token>>" } } }), &canary);
        let answer = Client::without_session(&bridge, "elsewhere", Some(BEARER)).call("x", json!({})).await.unwrap();
        assert_eq!(answer.status, 502, "{failure}: {answer:?}");
        assert!(!answer.response().to_string().contains(&canary), "{failure}: {answer:?}");
        let said = || bridge.log().contains("request failed").then(|| bridge.log());
        let log = procs::wait_for(Duration::from_mins(1), said).expect("a failure is logged");
        assert!(!log.contains(&canary), "{failure}: {log}");
        if failure != "nobody" {
            let call = server.seen().into_iter().find(|request| request.asks() == "tools/call").expect("it was called");
            assert_eq!(call.target, format!("/u/{canary}/mcp?key={canary}"));
            assert_eq!(call.header("x-key"), Some(canary.as_str()));
        }
    }
}

/// A client leaves once its call has reached the server.
async fn leaves_a_call(bridge: &Bridge, called: &Notify) {
    let mut client = Client::modern(bridge, "elsewhere", None);
    let connection = client.post("tools/call", json!({ "name": "x", "arguments": {} })).await.unwrap();
    called.notified().await;
    drop(connection);
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_and_its_session_ended() {
    let (called, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signal = Arc::clone(&called);
    let server = when_called(move |_| {
        signal.notify_one();
        [events(": wait\n\n"), vec![Act::Wait(Arc::clone(&never))]].concat()
    })
    .await;
    let bridge = bridge(streamable(&server));
    leaves_a_call(&bridge, &called).await;
    let cancelled = server.until("notifications/cancelled").await;
    assert_eq!(cancelled.message["params"]["requestId"], 1);
    server.until("DELETE").await;
}

#[tokio::test]
async fn a_cancellation_on_its_way_is_waited_for_before_the_session_is_ended() {
    let (called, never, accepted) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (signal, slow) = (Arc::clone(&called), Arc::clone(&accepted));
    let server = Fixture::start(move |request| match request.asks() {
        "tools/call" => {
            signal.notify_one();
            [events(": wait\n\n"), vec![Act::Wait(Arc::clone(&never))]].concat()
        }
        "notifications/cancelled" => [vec![Act::Wait(Arc::clone(&slow))], polite(request)].concat(),
        _ => polite(request),
    })
    .await;
    let bridge = bridge(streamable(&server));
    leaves_a_call(&bridge, &called).await;
    server.until("notifications/cancelled").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!server.asked().contains(&"DELETE".to_owned()), "{:?}", server.asked());
    accepted.notify_one();
    server.until("DELETE").await;
}

#[tokio::test]
async fn a_question_of_the_server_is_answered_while_its_stream_is_open() {
    let answered = Arc::new(Notify::new());
    let signal = Arc::clone(&answered);
    let server = Fixture::start(move |request| {
        if request.message["id"] == "q" {
            signal.notify_one();
        }
        if request.asks() != "tools/call" {
            return polite(request);
        }
        let question = "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"ping\"}\n\n";
        let done =
            "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"ok\"}]}}\n\n";
        [events(question), vec![Act::Wait(Arc::clone(&answered)), Act::Write(done.into()), Act::Close]].concat()
    })
    .await;
    assert_eq!(call(&bridge(streamable(&server))).await.text(), "ok");
    let answer = server.seen().into_iter().find(|request| request.message["id"] == "q").expect("an answer");
    assert_eq!(answer.message["result"], json!({}));
    assert_eq!(answer.header("mcp-session-id"), Some("session-of-fixture"));
}

/// A legacy server that writes a line of the log to its own stream before it answers a call. The stream does not end, and
/// `end` is how its session does.
async fn logs_on_its_own_stream(end: impl Fn() -> Vec<Act> + Send + Sync + 'static) -> Fixture {
    let (called, written, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    Fixture::start(move |request| match (request.method.as_str(), request.asks()) {
        ("GET", _) => {
            let line = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\",\"data\":\"a line\"}}\n\n";
            let [called, written, never] = [&called, &written, &never].map(Arc::clone);
            let acts =
                vec![Act::Wait(called), Act::Write(line.into()), Act::Notify(written), Act::Wait(never), Act::Close];
            [events(""), acts].concat()
        }
        (_, "tools/call") => {
            let acts = vec![Act::Notify(Arc::clone(&called)), Act::Wait(Arc::clone(&written))];
            [acts, polite(request)].concat()
        }
        ("DELETE", _) => end(),
        _ => polite(request),
    })
    .await
}

#[tokio::test]
async fn what_a_server_said_on_its_own_stream_before_its_answer_comes_before_it() {
    for status in [200, 405] {
        let server = logs_on_its_own_stream(move || answer(status, &[], "")).await;
        let mut bridge = bridge(streamable(&server));
        let mut client = Client::legacy(&bridge, "elsewhere", None).await;
        let answer = client.call("x", json!({})).await.expect("an answer");
        let logged: Vec<_> = answer.messages().into_iter().map(|message| message["params"]["data"].clone()).collect();
        assert_eq!(
            (logged, answer.text().as_str()),
            (vec![json!("a line"), Value::Null], "done"),
            "{status} {:?} {}",
            server.asked(),
            bridge.log()
        );
        // Nobody waits for the end of a session but the end of the bridge.
        server.until_again("DELETE", 2).await;
        bridge.stop();
        let ended = server.asked().into_iter().filter(|asked| asked == "DELETE").count();
        assert_eq!(ended, 2, "each session is ended once: {:?}", server.asked());
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_end_of_its_session() {
    let never = Arc::new(Notify::new());
    let server = logs_on_its_own_stream(move || vec![Act::Wait(Arc::clone(&never)), Act::Close]).await;
    let bridge = bridge(streamable(&server));
    let mut client = Client::legacy(&bridge, "elsewhere", None).await;
    let began = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(client.call("x", json!({})).await.expect("an answer").text(), "done");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn events_are_relayed_as_they_come() {
    let seen = Arc::new(Notify::new());
    let waits = Arc::clone(&seen);
    let server = when_called(move |_| {
        let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":1.0}}\n\n";
        let done = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}\n\n";
        [events(progress), vec![Act::Wait(Arc::clone(&waits)), Act::Write(done.into()), Act::Close]].concat()
    })
    .await;
    let bridge = bridge(streamable(&server));
    let mut client = Client::modern(&bridge, "elsewhere", None);
    let mut connection = super::support::http::Connection::open(bridge.address()).await.unwrap();
    let params = json!({ "name": "x", "arguments": {}, "_meta": { "progressToken": 7 } });
    let mut reply = client.start(&mut connection, "tools/call", params).await.unwrap();
    let first = reply.event().await.unwrap().expect("progress comes before the answer is written");
    assert!(String::from_utf8_lossy(&first.data).contains("{\"progressToken\":7,\"progress\":1.0}"), "{first:?}");
    seen.notify_one();
    let last = reply.event().await.unwrap().expect("the answer");
    assert!(String::from_utf8_lossy(&last.data).contains("\"id\":1"), "{last:?}");
}
