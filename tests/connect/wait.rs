//! `connect_account` with `wait`: one call from "not connected" to "connected".

use super::*;

/// Calls the tool so that it waits, and reads that it does.
async fn waits<'a>(client: &mut Client, connection: &'a mut Connection) -> Reply<'a> {
    let params = json!({ "name": "connect_account", "arguments": { "wait": true }, "_meta": { "progressToken": "p" } });
    let mut stream = client.start(connection, "tools/call", params).await.unwrap();
    assert_eq!(stream.status, 200);
    let progress = next(&mut stream).await["params"].clone();
    assert_eq!(
        (&progress["progressToken"], &progress["progress"], &progress["total"]),
        (&json!("p"), &json!(0), &json!(120))
    );
    assert!(progress["message"].as_str().unwrap_or_default().contains(LINK), "{progress}");
    stream
}

#[tokio::test]
async fn one_call_with_wait_goes_from_not_connected_to_connected() {
    let home = Home::new();
    let bridge = serve(&home);
    let mut modern = Client::modern(&bridge, "one", None);
    modern.capabilities = json!({ "elicitation": { "url": {} } });
    let (mut legacy, _) = legacy(&bridge, LEGACY, json!({ "elicitation": { "url": {} } })).await;
    let (mut one, mut two) = (open(&bridge).await, open(&bridge).await);
    let (mut of_modern, mut of_legacy) = (waits(&mut modern, &mut one).await, waits(&mut legacy, &mut two).await);
    // It goes on while nothing happens.
    assert_eq!(next(&mut of_legacy).await["params"]["progress"], json!(5));
    home.set_token("alice", "one", TOKEN);
    for stream in [&mut of_modern, &mut of_legacy] {
        let answer = loop {
            let said = next(stream).await;
            if !said["id"].is_null() {
                break said;
            }
        };
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with("Notion is connected."), "{answer}");
        assert_eq!(answer["result"]["isError"], false);
    }
    assert!(!started(&home).exists());
    is_served(&mut modern).await;
    is_served(&mut legacy).await;
}

#[tokio::test]
async fn who_waits_and_leaves_cancels_or_is_stopped_keeps_nothing() {
    let home = Home::new();
    let mut bridge = serve(&home);
    let mut modern = Client::modern(&bridge, "one", None);
    let mut connection = open(&bridge).await;
    waits(&mut modern, &mut connection).await;
    drop(connection);
    bridge.log_with("end=\"client_left\"");
    let ends = |bridge: &Bridge| bridge.log().matches("request ended").count();
    procs::eventually(SOON, || (ends(&bridge) == 1).then_some(())).await.expect("it ends with its client");

    let (mut legacy, _) = legacy(&bridge, LEGACY, json!({})).await;
    let mut connection = open(&bridge).await;
    let mut elsewhere = legacy.twin();
    let mut stream = waits(&mut legacy, &mut connection).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    assert_eq!(elsewhere.tell(&cancel).await.unwrap(), 202);
    assert!(stream.event().await.unwrap().is_none(), "it ends without an answer");

    let mut connection = open(&bridge).await;
    let mut stream = waits(&mut modern, &mut connection).await;
    bridge.signal(rustix::process::Signal::TERM);
    let answer = next(&mut stream).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(bridge.ended(SOON).expect("it ends").success());
}
