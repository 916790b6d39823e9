//! A legacy server over HTTP that asks and logs outside of a request's own stream, as the TypeScript SDK 1.x does unless
//! it is told otherwise: it is heard beside each call.

use serde_json::json;

use super::{bridge, call_in_rounds, call_live, elsewhere, legacy, modern, over_http};

#[tokio::test]
async fn what_a_server_asks_and_logs_on_its_own_stream_reaches_a_legacy_client() {
    let elsewhere = elsewhere("typescript 1");
    let bridge = bridge(&over_http(&elsewhere));
    let mut client = legacy(&bridge).await;
    for (tool, said) in [("ask", "hello Ada"), ("sample", "it said words"), ("roots", "file:///work")] {
        let (text, _) = call_live(&mut client, tool).await;
        assert!(text.starts_with(said), "{tool}: {text}\n{}", bridge.log());
    }
    let (text, logged) = call_live(&mut client, "log").await;
    assert_eq!((text.as_str(), logged), ("logged", vec![json!("a line")]));
}

#[tokio::test]
async fn what_a_server_asks_on_its_own_stream_reaches_a_modern_client_by_rounds() {
    let elsewhere = elsewhere("typescript 1");
    let bridge = bridge(&over_http(&elsewhere));
    for (tool, said) in [("ask", "hello Ada"), ("sample", "it said words"), ("roots", "file:///work")] {
        let (text, rounds) = call_in_rounds(&mut [modern(&bridge)], tool).await;
        assert!(text.starts_with(said) && rounds == 2, "{tool}: {text} after {rounds}\n{}", bridge.log());
    }
}
