//! What a client and a server say to each other crosses as the bytes that were written, however large or odd.

mod support;

#[path = "exact_bytes/extensions.rs"]
mod extensions;

use serde_json::{Value, json};
use support::{Bridge, Client, Home, procs, server};

const MIB: usize = 1 << 20;
/// What a result of 8 MiB may cost: the line once, as it was read, and what is on its way. A second copy is too much.
const BOUND_KIB: u64 = 12 * 1024;
/// Everything that a typed relay tends to change: unknown fields, their order, numbers, escapes.
const ODD: &str = r#""z":1.0,"y":-0,"x":1e2,"w":18446744073709551616,"v":123456789012345678901234567890,"u":0.7,"t":"\u00e9\/\t\ud83d\ude00\u2028","s":null,"r":{"b":[],"a":{}},"q":1e400"#;

fn bridge() -> Bridge {
    let hostile = |arguments: &[&str]| json!({ "command": server("hostile"), "args": arguments });
    let line = format!(r#"{{"x-top":{{{ODD}}},"jsonrpc":"2.0","id":@id@,"result":{{{ODD},"content":[{{{ODD}}}]}}}}"#);
    Bridge::start(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": {
            "tiny": { "command": server("tiny"), "line": "16MiB" },
            "exact": { "command": server("hostile"), "args": ["exact"], "env": { "HOSTILE_LINE": line } },
            "mirror": hostile(&["mirror"]),
            "rmcp": { "command": server("whoami") },
        },
    }))
}

async fn clients(bridge: &Bridge, server: &str) -> [Client; 2] {
    [Client::modern(bridge, server, None), Client::legacy(bridge, server, None).await]
}

#[tokio::test]
async fn an_eight_mebibyte_result_arrives_whole_and_the_bridge_does_not_grow_by_much_more() {
    let bridge = bridge();
    for mut client in clients(&bridge, "tiny").await.into_iter().rev() {
        client.call("echo", json!({ "text": "warm" })).await.expect("an answer");
        procs::reset_peak(bridge.worker());
        let before = procs::resident(bridge.worker());
        let answer = client.call("big", json!({ "bytes": 8 * MIB })).await.expect("an answer");
        assert_eq!(answer.text(), "x".repeat(8 * MIB));
        let grown = procs::peak_resident(bridge.worker()).saturating_sub(before);
        assert!(grown <= BOUND_KIB, "{grown} KiB more for a result of 8 MiB ({:?})", client.era);
    }
}

#[tokio::test]
async fn an_eight_mebibyte_result_after_progress_is_one_event() {
    let bridge = bridge();
    for mut client in clients(&bridge, "tiny").await.into_iter().rev() {
        client.call("echo", json!({ "text": "warm" })).await.expect("an answer");
        procs::reset_peak(bridge.worker());
        let before = procs::resident(bridge.worker());
        let arguments = json!({ "steps": 2, "bytes": 8 * MIB });
        let answer = client.call_with_progress("progress", arguments).await.expect("an answer");
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.raw.len(), 3, "two progress events and the result");
        assert_eq!(answer.text().len(), 8 * MIB);
        let grown = procs::peak_resident(bridge.worker()).saturating_sub(before);
        assert!(grown <= BOUND_KIB, "{grown} KiB more for a result of 8 MiB ({:?})", client.era);
    }
}

