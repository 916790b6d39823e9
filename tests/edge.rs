//! The HTTP edge: what is refused before any process is started, with the status that says why, and connections that
//! cannot be held open for nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "edge/memory.rs"]
mod memory;
mod support;

mod edge {
    mod bursts;
    mod connections;
    mod log;
}

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bridge, Home, procs};

const PING: &str = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;

fn bridge(home: &Home) -> Bridge {
    bridge_with(home, &json!({}))
}

fn bridge_with(home: &Home, limits: &Value) -> Bridge {
    let mut limits = limits.clone();
    limits["body"] = json!("4KiB");
    home.serve(json!({
        "limits": limits,
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": {
            "hostile": { "command": support::server("hostile"), "args": ["long", format!("marker={}", home.marker())], "eofGrace": "100ms", "termGrace": "100ms" },
        },
    }))
}

/// Sends bytes as they are and returns everything that comes back until the connection is closed.
fn exchange(bridge: &Bridge, request: &str) -> String {
    let mut stream = TcpStream::connect(bridge.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    // What is refused may be so before it was written.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// A POST with these header lines besides what it needs.
fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_ping_is_answered_without_a_process_and_never_cached() {
    let home = Home::new();
    let bridge = bridge(&home);
    let answer = exchange(&bridge, &post("/hostile/mcp", "Content-Type: Application/JSON; charset=utf-8\r\n", PING));
    assert_eq!(status(&answer), "200");
    let head = answer.to_lowercase();
    assert!(head.contains("cache-control: no-store") && head.contains("x-content-type-options: nosniff"), "{answer}");
    assert!(answer.ends_with(r#"{"jsonrpc":"2.0","id":"p","result":{}}"#), "{answer}");
    assert!(bridge.children().is_empty());
}

#[test]
fn each_refusal_has_its_status_and_starts_nothing() {
    let home = Home::new();
    let bridge = bridge(&home);
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":"{}"}}}}"#, "x".repeat(8192));
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{}1{}}}}}"#, "[".repeat(80), "]".repeat(80));
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#;
    let cases: &[(&str, String)] = &[
        ("403", post("/hostile/mcp", JSON, PING).replace("Host: localhost", "Host: evil.example")),
        ("403", post("/hostile/mcp", &format!("{JSON}Origin: https://evil.example\r\n"), PING)),
        ("403", post("/hostile/mcp", &format!("{JSON}Origin: null\r\n"), PING)),
        ("404", post("/nobody/mcp", JSON, PING)),
        ("404", post("/..%2fhostile/mcp", JSON, PING)),
        ("404", post("/%68ostile/mcp", JSON, PING)),
        ("404", post("/%2568ostile/mcp", JSON, PING)),
        ("404", post("/hostile/%6dcp", JSON, PING)),
        ("404", post("//hostile/mcp", JSON, PING)),
        ("404", post("/./hostile/mcp", JSON, PING)),
        ("404", post("/hostile/mcp/", JSON, PING)),
        ("404", post("/hostile;x/mcp", JSON, PING)),
        ("405", post("/hostile/mcp", JSON, PING).replacen("POST", "PUT", 1)),
        ("415", post("/hostile/mcp", "Content-Type: text/plain\r\n", PING)),
        ("415", post("/hostile/mcp", "", PING)),
        ("413", post("/hostile/mcp", JSON, &long)),
        ("400", post("/hostile/mcp", JSON, "{")),
        ("400", post("/hostile/mcp", JSON, "[]")),
        ("400", post("/hostile/mcp", JSON, &deep)),
        ("400", post("/hostile/mcp", JSON, twice)),
        ("400", post("/hostile/mcp", JSON, r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#)),
        ("400", post("/hostile/mcp", &format!("{JSON}MCP-Protocol-Version: 1999-01-01\r\n"), PING)),
        ("404", post("/hostile/mcp", &format!("{JSON}Mcp-Session-Id: forged\r\n"), PING)),
        ("431", post("/hostile/mcp", &format!("{JSON}X-Long: {}\r\n", "x".repeat(40 * 1024)), PING)),
        ("431", post("/hostile/mcp", &format!("{JSON}{}", "X-A: 1\r\n".repeat(200)), PING)),
    ];
    for (wanted, request) in cases {
        let answer = exchange(&bridge, request);
        let shown = &request[..request.len().min(300)];
        assert_eq!(status(&answer), *wanted, "{shown}\n{answer}");
    }
    assert!(bridge.children().is_empty());
}

/// A ping in two chunks, under this encoding.
fn chunked(encoding: &str) -> String {
    let (first, rest) = PING.split_at(7);
    post("/hostile/mcp", &format!("{JSON}Transfer-Encoding: {encoding}\r\n"), "").replace("Content-Length: 0\r\n", "")
        + &format!("7\r\n{first}\r\n{:x};a=b\r\n{rest}\r\n0\r\n\r\n", rest.len())
}

#[test]
fn a_message_of_very_many_members_is_refused_at_once() {
    let home = Home::new();
    let bridge = home.serve(json!({
        "limits": { "body": "8MiB" },
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "hostile": { "command": support::server("hostile") } },
    }));
    // To compare each of these keys with each before it takes ten minutes.
    let keys: Vec<String> = (0..430_000).map(|n| format!(r#""{n:x}":1"#)).collect();
    let keys = keys.join(",");
    let message = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping"{params}}}"#);
    for (wanted, body) in [
        ("400", message(&format!(",{keys}"))),
        ("400", message(&format!(r#","params":{{{keys}}}"#))),
        ("400", message(&format!(r#","params":{{"_meta":{{{keys}}}}}"#))),
        ("200", message(&format!(r#","params":{{"arguments":{{{keys}}}}}"#))),
    ] {
        let answer = exchange(&bridge, &post("/hostile/mcp", JSON, &body));
        assert_eq!((status(&answer), answer.contains("more than 1000 members")), (wanted, wanted == "400"), "{answer}");
    }
}

#[test]
fn a_request_that_two_readers_could_read_differently_is_refused() {
    let home = Home::new();
    let bridge = bridge(&home);
    let cases = [
        post("/hostile/mcp", &format!("{JSON}Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
        chunked("chunked\r\nContent-Length: 42"),
        chunked("gzip, chunked"),
        chunked("chunked").replacen("\r\n", "\n", 1),
        chunked("chunked").replace("\r\n\r\n", "\r\n\n"),
        // A request like any other, and behind it what a proxy would not have seen.
        format!("{}{}", chunked("chunked").replace("Connection: close\r\n", ""), chunked("gzip, chunked")),
        post("/hostile/mcp", &format!("{JSON}Content-Length: 7\r\n"), PING),
        post("/hostile/mcp", &format!("{JSON}Content-Length: {}\r\n", PING.len()), PING),
        post("/hostile/mcp", &format!("{JSON}X-Null: a\0b\r\n"), PING),
        post("/hostile/mcp", &format!("{JSON}X-Space : a\r\n"), PING),
        post("/hostile/mcp", &format!("{JSON}X-Fold: a\r\n b\r\n"), PING),
        post("/hostile/mcp", JSON, &PING.replace('}', r#","Method":"tools/call"}"#)),
        post("/hostile/mcp", JSON, &PING.replace('}', r#","params":{"name":"a","Name":"b"}}"#)),
    ];
    for request in cases {
        // Only the end of the connection ends the exchange.
        let answer = exchange(&bridge, &request.replace("Connection: close\r\n", ""));
        let last = answer.rfind("HTTP/1.1 ").map(|at| status(&answer[at..]));
        assert_eq!(last, Some("400"), "{request}\n{answer}");
    }
    assert_eq!(status(&exchange(&bridge, &chunked("chunked"))), "200");
}

#[test]
fn a_connection_that_says_nothing_or_half_a_head_is_closed() {
    let home = Home::new();
    let hasty = bridge_with(&home, &json!({ "headerTimeout": "500ms" }));
    for said in [
        "",
        "P",
        "PRI * HT",
        "POST /hostile/mcp HTTP/1.1\r\nHost: localhost\r\n",
        &post("/hostile/mcp", JSON, "x")[..60],
    ] {
        let began = Instant::now();
        exchange(&hasty, said);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{said:?} was held open for {took:?}");
    }
    // A body that stops in the middle is told so.
    let bridge = bridge_with(&home, &json!({ "bodyIdle": "500ms" }));
    let cut = post("/hostile/mcp", JSON, PING);
    assert_eq!(status(&exchange(&bridge, &cut[..cut.len() - 4])), "408");
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A modern call that runs until it is cancelled.
fn long_call() -> String {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":1}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"any","arguments":{{}},{meta}}}}}"#
    );
    let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: any\r\n";
    post("/hostile/mcp", &format!("{JSON}{headers}"), &body).replace("Connection: close\r\n", "")
}

#[test]
fn a_client_that_leaves_in_any_way_is_noticed_and_leaves_no_process() {
    let home = Home::new();
    let bridge = bridge(&home);
    let leave: [fn(&mut TcpStream); 3] = [
        |stream| stream.shutdown(Shutdown::Both).unwrap(),
        |stream| stream.shutdown(Shutdown::Write).unwrap(),
        // Bytes that nobody reads, then the end: hyper alone does not see it.
        |stream| {
            stream.write_all(b"GET /pipelined HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
        },
    ];
    for leave in leave {
        let mut stream = TcpStream::connect(bridge.address()).unwrap();
        stream.write_all(long_call().as_bytes()).unwrap();
        wait_until("the server runs", || !bridge.children().is_empty());
        leave(&mut stream);
        wait_until("the server is gone", || bridge.children().is_empty());
    }
}

#[test]
fn a_terminal_that_closes_ends_neither_the_bridge_nor_a_call() {
    let home = Home::new();
    let bridge = bridge(&home);
    let mut stream = TcpStream::connect(bridge.address()).unwrap();
    stream.write_all(long_call().as_bytes()).unwrap();
    wait_until("the server runs", || !bridge.children().is_empty());
    procs::kill(bridge.worker(), Signal::HUP);
    bridge.signal(Signal::HUP);
    assert!(bridge.log_with("reloaded config=").contains("changes=0"));
    assert_eq!(status(&exchange(&bridge, &post("/hostile/mcp", JSON, PING))), "200");
    for server in bridge.children() {
        let about = std::fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
        let ignored = about.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 0, "a server can still be told to hang up");
    }
    assert!(!bridge.children().is_empty());
}

/// The session id that an `initialize` of this revision brings.
fn session(bridge: &Bridge, revision: &str) -> String {
    let client = r#""capabilities":{},"clientInfo":{"name":"c","version":"1"}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{revision}",{client}}}}}"#
    );
    let answer = exchange(bridge, &post("/whoami/mcp", JSON, &body));
    assert!(answer.contains(&format!(r#""protocolVersion":"{revision}""#)), "{answer}");
    let line = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
    line.unwrap_or_else(|| panic!("no session: {answer}")).to_owned()
}

#[test]
fn a_batch_is_answered_in_sessions_of_the_one_revision_that_has_them() {
    let home = Home::new();
    let bridge = home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "whoami": { "command": support::server("whoami") } },
    }));
    let add = |id: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"add","arguments":{{"a":{id},"b":1}}}}}}"#
        )
    };
    let batch = format!(r#"[{},{PING},{{"jsonrpc":"2.0","method":"notifications/x"}},{}]"#, add(40), add(70));
    let ask = |revision: &str, body: &str| {
        let headers = format!("{JSON}Mcp-Session-Id: {}\r\n", session(&bridge, revision));
        exchange(&bridge, &post("/whoami/mcp", &headers, body))
    };
    let answer = ask("2025-03-26", &batch);
    assert_eq!(status(&answer), "200", "{answer}");
    // It goes out in chunks; no element here holds a line end.
    let elements = answer.split("\r\n\r\n").nth(1).unwrap().split("\r\n").skip(1).step_by(2);
    let mut answers: Vec<serde_json::Value> = serde_json::from_str(&elements.collect::<String>()).unwrap();
    answers.sort_by_key(|answer| answer["id"].to_string());
    let ids: Vec<String> = answers.iter().map(|answer| answer["id"].to_string()).collect();
    assert_eq!(ids, ["\"p\"", "40", "70"]);
    assert_eq!(answers[0]["result"], json!({}));
    assert_eq!(
        (&answers[1]["result"]["content"][0]["text"], &answers[2]["result"]["content"][0]["text"]),
        (&json!("41"), &json!("71"))
    );
    let notifications = r#"[{"jsonrpc":"2.0","method":"notifications/x"}]"#;
    assert_eq!(status(&ask("2025-03-26", notifications)), "202");
    assert_eq!(status(&ask("2025-06-18", &batch)), "400");
    assert_eq!(status(&ask("2025-03-26", "[]")), "400");
}

/// Asks what operators' tools ask; the answer's status and text.
fn probe(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_that_a_user_may_not_use_does_not_exist_for_them() {
    let home = Home::without_key();
    let (alice, bob, carol) =
        ("alices-key-0123456789abcdef", "bobs-key-0123456789abcdef", "carols-key-0123456789abcdef");
    let mut identity = support::bearer_identity(&[("alice", alice), ("bob", bob), ("carol", carol)]);
    identity[0]["tokens"][1]["groups"] = json!(["engineering", "on call"]);
    identity[0]["tokens"][2]["groups"] = json!(["alice"]);
    let server = |allow: Value| json!({ "command": support::server("hostile"), "args": ["polite"], "allow": allow });
    let bridge = home.serve(json!({ "identity": identity, "mcpServers": {
        "named": server(json!(["alice"])),
        "grouped": server(json!(["nobody", "group:on call"])),
        "open": { "command": support::server("hostile"), "args": ["polite"] },
    } }));
    let ask = |user: &str, method: &str, path: &str| {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {user}");
        let rest = format!("Accept: application/json, text/event-stream\r\n{JSON}Content-Length: {}", PING.len());
        exchange(&bridge, &format!("{head}\r\n{rest}\r\n\r\n{PING}"))
    };
    for (user, server, is_let_in) in [
        (alice, "named", true),
        (bob, "named", false),
        (carol, "named", false),
        (alice, "grouped", false),
        (bob, "grouped", true),
        (carol, "grouped", false),
        (alice, "open", true),
        (bob, "open", true),
        (carol, "open", true),
    ] {
        let answer = ask(user, "POST", &format!("/{server}/mcp"));
        assert_eq!(status(&answer), if is_let_in { "200" } else { "404" }, "{user} {server}: {answer}");
    }
    // Not a byte tells it from a server that is not there, wherever one asks.
    let comparable = |answer: String| {
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        let answer = answer.replace(id, "ID");
        answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
    };
    for (method, rest) in [
        ("POST", "mcp"),
        ("GET", "mcp"),
        ("DELETE", "mcp"),
        ("PUT", "mcp"),
        ("GET", "sse"),
        ("POST", "message?sessionId=x"),
        ("GET", "connect"),
        ("POST", "connect"),
    ] {
        let forbidden = comparable(ask(carol, method, &format!("/named/{rest}")));
        assert_eq!(forbidden, comparable(ask(carol, method, &format!("/never/{rest}"))), "{method} {rest}");
    }
    assert_eq!(status(&ask(alice, "GET", "/named/connect")), status(&ask(carol, "GET", "/open/connect")));
}
