//! What is remembered of a server between requests: never what one user's token made of it for another, and not for long
//! if it is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::by_token::{USERS, by_token, has_its_own_headers, legacy, modern};
use super::fixture::Fixture;
use super::support::{Client, Home, bearer_identity};
use super::{bridge, call};

/// Rounds of calls by everybody.
const ROUNDS: usize = 100;

#[tokio::test]
async fn users_whose_tokens_make_another_server_of_it_never_meet_each_others() {
    let server = Fixture::start(by_token).await;
    let home = Home::new();
    let bearers = USERS.map(|(user, bearer, ..)| (user, bearer));
    let bridge = home.serve(json!({
        "identity": bearer_identity(&bearers),
        "tokenStore": home.embedded(),
        "mcpServers": { "elsewhere": { "url": server.url("/mcp"), "headers": { "x-token": { "$userToken": "<<token>>" } } } },
    }));
    let mut clients = Vec::new();
    for (user, bearer, ..) in USERS {
        home.set_token(user, "elsewhere", user);
        clients.push(Client::modern(&bridge, "elsewhere", Some(bearer)));
        // Nothing of it mirrors anything: the bridge does that for legacy clients.
        clients.push(Client::legacy(&bridge, "elsewhere", Some(bearer)).await);
    }
    for _ in 0..ROUNDS {
        for (at, client) in clients.iter_mut().enumerate() {
            let (user, _, era, mirrors) = USERS[at / 2];
            // A modern client of a tool that wants a header has to send one, which is not the matter here.
            if mirrors && at % 2 == 0 {
                client.request("tools/list", json!({})).await.unwrap();
                continue;
            }
            let answer = client.call("x", json!({ "password": user })).await.unwrap();
            assert_eq!(answer.text(), "done", "{user} has a {era} server\n{}", bridge.log());
        }
    }
    let calls: Vec<_> = server.seen().into_iter().filter(|request| request.asks() == "tools/call").collect();
    assert!(calls.len() >= ROUNDS * 7);
    calls.iter().for_each(has_its_own_headers);
    let refused = calls.iter().filter(|request| request.header("x-token").unwrap() > "bob").count();
    assert_eq!(refused, 4 * ROUNDS, "no call of those with legacy servers was made in vain before");
}

#[tokio::test]
async fn a_memory_that_is_wrong_is_mended_within_the_request() {
    let is_modern = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&is_modern);
    let server = Fixture::start(
        move |request| {
            if now.load(Ordering::Relaxed) { modern(request, false) } else { legacy(request) }
        },
    )
    .await;
    let bridge = bridge(json!({ "url": server.url("/mcp"), "protocol": "auto" }));
    let mut modern = Client::modern(&bridge, "elsewhere", None);
    let mut legacy = Client::without_session(&bridge, "elsewhere", None);
    // The version that the server speaks in its other era, too.
    legacy.initialize("2025-06-18", json!({})).await.unwrap();
    for turn in [true, false, true] {
        is_modern.store(turn, Ordering::Relaxed);
        for client in [&mut modern, &mut legacy] {
            for _ in 0..2 {
                assert_eq!(client.call("x", json!({})).await.unwrap().text(), "done", "{}", bridge.log());
            }
        }
        assert_eq!(call(&bridge).await.text(), "done", "without a session");
    }
    let asked = server.asked();
    let done = asked.iter().filter(|asked| *asked == "tools/call").count();
    // The first call after the turn, and those in the session that began before it, are refused once each.
    assert_eq!(done, 15 + 3, "{asked:?}");
}

#[tokio::test]
async fn what_the_method_of_an_extension_names_is_named_to_its_server_too() {
    let server = Fixture::start(|request| modern(request, false)).await;
    let bridge = bridge(json!({ "url": server.url("/mcp"), "protocol": "modern" }));
    let mut client = Client::modern(&bridge, "elsewhere", None);
    for (method, params, name) in [
        ("skills/get", json!({ "uri": "skill://über/SKILL.md" }), "=?base64?c2tpbGw6Ly/DvGJlci9TS0lMTC5tZA==?="),
        ("com.example/act", json!({ "name": "thing" }), "thing"),
    ] {
        let message = client.message(method, params);
        let twin = message.replace("skill://über/SKILL.md", name);
        let answer = client.exchange_as(message.as_bytes(), twin.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let asked = server.until(method).await;
        assert_eq!((asked.header("mcp-method"), asked.header("mcp-name")), (Some(method), Some(name)));
    }
    client.capabilities = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    client.request("tasks/get", json!({ "taskId": "t1" })).await.unwrap();
    assert_eq!(server.until("tasks/get").await.header("mcp-name"), Some("t1"));
}
