//! What operators do with the tokens of others.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::program::Program;
use crate::support::{Bridge, Home, Redis, free_address};
use crate::{ALICE, BOB, NOTES, OPERATOR, config, hash, serve, used};

const NOTHING: (&str, &str) = ("If-None-Match", "*");

fn of(user: &str, server: &str) -> String {
    format!("/api/v1/admin/users/{user}/servers/{server}/token")
}

fn token(value: &str) -> Value {
    json!({ "token": value })
}

/// A node whose operators are at this address.
fn node(home: &Home, audit: Option<Value>) -> (Bridge, SocketAddr) {
    let admin = free_address();
    let mut config = config(home, &home.embedded(), admin);
    config["audit"] = audit.unwrap_or(json!({ "file": home.path().join("audit.jsonl") }));
    (serve(home, config), admin)
}

#[tokio::test]
async fn without_a_token_the_admin_paths_are_not_there() {
    let (home, admin) = (Home::new(), free_address());
    let mut without = config(&home, &home.embedded(), admin);
    without["admin"].as_object_mut().expect("an object").remove("token");
    let bridge = serve(&home, without);
    let (there, elsewhere) = (Program::of(OPERATOR, admin), Program::of(OPERATOR, bridge.address()));
    for path in
        [&of("alice", "notes"), "/api/v1/admin/connections", "/api/v1/admin/audit", "/api/v1/admin/", "/api/v1/servers"]
    {
        for method in ["GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS"] {
            let answer = there.ask(method, path, &[], b"").await;
            let body = if method == "HEAD" { "" } else { "not found\n" };
            assert_eq!((answer.status, answer.text.as_str()), (404, body), "{method} {path}");
        }
    }
    drop(bridge);
    let (bridge, admin) = node(&home, None);
    let on_the_other = Program { address: bridge.address(), ..elsewhere };
    for path in [&of("alice", "notes"), "/api/v1/admin/connections"] {
        assert_eq!(on_the_other.get(path).await.said(), (404, "not-found".to_owned()), "not where clients are served");
    }
    let users = Program::of(ALICE, admin);
    assert_eq!(users.get(NOTES).await.status, 404, "and users' paths are not where operators are served");
}

#[tokio::test]
async fn nobody_but_an_operator_is_let_in() {
    let home = Home::new();
    let (bridge, admin) = node(&home, None);
    let path = of("alice", "notes");
    for bearer in ["", ALICE, &OPERATOR[1..], &format!("{OPERATOR}x"), &OPERATOR.to_uppercase(), "x"] {
        let answer = Program::of(bearer, admin).put(&path, NOTHING, &token("ntn_1")).await;
        assert_eq!(answer.said(), (401, "unauthorized".to_owned()), "{bearer}");
        // No path tells a stranger that it is there.
        assert_eq!(Program::of(bearer, admin).get("/api/v1/admin/nothing").await.said().0, 401);
    }
    let good = format!("Bearer {OPERATOR}");
    let nobody = Program { bearer: None, address: admin };
    let twice = [("Authorization", good.as_str()), ("Authorization", &good)];
    assert_eq!(nobody.ask("GET", &path, &twice, b"").await.status, 401);
    assert_eq!(nobody.ask("GET", &path, &[("X-Tollbridge-Token", OPERATOR)], b"").await.status, 401);
    assert_eq!(nobody.get(&format!("{path}?token={OPERATOR}")).await.status, 401);
    assert_eq!(Program::of(OPERATOR, bridge.address()).get(NOTES).await.status, 401, "nor is an operator a user");
    let operator = Program::of(OPERATOR, admin);
    assert_eq!(operator.get("/api/v1/admin/nothing").await.said(), (404, "not-found".to_owned()));
    let posted = operator.ask("POST", &path, &[], b"").await;
    assert_eq!((posted.said().1.as_str(), posted.header("allow")), ("method-not-allowed", "GET, PUT, DELETE"));
}

