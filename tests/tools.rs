//! Tools that a caller may not use: no list has them, and a call of one is answered as a server answers what it has not.

mod support;

use serde_json::{Value, json};
use support::{Bridge, Client, Home, bearer_identity, server};

const ALICE: &str = "a-bearer-token-of-alice-that-is-long-enough";
const BOB: &str = "a-bearer-token-of-bob-that-is-long-enough-to";

/// Everything that a typed relay tends to change.
const ODD: &str =
    r#""z":1.0, "y" :-0,"w":18446744073709551616,"t":"\u00e9\/\ud83d\ude00]},{","r":{"name":"delete"},"q":1e400"#;

/// A bridge of alice, and of bob, who is an engineer, with these servers.
fn bridge(home: &Home, servers: &Value) -> Bridge {
    let mut identity = bearer_identity(&[("alice", ALICE), ("bob", BOB)]);
    identity[0]["tokens"][1]["groups"] = json!(["engineering"]);
    home.serve(json!({ "identity": identity, "mcpServers": servers }))
}

/// A server that lists its tools by these lines, with rules.
fn lists(lines: &[(&str, &str)], tools: &Value) -> Value {
    let env: Value = lines.iter().map(|(name, line)| ((*name).to_owned(), json!(line))).collect();
    json!({ "command": server("hostile"), "args": ["lists"], "env": env, "tools": tools })
}

async fn clients(bridge: &Bridge, server: &str, bearer: &str) -> [Client; 2] {
    [Client::modern(bridge, server, Some(bearer)), Client::legacy(bridge, server, Some(bearer)).await]
}

async fn raw(client: &mut Client, params: Value) -> String {
    let answer = client.request("tools/list", params).await.expect("an answer");
    String::from_utf8(answer.raw.last().expect("a message").clone()).expect("UTF-8")
}

