//! Two users with clients of every revision, in front of two nodes that share a Redis: every result is made from the
//! token of whoever asked, whichever node it came to, and nothing is left.

mod support;

use serde_json::{Value, json};
use support::http::{Connection, Reply};
use support::mcp::MODERN;
use support::{Bridge, Client, Home, Redis, bearer_identity, procs, random_hex, server, sha256_hex};
use tokio::task::JoinSet;

/// Requests in all; `TOLLBRIDGE_TEST_REQUESTS` is another number.
const REQUESTS: usize = 5000;
/// One client of each revision for each user, all at once.
const REVISIONS: [&str; 5] = [SSE, "2025-03-26", "2025-06-18", "2025-11-25", MODERN];
/// The revision that is spoken over HTTP+SSE.
const SSE: &str = "2024-11-05";
/// How long after the last request something may still be there.
const SETTLED: std::time::Duration = std::time::Duration::from_mins(1);

/// A user with a bearer token of ours and a token of the service.
#[derive(Clone)]
struct User {
    name: &'static str,
    bearer: String,
    token: String,
}

impl User {
    fn new(name: &'static str) -> Self {
        Self { name, bearer: random_hex(32), token: random_hex(24) }
    }

    fn hash(&self) -> String {
        sha256_hex(self.token.as_bytes())
    }
}

fn nodes(home: &Home, redis: &Redis, users: &[User; 2]) -> [Bridge; 2] {
    let bearers = users.each_ref().map(|user| (user.name, user.bearer.as_str()));
    home.write(json!({
        "identity": bearer_identity(&bearers),
        "tokenStore": home.in_redis(redis),
        "mcpServers": { "whoami": {
            "command": server("whoami"), "args": [format!("marker={}", home.marker())], "requiresUserToken": true,
            "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
        } },
    }));
    for user in users {
        home.set_token(user.name, "whoami", &user.token);
    }
    [(); 2].map(|()| Bridge::start_in(home, &[]))
}

/// Calls `whoami` again and again, now on one node and now on the other.
async fn call(mut clients: [Client; 2], revision: &'static str, user: User, calls: usize) {
    if revision != MODERN {
        let [first, second] = &mut clients;
        let answer = first.initialize(revision, json!({})).await.expect("an answer");
        assert_eq!(answer.response()["result"]["protocolVersion"], revision);
        *second = first.on(second.address());
        let level = json!({ "level": "error" });
        assert_eq!(second.request("logging/setLevel", level).await.expect("an answer").status, 200);
    }
    for number in 0..calls {
        let answer = clients[number % 2].call("whoami", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), user.hash(), "{} was answered with another token", user.name);
    }
}

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

/// The same over HTTP+SSE: the stream is on one node, the messages are posted to both.
async fn call_over_sse(clients: [Client; 2], user: User, calls: usize) {
    let headers: Vec<_> = clients[0].headers(b"{}").into_iter().filter(|(name, _)| name != "Accept").collect();
    let mut connection = Connection::open(clients[0].address()).await.expect("it listens");
    let mut stream = connection.send("GET", "/whoami/sse", &headers, b"").await.expect("an answer");
    assert_eq!(stream.status, 200);
    let first = stream.event().await.expect("the stream goes on").expect("an event");
    let endpoint = String::from_utf8(first.data).expect("a relative reference");
    let mut posts = [
        Connection::open(clients[0].address()).await.expect("it listens"),
        Connection::open(clients[1].address()).await.expect("it listens"),
    ];
    let about = json!({ "name": "tollbridge-tests", "version": "1" });
    let initialize = json!({ "protocolVersion": SSE, "capabilities": {}, "clientInfo": about });
    for id in 0..=calls {
        let (method, params) = match id {
            0 => ("initialize", initialize.clone()),
            _ => ("tools/call", json!({ "name": "whoami", "arguments": {} })),
        };
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let mut reply = posts[id % 2].send("POST", &endpoint, &headers, message.as_bytes()).await.expect("an answer");
        assert_eq!(reply.status, 202);
        reply.body().await.expect("its end");
        let answer = next(&mut stream).await;
        assert_eq!(answer["id"], json!(id));
        if id == 0 {
            assert_eq!(answer["result"]["protocolVersion"], SSE);
            let initialized = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            let status = posts[1].send("POST", &endpoint, &headers, initialized).await.expect("an answer").status;
            assert_eq!(status, 202);
            posts[1] = Connection::open(clients[1].address()).await.expect("it listens");
        } else {
            let text = answer.pointer("/result/content/0/text");
            assert_eq!(text, Some(&json!(user.hash())), "{} was answered with another token", user.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_result_of_two_users_in_all_eras_on_two_nodes_is_made_from_the_askers_token_and_nothing_is_left() {
    let (home, redis) = (Home::new(), Redis::start());
    let users = [User::new("alice"), User::new("bob")];
    let mut bridges = nodes(&home, &redis, &users);
    let calls = support::number("TOLLBRIDGE_TEST_REQUESTS", REQUESTS) / (REVISIONS.len() * users.len());
    let mut running = JoinSet::new();
    for (number, user) in users.iter().enumerate() {
        for (at, revision) in REVISIONS.into_iter().enumerate() {
            // Each user begins on each node.
            let mut order = [&bridges[(number + at) % 2], &bridges[(number + at + 1) % 2]].into_iter();
            let client = |bridge: &Bridge| match revision {
                MODERN => Client::modern(bridge, "whoami", Some(&user.bearer)),
                _ => Client::without_session(bridge, "whoami", Some(&user.bearer)),
            };
            let clients = [(); 2].map(|()| client(order.next().expect("two nodes")));
            let user = user.clone();
            match revision {
                SSE => running.spawn(call_over_sse(clients, user, calls)),
                _ => running.spawn(call(clients, revision, user, calls)),
            };
        }
    }
    while let Some(done) = running.join_next().await {
        done.expect("every answer was right");
    }
    bridges.iter_mut().for_each(Bridge::end_spares);
    let gone = procs::eventually(SETTLED, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{} processes are left", procs::with_marker(home.marker()).len());
    let (lasting, passing) = redis.keys();
    assert!(!passing.is_empty(), "what sessions set is kept for a while");
    // Tokens last with their last use, and the name of the key that they are sealed with.
    let (of_users, others): (Vec<_>, Vec<_>) =
        lasting.iter().partition(|key| key.contains(":tokens:") || key.contains(":notes:"));
    assert_eq!((of_users.len(), others), (2 * users.len(), vec![&"tollbridge:keys".to_owned()]));
}