#[tokio::test]
async fn an_operator_saves_for_a_user_without_limit_and_the_audit_says_so() {
    let home = Home::new();
    let (mut bridge, admin) = node(&home, None);
    let operator = Program::of(OPERATOR, admin);
    let path = of("bob", "notes");
    let mut etag = operator.put(&path, NOTHING, &token("ntn_0")).await.etag().to_owned();
    for change in 1..=11 {
        let answer = operator.put(&path, ("If-Match", &etag), &token(&format!("ntn_{change}"))).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        answer.etag().clone_into(&mut etag);
    }
    assert_eq!(used(&bridge, "notes", BOB).await, hash("ntn_11"));
    assert_eq!(Program::of(BOB, bridge.address()).get(NOTES).await.etag(), etag, "bob sees the same");
    assert_eq!(
        operator.put(&of("nobody", "notes"), NOTHING, &token("ntn_1")).await.said(),
        (404, "not-found".to_owned())
    );
    assert_eq!(operator.put(&format!("{path}?issuer=elsewhere"), NOTHING, &token("ntn_1")).await.status, 404);
    assert_eq!(operator.get(&format!("{path}?issuer=local")).await.status, 200);
    assert_eq!(operator.delete(&path, &etag).await.status, 204);
    bridge.stop();
    let text = std::fs::read_to_string(home.path().join("audit.jsonl")).expect("it is there");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let changes: Vec<&Value> = lines.iter().filter(|line| line.get("change").is_some()).collect();
    assert_eq!(changes.len(), 2 * 13);
    assert!(changes.iter().all(|line| line["client"] == "admin API" && line["user"] == "bob"), "{text}");
    assert!(!text.contains("ntn_") && !bridge.log().contains("ntn_") && !bridge.log().contains(OPERATOR));
}

