//! What is sent by those who mean no good, and by those who err.

use serde_json::json;

use crate::program::{Answer, Program};
use crate::support::http::Connection;
use crate::support::{Home, free_address};
use crate::{ALICE, NOTES, OPERATOR, config, serve};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const NOTHING: (&str, &str) = ("If-None-Match", "*");

#[tokio::test]
async fn paths_that_are_not_in_their_plain_form_lead_nowhere() {
    let home = Home::new();
    let bridge = serve(&home, config(&home, &home.embedded(), free_address()));
    let alice = Program::of(ALICE, bridge.address());
    for path in [
        "/api/v1/",
        "/api/v2/servers",
        "/api/v1/servers/",
        "/api/v1/servers//token",
        "/api/v1/servers/notes",
        "/api/v1/servers/notes/token/",
        "/api/v1/servers/no%74es/token",
        "/api/v1/servers/notes%2Ftoken",
        "/api/v1/servers/../servers/notes/token",
        "/api/v1/servers/./notes/token",
        "//api/v1/servers/notes/token",
        "/API/v1/servers",
        "/api/v1/servers/NOTES/token",
        "/api/v1/servers/notes;x/token",
        "/api/v1/servers/%00/token",
        "/api/v1/admin/audit",
        "/api/v1/admin/users/alice/servers/notes/token",
        "/api/mcp",
        "/api/connect",
    ] {
        for method in ["GET", "PUT"] {
            let answer = alice.ask(method, path, &[JSON, NOTHING], br#"{"token":"ntn_1"}"#).await;
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
            assert!(!answer.text.contains("no%74es") && !answer.text.contains("%00"), "{answer:?}");
        }
    }
    assert_eq!(alice.get(NOTES).await.said(), (404, "no-token".to_owned()));
    // A query says nothing to it.
    assert_eq!(alice.get("/api/v1/servers?token=x").await.status, 200);
}

#[tokio::test]
async fn other_methods_do_nothing_and_say_which_do() {
    let home = Home::new();
    let bridge = serve(&home, config(&home, &home.embedded(), free_address()));
    let alice = Program::of(ALICE, bridge.address());
    for (path, allowed) in [
        ("/api/v1/servers", "GET"),
        (NOTES, "GET, PUT, DELETE"),
        ("/api/v1/servers/notes/probe", "POST"),
        ("/api/v1/openapi.json", "GET"),
    ] {
        for method in ["HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "put"] {
            let preflight = [("Origin", "http://127.0.0.1:1"), ("Access-Control-Request-Method", "PUT"), JSON, NOTHING];
            let mut connection = Connection::open(alice.address).await.expect("it listens");
            let mut headers: Vec<(String, String)> =
                preflight.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            headers.push(("Authorization".to_owned(), format!("Bearer {ALICE}")));
            let reply = connection.send(method, path, &headers, b"").await.expect("an answer");
            assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)), "{method} {path}");
            assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{:?}", reply.headers);
        }
    }
    for (name, value) in [("X-HTTP-Method-Override", "DELETE"), ("If-Match", "*")] {
        assert_eq!(alice.ask("GET", NOTES, &[(name, value)], b"").await.status, 404);
    }
}

#[tokio::test]
async fn a_body_of_another_kind_or_size_is_refused_before_it_is_read() {
    let home = Home::new();
    let bridge = serve(&home, config(&home, &home.embedded(), free_address()));
    let alice = Program::of(ALICE, bridge.address());
    let good: &[u8] = br#"{"token":"ntn_1"}"#;
    for kind in [
        "",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json-patch+json",
        "application/jsonp",
        "*/*",
    ] {
        assert_eq!(alice.ask("PUT", NOTES, &[("Content-Type", kind), NOTHING], good).await.status, 415, "{kind}");
    }
    assert_eq!(alice.ask("PUT", NOTES, &[NOTHING], good).await.status, 415, "without any");
    assert_eq!(alice.ask("PUT", NOTES, &[JSON, JSON, NOTHING], good).await.status, 415, "twice");
    let mut connection = Connection::open(alice.address).await.expect("it listens");
    let head = format!(
        "PUT {NOTES} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {ALICE}\r\nIf-None-Match: *\r\n\
         Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n",
        alice.address,
    );
    connection.write(head.as_bytes()).await.expect("it reads");
    assert_eq!(Answer::read(&mut connection).await.said(), (413, "too-large".to_owned()), "what is announced");
    let mut connection = Connection::open(alice.address).await.expect("it listens");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = head.replace("Content-Length: 1000000000", "Transfer-Encoding: chunked") + &chunk + &chunk;
    let _ = connection.write(chunked.as_bytes()).await;
    assert_eq!(Answer::read(&mut connection).await.said(), (413, "too-large".to_owned()), "what comes");
    let deep = format!("{{\"fields\":{}", "[".repeat(60_000));
    assert_eq!(alice.ask("PUT", NOTES, &[JSON, NOTHING], deep.as_bytes()).await.status, 400);
    let many =
        json!({ "fields": (0..5000).map(|at| (format!("f{at}"), "")).collect::<std::collections::BTreeMap<_, _>>() });
    let many = alice.put(NOTES, NOTHING, &many).await;
    assert_eq!((many.status, many.text.len() < 4096), (422, true), "an answer does not grow with what was sent");
    assert_eq!(alice.get(NOTES).await.status, 404);
}

#[tokio::test]
async fn no_header_of_an_answer_or_line_of_the_log_is_made_by_a_caller() {
    let (home, admin) = (Home::new(), free_address());
    let bridge = serve(&home, config(&home, &home.embedded(), admin));
    let alice = Program::of(ALICE, bridge.address());
    let operator = Program::of(OPERATOR, admin);
    let injected = "x%0d%0aSet-Cookie:%20canary=1";
    for (program, path) in [
        (alice, format!("/api/v1/servers/{injected}/token")),
        (alice, format!("/api/v1/servers?{injected}")),
        (operator, format!("/api/v1/admin/users/{injected}/servers/notes/token")),
        (operator, format!("/api/v1/admin/users/alice/servers/notes/token?issuer={injected}")),
        (operator, format!("/api/v1/admin/connections?after={injected}")),
    ] {
        let answer = program.ask("GET", &path, &[("X-Request-Id", "a\tcanary")], b"").await;
        assert!(!format!("{answer:?}").contains("canary"), "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    for host in ["elsewhere.example", "127.0.0.1:1@elsewhere.example", ""] {
        let mut connection = Connection::open(alice.address).await.expect("it listens");
        let head = format!("GET {NOTES} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ALICE}\r\n\r\n");
        connection.write(head.as_bytes()).await.expect("it reads");
        assert_eq!(Answer::read(&mut connection).await.said(), (403, "forbidden".to_owned()), "{host}");
    }
    assert!(!bridge.log().contains("canary"), "{}", bridge.log());
}
