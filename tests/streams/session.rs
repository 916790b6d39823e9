//! What is kept of a session, and its end.

use super::*;
use crate::support::http::Connection;
use crate::support::mcp::{Era, LEGACY};

async fn delete(client: &Client, bridge: &Bridge) -> u16 {
    let mut connection = Connection::open(bridge.address()).await.expect("it listens");
    let headers = client.headers(b"{}");
    connection.send("DELETE", &client.path(), &headers, b"").await.expect("it answers").status
}

#[tokio::test]
async fn a_session_that_was_ended_is_not_found_on_any_node() {
    let (home, redis) = (Home::new(), Redis::start());
    let servers = json!({ "one": hostile(&home, &["polite"]), "two": hostile(&home, &["polite"]) });
    let [here, there] = two_nodes(&home, &redis, &servers);
    let mut client = Client::legacy(&here, "one", None).await;
    let mut elsewhere = on(&client, &there, "one");
    assert_eq!(elsewhere.call("act", json!({})).await.unwrap().text(), "done");
    let stranger = on(&client, &there, "two");
    assert_eq!(delete(&stranger, &there).await, 404, "a session belongs to one server");

    assert_eq!(delete(&elsewhere, &there).await, 204);

    for client in [&mut client, &mut elsewhere] {
        for method in ["tools/call", "ping", "logging/setLevel"] {
            let params = json!({ "name": "act", "level": "info" });
            assert_eq!(client.request(method, params).await.unwrap().status, 404, "{method}");
        }
        let notice = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(client.exchange(notice).await.unwrap().status, 404);
    }
    assert_eq!(delete(&client, &here).await, 404);
    let mut again = Client::legacy(&here, "one", None).await;
    assert_eq!(again.call("act", json!({})).await.unwrap().status, 200, "another session goes on");
}

#[tokio::test]
async fn a_session_ends_without_a_token_store_too() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "one": hostile(&home, &["polite"]) })));
    let mut client = Client::legacy(&bridge, "one", None).await;
    assert_eq!(client.call("act", json!({})).await.unwrap().status, 200);
    assert_eq!(delete(&client, &bridge).await, 204);
    assert_eq!(client.call("act", json!({})).await.unwrap().status, 404);
}

#[tokio::test]
async fn only_a_legacy_session_can_be_ended() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "one": hostile(&home, &["polite"]) })));
    assert_eq!(delete(&Client::modern(&bridge, "one", None), &bridge).await, 405);
    assert_eq!(delete(&Client::without_session(&bridge, "one", None), &bridge).await, 400);
    let made_up = Client::new(bridge.address(), "one", None, Era::Legacy(Some("made-up".to_owned())));
    assert_eq!(delete(&made_up, &bridge).await, 404);
}

#[tokio::test]
async fn a_log_level_is_checked_and_taken_without_a_process() {
    let home = Home::without_key();
    let bridge =
        home.serve(config(&json!({ "one": hostile(&home, &["polite"]), "none": hostile(&home, &["silent"]) })));
    let mut client = Client::legacy(&bridge, "one", None).await;
    let answer = client.request("logging/setLevel", json!({ "level": "warning" })).await.unwrap();
    assert_eq!(answer.response()["result"], json!({}));
    for level in [json!({ "level": "loud" }), json!({ "level": 7 }), json!({})] {
        let answer = client.request("logging/setLevel", level).await.unwrap();
        assert_eq!((answer.status, answer.error_code()), (200, Some(-32602)));
    }
}

