//! An extension that nobody on the way knows: its capabilities, its requests, results and notifications cross in both
//! directions as they were written, with the word on how long they may be kept.

use serde_json::{Value, json};

use super::support::http::Connection;
use super::support::mcp::Era;
use super::support::{Bridge, Client, Home, server};
use super::{ODD, text};

/// Both eras of a server, with an extension of its own.
const PAIRS: [(&str, &str); 2] = [("modern", "server/discover"), ("legacy", "initialize")];

/// A bridge in front of servers that say these lines by method, each in its own era.
fn bridge(home: &Home, methods: &[(&str, &str)]) -> Bridge {
    let extensions = format!(r#""extensions":{{"com.example/x":{{{ODD}}}}},"experimental":{{"x-e":{{{ODD}}}}}"#);
    let about = format!(r#""x-line":@line@,"x-result":{{{ODD}}},"instructions":"do""#);
    let greetings = [
        format!(
            r#""resultType":"complete","supportedVersions":["2026-07-28"],"ttlMs":60000,"cacheScope":"public","_meta":{{"com.example/m":{{{ODD}}}}},{about}"#
        ),
        format!(
            r#""protocolVersion":"2025-11-25","serverInfo":{{"name":"s","version":"1"}},"_meta":{{"com.example/m":{{{ODD}}}}},{about}"#
        ),
    ];
    let entry = |((era, greeting), said): ((&str, &str), String)| {
        let mut script: serde_json::Map<String, Value> =
            methods.iter().map(|(method, lines)| ((*method).to_owned(), json!(lines))).collect();
        let capabilities = format!(r#""capabilities":{{"tools":{{}},{extensions}}}"#);
        let line = format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{{{said},{capabilities}}}}}"#);
        script.insert(greeting.to_owned(), json!(line));
        let file = home.path().join(format!("{era}.json"));
        std::fs::write(&file, Value::from(script).to_string()).expect("a file");
        (era.to_owned(), json!({ "command": server("scripted"), "args": [file] }))
    };
    let servers: serde_json::Map<_, _> = PAIRS.into_iter().zip(greetings).map(entry).collect();
    home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": servers }))
}

/// A request with odd capabilities and params of a modern or a legacy client.
fn request(era: &Era, method: &str, params: &str) -> String {
    let meta = format!(
        r#","_meta":{{"com.example/r":{{{ODD}}},"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"t","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{"extensions":{{"com.example/c":{{{ODD}}}}}}}}}"#
    );
    let meta = if *era == Era::Modern { meta } else { format!(r#","_meta":{{"com.example/r":{{{ODD}}}}}"#) };
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"x":{{{ODD}}}{params}{meta}}}}}"#)
}

