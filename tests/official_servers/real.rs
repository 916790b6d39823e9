//! Servers that people run, with clients of either era.

use std::process::Command;

use serde_json::{Value, json};

use super::{bridge, installed, legacy, modern};

const EVERYTHING: &str = "tests/.tools/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// Lists the tools, calls one that works, and one that says of what it was given that it is wrong.
async fn visits(server: Value, call: (&str, Value, &str), failing: (&str, Value, &str)) {
    let bridge = bridge(&server);
    for mut client in [legacy(&bridge).await, modern(&bridge)] {
        let listed = client.request("tools/list", json!({})).await.expect("an answer").response();
        let tools = listed["result"]["tools"].as_array().expect("a list");
        assert!(tools.iter().any(|tool| tool["name"] == call.0), "{listed}");
        for ((name, arguments, said), fails) in [(&call, false), (&failing, true)] {
            let answer = client.call(name, arguments.clone()).await.expect("an answer");
            assert!(answer.text().contains(said), "{}\n{}", answer.response(), bridge.log());
            assert_eq!(answer.response()["result"]["isError"].as_bool().unwrap_or_default(), fails);
        }
    }
}

/// Written with the TypeScript SDK 1.x; it sends `list_changed` of its own accord.
fn everything() -> Value {
    json!({ "command": installed("tests/.tools/node22"), "args": [installed(EVERYTHING)], "startTimeout": "1m" })
}

#[tokio::test]
async fn everything_is_served() {
    let call = ("echo", json!({ "message": "h\u{e4}llo" }), "Echo: h\u{e4}llo");
    visits(everything(), call, ("get-sum", json!({ "a": "not a number" }), "expected number")).await;
}

/// Written with the Python SDK.
#[tokio::test]
async fn time_is_served() {
    let server =
        json!({ "command": installed("tests/.tools/python/servers/bin/mcp-server-time"), "startTimeout": "1m" });
    let call = ("get_current_time", json!({ "timezone": "Europe/Paris" }), "Europe/Paris");
    visits(server, call, ("get_current_time", json!({ "timezone": "Nowhere/Land" }), "Nowhere/Land")).await;
}

#[test]
fn the_typescript_client_over_http_sse_hears_the_progress_that_comes_just_before_the_answer() {
    let bridge = bridge(&everything());
    let hears = || {
        let mut client = Command::new(installed("tests/.tools/node22"));
        client.arg(installed("tests/node/client-sse.mjs")).arg(bridge.url("quick").replace("/mcp", "/sse"));
        let output = client.output().expect("the client can be started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}\n{}", bridge.log());
        serde_json::from_slice::<Value>(&output.stdout).expect("one line of JSON")
    };
    // A client that does not run for a moment reads the last progress together with the answer, and loses it.
    assert!((0..5).any(|_| hears() == json!([1, 2, 3])), "progress is held apart from the answer");
}
