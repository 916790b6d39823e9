//! What the log says of requests, and whoever reads it, or does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::connections::connect_from;
use crate::support::{self, Bridge, Home, procs};
use crate::{JSON, PING, exchange, post, probe, status};

/// Sends a request again and again over one connection; each answer has this status.
fn repeat(mut stream: &TcpStream, request: &str, wanted: &str, times: usize) {
    let request = request.replace("Connection: close\r\n", "");
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..times {
        stream.write_all(request.as_bytes()).unwrap();
        let head: Vec<String> = answers.by_ref().lines().map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
        assert_eq!(status(&head[0]), wanted);
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        answers.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
    }
}

fn served(home: &Home, admin: Option<std::net::SocketAddr>) -> Value {
    let exits = json!({ "command": support::server("hostile"), "args": ["exits", "at=call", "code=1"] });
    let says = "head -c 16000 /dev/zero | tr '\\0' '\\001' >&2; echo >&2; exit 1";
    let explains = json!({ "command": "sh", "args": ["-c", says], "protocol": "legacy" });
    let mut config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "whoami": { "command": support::server("whoami") }, "exits": exits, "explains": explains },
    });
    if let Some(admin) = admin {
        config["admin"] = json!({ "listen": admin.to_string() });
    }
    home.write(config.clone());
    config
}

fn call(server: &str, method: &str, headers: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"name":"any","arguments":{{}}}}}}"#);
    post(&format!("/{server}/mcp"), &format!("{JSON}{headers}"), &body)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_says_what_it_lost_once_it_is_read() {
    // Each call is logged with what its server said, in escapes: more than waits to be written, and few processes.
    const CALLS: usize = 20;
    let (home, admin) = (Home::new(), support::free_address());
    served(&home, Some(admin));
    let (mut bridge, stderr) = Bridge::start_unread(&home);
    let connection = || {
        let stream = TcpStream::connect(bridge.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    };
    let logged = call("explains", "tools/call", "");
    repeat(&connection(), &logged, "502", CALLS);
    repeat(&connection(), &post("/whoami/mcp", JSON, PING), "200", 3000);
    for path in ["/livez", "/readyz"] {
        assert_eq!(status(&probe(admin, path)), "200", "{path}");
    }
    let metrics = probe(admin, "/metrics");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("tollbridge_log_lines_dropped_total ")).unwrap();
    assert_ne!(dropped, "0", "{metrics}");
    let mut stderr = BufReader::new(stderr);
    let said = stderr.by_ref().lines().map(Result::unwrap).find(|line| line.contains("log lines were dropped"));
    assert!(said.as_ref().unwrap().contains("lines="), "{said:?}");
    repeat(&connection(), &logged, "502", CALLS);
    // `stop` bounds how long it may take.
    assert!(bridge.stop().success());
    drop(stderr);
}

#[test]
fn one_id_ties_the_answer_and_every_line_about_a_request_together() {
    let home = Home::new();
    served(&home, None);
    let bridge = Bridge::start_with(&home, &[], &["--log-format", "json"]);
    for (id, request) in [
        ("refused-1", post("/nobody/mcp", &format!("{JSON}X-Request-Id: refused-1\r\n"), PING)),
        ("failed-2", call("exits", "tools/call", "X-Request-Id: failed-2\r\n")),
    ] {
        let answer = exchange(&bridge, &request);
        assert!(answer.contains(&format!("\r\nx-request-id: {id}\r\n")), "{answer}");
        let document: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(document["error"]["data"]["requestId"], id, "{answer}");
    }
    let log = bridge.log_with("request ended");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| lines.iter().filter(|line| line["span"]["request"] == id).collect::<Vec<_>>();
    let [refused] = of("refused-1")[..] else { panic!("{log}") };
    assert_eq!((&refused["message"], &refused["status"]), (&json!("request refused"), &json!(404)));
    assert!(!refused.to_string().contains("nobody"), "text of a path may be a secret: {refused}");
    assert!(refused["span"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");
    assert_eq!(refused["span"]["user"], "alice@local", "{refused}");
    let failed: Vec<&str> = of("failed-2").iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert!(failed.starts_with(&["request failed", "request ended"]), "{log}");
    assert!(of("failed-2")[1]["ms"].is_u64(), "{log}");
    // What is not plain is nobody's name.
    let answer = exchange(&bridge, &post("/whoami/mcp", &format!("{JSON}X-Request-Id: a b\r\n"), PING));
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{answer}");
}

#[test]
fn a_flood_of_refusals_does_not_flood_the_log() {
    const FLOOD: usize = 500;
    let home = Home::new();
    served(&home, None);
    let bridge = Bridge::start_in(&home, &[]);
    let refused = post("/nobody/mcp", JSON, PING);
    let began = std::time::Instant::now();
    repeat(&connect_from([127, 0, 0, 1], &bridge, None), &refused, "404", FLOOD);
    let most = 21 + usize::try_from(began.elapsed().as_secs()).unwrap();
    // Somebody else is not left out, and says how many were.
    repeat(&connect_from([127, 0, 0, 2], &bridge, None), &refused, "404", 1);
    // A flood of more than a second has lines with a count in its midst.
    let told = || {
        let log = bridge.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("request refused")).collect();
        let left_out = lines.iter().filter_map(|line| line.split("left_out=").nth(1)?.split(' ').next());
        let left_out: usize = left_out.map(|count| count.parse::<usize>().unwrap()).sum();
        (lines.len() + left_out == FLOOD + 1).then_some(lines.len())
    };
    let lines = procs::wait_for(Duration::from_mins(1), told).unwrap_or_else(|| panic!("{}", bridge.log()));
    assert!(lines <= most + 1, "{lines} lines");
}