#[tokio::test]
async fn a_result_reaches_a_legacy_client_byte_for_byte() {
    let bridge = bridge();
    let mut client = Client::legacy(&bridge, "exact", None).await;
    let request = r#"{"jsonrpc":"2.0","id":"\u0041/é","method":"tools/call","params":{"name":"act"}}"#;
    let answer = client.exchange(request.as_bytes()).await.expect("an answer");
    let expected =
        format!(r#"{{"x-top":{{{ODD}}},"jsonrpc":"2.0","id":"\u0041/é","result":{{{ODD},"content":[{{{ODD}}}]}}}}"#);
    assert_eq!(text(answer.raw.last()), expected);
}

#[tokio::test]
async fn a_result_reaches_a_modern_client_with_fields_added_and_none_changed() {
    let bridge = bridge();
    let mut client = Client::modern(&bridge, "exact", None);
    let answer = client.call("act", json!({})).await.expect("an answer");
    let raw = text(answer.raw.last());
    assert!(raw.contains(&format!(r#""x-top":{{{ODD}}}"#)), "{raw}");
    assert!(raw.contains(&format!(r#"{ODD},"content":[{{{ODD}}}]"#)), "{raw}");
    assert!(raw.contains(r#""resultType""#), "{raw}");
}

#[tokio::test]
async fn a_result_of_very_many_members_arrives_whole() {
    // To compare each of 1.6 million keys with each before it takes an hour.
    let members: Vec<String> = (0..16 * MIB / 10).map(|n| format!(r#""{n:06x}":1"#)).collect();
    let members = &members.join(",")[..];
    let home = Home::new();
    let file = home.path().join("line");
    std::fs::write(&file, format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{{{members}}}}}"#)).expect("a file");
    let line = format!("line=@{}", file.display());
    let bridge = home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "exact": { "command": server("hostile"), "args": ["exact", line], "line": "20MiB" } },
    }));
    for mut client in clients(&bridge, "exact").await {
        let answer = client.call("act", json!({})).await.expect("an answer");
        assert!(text(answer.raw.last()).contains(members), "HTTP {}", answer.status);
    }
}

/// A bridge whose server answers calls with these lines; `@id@` is the id of the call.
fn saying(lines: &str) -> Bridge {
    let exact = json!({ "command": server("hostile"), "args": ["exact"], "env": { "HOSTILE_LINE": lines } });
    Bridge::start(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "exact": exact } }))
}

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":@id@,"result":{"content":[{"type":"text","text":"done"}]}}"#;

#[tokio::test]
async fn a_byte_order_mark_before_anything_that_a_server_says_is_skipped() {
    let mark = r#"printf '\357\273\277'; exec "$0" "$@""#;
    let exact = json!({ "command": "/bin/sh", "args": ["-c", mark, server("hostile"), "exact"],
        "env": { "HOSTILE_LINE": format!("\u{feff}{ANSWER}") } });
    let bridge =
        Bridge::start(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "exact": exact } }));
    for mut client in clients(&bridge, "exact").await {
        for _ in 0..2 {
            assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done");
        }
    }
}

#[tokio::test]
async fn what_is_no_message_counts_also_if_it_is_empty_or_of_another_version() {
    let other = r#"{"jsonrpc":"1.0","id":@id@,"result":{"content":[{"type":"text","text":"wrong"}]}}"#;
    for junk in ["", " ", other, r#"{"id":@id@,"result":{}}"#] {
        let bridge = saying(&format!("{}{ANSWER}", format!("{junk}\n").repeat(3)));
        let mut client = Client::modern(&bridge, "exact", None);
        assert_eq!(client.call("act", json!({})).await.expect("an answer").text(), "done", "{junk:?}");
        let bridge = saying(&format!("{}{ANSWER}", format!("{junk}\n").repeat(101)));
        let mut client = Client::modern(&bridge, "exact", None);
        let answer = client.call("act", json!({})).await.expect("an answer");
        assert_eq!(answer.status, 502, "{junk:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_question_with_carriage_returns_between_its_tokens_is_one_event() {
    let params = r#"{"message":"?","requestedSchema":{@"type":"object",@"properties":{}}}"#;
    let question = format!(r#"{{"jsonrpc":"2.0",@"id":"q","method":"elicitation/create",@"params":{params}}}"#);
    let question = question.replace('@', "\r");
    let bridge = saying(&format!("{question}\n{}", ANSWER.replace(',', ",\r")));
    let mut client = Client::without_session(&bridge, "exact", None);
    client.initialize("2025-11-25", json!({ "elicitation": {} })).await.expect("an answer");
    let answer = client.call("act", json!({})).await.expect("an answer");
    let messages = answer.messages();
    assert_eq!((messages.len(), &messages[0]["params"]["message"]), (2, &json!("?")));
    assert_eq!(answer.text(), "done");
}

#[tokio::test]
async fn questions_whose_ids_look_alike_have_keys_of_their_own() {
    let question =
        |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"?"}}}}"#);
    let ids = ["12", r#""12""#, r#""1-2""#];
    let bridge = saying(&ids.map(question).join("\n"));
    let mut client = Client::modern(&bridge, "exact", None);
    client.capabilities = json!({ "elicitation": {} });
    let answer = client.call("act", json!({})).await.expect("an answer").response();
    let asked = answer["result"]["inputRequests"].as_object().expect("questions");
    assert_eq!(asked.len(), ids.len(), "{answer}");
}

