//! The link, in the form that each client shows best.

use super::*;
use crate::support::http::Event;

/// The names of the tools in a list.
fn names(list: &Value) -> Vec<&str> {
    let tools = list["tools"].as_array().expect("a list of tools");
    tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
}

/// Everything but calls is answered as by a server that has one tool.
async fn lists_one_tool(client: &mut Client) {
    let list = client.request("tools/list", json!({})).await.unwrap().response()["result"].clone();
    assert_eq!(names(&list), ["connect_account"], "{list}");
    assert_eq!(list["tools"][0]["title"], "Connect Notion");
    for (method, key) in [
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ] {
        let list = client.request(method, json!({})).await.unwrap().response()["result"].clone();
        assert_eq!(list[key], json!([]), "{method}: {list}");
    }
}

fn says_what_to_do(text: &str) {
    let sentence = format!("You have not connected Notion yet: save your token at {LINK} and try again.");
    assert_eq!(text, sentence);
}

#[tokio::test]
async fn a_legacy_client_connects_lists_one_tool_and_gets_the_link_in_a_result() {
    let home = Home::new();
    let bridge = serve(&home);
    for version in ["2025-03-26", "2025-06-18", LEGACY] {
        let (mut client, hello) = legacy(&bridge, version, json!({ "elicitation": {} })).await;
        assert_eq!(hello["protocolVersion"], version);
        assert_eq!(hello["capabilities"], json!({ "tools": { "listChanged": true } }));
        assert_eq!((&hello["serverInfo"]["name"], &hello["serverInfo"]["title"]), (&json!("one"), &json!("Notion")));
        let instructions = hello["instructions"].as_str().unwrap_or_default();
        assert!(instructions.contains("connect_account") && instructions.ends_with("from your settings."), "{hello}");
        lists_one_tool(&mut client).await;
        for tool in ["connect_account", "whoami", "unheard-of"] {
            let answer = client.call(tool, json!({})).await.unwrap();
            assert_eq!((answer.status, &answer.response()["result"]["isError"]), (200, &json!(true)));
            says_what_to_do(&answer.text());
        }
        let answer = client.request("prompts/get", json!({ "name": "p" })).await.unwrap();
        let error = answer.response()["error"].clone();
        assert_eq!((answer.status, &error["code"], &error["data"]["setupUrl"]), (200, &json!(1401), &json!(LINK)));
        says_what_to_do(error["message"].as_str().unwrap_or_default());
    }
    assert!(!started(&home).exists());
    let (mut client, _) = legacy(&bridge, LEGACY, json!({})).await;
    home.set_token("alice", "one", TOKEN);
    is_served(&mut client).await;
    let list = client.request("tools/list", json!({})).await.unwrap().response()["result"].clone();
    assert!(names(&list).contains(&"whoami") && !names(&list).contains(&"connect_account"), "{list}");
    let answer = client.call("connect_account", json!({})).await.unwrap();
    let said = format!("Notion is connected. If it refuses your token, save another at {LINK} and try again.");
    assert_eq!(answer.text(), said, "also who was led here by a token that was refused knows what to do");
    assert_eq!(answer.response()["result"]["isError"], false);
}

