//! Clients that only listen, as desktops do all day: they cost no process and little memory, and keep nobody out.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::polite::Noticed;
use super::support::http::Connection;
use super::support::{self, Bridge, Client, Home, bearer_identity, procs, server};
use super::{SETTLED, is_quick, let_many_connect};

/// What the bridge may hold more than idle with a thousand of them, KiB: it may take 64 MiB, and is 12 MiB by itself.
const SMALL: u64 = 52 << 10;
/// So many at once begin.
const TOGETHER: usize = 10;
/// For how long calls are made beside them, at a first look and else.
const CALLS: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(20)];
const USERS: [(&str, &str); 5] = [
    ("alice", "a-key-of-alice-0123456789abcdef"),
    ("bob", "a-key-of-bob-0123456789abcdef"),
    ("carol", "a-key-of-carol-0123456789abcdef"),
    ("dora", "a-key-of-dora-0123456789abcdef"),
    ("erin", "a-key-of-erin-0123456789abcdef"),
];

/// A client and its listening stream.
type Idle = (Client, Connection);

fn bridge(home: &Home, admin: SocketAddr, limits: &Value) -> Bridge {
    let_many_connect();
    let marked =
        |name: &str| json!({ "command": server(name), "args": [home.marker(), format!("marker={}", home.marker())] });
    home.serve(json!({
        "identity": bearer_identity(&USERS),
        "admin": { "listen": admin.to_string() },
        "limits": limits,
        "mcpServers": { "listened": marked("tiny"), "tiny": marked("tiny") },
    }))
}

/// So many sessions of each user in turn, whose listening streams are open.
async fn idle_clients(bridge: &Bridge, count: usize) -> Vec<Idle> {
    let mut idle = Vec::with_capacity(count);
    while idle.len() < count {
        let begin = async |number: usize| {
            let client = Client::legacy(bridge, "listened", Some(USERS[number % USERS.len()].1)).await.twin();
            let mut connection = Connection::open(bridge.address()).await.expect("it listens");
            let stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it answers");
            assert_eq!(stream.status, 200, "client {number}");
            (client, connection)
        };
        idle.extend(join_all((idle.len()..count.min(idle.len() + TOGETHER)).map(begin)).await);
    }
    idle
}

async fn no_server_runs(home: &Home) {
    let gone = procs::eventually(SETTLED, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:?}", procs::with_marker(home.marker()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn a_thousand_clients_that_listen_cost_no_process_and_little_memory_beside_fifty_calls_a_second() {
    const CLIENTS: usize = 1000;
    let (home, admin) = (Home::new(), support::free_address());
    let bridge = bridge(&home, admin, &json!({}));
    let resident = || procs::resident(bridge.worker()) + procs::resident(bridge.supervisor());
    let polite = Client::modern(&bridge, "tiny", Some(USERS[0].1));
    let quiet = Noticed::of_nothing(&polite, admin).await;
    let before = resident();
    let idle = idle_clients(&bridge, CLIENTS).await;
    no_server_runs(&home).await;
    let (noticed, ()) = Noticed::of(&polite, admin, tokio::time::sleep(CALLS[usize::from(!is_quick())])).await;
    noticed.say(&format!("beside {CLIENTS} clients that listen"));
    no_server_runs(&home).await;
    let grown = resident().saturating_sub(before);
    println!("0 processes, {grown} KiB more resident (were {before}) for {} clients", idle.len());
    assert!(grown <= SMALL, "{grown} KiB");
    assert_eq!(noticed.was_little(&quiet), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn clients_of_five_users_that_listen_keep_no_call_out_of_a_server_with_room_for_eight() {
    const CLIENTS: usize = 300;
    let (home, admin) = (Home::new(), support::free_address());
    let bridge = bridge(&home, admin, &json!({ "perServer": 8 }));
    let mut idle = idle_clients(&bridge, CLIENTS).await;
    no_server_runs(&home).await;
    for clients in idle.chunks_mut(8) {
        let calls = clients.iter_mut().map(|(client, _)| client.call("echo", json!({ "text": "x" })));
        for answer in join_all(calls).await {
            assert_eq!(answer.expect("an answer").text(), "x");
        }
    }
    println!("{CLIENTS} clients of {} users listen, and each called", USERS.len());
}
