//! Modern servers that ask by their result, and whose `requestState` only the process can read that gave it, as is the
//! default of the Python SDK and of `FastMCP`: the process that asked is kept, and the retry led to it.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Bridge, Home, Redis, procs};
use super::{PATIENCE, answer_to, bridge, call_in_rounds, call_live, legacy, modern, on_stdio, text};

/// Calls at one node, and again at the other.
async fn asks_by_rounds_on_two_nodes(sdk: &str) {
    let (home, redis) = (Home::new(), Redis::start());
    let config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "tokenStore": home.in_redis(&redis),
        "mcpServers": { "quick": on_stdio(sdk, &json!({})) },
    });
    let nodes = [home.serve(config.clone()), home.serve(config)];
    for _ in 0..2 {
        let (text, rounds) = call_in_rounds(&mut [modern(&nodes[0]), modern(&nodes[1])], "ask").await;
        assert!(text.starts_with("hello Ada"), "{text}\n{}", nodes[0].log());
        assert_eq!(rounds, 2);
    }
    until_idle(&nodes[0]).await;
}

async fn until_idle(bridge: &Bridge) {
    let idle = procs::eventually(PATIENCE, || bridge.children().is_empty().then_some(())).await;
    assert!(idle.is_some(), "{:?}", bridge.children());
}

macro_rules! asks_by_rounds {
    ($($name:ident: $sdk:literal;)*) => {
        $(#[tokio::test] async fn $name() { asks_by_rounds_on_two_nodes($sdk).await; })*
    };
}

asks_by_rounds! {
    a_retry_on_another_node_reaches_the_process_of_the_python_sdk_that_asked: "python";
    a_retry_on_another_node_reaches_the_process_of_fastmcp_that_asked: "fastmcp";
    a_retry_on_another_node_reaches_the_process_of_the_typescript_sdk_that_asked: "typescript 2";
}

/// Asks, and returns what brings the answers back.
async fn asked(bridge: &Bridge) -> Value {
    let mut params = json!({ "name": "ask", "arguments": {} });
    let asked = modern(bridge).request("tools/call", params.clone()).await.expect("an answer").response();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = json!({ "question": answer_to("elicitation/create") });
    params
}

#[tokio::test]
async fn a_fresh_process_takes_the_servers_own_state_when_the_one_that_asked_is_gone() {
    let bridge = bridge(&on_stdio("go", &json!({})));
    let retry = asked(&bridge).await;
    for process in bridge.children() {
        procs::kill(process.pid, Signal::KILL);
    }
    until_idle(&bridge).await;
    for _ in 0..2 {
        let answer = modern(&bridge).request("tools/call", retry.clone()).await.expect("an answer").response();
        assert!(text(&answer).starts_with("hello Ada"), "{answer}");
    }
}

#[tokio::test]
async fn a_process_is_kept_for_no_longer_than_its_lease() {
    let bridge = bridge(&on_stdio("go", &json!({ "parkLease": "100ms" })));
    let retry = asked(&bridge).await;
    until_idle(&bridge).await;
    let answer = modern(&bridge).request("tools/call", retry).await.expect("an answer").response();
    assert!(text(&answer).starts_with("hello Ada"), "{answer}");
}

#[tokio::test]
async fn under_replay_no_process_is_kept() {
    let bridge = bridge(&on_stdio("go", &json!({ "questions": "replay" })));
    let retry = asked(&bridge).await;
    assert_eq!(retry["requestState"], "asked", "the server's own");
    until_idle(&bridge).await;
    let answer = modern(&bridge).request("tools/call", retry).await.expect("an answer").response();
    assert!(text(&answer).starts_with("hello Ada"), "{answer}");
}

#[tokio::test]
async fn a_state_is_good_for_its_own_call_alone() {
    let bridge = bridge(&on_stdio("go", &json!({})));
    let mut retry = asked(&bridge).await;
    retry["name"] = json!("sample");
    let answer = modern(&bridge).request("tools/call", retry).await.expect("an answer");
    assert_eq!(answer.error_code(), Some(-32602));
}

#[tokio::test]
async fn a_legacy_clients_answer_reaches_the_modern_process_that_asked() {
    for sdk in ["python", "typescript 2"] {
        let bridge = bridge(&on_stdio(sdk, &json!({ "protocol": "modern" })));
        let mut client = legacy(&bridge).await;
        let (text, _) = call_live(&mut client, "ask").await;
        assert!(text.starts_with("hello Ada"), "{sdk}: {text}\n{}", bridge.log());
    }
}