#[tokio::test]
async fn a_client_of_2025_11_25_that_goes_to_pages_gets_the_error_that_leads_there() {
    let home = Home::new();
    let bridge = serve(&home);
    let (mut client, _) = legacy(&bridge, LEGACY, json!({ "elicitation": { "form": {}, "url": {} } })).await;
    lists_one_tool(&mut client).await;
    let mut ids = Vec::new();
    for (method, params) in [("tools/call", json!({ "name": "whoami" })), ("resources/read", json!({ "uri": "a://" }))]
    {
        let answer = client.request(method, params).await.unwrap();
        let error = answer.response()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (200, &json!(-32042)), "{answer:?}");
        says_what_to_do(error["message"].as_str().unwrap_or_default());
        let [page] = error["data"]["elicitations"].as_array().unwrap().as_slice() else { panic!("{error}") };
        assert_eq!((&page["mode"], &page["url"]), (&json!("url"), &json!(LINK)));
        ids.push(page["elicitationId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1], "the session's own, on every node");
    assert!(ids[0].len() > 40 && !started(&home).exists());
    // An earlier revision knows no such error.
    let (mut client, _) = legacy(&bridge, "2025-06-18", json!({ "elicitation": { "url": {} } })).await;
    says_what_to_do(&client.call("whoami", json!({})).await.unwrap().text());
}

#[tokio::test]
async fn the_retry_of_a_modern_call_waits_for_the_token_and_goes_on() {
    let home = Home::new();
    let bridge = serve(&home);
    let mut client = Client::modern(&bridge, "one", None);
    client.capabilities = json!({ "elicitation": { "url": {} } });
    let hello = client.request("server/discover", json!({})).await.unwrap().response()["result"].clone();
    assert_eq!((&hello["resultType"], &hello["ttlMs"]), (&json!("complete"), &json!(0)), "{hello}");
    assert_eq!(hello["capabilities"], json!({ "tools": { "listChanged": true } }));
    lists_one_tool(&mut client).await;

    let mut params = json!({ "name": "whoami", "arguments": {} });
    let asked = client.request("tools/call", params.clone()).await.unwrap().response()["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let (key, question) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!((&question["method"], &question["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    assert_eq!(question["params"]["url"], LINK);
    assert!(question["params"].get("elicitationId").is_none(), "{question}");

    params["requestState"] = asked["requestState"].clone();
    params["inputResponses"] = json!({ key: { "action": "decline" } });
    says_what_to_do(&client.request("tools/call", params.clone()).await.unwrap().text());
    assert!(!started(&home).exists());

    // SDKs call again as soon as their person has agreed to go to the page.
    params["inputResponses"] = json!({ key: { "action": "accept" } });
    let mut connection = client.post("tools/call", params).await.unwrap();
    home.set_token("alice", "one", TOKEN);
    let answer: Value =
        serde_json::from_slice(&connection.reply().await.unwrap().messages().await.unwrap().remove(0)).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], sha256_hex(TOKEN.as_bytes()), "{answer}");
    // One that cannot be asked so gets the sentence.
    home.delete_token("alice", "one");
    client.capabilities = json!({});
    let answer = client.call("whoami", json!({})).await.unwrap();
    assert_eq!(answer.response()["result"]["resultType"], "complete");
    says_what_to_do(&answer.text());
}

/// What is left of an answer that never comes is a server's own state, which it takes for a forgery.
#[tokio::test]
async fn a_server_never_hears_of_the_question_that_the_bridge_asked() {
    let home = Home::new();
    let script = home.path().join("script");
    let complete =
        r#"{"jsonrpc":"2.0","id":@id@,"result":{"resultType":"complete","content":[{"type":"text","text":@line@}]}}"#;
    let script_text = json!({ "tools/call": complete });
    std::fs::write(&script, script_text.to_string()).unwrap();
    let scripted = json!({ "command": server("scripted"), "args": [script, format!("marker={}", home.marker())],
        "protocol": "modern", "env": { "TOKEN": { "$userToken": "<<token>>" } } });
    let bridge = home.serve(config(&home, &json!({ "one": scripted })));
    let mut client = Client::modern(&bridge, "one", None);
    client.capabilities = json!({ "elicitation": { "url": {} } });
    let mut params = json!({ "name": "t", "arguments": { "a": 1 } });
    let asked = client.request("tools/call", params.clone()).await.unwrap().response()["result"].clone();
    home.set_token("alice", "one", TOKEN);
    params["requestState"] = asked["requestState"].clone();
    params["inputResponses"] = json!({ "url0": { "action": "accept" } });
    let heard = client.request("tools/call", params).await.unwrap().text();
    let heard: Value = serde_json::from_str(&heard).unwrap();
    assert_eq!(heard["params"]["arguments"], json!({ "a": 1 }));
    assert!(
        heard["params"].get("requestState").is_none() && heard["params"].get("inputResponses").is_none(),
        "{heard}"
    );
}

#[tokio::test]
async fn a_client_of_2024_is_led_there_over_http_sse_whatever_its_servers_stay_for() {
    let home = Home::new();
    let mut staying = whoami(&home);
    staying["sse"] = json!("session");
    let bridge = home.serve(config(&home, &json!({ "one": whoami(&home), "staying": staying })));
    for name in ["one", "staying"] {
        let (mut connection, mut poster) = (open(&bridge).await, open(&bridge).await);
        let accept = [("Accept".to_owned(), "text/event-stream".to_owned())];
        let mut stream = connection.send("GET", &format!("/{name}/sse"), &accept, b"").await.unwrap();
        assert_eq!(stream.status, 200);
        let Event { data, .. } = stream.event().await.unwrap().unwrap();
        let endpoint = String::from_utf8(data).unwrap();
        let json = [("Content-Type".to_owned(), "application/json".to_owned())];
        let hello = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
        for (id, method, params) in
            [(0, "initialize", hello), (1, "tools/list", json!({})), (2, "tools/call", json!({ "name": "whoami" }))]
        {
            let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
            assert_eq!(
                poster.send("POST", &endpoint, &json, message.as_bytes()).await.unwrap().body().await.map(|_| ()).ok(),
                Some(())
            );
            let answer = loop {
                let said = next(&mut stream).await;
                if !said["id"].is_null() {
                    break said;
                }
            };
            assert_eq!(answer["id"], json!(id), "{answer}");
            match id {
                0 => assert_eq!(answer["result"]["protocolVersion"], "2024-11-05"),
                1 => assert_eq!(names(&answer["result"]), ["connect_account"]),
                _ => assert_eq!(answer["result"]["isError"], true, "{answer}"),
            }
        }
    }
    assert!(!started(&home).exists());
}

#[tokio::test]
async fn no_process_is_started_without_a_token() {
    let home = Home::new();
    let bridge = serve(&home);
    let (mut legacy, _) = legacy(&bridge, "2025-03-26", json!({})).await;
    let mut modern = Client::modern(&bridge, "one", None);
    for (method, params) in [
        ("tools/list", json!({})),
        ("tools/call", json!({ "name": "whoami" })),
        ("prompts/get", json!({ "name": "p" })),
        ("resources/read", json!({ "uri": "a://" })),
        ("resources/subscribe", json!({ "uri": "a://" })),
        ("completion/complete", json!({})),
        ("logging/setLevel", json!({ "level": "info" })),
        ("server/discover", json!({})),
        ("tasks/list", json!({})),
        ("unheard/of", json!({})),
    ] {
        for client in [&mut legacy, &mut modern] {
            client.request(method, params.clone()).await.unwrap();
        }
    }
    let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"whoami"}}]"#;
    assert_eq!(legacy.exchange(batch).await.unwrap().raw.len(), 1 + 1);
    let mut connection = open(&bridge).await;
    let listening = connection.send("GET", &legacy.path(), &legacy.headers(b"{}"), b"").await.unwrap();
    assert_eq!(listening.status, 200);
    let mut connection = open(&bridge).await;
    let wanted = json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["a://"] } });
    let mut stream = modern.start(&mut connection, "subscriptions/listen", wanted).await.unwrap();
    assert_eq!(next(&mut stream).await["params"]["notifications"], json!({ "toolsListChanged": true }));
    assert!(!started(&home).exists(), "{}", bridge.log());
    assert!(procs::with_marker(home.marker()).is_empty());
}