#[tokio::test]
async fn without_its_store_nobody_knows_whether_a_session_was_ended_so_only_a_ping_is_answered_in_it() {
    let (home, mut redis) = (Home::new(), Redis::start());
    let mut config = config(&json!({ "one": hostile(&home, &["polite"]) }));
    config["tokenStore"] = home.in_failing_redis(&redis);
    let bridge = home.serve(config);
    let (mut client, mut ended) =
        (Client::legacy(&bridge, "one", None).await, Client::legacy(&bridge, "one", None).await);
    assert_eq!(delete(&ended, &bridge).await, 204);
    redis.crash();
    for client in [&mut client, &mut ended] {
        for method in ["tools/call", "tools/list", "logging/setLevel", "resources/subscribe"] {
            let params = json!({ "name": "act", "level": "info", "uri": "a://" });
            let answer = client.request(method, params).await.unwrap();
            assert_eq!((answer.status, answer.header("retry-after")), (200, Some("1")), "{method}");
            let said = answer.response()["error"]["message"].to_string();
            assert!(said.contains("the token store is not available"), "{said}");
        }
        let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        let answer = json!({ "jsonrpc": "2.0", "id": "x", "result": {} });
        for message in [cancelled, answer] {
            assert_eq!(client.tell(&message).await.unwrap(), 503);
        }
        assert_eq!(delete(client, &bridge).await, 503);
        assert_eq!(client.request("ping", json!({})).await.unwrap().response()["result"], json!({}));
    }
    // What needs neither a token nor a session goes on.
    for mut client in [Client::without_session(&bridge, "one", None), Client::modern(&bridge, "one", None)] {
        assert_eq!(client.call("act", json!({})).await.unwrap().text(), "done");
    }
}

#[tokio::test]
async fn a_subscription_is_kept_once_the_server_agrees() {
    let home = Home::without_key();
    let bridge = home.serve(config(&json!({ "everything": everything(), "one": hostile(&home, &["polite"]) })));
    let mut client = Client::legacy(&bridge, "everything", None).await;
    let resources = client.request("resources/list", json!({})).await.unwrap().response();
    let uri = resources.pointer("/result/resources/0/uri").expect("it has resources").clone();
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let answer = client.request(method, json!({ "uri": uri })).await.unwrap();
        assert_eq!((answer.status, &answer.response()["result"]), (200, &json!({})), "{method}");
    }
    let long = client.request("resources/subscribe", json!({ "uri": "x".repeat(2049) })).await.unwrap();
    assert_eq!((long.status, long.error_code()), (200, Some(-32602)));
    let mut refused = Client::without_session(&bridge, "one", None);
    refused.initialize(LEGACY, json!({})).await.unwrap();
    let answer = refused.request("resources/subscribe", json!({ "uri": uri })).await.unwrap();
    assert_eq!(answer.error_code(), Some(-32601), "a server's refusal is passed on");
}

#[tokio::test]
async fn who_sends_too_much_that_needs_no_process_is_refused_and_nobody_else_is() {
    let (home, one) = (Home::without_key(), "alices-key-0123456789abcdef");
    let bob = "bobs-key-0123456789abcdef";
    let bridge = home.serve(json!({
        "identity": bearer_identity(&[("alice", one), ("bob", bob)]),
        "mcpServers": { "one": hostile(&home, &["polite"]) },
    }));
    let client = Client::legacy(&bridge, "one", Some(one)).await;
    // What is long counts for many, so that they are too many on a slow machine, too: 50 of these are those of 8 s.
    let params = json!({ "_meta": { "long": "x".repeat(512 << 10) } });
    let long = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": params }).to_string();
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut client, long) = (client.twin(), long.clone());
        connections.spawn(async move {
            let cancelled =
                json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
            let mut refused = 0;
            for _ in 0..10 {
                let answers = [
                    client.exchange(long.as_bytes()).await.expect("an answer"),
                    client.request("logging/setLevel", json!({ "level": "info" })).await.expect("an answer"),
                    client.exchange(cancelled.to_string().as_bytes()).await.expect("an answer"),
                ];
                for answer in answers.iter().filter(|answer| answer.header("retry-after").is_some()) {
                    assert_eq!(answer.header("retry-after"), Some("2"), "{answer:?}");
                    refused += 1;
                }
            }
            refused
        });
    }
    let mut other = Client::legacy(&bridge, "one", Some(bob)).await;
    while connections.len() > 25 {
        assert_eq!(other.request("ping", json!({})).await.unwrap().status, 200);
        connections.join_next().await.expect("some go on").expect("no client panics");
    }
    let refused: usize = connections.join_all().await.into_iter().sum();
    assert!(refused > 0, "nobody was refused");
    let mut calls = client.twin();
    assert_eq!(calls.call("act", json!({})).await.unwrap().text(), "done", "calls have limits of their own");
}