/// Sends a message whose numbers no parser of ours could hold.
async fn exchange(client: &mut Client, message: &str, method: &str) -> Vec<String> {
    let twin = json!({ "method": method, "params": {} }).to_string();
    let answer = client.exchange_as(message.as_bytes(), twin.as_bytes()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.raw.iter().map(|raw| text(Some(raw)).to_owned()).collect()
}

/// The text of a string member.
fn inner(raw: &str, key: &str) -> String {
    let at = raw.find(&format!(r#""{key}":""#)).unwrap_or_else(|| panic!("no {key} in {raw}")) + key.len() + 3;
    serde_json::Deserializer::from_str(&raw[at..]).into_iter::<String>().next().expect("a string").expect("a string")
}

/// A legacy client whose capabilities hold an odd extension, and what it was told by `initialize`.
async fn legacy(bridge: &Bridge, server: &str) -> (Client, String) {
    let mut client = Client::without_session(bridge, server, None);
    let capabilities = format!(r#"{{"extensions":{{"com.example/c":{{{ODD}}}}}}}"#);
    let message = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","clientInfo":{{"name":"t","version":"1"}},"capabilities":{capabilities}}}}}"#
    );
    let answer = client.exchange_as(message.as_bytes(), b"{}").await.expect("an answer");
    client.era = Era::Legacy(answer.header("mcp-session-id").map(str::to_owned));
    let told = text(answer.raw.last()).to_owned();
    (client, told)
}

#[tokio::test]
async fn capabilities_and_fields_that_nobody_here_knows_cross_in_each_pair_of_eras() {
    let home = Home::new();
    let bridge = bridge(&home, &[]);
    for (server, _) in PAIRS {
        let mut modern = Client::modern(&bridge, server, None);
        let discover = request(&Era::Modern, "server/discover", "");
        let discovered = exchange(&mut modern, &discover, "server/discover").await.pop().expect("an answer");
        let (_, initialized) = legacy(&bridge, server).await;
        for (told, client) in [(&discovered, "modern"), (&initialized, "legacy")] {
            for kept in [
                format!(r#""extensions":{{"com.example/x":{{{ODD}}}}}"#),
                format!(r#""experimental":{{"x-e":{{{ODD}}}}}"#),
                format!(r#""x-result":{{{ODD}}}"#),
                format!(r#""com.example/m":{{{ODD}}}"#),
                r#""instructions":"do""#.to_owned(),
            ] {
                assert!(told.contains(&kept), "{client} client, {server} server: no {kept} in {told}");
            }
            let asked = inner(told, "x-line");
            let declared = format!(r#""extensions":{{"com.example/c":{{{ODD}}}}}"#);
            assert!(asked.contains(&declared), "{client} client, {server} server: {asked}");
        }
        let kept = if server == "modern" {
            (r#""ttlMs":60000"#, r#""cacheScope":"public""#)
        } else {
            (r#""ttlMs":0"#, r#""cacheScope":"private""#)
        };
        assert!(discovered.contains(kept.0) && discovered.contains(kept.1), "{server}: {discovered}");
    }
}

#[tokio::test]
async fn requests_results_and_notifications_of_an_extension_cross_in_each_pair_of_eras() {
    let home = Home::new();
    let told =
        format!(r#"{{"jsonrpc":"2.0","x-top":1.0,"method":"notifications/com.example/did","params":{{{ODD}}}}}"#);
    let result = format!(
        r#"{{{ODD},"x-line":@line@,"ttlMs":300000,"cacheScope":"public","_meta":{{"com.example/m":{{{ODD}}}}}}}"#
    );
    let answer = format!(r#"{{"jsonrpc":"2.0","x-top":{{{ODD}}},"id":@id@,"result":{result}}}"#);
    let lines = format!("{told}\n{answer}");
    let bridge = bridge(&home, &[("com.example/act", &lines), ("resources/read", &lines)]);
    for (server, _) in PAIRS {
        for mut client in [Client::modern(&bridge, server, None), legacy(&bridge, server).await.0] {
            for method in ["com.example/act", "resources/read"] {
                let message = request(&client.era, method, "");
                let raw = exchange(&mut client, &message, method).await;
                let (about, whole) = (format!("{:?} client, {server} server", client.era), raw.concat());
                assert_eq!((raw.len(), raw.first()), (2, Some(&told)), "{about}: {whole}");
                for kept in [
                    format!(r#""x-top":{{{ODD}}}"#),
                    format!(r#""result":{{{ODD}"#),
                    r#""ttlMs":300000,"cacheScope":"public""#.to_owned(),
                    format!(r#""com.example/m":{{{ODD}}}"#),
                ] {
                    assert!(raw[1].contains(&kept), "{about}: no {kept} in {}", raw[1]);
                }
                let asked = inner(&raw[1], "x-line");
                for kept in [format!(r#""params":{{"x":{{{ODD}}}"#), format!(r#""com.example/r":{{{ODD}}}"#)] {
                    assert!(asked.contains(&kept), "{about}: no {kept} in {asked}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_of_an_extension_is_put_to_a_client_that_has_declared_one_and_to_no_other() {
    let home = Home::new();
    let question = format!(r#"{{"jsonrpc":"2.0","id":"q","method":"com.example/ask","params":{{"x":{{{ODD}}}}}}}"#);
    let answer = r#"{"jsonrpc":"2.0","id":@id@,"result":{"content":[],"x-heard":@heard@}}"#;
    let lines = format!("{question}\n@wait@\n{answer}");
    let bridge = bridge(&home, &[("tools/call", &lines)]);

    let (mut asked, _) = legacy(&bridge, "legacy").await;
    let mut answers = asked.fork();
    let call = json!({ "name": "act", "arguments": {} });
    let mut connection = Connection::open(asked.address()).await.expect("a connection");
    let mut stream = asked.start(&mut connection, "tools/call", call.clone()).await.expect("a stream");
    let asked_by = stream.event().await.expect("the stream goes on").expect("a question").data;
    let raw = text(Some(&asked_by)).to_owned();
    assert!(raw.contains(&format!(r#""method":"com.example/ask","params":{{"x":{{{ODD}}}}}"#)), "{raw}");
    let reply = format!(r#"{{"jsonrpc":"2.0","id":"{}","result":{{{ODD}}}}}"#, inner(&raw, "id"));
    let told = answers.exchange_as(reply.as_bytes(), b"{}").await.expect("an answer");
    assert_eq!(told.status, 202, "{told:?}");
    let last = stream.event().await.expect("the stream goes on").expect("an answer").data;
    assert!(inner(text(Some(&last)), "x-heard").contains(&format!(r#""result":{{{ODD}}}"#)), "{last:?}");

    for mut other in [Client::legacy(&bridge, "legacy", None).await, Client::modern(&bridge, "legacy", None)] {
        let raw = text(other.request("tools/call", call.clone()).await.expect("an answer").raw.last()).to_owned();
        assert!(inner(&raw, "x-heard").contains("-32601"), "{raw}");
    }
}