#[tokio::test]
async fn a_name_of_a_user_may_hold_anything_that_a_path_may_not() {
    let (home, admin) = (Home::new(), free_address());
    let mut proxied = config(&home, &home.embedded(), admin);
    proxied["identity"] = json!([{
        "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["127.0.0.1"], "issuer": "https://idp.example/a?b",
        "secretHeader": "X-Proof", "secret": { "$env": "OPERATOR" },
    }]);
    let bridge = serve(&home, proxied);
    let operator = Program::of(OPERATOR, admin);
    let issuer = "?issuer=https%3A%2F%2Fidp.example%2Fa%3Fb";
    for (segment, user) in [
        ("team%2Fcarl", "team/carl"),
        ("a+b%20c", "a+b c"),
        ("%2e%2E", ".."),
        ("100%25", "100%"),
        ("x%3Fissuer=local", "x?issuer=local"),
    ] {
        let path = of(segment, "notes") + issuer;
        let saved = operator.put(&path, NOTHING, &token(user)).await;
        assert_eq!(saved.status, 201, "{user}: {saved:?}");
        let headers = [("X-User", user), ("X-Proof", OPERATOR)];
        let seen = Program { bearer: None, address: bridge.address() }.ask("GET", NOTES, &headers, b"").await;
        assert_eq!(seen.etag(), saved.etag(), "{user}");
    }
    for bad in ["%", "%ff", "a%0Ab", "%00", "%20", &"x".repeat(257)] {
        let answer = operator.put(&(of(bad, "notes") + issuer), NOTHING, &token("x")).await;
        assert!(answer.status == 400 || bad == "%" && answer.status == 201, "{bad}: {answer:?}");
    }
    for path in [of("team/carl", "notes"), of("", "notes"), of("x", "no%74es"), of("x", "..")] {
        assert_eq!(operator.get(&path).await.said(), (404, "not-found".to_owned()), "{path}");
    }
    for query in ["?issuer=a&issuer=b", "?isuer=a", "?issuer=%ff", "?issuer=", "?issuer"] {
        assert_eq!(operator.get(&(of("x", "notes") + query)).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn every_connection_is_listed_some_at_a_time() {
    for is_redis in [false, true] {
        let (home, redis, admin) = (Home::new(), Redis::start(), free_address());
        let store = if is_redis { home.in_redis(&redis) } else { home.embedded() };
        let mut proxied = config(&home, &store, admin);
        proxied["identity"] = json!([{
            "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["127.0.0.1"],
            "secretHeader": "X-Proof", "secret": { "$env": "OPERATOR" },
        }]);
        let _bridge = serve(&home, proxied);
        let operator = Program::of(OPERATOR, admin);
        for user in 0..130 {
            let saved = operator.put(&of(&format!("user-{user}"), "notes"), NOTHING, &token("ntn_1")).await;
            assert_eq!(saved.status, 201, "{saved:?}");
        }
        operator.put(&of("user-7", "strict"), NOTHING, &token("ntn_1")).await;
        let (mut seen, mut after, mut pages) = (BTreeSet::new(), String::new(), 0);
        loop {
            let page = operator.get(&format!("/api/v1/admin/connections{after}")).await.json();
            for entry in page["connections"].as_array().expect("a list") {
                assert_eq!((&entry["issuer"], entry["savedAt"].is_string()), (&"local".into(), true), "{entry}");
                seen.insert((entry["user"].to_string(), entry["server"].to_string()));
            }
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            after = format!("?after={next}");
        }
        assert!(seen.len() == 131 && pages > 1, "{} in {pages}", seen.len());
        for bad in ["x", "-1", "%00", "1%20", "", "99999999999999999999"] {
            assert_eq!(operator.get(&format!("/api/v1/admin/connections?after={bad}")).await.status, 400, "{bad}");
        }
    }
}

#[tokio::test]
async fn the_audit_is_read_to_its_end_and_on() {
    let (home, redis, admin) = (Home::new(), Redis::start(), free_address());
    let mut config = config(&home, &home.in_redis(&redis), admin);
    config["audit"] = json!({ "redis": {}, "required": true });
    let _bridge = serve(&home, config);
    let operator = Program::of(OPERATOR, admin);
    let path = of("alice", "notes");
    assert_eq!(operator.get("/api/v1/admin/audit").await.json(), json!({ "lines": [] }));
    for _ in 0..30 {
        assert_eq!(operator.put(&path, NOTHING, &token("ntn_1")).await.status, 201);
        assert_eq!(operator.delete(&path, "*").await.status, 204);
    }
    // What somebody else has added is no line of ours.
    redis.ask(&["XADD", "tollbridge:audit", "*", "line", "no JSON"]);
    redis.ask(&["XADD", "tollbridge:audit", "*", "other", "{}"]);
    let (mut events, mut after, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = operator.get(&format!("/api/v1/admin/audit{after}")).await.json();
        let lines = page["lines"].as_array().expect("a list");
        sizes.push(lines.len());
        events.extend(lines.iter().map(|line| format!("{} {}", line["line"]["event"], line["line"]["outcome"])));
        let next = page["next"].as_str().expect("where it goes on");
        if lines.is_empty() {
            break;
        }
        after = format!("?after={next}");
    }
    assert_eq!(sizes, [100, 20, 0]);
    assert!(events.iter().enumerate().all(|(at, event)| {
        event.replace('"', "")
            == ["token-set begun", "token-set done", "token-removed begun", "token-removed done"][at % 4]
    }));
    assert_eq!(operator.put(&path, NOTHING, &token("ntn_1")).await.status, 201);
    let page = operator.get(&format!("/api/v1/admin/audit{after}")).await.json();
    assert_eq!(page["lines"].as_array().expect("a list").len(), 2);
    for bad in ["", "-", "x", "0", "(1-0", "1-1-1", "18446744073709551616-0"] {
        assert_eq!(operator.get(&format!("/api/v1/admin/audit?after={bad}")).await.status, 400, "{bad}");
    }
    let last = format!("/api/v1/admin/audit?after={0}-{0}", u64::MAX);
    assert_eq!(operator.get(&last).await.json()["lines"], json!([]));
}

#[tokio::test]
async fn what_is_left_of_a_server_that_is_gone_can_be_seen_and_removed() {
    let (home, admin) = (Home::new(), free_address());
    let mut without = config(&home, &home.embedded(), admin);
    home.write(without.clone());
    home.set_token("alice", "notes", "ntn_1");
    without["mcpServers"].as_object_mut().expect("an object").remove("notes");
    without["identity"][0]["tokens"].as_array_mut().expect("a list").remove(0);
    let _bridge = serve(&home, without);
    let operator = Program::of(OPERATOR, admin);
    let path = of("alice", "notes");
    assert_eq!(operator.get(&path).await.json()["savedBy"], "cli");
    assert_eq!(operator.put(&of("bob", "notes"), NOTHING, &token("ntn_2")).await.said(), (404, "not-found".to_owned()));
    assert_eq!(operator.delete(&path, "*").await.status, 204);
    assert_eq!(operator.get(&path).await.said(), (404, "no-token".to_owned()));
}
