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

/// Nobody knows then whether there is a token.
#[tokio::test]
async fn who_waits_while_the_store_fails_is_not_told_that_there_is_no_token() {
    let agrees = async |client: &mut Client| {
        client.capabilities = json!({ "elicitation": { "url": {} } });
        let mut params = json!({ "name": "whoami", "arguments": {} });
        let asked = client.request("tools/call", params.clone()).await.unwrap().response()["result"].clone();
        let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
        params["requestState"] = asked["requestState"].clone();
        params["inputResponses"] = json!({ key: { "action": "accept" } });
        client.post("tools/call", params).await.unwrap()
    };
    for tool in [true, false] {
        let (home, redis) = (Home::new(), Redis::start());
        let mut config = config(&home, &json!({ "one": whoami(&home) }));
        config["tokenStore"] = home.in_failing_redis(&redis);
        let mut bridge = home.serve(config);
        let mut client = Client::modern(&bridge, "one", None);
        let mut connection = if tool { open(&bridge).await } else { agrees(&mut client).await };
        let mut stream = if tool { Some(waits(&mut client, &mut connection).await) } else { None };
        drop(redis);
        bridge.log_with("the token store failed");
        if let Some(stream) = &mut stream {
            // What it says while it waits is true as well.
            let said = loop {
                let progress = next(stream).await["params"].clone();
                if progress["message"].as_str().is_some_and(|said| !said.contains(LINK)) {
                    break progress;
                }
            };
            assert!(said["message"].as_str().unwrap().contains("the token store is not available"), "{said}");
        }
        bridge.signal(rustix::process::Signal::TERM);
        let answer: Value = if let Some(mut stream) = stream {
            next(&mut stream).await
        } else {
            let mut reply = connection.reply().await.unwrap();
            assert_eq!(reply.status, 503);
            serde_json::from_slice(&reply.messages().await.unwrap().remove(0)).unwrap()
        };
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(answer["error"]["code"] == -32603 && message.contains("the token store is not available"), "{answer}");
        assert!(bridge.ended(SOON).is_some(), "it ends");
    }
}
