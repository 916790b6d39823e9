//! Bridges in front of containers, and requests to them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::support::home::TOLLBRIDGE;
use super::support::http::Connection;
use super::support::{self, Bridge, Client, Home, procs};

/// How long after the last request, or after the bridge's end, something may still be there.
pub(crate) const CLEARED: Duration = Duration::from_secs(5);
/// How long to wait for what is required sooner, or has no bound of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Live containers when the bridge is killed.
pub(crate) const LIVE: usize = 5;

/// A server of that image.
pub(crate) fn image(engine: &Engine, name: &str, arguments: &[&str]) -> Value {
    json!({ "image": format!("tollbridge-test/{name}:1"), "engine": engine.kind, "args": arguments,
        "abandonedGrace": "0s", "eofGrace": "100ms", "termGrace": "100ms" })
}

/// A server that never answers, in a container that is confined in every way.
pub(crate) fn confined(engine: &Engine, home: &Home) -> Value {
    let mut silent = image(engine, "hostile", &["silent"]);
    let more = json!({ "memory": "64MiB", "pids": 32, "cpus": 0.5, "readOnly": true, "network": "none", "user": "4711:4711",
        "mounts": [format!("{}:/data", home.path().display())] });
    silent.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    silent
}

/// Neither who asks the engine nor who looks at the machine's processes is shown the token of a running container.
pub(crate) fn nobody_sees(engine: &Engine, token: &str) {
    for name in engine.containers() {
        let known = engine.call(&["container", "inspect", &name]);
        assert!(known.contains("HOSTILE_TOKEN_FILE") && !known.contains(token), "{known}");
    }
    let shown: Vec<_> =
        procs::all().into_iter().filter(|p| procs::command_line(p.pid).join(" ").contains(token)).collect();
    assert_eq!(shown, [], "ps shows the token");
}

/// A bridge with these servers; its health is at the address.
pub(crate) fn bridge(engine: &Engine, home: &Home, servers: &[(&str, Value)]) -> (Bridge, SocketAddr) {
    let admin = support::free_address();
    let servers: Map<_, _> = servers.iter().map(|(name, server)| ((*name).to_owned(), server.clone())).collect();
    let config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "perUser": 500, "perServer": 500, "total": 500, "commitDelay": "1m" },
        "admin": { "listen": admin.to_string() },
        "tokenStore": home.embedded(),
        "mcpServers": Value::Object(servers),
    });
    home.write(config);
    if let Some(user) = engine.user {
        hand_over(home, user);
    }
    (Bridge::start_as(home, &mut engine.command(&program(engine, home)), &[]), admin)
}

/// The program, for the user of that engine: the original may be where nobody but root gets.
pub(crate) fn program(engine: &Engine, home: &Home) -> PathBuf {
    if engine.user.is_some() { home.path().join("tollbridge") } else { PathBuf::from(TOLLBRIDGE) }
}

/// Gives a home to that user, with a copy of the program.
fn hand_over(home: &Home, user: u32) {
    let program = home.path().join("tollbridge");
    if !program.exists() {
        procs::copy_program(TOLLBRIDGE.as_ref(), &program);
    }
    let all = fs::read_dir(home.path()).expect("it is there").map(|entry| entry.expect("an entry").path());
    for path in all.chain([home.path().to_owned()]) {
        chown(path, Some(user), Some(user)).expect("root may");
    }
}

pub(crate) async fn ready(admin: SocketAddr) -> bool {
    let mut connection = Connection::open(admin).await.expect("the admin listener");
    connection.send("GET", "/readyz", &[], b"").await.is_ok_and(|reply| reply.status == 200)
}

/// Waits until the bridge is, or is not, ready.
pub(crate) async fn becomes_ready(admin: SocketAddr, expected: bool, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        let is_late = Instant::now() > deadline;
        if ready(admin).await == expected {
            return true;
        }
        if is_late {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens that many calls, which are never answered.
pub(crate) async fn calls(bridge: &Bridge, server: &str, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut client = Client::modern(bridge, server, None);
        connections.push(client.post("tools/call", json!({ "name": "act", "arguments": {} })).await.expect("accepted"));
    }
    connections
}

/// Opens calls that are never answered, and waits until their containers run.
pub(crate) async fn live_containers(engine: &Engine, bridge: &Bridge, server: &str) -> Vec<Connection> {
    let connections = calls(bridge, server, LIVE).await;
    let there = || (engine.running() == LIVE).then_some(());
    let there = procs::eventually(Duration::from_secs(30), there).await;
    assert!(there.is_some(), "{} of {LIVE} containers\n{}", engine.running(), bridge.log());
    connections
}
