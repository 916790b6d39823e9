//! What is saved on one node is there for the next request on another.

use tokio::task::JoinSet;

use super::*;

/// How many users save a token.
const USERS: usize = 1000;
/// How many of them at once.
const AT_ONCE: usize = 8;

/// A server that says what its token is, for no more than a shell costs.
fn teller(home: &Home) -> Value {
    let said = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"'"$TOKEN"'"}]}}"#;
    let tools = r#"{"jsonrpc":"2.0","id":"tollbridge:tools","result":{"resultType":"complete","tools":[]}}"#;
    let script = format!(
        "while read -r line; do case \"$line\" in *tools/list*) echo '{tools}';; *) echo '{said}';; esac; done"
    );
    json!({ "command": "sh", "args": ["-c", script, home.marker()], "protocol": "modern",
        "env": { "TOKEN": { "$userToken": "<<token>>" } } })
}

/// The answer to a user whose proxy leads them to this node.
async fn call(bridge: &Bridge, person: &Person) -> Value {
    let mut client = Client::modern(bridge, "one", None);
    let message = client.message("tools/call", json!({ "name": "t", "arguments": {} }));
    let headers = [client.headers(message.as_bytes()), person.headers.clone()].concat();
    let mut connection = open(bridge).await;
    let mut reply = connection.send("POST", "/one/mcp", &headers, message.as_bytes()).await.unwrap();
    serde_json::from_slice(&reply.messages().await.unwrap().pop().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_on_a_used_on_b_a_thousand_times() {
    let (home, redis) = (Home::new(), Redis::start());
    let nodes = [(); 2].map(|()| {
        let identity = json!([{ "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["127.0.0.1"],
            "secretHeader": "X-Proof", "secret": PROOF }]);
        home.serve(json!({ "identity": identity, "publicUrl": "http://localhost", "tokenStore": home.in_redis(&redis),
            "mcpServers": { "one": teller(&home) } }))
    });
    let nodes = std::sync::Arc::new(nodes);
    let mut users = JoinSet::new();
    for first in 0..AT_ONCE {
        let nodes = std::sync::Arc::clone(&nodes);
        users.spawn(async move {
            for number in (first..USERS).step_by(AT_ONCE) {
                let [a, b] = [&nodes[number % 2], &nodes[(number + 1) % 2]];
                let mut person = Person::at(a.address()).named(&format!("user{number}"));
                let before = call(b, &person).await;
                assert_eq!(before["result"]["isError"], true, "{before}");
                let token = format!("token-of-{number}");
                assert_eq!(person.paste("one", &token).await.status, 303);
                let after = call(b, &person).await;
                assert_eq!(after["result"]["content"][0]["text"], token, "{after}");
            }
        });
    }
    users.join_all().await;
}
