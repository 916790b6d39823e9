//! What a user gets who has saved no token: their client connects all the same, sees one tool, and is led to the page where
//! a token is saved, in the form that it shows best. Once the token is there, what was waiting goes on.

#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

mod support;

#[path = "connect/forms.rs"]
mod forms;
#[path = "connect/listeners.rs"]
mod listeners;
#[path = "connect/official.rs"]
mod official;
#[path = "connect/revoked.rs"]
mod revoked;
#[path = "connect/saves.rs"]
mod saves;
#[path = "connect/versions.rs"]
mod versions;
#[expect(dead_code, reason = "people do more in tests/account.rs")]
#[path = "account/visit.rs"]
mod visit;
#[path = "connect/wait.rs"]
mod wait;
#[expect(dead_code, reason = "more is watched in tests/streams.rs")]
#[path = "streams/watched.rs"]
mod watched;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::{Connection, Reply};
use support::mcp::LEGACY;
use support::{Bridge, Client, Home, Redis, procs, server, sha256_hex};
use visit::Person;
use watched::Watched;

/// How long something that is on its way may take.
const SOON: Duration = Duration::from_secs(30);

/// What the proxy says to prove itself.
const PROOF: &str = "a-secret-that-only-the-proxy-knows";

/// The page where the token is saved.
const LINK: &str = "http://localhost/one/connect";

/// The token that is saved.
const TOKEN: &str = "alices-token";

/// The server `whoami` with its user's token; whenever it is started it leaves a file.
fn whoami(home: &Home) -> Value {
    let script =
        format!("touch '{}' && exec '{}' 'marker={}'", started(home).display(), server("whoami"), home.marker());
    json!({ "command": "sh", "args": ["-c", script], "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
        "tokenSetup": { "displayName": "Notion", "instructions": "Take one from your settings." } })
}

fn started(home: &Home) -> PathBuf {
    home.path().join("started")
}

fn config(home: &Home, servers: &Value) -> Value {
    json!({ "identity": [{ "kind": "local", "user": "alice" }], "publicUrl": "http://localhost",
        "tokenStore": home.embedded(), "mcpServers": servers })
}

/// A bridge of one user who has saved nothing.
fn serve(home: &Home) -> Bridge {
    home.serve(config(home, &json!({ "one": whoami(home) })))
}

/// Two nodes that share a Redis and keys.
fn two_nodes(home: &Home, redis: &Redis) -> [Bridge; 2] {
    [(); 2].map(|()| {
        let mut config = config(home, &json!({ "one": whoami(home) }));
        config["tokenStore"] = home.in_redis(redis);
        home.serve(config)
    })
}

/// A legacy client that has initialized with these capabilities.
async fn legacy(bridge: &Bridge, version: &str, capabilities: Value) -> (Client, Value) {
    let mut client = Client::without_session(bridge, "one", None);
    let answer = client.initialize(version, capabilities).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    (client, answer.response()["result"].clone())
}

/// Calls the server's own tool, which knows the token that is saved.
async fn is_served(client: &mut Client) {
    assert_eq!(client.call("whoami", json!({})).await.expect("an answer").text(), sha256_hex(TOKEN.as_bytes()));
}

/// Saves the token on the page of a node.
async fn save_on(bridge: &Bridge) {
    let seen = Person::at(bridge.address()).paste("one", TOKEN).await;
    assert_eq!(seen.status, 303, "{seen:?}");
}

async fn open(bridge: &Bridge) -> Connection {
    Connection::open(bridge.address()).await.expect("it listens")
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}