#[tokio::test]
async fn a_store_that_failed_is_never_no_token() {
    let (home, redis) = (Home::new(), Redis::start());
    let mut config = config(&home, &json!({ "one": whoami(&home) }));
    config["tokenStore"] = home.in_failing_redis(&redis);
    let bridge = home.serve(config);
    drop(redis);
    for mut client in [Client::modern(&bridge, "one", None), Client::without_session(&bridge, "one", None)] {
        for method in ["tools/list", "tools/call"] {
            let answer = client.request(method, json!({ "name": "whoami" })).await.unwrap();
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        }
    }
    let answer = Client::without_session(&bridge, "one", None).initialize(LEGACY, json!({})).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[tokio::test]
async fn a_server_may_be_started_without_the_token_for_the_handshake_and_lists_only() {
    let home = Home::new();
    let mut whoami = whoami(&home);
    whoami["withoutToken"] = json!("start");
    let bridge = home.serve(config(&home, &json!({ "one": whoami })));
    let (mut client, hello) = legacy(&bridge, LEGACY, json!({})).await;
    assert_ne!(hello["serverInfo"]["name"], "one", "the server's own: {hello}");
    let mut modern = Client::modern(&bridge, "one", None);
    let discovered = modern.request("server/discover", json!({})).await.unwrap().response()["result"].clone();
    for hello in [hello, discovered] {
        assert_eq!(hello["capabilities"]["tools"]["listChanged"], true, "clients listen where that is said: {hello}");
    }
    for client in [&mut client, &mut modern] {
        let list = client.request("tools/list", json!({})).await.unwrap().response()["result"].clone();
        assert!(names(&list).contains(&"whoami") && !names(&list).contains(&"connect_account"), "{list}");
        std::fs::remove_file(started(&home)).expect("it was started");
        for tool in ["whoami", "connect_account"] {
            says_what_to_do(&client.call(tool, json!({})).await.unwrap().text());
        }
        let read = client.request("resources/read", json!({ "uri": "a://" })).await.unwrap();
        assert_eq!(read.error_code(), Some(1401), "{read:?}");
        assert!(!started(&home).exists(), "not for calls");
    }
    home.set_token("alice", "one", TOKEN);
    is_served(&mut client).await;
    is_served(&mut modern).await;
    let (_, hello) = legacy(&bridge, LEGACY, json!({})).await;
    assert!(hello["capabilities"]["tools"].get("listChanged").is_none(), "the server says no such thing: {hello}");
}

#[tokio::test]
async fn an_operator_may_want_an_error_instead() {
    let home = Home::new();
    let mut whoami = whoami(&home);
    whoami["withoutToken"] = json!("error");
    let bridge = home.serve(config(&home, &json!({ "one": whoami })));
    for mut client in [Client::modern(&bridge, "one", None), Client::without_session(&bridge, "one", None)] {
        let answer = client.request("tools/list", json!({})).await.unwrap();
        assert_eq!((answer.status, answer.error_code()), (200, Some(1401)), "{answer:?}");
        says_what_to_do(&client.call("connect_account", json!({})).await.unwrap().text());
    }
    let answer = Client::without_session(&bridge, "one", None).initialize(LEGACY, json!({})).await.unwrap();
    assert_eq!(answer.response()["error"]["data"]["setupUrl"], LINK, "{answer:?}");
    let accept = [("Accept".to_owned(), "text/event-stream".to_owned())];
    assert_eq!(open(&bridge).await.send("GET", "/one/sse", &accept, b"").await.unwrap().status, 200);
}
