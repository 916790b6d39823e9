//! Legacy clients in front of servers that have both eras, or one: the questions that a tool asks in the middle of a call
//! are only known to the legacy one.

use serde_json::json;

use super::{bridge, call_in_rounds, call_live, elsewhere, legacy, modern, on_stdio, over_http};

/// Everything that the quick start's tools ask, in the middle of a call.
async fn asks_a_legacy_client(server: serde_json::Value, sdk: &str) {
    let bridge = bridge(&server);
    // A modern client before it: what was learned from it must not decide for others.
    let listed = modern(&bridge).request("tools/list", json!({})).await.expect("an answer").response();
    assert!(listed["result"]["tools"].is_array(), "{listed}\n{}", bridge.log());
    let mut client = legacy(&bridge).await;
    // A server of one era alone has no other way to ask.
    let live = if sdk == "typescript 1" { "" } else { "_live" };
    for (tool, said) in [("ask", "hello Ada"), ("sample", "it said words")] {
        let (text, _) = call_live(&mut client, &format!("{tool}{live}")).await;
        assert!(text.starts_with(said), "{tool}: {text}\n{}", bridge.log());
    }
}

macro_rules! asks_legacy_clients {
    ($($name:ident: $sdk:literal;)*) => {
        $(#[tokio::test] async fn $name() { asks_a_legacy_client(on_stdio($sdk, &json!({})), $sdk).await; })*
    };
}

asks_legacy_clients! {
    a_server_of_the_python_sdk_asks_a_legacy_client_in_the_middle_of_a_call: "python";
    a_server_of_fastmcp_asks_a_legacy_client_in_the_middle_of_a_call: "fastmcp";
    a_server_of_the_go_sdk_asks_a_legacy_client_in_the_middle_of_a_call: "go";
    a_server_of_the_typescript_sdk_1_asks_a_legacy_client_in_the_middle_of_a_call: "typescript 1";
    a_server_of_the_typescript_sdk_2_asks_a_legacy_client_in_the_middle_of_a_call: "typescript 2";
}

#[tokio::test]
async fn servers_over_http_that_have_both_eras_ask_a_legacy_client_in_the_middle_of_a_call() {
    for sdk in ["python", "fastmcp", "go", "typescript 1"] {
        asks_a_legacy_client(over_http(&elsewhere(sdk)), sdk).await;
    }
}

#[tokio::test]
async fn a_server_with_both_eras_asks_a_modern_client_by_its_result() {
    let bridge = bridge(&on_stdio("go", &json!({})));
    let (text, rounds) = call_in_rounds(&mut [modern(&bridge)], "ask").await;
    assert!(text.starts_with("hello Ada"), "{text}");
    assert_eq!(rounds, 2);
}

/// A server that reads nothing before the bridge, tired of waiting for its word, has offered the handshake as well.
#[tokio::test]
async fn a_server_with_both_eras_that_is_slow_to_start_is_met_by_its_late_answer() {
    let mut server = on_stdio("python", &json!({ "startTimeout": "4m" }));
    let directory = tempfile::tempdir().expect("a directory");
    let heard = directory.path().join("heard");
    let program = format!("{} {}", server["command"].as_str().unwrap(), server["args"][0].as_str().unwrap());
    let late = r#"IFS= read -r one; IFS= read -r two; { printf '%s\n%s\n' "$one" "$two"; cat; } | tee"#;
    let script = format!("{late} {} | {program}", heard.display());
    (server["command"], server["args"]) = (json!("bash"), json!(["-c", script]));
    let bridge = bridge(&server);
    let listed = modern(&bridge).request("tools/list", json!({})).await.expect("an answer").response();
    assert!(listed["result"]["tools"].is_array(), "{listed}\n{}", bridge.log());
    let heard = std::fs::read_to_string(heard).expect("what the server heard");
    let asked = |method| heard.matches(&format!("\"{method}\"")).count();
    let all = (asked("server/discover"), asked("initialize"), asked("tools/list"));
    assert_eq!(all, (1, 1, 1), "it answered in the end: {heard}");
}

#[tokio::test]
async fn a_legacy_client_begins_a_session_with_a_server_that_refuses_its_handshake() {
    // It refuses by an error, by its end, and by a status.
    let refusing = super::installed("tests/node/conformance-server-modern.mjs");
    let node = super::installed("tests/.tools/node22");
    let ends = format!(
        r#"IFS= read -r first; [[ $first == *initialize* ]] && exit 1; {{ printf '%s\n' "$first"; cat; }} | {} {}"#,
        node.display(),
        refusing.display()
    );
    let servers = [json!({ "command": node, "args": [refusing] }), json!({ "command": "bash", "args": ["-c", ends] })];
    for server in servers {
        let bridge = bridge(&server);
        let mut client = legacy(&bridge).await;
        let answer = client.call("test_simple_text", json!({})).await.expect("an answer");
        assert!(!answer.text().is_empty(), "{}", bridge.log());
        // In its session it is asked as it is: no handshake that it would refuse again.
        assert!(!bridge.log().contains("failed"), "{}", bridge.log());
    }
}

/// It offers tools that ask only to clients that can be asked.
#[tokio::test]
async fn a_modern_client_is_shown_the_tools_that_ask_what_it_can_be_asked() {
    let everything = "tests/.tools/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let node = super::installed("tests/.tools/node22");
    let bridge = bridge(&json!({ "command": node, "args": [super::installed(everything)], "startTimeout": "1m" }));
    let listed = modern(&bridge).request("tools/list", json!({})).await.expect("an answer").response();
    let tools = listed["result"]["tools"].as_array().expect("a list");
    for tool in ["trigger-sampling-request", "trigger-elicitation-request", "get-roots-list"] {
        assert!(tools.iter().any(|listed| listed["name"] == tool), "no {tool}: {listed}");
    }
}
