//! Which transport a server is spoken to with, what is remembered of it, and what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::fixture::{Fixture, answer, of_2024, polite};
use super::support::{Bridge, Client, Home, bearer_identity, free_address};
use super::{bridge, call};

#[tokio::test]
async fn a_server_that_takes_no_post_is_spoken_to_over_sse_and_that_is_remembered() {
    let server = Fixture::start(of_2024("/message?session=1")).await;
    let bridge = bridge(json!({ "url": server.url("/sse") }));
    assert_eq!(call(&bridge).await.text(), "done");
    assert_eq!(server.asked(), ["initialize", "GET", "initialize", "notifications/initialized", "tools/call"]);
    assert_eq!(call(&bridge).await.text(), "done");
    assert_eq!(server.asked()[5..], ["GET", "initialize", "notifications/initialized", "tools/call"]);
    assert!(server.seen()[2..5].iter().all(|post| post.target == "/message?session=1"));
}

#[tokio::test]
async fn a_server_that_no_longer_speaks_sse_is_asked_anew_without_a_restart() {
    let is_old = Arc::new(AtomicBool::new(true));
    let (old, switch) = (of_2024("/message"), Arc::clone(&is_old));
    let server =
        Fixture::start(move |request| if switch.load(Ordering::Relaxed) { old(request) } else { polite(request) })
            .await;
    let bridge = bridge(json!({ "url": server.url("/mcp") }));
    assert_eq!(call(&bridge).await.text(), "done");
    is_old.store(false, Ordering::Relaxed);
    let before = server.seen().len();
    assert_eq!(call(&bridge).await.text(), "done");
    server.until("DELETE").await;
    assert_eq!(server.asked()[before..before + 2], ["GET", "initialize"]);
    let before = server.seen().len();
    assert_eq!(call(&bridge).await.text(), "done");
    assert_eq!(server.asked()[before], "initialize", "what was remembered is forgotten");
}

#[tokio::test]
async fn an_endpoint_at_another_origin_gets_no_message() {
    let other = Fixture::start(polite).await;
    for endpoint in [other.url("/message"), other.url("/message").replace("http:", ""), "ftp://x/".to_owned()] {
        let server = Fixture::start(of_2024(&endpoint)).await;
        for protocol in ["legacy", "auto"] {
            let config = json!({ "url": server.url("/sse"), "transport": "sse", "protocol": protocol });
            let answer = call(&bridge(config)).await;
            assert_eq!(answer.status, 502, "{answer:?}");
        }
        assert!(server.asked().iter().all(|asked| asked == "GET"), "{:?}", server.asked());
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_speaks_neither_is_a_bad_gateway_that_says_what_it_answered() {
    let server = Fixture::start(|_| answer(404, &[], "")).await;
    let answer = call(&bridge(json!({ "url": server.url("/") }))).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.response().to_string().contains("404"), "{answer:?}");
    assert_eq!(server.asked(), ["initialize", "GET"]);
}

#[tokio::test]
async fn a_legacy_session_is_named_in_every_message_after_its_first_answer() {
    let server = Fixture::start(polite).await;
    let bridge = bridge(json!({ "url": server.url("/mcp") }));
    assert_eq!(call(&bridge).await.text(), "done");
    server.until("DELETE").await;
    let seen = server.seen();
    assert_eq!(server.asked(), ["initialize", "notifications/initialized", "GET", "tools/call", "DELETE"]);
    assert_eq!((seen[0].header("mcp-session-id"), seen[0].header("mcp-protocol-version")), (None, None));
    for request in &seen[1..] {
        assert_eq!(request.header("mcp-session-id"), Some("session-of-fixture"), "{request:?}");
        assert_eq!(request.header("mcp-protocol-version"), Some("2025-06-18"), "{request:?}");
    }
    for request in seen.iter().filter(|request| request.method == "POST") {
        assert_eq!(request.header("accept"), Some("application/json, text/event-stream"));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn connections_are_shared_between_users_and_carry_nothing_from_one_to_the_other() {
    let server = Fixture::start(|request| {
        let mut acts = polite(request);
        if let Some(super::fixture::Act::Write(bytes)) = acts.first_mut() {
            let at = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a head") + 2;
            bytes.splice(at..at, *b"Set-Cookie: user=alice\r\n");
        }
        acts
    })
    .await;
    let home = Home::new();
    let users = [("alice", "bearer-of-alice-0123456789abcdef"), ("bob", "bearer-of-bob-0123456789abcdef00")];
    let config = json!({
        "identity": bearer_identity(&users),
        "tokenStore": home.embedded(),
        "mcpServers": { "elsewhere": { "url": server.url("/mcp"), "headers": { "X-Token": { "$userToken": "<<token>>" } } } },
    });
    home.write(config);
    for (user, _) in users {
        home.set_token(user, "elsewhere", &format!("token-of-{user}"));
    }
    let nobody = format!("http://{}", free_address());
    let proxies = [("HTTP_PROXY", nobody.as_str()), ("http_proxy", nobody.as_str()), ("ALL_PROXY", nobody.as_str())];
    let bridge = Bridge::start_in(&home, &proxies);
    for _ in 0..4 {
        for (user, bearer) in users {
            let before = server.seen().len();
            let mut client = Client::without_session(&bridge, "elsewhere", Some(bearer));
            assert_eq!(client.call("x", json!({})).await.unwrap().text(), "done");
            for request in &server.seen()[before..] {
                let is_late = request.method == "DELETE";
                let token = request.header("x-token").expect("a token");
                assert!(is_late || token == format!("token-of-{user}"), "{user}: {request:?}");
                assert_eq!((request.header("cookie"), request.header("authorization")), (None, None));
            }
        }
    }
    let connections = server.seen().iter().map(|request| request.connection).max().expect("there were some") + 1;
    // A connection is free again only a moment after its answer, and then another may have been opened.
    assert!(connections <= 8, "{connections} connections for {} requests", server.seen().len());
}
