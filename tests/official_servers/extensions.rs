//! Servers of extensions, as they are published: what they say through the bridge is what they say to who starts them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::support::mcp::{LEGACY, MODERN};
use super::support::{Bridge, Client};
use super::{bridge, installed};

const UI: &str = "io.modelcontextprotocol/ui";
const HTML: &str = "text/html;profile=mcp-app";

/// A program and its arguments.
fn node(script: &str, arguments: &[&str]) -> Vec<String> {
    let program = [installed("tests/.tools/node22"), installed(script)].map(|path| path.to_string_lossy().into_owned());
    program.into_iter().chain(arguments.iter().map(|argument| (*argument).to_owned())).collect()
}

fn skills() -> Vec<String> {
    node("tests/node/skills-server.mjs", &[])
}

fn app() -> Vec<String> {
    node("tests/node/node_modules/@modelcontextprotocol/server-basic-vanillajs/dist/index.js", &["--stdio"])
}

fn in_front_of(program: &[String]) -> Bridge {
    bridge(&json!({ "command": program[0], "args": program[1..], "startTimeout": "1m" }))
}

/// What the server says to each of these messages, one after the other, to who starts it; nothing to a notification.
fn directly(program: &[String], messages: &[String]) -> Vec<String> {
    let mut command = Command::new(&program[0]);
    let mut server =
        command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let (mut input, output) = (server.stdin.take().expect("piped"), server.stdout.take().expect("piped"));
    let mut lines = BufReader::new(output).lines();
    let mut said = Vec::new();
    for message in messages {
        writeln!(input, "{message}").expect("it reads");
        if message.contains(r#""id":"#) {
            said.push(lines.next().expect("an answer").expect("text"));
        }
    }
    drop(input);
    let _ = server.wait();
    said
}

fn message(method: &str, mut params: Value, capabilities: Option<&Value>) -> String {
    if let Some(capabilities) = capabilities {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
    }
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

async fn through(client: &mut Client, message: &str) -> String {
    let answer = client.exchange(message.as_bytes()).await.expect("an answer");
    String::from_utf8(answer.raw.last().expect("a message").clone()).expect("text")
}

fn result(line: &str) -> Value {
    serde_json::from_str::<Value>(line).expect("JSON")["result"].clone()
}

#[tokio::test]
async fn skills_are_listed_and_read_byte_for_byte_with_the_word_on_how_long_they_may_be_kept() {
    let messages: Vec<String> = [
        ("skills/list", json!({})),
        ("skills/get", json!({ "uri": "skill://refunds/SKILL.md" })),
        ("skills/get", json!({ "uri": "skill://no/SKILL.md" })),
        ("resources/read", json!({ "uri": "skill://refunds/references/POLICY.md" })),
        ("resources/directory/read", json!({ "uri": "skill://refunds" })),
    ]
    .into_iter()
    .map(|(method, params)| message(method, params, Some(&json!({}))))
    .collect();
    let bridge = in_front_of(&skills());
    let mut client = Client::modern(&bridge, "quick", None);
    for (message, expected) in messages.iter().zip(directly(&skills(), &messages)) {
        assert_eq!(through(&mut client, message).await, expected, "{message}");
        if !expected.contains(r#""error""#) {
            assert!(expected.contains(r#""ttlMs":300000,"cacheScope":"public""#), "{expected}");
        }
    }
    let discovered = client.request("server/discover", json!({})).await.expect("an answer").response();
    let declared = json!({ "io.modelcontextprotocol/skills": { "directoryRead": true } });
    assert_eq!(discovered["result"]["capabilities"]["extensions"], declared);

    let mut legacy = Client::without_session(&bridge, "quick", None);
    let initialized = legacy.initialize(LEGACY, json!({})).await.expect("an answer").response();
    assert_eq!(initialized["result"]["capabilities"]["extensions"], declared);
    let list = legacy.request("skills/list", json!({})).await.expect("an answer").response();
    let expected = result(&directly(&skills(), &messages[..1])[0]);
    assert_eq!(list["result"]["skills"], expected["skills"]);
}

#[tokio::test]
async fn an_app_is_shown_in_the_page_that_its_server_has_for_it() {
    let capabilities = json!({ "extensions": { UI: { "mimeTypes": [HTML] } } });
    let about = json!({ "name": "t", "version": "1" });
    let initialize = json!({ "protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": about });
    let asked: Vec<String> = [
        ("tools/list", json!({})),
        ("resources/list", json!({})),
        ("resources/read", json!({ "uri": "ui://get-time/mcp-app.html" })),
    ]
    .into_iter()
    .map(|(method, params)| message(method, params, None))
    .collect();
    let handshake = [
        message("initialize", initialize, None),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
    ];
    let direct = directly(&app(), &[&handshake[..], &asked].concat());
    let (page, tool) = (result(&direct[3])["contents"][0].clone(), result(&direct[1])["tools"][0].clone());
    assert_eq!((&page["mimeType"], &tool["_meta"]["ui"]["resourceUri"]), (&json!(HTML), &page["uri"]));
    assert!(page["text"].as_str().is_some_and(|text| text.starts_with("<!DOCTYPE html>")));

    let bridge = in_front_of(&app());
    let mut legacy = Client::without_session(&bridge, "quick", None);
    let initialized = legacy.initialize(LEGACY, capabilities.clone()).await.expect("an answer").response();
    assert_eq!(initialized["result"], result(&direct[0]));
    for (message, expected) in asked.iter().zip(&direct[1..]) {
        assert_eq!(through(&mut legacy, message).await, *expected, "{message}");
    }
    let mut modern = Client::modern(&bridge, "quick", None);
    modern.capabilities = capabilities;
    let shown = modern.request("resources/read", json!({ "uri": page["uri"] })).await.expect("an answer").response();
    assert_eq!(shown["result"]["contents"], json!([page]));
    let listed = modern.request("tools/list", json!({})).await.expect("an answer").response();
    assert_eq!(listed["result"]["tools"], json!([tool]));
}
