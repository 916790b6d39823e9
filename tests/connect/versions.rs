//! A session that began without a server goes on with whatever version the server speaks, or begins anew.

use super::*;

/// A server of one version, which tells it as the text of a tool.
fn of_version(home: &Home, version: &str) -> Value {
    let script = home.path().join(format!("of-{version}"));
    let hello = json!({ "protocolVersion": version, "capabilities": { "tools": {} },
        "serverInfo": { "name": "scripted", "version": "1" } });
    let said = json!({ "content": [{ "type": "text", "text": version }] });
    let answer = |result: &Value| format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{result}}}"#);
    std::fs::write(&script, json!({ "initialize": answer(&hello), "tools/call": answer(&said) }).to_string()).unwrap();
    let marker = format!("marker={}", home.marker());
    json!({ "command": server("scripted"), "args": [script, marker], "env": { "TOKEN": { "$userToken": "<<token>>" } } })
}

#[tokio::test]
async fn a_server_that_turns_out_older_serves_an_unmet_session_and_a_newer_one_ends_it() {
    let home = Home::new();
    let (older, newer) = (of_version(&home, "2025-03-26"), of_version(&home, LEGACY));
    let bridge = home.serve(config(&home, &json!({ "older": older, "newer": newer })));
    let mut clients = ["older", "newer"].map(|name| Client::without_session(&bridge, name, None));
    for client in &mut clients {
        let hello = client.initialize("2025-06-18", json!({})).await.unwrap().response();
        assert_eq!(hello["result"]["protocolVersion"], "2025-06-18", "nothing is known of the server");
    }
    for name in ["older", "newer"] {
        home.set_token("alice", name, TOKEN);
    }
    let [of_older, of_newer] = &mut clients;
    assert_eq!(of_older.call("t", json!({})).await.unwrap().text(), "2025-03-26");
    assert_eq!(of_newer.call("t", json!({})).await.unwrap().status, 404, "clients begin anew upon it");
    let hello = of_newer.initialize("2025-06-18", json!({})).await.unwrap().response();
    assert_eq!(hello["result"]["protocolVersion"], LEGACY);
    assert_eq!(of_newer.call("t", json!({})).await.unwrap().text(), LEGACY);

    // What was learned of a server holds for the next who has no token.
    home.delete_token("alice", "older");
    let hello = of_older.initialize(LEGACY, json!({})).await.unwrap().response();
    assert_eq!(hello["result"]["serverInfo"]["name"], "older", "{hello}");
    assert_eq!(hello["result"]["protocolVersion"], "2025-03-26");
}

/// One that wants no handshake may end upon it.
#[tokio::test]
async fn a_session_that_began_without_its_server_is_served_by_one_without_sessions() {
    let home = Home::new();
    let hello = r#"{"jsonrpc":"2.0","id":"tollbridge:discover","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}}"#;
    let said =
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"modern"}]}}"#;
    let script = format!(
        "while read -r line; do case \"$line\" in *initialize*) exit 1;; *server/discover*) echo '{hello}';; *) echo '{said}';; esac; done"
    );
    let modern = json!({ "command": "sh", "args": ["-c", script, home.marker()], "env": { "TOKEN": { "$userToken": "<<token>>" } } });
    let bridge = home.serve(config(&home, &json!({ "one": modern })));
    let (mut client, _) = legacy(&bridge, LEGACY, json!({})).await;
    home.set_token("alice", "one", TOKEN);
    assert_eq!(client.call("t", json!({})).await.unwrap().text(), "modern");
}
