//! What is remembered of a server between requests: never what one user's token made of it for another, and not for long
//! if it is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::fixture::{Act, Fixture, Request, answer, polite};
use super::support::mcp::MODERN;
use super::support::{Client, Home, bearer_identity};
use super::{bridge, call};

/// Rounds of calls by everybody.
const ROUNDS: usize = 100;

/// Each user's token, and what it makes of the server: its era, and whether its tool wants a parameter in a header.
const USERS: [(&str, &str, &str, bool); 4] = [
    ("alice", "a-bearer-token-of-alice-that-is-long-enough", "modern", true),
    ("bob", "a-bearer-token-of-bob-that-is-long-enough-too", "modern", false),
    ("carol", "a-bearer-token-of-carol-that-is-long-enough", "legacy", false),
    ("dora", "a-bearer-token-of-dora-that-is-long-enough-too", "legacy", false),
];

fn json_answer(id: &Value, outcome: &str, value: Value) -> Vec<Act> {
    let mut message = json!({ "jsonrpc": "2.0", "id": id });
    message[outcome] = value;
    answer(200, &[("Content-Type", "application/json")], message.to_string())
}

/// A modern server, whose tool wants a parameter in a header or not.
fn modern(request: &Request, mirrors: bool) -> Vec<Act> {
    let id = &request.message["id"];
    let mut password = json!({ "type": "string" });
    if mirrors {
        password["x-mcp-header"] = json!("Leak");
    }
    let tool = json!({ "name": "x", "inputSchema": { "type": "object", "properties": { "password": password } } });
    match request.asks() {
        "server/discover" => json_answer(id, "result", json!({ "supportedVersions": [MODERN], "capabilities": {} })),
        "initialize" => json_answer(id, "error", json!({ "code": -32022, "message": "no such version" })),
        "tools/list" => json_answer(id, "result", json!({ "resultType": "complete", "tools": [tool] })),
        _ => {
            let text = [json!({ "type": "text", "text": "done" })];
            json_answer(id, "result", json!({ "resultType": "complete", "content": text }))
        }
    }
}

/// A legacy server that refuses whatever is of no session.
fn legacy(request: &Request) -> Vec<Act> {
    let begins = request.asks() == "initialize" || request.header("mcp-session-id").is_some();
    if begins || request.method != "POST" {
        return polite(request);
    }
    json_answer(&request.message["id"], "error", json!({ "code": -32600, "message": "initialize first" }))
}

#[tokio::test]
async fn users_whose_tokens_make_another_server_of_it_never_meet_each_others() {
    let server = Fixture::start(|request| {
        let token = request.header("x-token").unwrap_or_default();
        let (.., era, mirrors) = USERS.into_iter().find(|(user, ..)| *user == token).expect("a user's token");
        if era == "modern" { modern(request, mirrors) } else { legacy(request) }
    })
    .await;
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
    for request in &calls {
        let (user, .., mirrors) = USERS.into_iter().find(|(user, ..)| request.header("x-token") == Some(user)).unwrap();
        let wanted = mirrors.then_some(user);
        assert_eq!(request.header("mcp-param-leak"), wanted, "{user}: {:?}", request.headers);
    }
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