#[tokio::test]
async fn every_page_of_a_list_comes_as_it_was_written_but_for_the_tools_that_are_hidden() {
    let page = |id: &str, tools: &str| {
        format!(
            r#"{{"x":{{{ODD}}} , "jsonrpc":"2.0","id":{id},"result":{{{ODD}, "tools" : [{tools}] ,"nextCursor":"HOSTILE_PAG\u0045"}} }}"#
        )
    };
    let (hidden, search) = (r#"{"name":"del\u0065te_it"}"#, format!(r#"{{{ODD},"name" : "search_it"}}"#));
    let first = page("@id@", &format!(" {hidden} ,\t{search} , {hidden},{search},{hidden} "));
    let last = r#"{"jsonrpc":"2.0","id":@id@,"result":{"tools":[{"name":"other"}]}}"#;
    let home = Home::without_key();
    let rules = json!({ "allow": ["search_*"], "groups": { "engineering": { "deny": ["search_*"] } } });
    let bridge = bridge(
        &home,
        &json!({ "s": lists(&[("HOSTILE_LINE", &first), ("HOSTILE_PAGE", last)], &rules),
            "open": { "command": server("hostile"), "args": ["lists"], "env": { "HOSTILE_LINE": first } } }),
    );
    let [mut modern, mut legacy] = clients(&bridge, "s", ALICE).await;
    assert_eq!(raw(&mut legacy, json!({})).await, page("2", &format!(" {search},{search} ")));
    assert!(raw(&mut legacy, json!({ "cursor": "HOSTILE_PAGE" })).await.contains(r#""tools":[]"#));
    let said = raw(&mut modern, json!({})).await;
    assert!(said.contains(&format!("[ {search},{search} ]")) && said.contains(r#""HOSTILE_PAG\u0045""#), "{said}");
    assert!(!said.contains("te_it"), "{said}");
    for mut client in clients(&bridge, "s", BOB).await {
        let said = raw(&mut client, json!({})).await;
        assert!(said.contains(&format!("[ {hidden} , {hidden},{hidden} ]")), "an engineer: {said}");
    }
    let [_, mut legacy] = clients(&bridge, "open", ALICE).await;
    assert_eq!(raw(&mut legacy, json!({})).await, first.replace("@id@", "2"), "without rules");
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_not_shown() {
    let home = Home::without_key();
    let rules = json!({ "deny": ["nothing"] });
    for result in [r#"{"tools":{"name":"secret"}}"#, r#"{"tools":[],"tools":[{"name":"secret"}]}"#, r#"["secret"]"#] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{result}}}"#);
        let bridge = bridge(&home, &json!({ "s": lists(&[("HOSTILE_LINE", &line)], &rules) }));
        for mut client in clients(&bridge, "s", ALICE).await {
            let answer = client.request("tools/list", json!({})).await.expect("an answer");
            assert_eq!(answer.error_code(), Some(-32603), "{answer:?}");
            assert_eq!(answer.response()["error"]["message"], "the server's list of tools cannot be read");
        }
    }
}

#[tokio::test]
async fn a_tool_that_one_may_not_use_is_unknown_and_nothing_is_started_for_it() {
    let home = Home::without_key();
    // A server that ends at once: whatever is asked of it fails.
    let rules = json!({ "allow": ["search_*", "read"], "deny": ["search_all"],
        "groups": { "engineering": { "allow": ["*"], "deny": ["drop"] } } });
    let ends =
        json!({ "command": server("hostile"), "args": ["exits", "at=start"], "protocol": "modern", "tools": rules });
    let bridge = bridge(&home, &json!({ "s": ends }));
    for (bearer, tool, is_known) in [
        (ALICE, "search_it", true),
        (ALICE, "read", true),
        (ALICE, "search_all", false),
        (ALICE, "Search_it", false),
        (ALICE, "readme", false),
        (ALICE, "drop", false),
        (BOB, "search_all", true),
        (BOB, "drop", false),
    ] {
        for mut client in
            [Client::modern(&bridge, "s", Some(bearer)), Client::without_session(&bridge, "s", Some(bearer))]
        {
            let answer = client.call(tool, json!({})).await.expect("an answer");
            if is_known {
                assert_eq!((answer.status, answer.error_code()), (502, Some(-32603)), "{tool}: it is asked");
                continue;
            }
            let (said, unknown) = (answer.response(), json!(format!("Unknown tool: {tool}")));
            assert_eq!((answer.status, &said["id"], answer.error_code()), (200, &json!(1), Some(-32602)), "{said}");
            assert_eq!(said["error"]["message"], unknown);
        }
    }
    let mut client = Client::without_session(&bridge, "s", Some(ALICE));
    for params in [json!({}), json!({ "name": ["read"] }), json!({ "name": "x".repeat(1 << 20) })] {
        let answer = client.request("tools/call", params).await.expect("an answer");
        assert_eq!((answer.status, answer.error_code()), (200, Some(-32602)));
        assert!(answer.raw[0].len() < 300, "what is said again is bounded");
    }
}

#[tokio::test]
async fn a_batch_calls_no_tool_that_its_caller_may_not_use() {
    let home = Home::without_key();
    let tiny = json!({ "command": server("tiny"), "tools": { "deny": ["big"] } });
    let bridge = bridge(&home, &json!({ "s": tiny }));
    let mut client = Client::without_session(&bridge, "s", Some(ALICE));
    client.initialize("2025-03-26", json!({})).await.expect("an answer");
    let call = |id: u32, method: &str, name: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "name": name } });
    let batch = json!([call(1, "tools/call", "big"), call(2, "tools/call", "echo"), call(3, "tools/list", "")]);
    let mut answers = client.exchange(batch.to_string().as_bytes()).await.expect("an answer").messages();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["error"]["message"], "Unknown tool: big");
    assert!(answers[1]["result"]["content"].is_array(), "{answers:?}");
    let names = answers[2]["result"]["tools"].as_array().expect("tools").iter().map(|tool| tool["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["echo", "progress"]);
}