#[tokio::test]
async fn params_reach_the_server_byte_for_byte() {
    let bridge = bridge();
    for mut client in clients(&bridge, "mirror").await {
        let modern = client.era == support::mcp::Era::Modern;
        let inner = format!(r#""name":"act","arguments":{{{ODD}}},"x-unknown":{{{ODD}}}"#);
        let meta = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
        let meta = if modern { meta } else { "" };
        // Numbers that no parser of ours could hold, so the headers are made from a plain twin of the message.
        let twin = br#"{"method":"tools/call","params":{"name":"act"}}"#;
        let message = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{{inner}{meta}}}}}"#);
        let answer = client.exchange_as(message.as_bytes(), twin).await.expect("an answer");
        let read = answer.text();
        assert!(read.contains(&inner), "the server read {read}");
        if !modern {
            assert!(read.contains(&format!(r#""params":{{{inner}}}"#)), "the server read {read}");
        }
    }
}

#[tokio::test]
async fn an_id_and_a_progress_token_come_back_as_written_whatever_the_server_can_represent() {
    const IDS: [&str; 13] = [
        "0",
        "-7",
        "9007199254740993",
        "18446744073709551616",
        "123456789012345678901234567890",
        "1e2",
        "1e400",
        "-0",
        "1.0",
        "1.5",
        r#""\u0041""#,
        r#""""#,
        r#""1""#,
    ];
    let bridge = bridge();
    for name in ["tiny", "mirror", "rmcp"] {
        for mut client in clients(&bridge, name).await {
            for id in IDS {
                let (tool, arguments) = match name {
                    "tiny" => ("progress", json!({ "steps": 1, "bytes": 1 })),
                    "rmcp" => ("countdown", json!({ "from": 1, "delay_ms": 0 })),
                    _ => ("act", json!({})),
                };
                let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "@" } });
                let plain = client.message("tools/call", params);
                let parsed: Value = serde_json::from_str(&plain).expect("JSON");
                let params = parsed["params"].to_string().replace(r#""@""#, id);
                let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
                let answer = client.exchange_as(message.as_bytes(), plain.as_bytes()).await.expect("an answer");
                let raw = text(answer.raw.last());
                let has = |raw: &str, name: &str| {
                    [",", "}"].iter().any(|end| raw.contains(&format!(r#""{name}":{id}{end}"#)))
                };
                assert!(answer.status == 200 && has(raw, "id"), "{name} {id}: {raw}");
                if name == "mirror" {
                    let read = [r#"\"id\":1,"#, r#"\"progressToken\":1"#];
                    assert!(read.iter().all(|part| raw.contains(part)), "{raw}");
                } else {
                    assert!(answer.raw.len() > 1 && has(text(answer.raw.first()), "progressToken"), "{name} {id}");
                }
            }
        }
    }
}

fn text(raw: Option<&Vec<u8>>) -> &str {
    raw.and_then(|raw| std::str::from_utf8(raw).ok()).expect("a message")
}
