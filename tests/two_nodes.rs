//! Two nodes that share a Redis, behind a real nginx in plain round robin.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::http::{Connection, Reply};
use support::mcp::{Era, LEGACY};
use support::{Bridge, Client, Home, Nginx, Redis, free_address, procs, server};
use tokio::task::JoinSet;

/// Clients at once, half of each era.
const CLIENTS: usize = 8;
/// How often a node is killed.
const KILLS: usize = 4;
/// How long a node serves before it is killed.
const UP: Duration = Duration::from_secs(2);
/// How long it is away.
const DOWN: Duration = Duration::from_millis(700);

/// A node with an address that it keeps.
struct Node {
    home: Home,
    address: SocketAddr,
    config: Value,
}

impl Node {
    fn new(home: Home, redis: &Redis) -> Self {
        let address = free_address();
        let marker = format!("marker={}", home.marker());
        let config = json!({
            "listen": address,
            "identity": [{ "kind": "local", "user": "alice" }],
            "tokenStore": home.in_redis(redis),
            "mcpServers": { "whoami": { "command": server("whoami"), "args": [marker] } },
        });
        Self { home, address, config }
    }

    fn start(&self) -> Bridge {
        self.home.serve(self.config.clone())
    }
}

/// What became of a request.
#[derive(Debug)]
struct Outcome {
    began: Instant,
    ended: Instant,
    /// The node that took it.
    node: String,
    failure: Option<String>,
}

/// Calls a tool that reports three steps on its way, or one that answers at once.
async fn call(client: &mut Client, streams: bool) -> Outcome {
    let began = Instant::now();
    let params = if streams {
        let arguments = json!({ "from": 3, "delay_ms": 60 });
        json!({ "name": "countdown", "arguments": arguments, "_meta": { "progressToken": 7 } })
    } else {
        json!({ "name": "add", "arguments": { "a": 1, "b": 2 } })
    };
    let mut connection = Connection::open(client.address()).await.expect("nginx takes connections");
    let mut reply = client.start(&mut connection, "tools/call", params).await.expect("nginx answers");
    let nodes = reply.header("x-node").expect("nginx says which node").to_owned();
    let node = nodes.rsplit(", ").next().unwrap_or_default().to_owned();
    let failure = failure(&mut reply, if streams { 3 } else { 0 }).await;
    Outcome { began, ended: Instant::now(), node, failure }
}

/// The error that a client sees; `None` if it has its whole answer. An end without either is not to be.
async fn failure(reply: &mut Reply<'_>, steps: usize) -> Option<String> {
    if reply.status != 200 {
        return Some(format!("HTTP {}", reply.status));
    }
    let messages = match reply.messages().await {
        Ok(messages) => messages,
        Err(error) => return Some(error.to_string()),
    };
    let last: Value = messages.last().map(|last| serde_json::from_slice(last).expect("JSON")).unwrap_or_default();
    assert!(last["result"].is_object() || last["error"].is_object(), "an answer that ends without one: {last}");
    assert!(last["error"].is_object() || messages.len() == steps + 1, "events are missing: {messages:?}");
    last["error"].is_object().then(|| last["error"].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_node_is_killed_again_and_again_only_what_it_was_doing_fails_and_says_so() {
    let redis = Redis::start();
    let (home, other) = (Home::new(), Home::without_key());
    std::fs::copy(home.key(), other.key()).expect("a key for both");
    let nodes = [Node::new(home, &redis), Node::new(other, &redis)];
    let (steady, mut mortal) = (nodes[0].start(), nodes[1].start());
    let nginx = Nginx::start(&[nodes[0].address, nodes[1].address]);

    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = Client::new(nginx.address(), "whoami", None, Era::Modern);
        if number % 2 == 0 {
            client.era = Era::Legacy(None);
            client.initialize(LEGACY, json!({})).await.expect("a session");
        }
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                outcomes.push(call(&mut client, number / 2 % 2 == 0).await);
            }
            outcomes
        });
    }

    let mut absences = Vec::new();
    for _ in 0..KILLS {
        tokio::time::sleep(UP).await;
        let (worker, began) = (mortal.worker(), Instant::now());
        procs::kill(worker, Signal::KILL);
        mortal.ended(Duration::from_secs(5)).expect("a supervisor without its worker ends");
        absences.push((began, Instant::now()));
        drop(mortal); // sees to it that nothing of it is left
        tokio::time::sleep(DOWN).await;
        mortal = nodes[1].start();
    }
    let back = Instant::now();
    tokio::time::sleep(UP).await;
    stop.store(true, Ordering::Relaxed);
    let outcomes: Vec<Outcome> = clients.join_all().await.into_iter().flatten().collect();

    let mortal_address = nodes[1].address.to_string();
    let (failed, good): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.failure.is_some());
    for outcome in &failed {
        let was_killed = absences.iter().any(|(from, to)| outcome.began <= *to && *from <= outcome.ended);
        assert!(outcome.node == mortal_address && was_killed, "nobody killed what served this: {outcome:?}");
    }
    let served = |node: &str, after: Instant| good.iter().filter(|o| o.node == node && o.began > after).count();
    assert!(!failed.is_empty(), "the test has missed every request");
    assert!(failed.len() <= 2 * KILLS * CLIENTS, "{} of {} failed", failed.len(), outcomes.len());
    assert!(served(&mortal_address, back) > 0, "the node that came back gets nothing to do");
    assert!(served(&nodes[0].address.to_string(), back) > 0);
    drop((nginx, steady, mortal));
}
