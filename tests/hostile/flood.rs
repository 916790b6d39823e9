//! A flood of the cheapest requests there are: who sends it is slowed down and refused, what they may have stored has
//! its bound, and nobody else feels it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::is_quick;
use super::polite::at;
use super::support::{Client, Home, Redis, bearer_identity, server};

/// Connections of the one who floods, and their requests in all, or for how long they go on at most.
const CONNECTIONS: usize = 50;
const REQUESTS: usize = 100_000;
const AT_MOST: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(8)];
/// Sessions of theirs: more than anything is kept of.
const SESSIONS: usize = 40;
/// What one user may have stored, with all that Redis needs beside it.
const QUOTA: u64 = 4 << 20;
/// Calls of somebody else before it, in a row as beside it.
const CALLS: usize = 200;
/// By how much half of those may be slower beside it, in one of so many attempts: the machine does other things, too.
const SLOWER: (u32, u32) = (3, 2);
const ATTEMPTS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn a_flood_of_the_cheapest_requests_slows_nobody_else_down_and_fills_no_store() {
    let (home, redis, watched) = (Home::new(), Redis::start(), TempDir::new().expect("a directory"));
    let modern = json!({ "command": server("watcher"), "args": [watched.path(), "era=modern"], "protocol": "modern" });
    let mut config = json!({
        "identity": bearer_identity(&[("mallory", "mallorys-key-0123456789abcdef"), ("bob", "bobs-key-0123456789abcdef")]),
        "mcpServers": { "modern": modern, "tiny": { "command": server("tiny"), "env": { "TOKEN": { "$userToken": "<<token>>" } }, "requiresUserToken": true } },
    });
    config["tokenStore"] = home.in_redis(&redis);
    let bridge = home.serve(config);
    home.set_token("bob", "tiny", "bobs-token");
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(Client::legacy(&bridge, "modern", Some("mallorys-key-0123456789abcdef")).await);
    }
    let bob = Client::modern(&bridge, "tiny", Some("bobs-key-0123456789abcdef"));
    let (sessions, mut slower) = (Arc::new(sessions), Vec::new());
    for attempt in 0..ATTEMPTS {
        let before = used(&redis);
        let quiet = calls(&bob, CALLS, || false).await;
        let (statuses, beside) = flood(&sessions, &bob).await;
        let grown = used(&redis).saturating_sub(before);
        println!(
            "{statuses:?} of one user from {CONNECTIONS} connections; half of another's calls within {:?} before and {:?} beside it; \
             {} KiB more in Redis",
            at(&quiet, 50),
            at(&beside, 50),
            grown >> 10
        );
        assert!(statuses.keys().all(|status| [200, 202, 429].contains(status)), "{statuses:?}");
        assert!(statuses.contains_key(&429), "nobody was refused");
        assert!(is_quick() || statuses.values().sum::<usize>() == REQUESTS, "{statuses:?}");
        assert!(grown <= QUOTA, "{grown} bytes more");
        slower.push((at(&quiet, 50), at(&beside, 50)));
        if at(&beside, 50) * SLOWER.1 <= at(&quiet, 50) * SLOWER.0 {
            break;
        }
        assert!(attempt + 1 < ATTEMPTS, "another user's calls are slower: {slower:?}");
    }
    // What is refused to nobody, whatever others have sent.
    home.set_token("bob", "tiny", "bobs-token");
}

/// Lets one user flood from all connections while another calls: how often each status came, and how long the calls took.
async fn flood(sessions: &Arc<Vec<Client>>, bob: &Client) -> (BTreeMap<u16, usize>, Vec<Duration>) {
    let (sent, end) = (Arc::new(AtomicUsize::new(0)), Instant::now() + AT_MOST[usize::from(!is_quick())]);
    let mut flooders = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (sent, sessions) = (Arc::clone(&sent), Arc::clone(sessions));
        let mut client = sessions[number % SESSIONS].twin();
        flooders.spawn(async move {
            let mut statuses = BTreeMap::<u16, usize>::new();
            while Instant::now() < end {
                let turn = sent.fetch_add(1, Ordering::Relaxed);
                if turn >= REQUESTS {
                    break;
                }
                let message = cheap(turn).to_string();
                let answer = client.exchange(message.as_bytes()).await.expect("an answer");
                *statuses.entry(answer.status).or_default() += 1;
            }
            statuses
        });
    }
    let beside = calls(bob, usize::MAX, || Instant::now() > end || sent.load(Ordering::Relaxed) > REQUESTS).await;
    let mut statuses = BTreeMap::new();
    for (status, count) in flooders.join_all().await.into_iter().flatten() {
        *statuses.entry(status).or_default() += count;
    }
    (statuses, beside)
}

/// One of the messages that need no process, by turns.
fn cheap(turn: usize) -> Value {
    match turn % 4 {
        0 => json!({ "jsonrpc": "2.0", "id": turn, "method": "ping" }),
        1 => json!({ "jsonrpc": "2.0", "id": turn, "method": "logging/setLevel", "params": { "level": "info" } }),
        2 => json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": { "requestId": turn, "reason": "x".repeat(60_000) } }),
        _ => json!({ "jsonrpc": "2.0", "id": turn, "method": "resources/subscribe",
            "params": { "uri": format!("{turn}{}", "x".repeat(1_900)) } }),
    }
}

/// How long each of so many calls took, one after the other, the slowest last.
async fn calls(client: &Client, count: usize, is_over: impl Fn() -> bool) -> Vec<Duration> {
    let (mut client, mut latencies) = (client.twin(), Vec::new());
    while latencies.len() < count && !is_over() {
        let began = Instant::now();
        let answer = client.call("echo", json!({ "text": "polite" })).await.expect("an answer");
        assert_eq!(answer.text(), "polite");
        latencies.push(began.elapsed());
    }
    latencies.sort_unstable();
    latencies
}

/// The memory that Redis uses, bytes.
fn used(redis: &Redis) -> u64 {
    let mut client = redis::Client::open(redis.url()).expect("a URL");
    let info: String = redis::cmd("INFO").arg("memory").query(&mut client).expect("it answers");
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
}
