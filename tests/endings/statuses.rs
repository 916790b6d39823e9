//! The status and the form of an answer, however long its server took to start and however it ended.

use super::*;

/// The same server, which takes longer to start than the status line waits for a word of a server that has started.
fn slow(server: &Value) -> Value {
    let mut slow = server.clone();
    let mut arguments = vec![json!("-c"), json!("sleep 3; exec \"$0\" \"$@\""), server["command"].clone()];
    arguments.extend(server["args"].as_array().expect("arguments").iter().cloned());
    slow["command"] = json!("/bin/sh");
    slow["args"] = json!(arguments);
    slow
}

#[tokio::test]
async fn a_slow_start_changes_no_status_and_no_form_of_an_answer() {
    let home = Home::without_key();
    let directory = home.path().to_string_lossy().into_owned();
    let mut servers = Map::new();
    for (name, server) in [
        ("polite", one(&server("hostile"), &["polite"])),
        ("ends", one(&server("hostile"), &["exits", "at=call"])),
        ("asks", one(&server("asker"), &[&directory])),
        ("mirrors", one(&server("hostile"), &["mirror"])),
    ] {
        servers.insert(format!("slow-{name}"), slow(&server));
        servers.insert(name.to_owned(), server);
    }
    let bridge =
        home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": Value::Object(servers) }));
    let call = |arguments: Value| json!({ "name": "ask", "arguments": arguments });
    let table = [
        ("polite", "prompts/list", json!({}), (404, Some(-32601), "application/json")),
        ("ends", "tools/call", call(json!({})), (502, Some(-32603), "application/json")),
        ("asks", "tools/call", call(json!({ "name": "n", "times": 1 })), (400, Some(-32021), "application/json")),
        ("polite", "tools/call", call(json!({})), (200, None, "text/event-stream")),
        ("mirrors", "tools/call", call(json!({ "long": "x".repeat(1 << 20) })), (200, None, "application/json")),
    ];
    let ask = async |name: String, method: &str, params: Value| {
        let answer = Client::modern(&bridge, &name, None).request(method, params).await.expect("an answer");
        (answer.status, answer.error_code(), answer.header("content-type").unwrap_or_default().to_owned())
    };
    let rows = table.iter().map(async |(name, method, params, expected)| {
        let quick = ask((*name).to_owned(), method, params.clone()).await;
        let slow = ask(format!("slow-{name}"), method, params.clone()).await;
        let (status, code, form) = expected;
        assert_eq!(quick, (*status, *code, (*form).to_owned()), "{name} {method}");
        assert_eq!(slow, quick, "{name} {method}");
    });
    futures_util::future::join_all(rows).await;
}

#[tokio::test]
async fn in_a_session_the_failure_of_a_request_is_an_answer_to_it() {
    let home = Home::without_key();
    let program = home.path().join("program");
    procs::copy_program(Path::new(&server("hostile")), &program);
    let mut late = one(&server("hostile"), &["long"]);
    late["requestTimeout"] = json!("300ms");
    let servers = json!({
        "ends": one(&server("hostile"), &["exits", "at=call"]),
        "absent": never_spare(&program.to_string_lossy(), &["polite"]),
        "late": late,
        "busy": one(&server("hostile"), &["polite", "delay=60000"]),
    });
    let limits = json!({ "perServer": 1, "queue": "0s" });
    let bridge = home
        .serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "limits": limits, "mcpServers": servers }));
    let mut clients = Vec::new();
    for name in ["ends", "absent", "late", "busy"] {
        clients.push((name, Client::legacy(&bridge, name, None).await));
    }
    fs::remove_file(&program).expect("it was there");
    let settled = std::time::Instant::now() + SETTLED;
    for (name, client) in &mut clients {
        let connect = async || support::http::Connection::open(bridge.address()).await.expect("it listens");
        let mut running = connect().await;
        // The server of the request before may still be ending, here as below.
        while *name == "busy"
            && !client.start(&mut running, "tools/call", json!({})).await.expect("an answer").is_stream()
        {
            running = connect().await;
        }
        loop {
            let answer = client.call("act", json!({})).await.expect("an answer");
            assert_eq!((answer.status, answer.error_code()), (200, Some(-32603)), "{name}: {answer:?}");
            let full = answer.response().to_string().contains("no room for another request");
            assert!(!full || answer.header("retry-after").is_some(), "{answer:?}");
            if full == (*name == "busy") {
                break;
            }
            assert!(std::time::Instant::now() < settled, "{name}: {answer:?}");
        }
    }
    let ended = Client::new(bridge.address(), "ends", None, support::mcp::Era::Legacy(Some("made-up".to_owned())));
    assert_eq!(ended.twin().call("act", json!({})).await.expect("an answer").status, 404, "that is no request's");
}
