//! Sessions and long streams by the front door: what is kept of a session, the listening stream, HTTP+SSE and
//! `subscriptions/listen`, on one node and on two that share a Redis.

mod support;

#[path = "streams/bounds.rs"]
mod bounds;
#[path = "streams/elsewhere.rs"]
mod elsewhere;
#[path = "streams/listener.rs"]
mod listener;
#[path = "streams/session.rs"]
mod session;
#[path = "streams/sse.rs"]
mod sse;
#[path = "streams/subscription.rs"]
mod subscription;
#[path = "streams/watched.rs"]
mod watched;

use serde_json::{Value, json};
use support::{Bridge, Client, Home, Redis, bearer_identity};
use watched::Watched;

/// How long something that is on its way may take.
const SOON: std::time::Duration = std::time::Duration::from_mins(1);

/// `server-everything`, as an entry of `mcpServers`.
fn everything() -> Value {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let node = root.join("tests/.tools/node22");
    let script = root.join("tests/.tools/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    assert!(script.exists(), "{} is missing: run ./scripts/test, which installs it", script.display());
    json!({ "command": node, "args": [script] })
}

/// A server of the tests, as an entry of `mcpServers`.
fn hostile(home: &Home, arguments: &[&str]) -> Value {
    let marker = format!("marker={}", home.marker());
    let arguments = [arguments, &[marker.as_str()]].concat();
    json!({ "command": support::server("hostile"), "args": arguments })
}

/// The same server, for which every stream that is listened on has a process.
fn always(mut server: Value) -> Value {
    server["listen"] = json!("always");
    server
}

/// A bridge of one user with these servers.
fn config(servers: &Value) -> Value {
    json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": servers })
}

/// Two nodes that share a Redis and keys.
fn two_nodes(home: &Home, redis: &Redis, servers: &Value) -> [Bridge; 2] {
    [(); 2].map(|()| {
        let mut config = config(servers);
        config["tokenStore"] = home.in_redis(redis);
        home.serve(config)
    })
}

/// The same client on another node.
fn on(client: &Client, bridge: &Bridge, server: &str) -> Client {
    Client::new(bridge.address(), server, None, client.era.clone())
}
