//! A server sees the token of the user whose request it serves, and nobody else sees any token anywhere.

#[path = "tokens_never_cross/pages.rs"]
mod pages;
mod support;
#[expect(dead_code, reason = "people do more in tests/account.rs")]
#[path = "account/visit.rs"]
mod visit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use support::{Bridge, Client, Home, Redis, bearer_identity, procs, random_hex, server, sha256_hex};
use tokio::task::JoinSet;

/// What a proxy would say to prove itself.
const PROOF: &str = "a-secret-that-only-the-proxy-knows";
/// Requests in all, of two users in both eras.
const REQUESTS: usize = 2000;
/// Clients at once, half of each user, half of each era.
const CLIENTS: usize = 8;

/// A user with a bearer token of ours and a token of the service.
#[derive(Clone)]
struct User {
    name: &'static str,
    bearer: String,
    canary: String,
    token: String,
}

impl User {
    fn new(name: &'static str) -> Self {
        let canary = random_hex(16);
        let token = format!("{name} \"{canary}\" \\u0041%2B+/=<<token>>${{HOME}}");
        Self { name, bearer: random_hex(32), canary, token }
    }

    /// What a token's random part looks like raw, as JSON, URL, hexadecimal and Base64 at each of its three offsets.
    fn forms(&self) -> Vec<String> {
        let hex = self.canary.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let base64 = (0..3).map(|offset| {
            let encoded = STANDARD_NO_PAD.encode(format!("{}{}", "-".repeat(offset), self.canary));
            encoded[4..encoded.len() - 4].to_owned()
        });
        [self.canary.clone(), hex].into_iter().chain(base64).collect()
    }
}

fn servers(home: &Home) -> Value {
    let env = json!({ "WHOAMI_TOKEN": { "$userToken": "<<token>>" } });
    let leak = format!("echo \"my token is $WHOAMI_TOKEN\" >&2; exec {}", server("whoami"));
    let marker = format!("marker={}", home.marker());
    json!({
        "whoami": { "command": server("whoami"), "args": [marker], "env": env, "requiresUserToken": true },
        "leaky": { "command": "/bin/sh", "args": ["-c", leak, marker], "env": env, "requiresUserToken": true },
        "broken": { "command": server("hostile"), "args": ["exits", "at=call", "code=3", marker], "env": env,
            "requiresUserToken": true },
    })
}

fn serve(home: &Home, redis: &Redis, users: &[&User], level: &str) -> Bridge {
    let bearers: Vec<_> = users.iter().map(|user| (user.name, user.bearer.as_str())).collect();
    let config = json!({
        "identity": bearer_identity(&bearers),
        "tokenStore": home.in_redis(redis),
        "mcpServers": servers(home),
    });
    home.write(config);
    for user in users {
        for server in ["whoami", "leaky", "broken"] {
            home.set_token(user.name, server, &user.token);
        }
    }
    Bridge::start_in(home, &[("TOLLBRIDGE_LOG", level)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_two_thousand_results_is_made_from_its_own_users_token_and_no_token_is_seen_anywhere() {
    let (home, redis) = (Home::new(), Redis::start());
    let users = [User::new("alice"), User::new("bob")];
    let bridge = serve(&home, &redis, &[&users[0], &users[1]], "trace");
    let looker = Looker::start(&users);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let user = users[number % 2].clone();
        let mut client = match number / 2 % 2 {
            0 => Client::modern(&bridge, "whoami", Some(&user.bearer)),
            _ => Client::legacy(&bridge, "whoami", Some(&user.bearer)).await,
        };
        clients.spawn(async move {
            let expected = sha256_hex(user.token.as_bytes());
            for _ in 0..REQUESTS / CLIENTS {
                let answer = client.call("whoami", json!({})).await.expect("an answer");
                assert_eq!(answer.text(), expected, "{} was answered with another token", user.name);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("every answer was right");
    }
    let mut seen = bodies_of_everything_that_fails(&bridge, &users).await;
    seen.extend(looker.seen());
    let told = || (bridge.log().matches("request ended").count() >= REQUESTS).then_some(());
    procs::eventually(std::time::Duration::from_mins(1), told).await.expect("the log tells of every request");
    seen.push(("the log", bridge.log().into_bytes()));
    seen.push(("the store", redis.stored_bytes()));
    assert_no_canary(&users, &seen);
}

#[tokio::test]
async fn a_server_that_prints_its_token_does_not_put_it_into_the_log() {
    let (home, redis) = (Home::new(), Redis::start());
    let user = User::new("alice");
    let bridge = serve(&home, &redis, &[&user], "trace");
    let mut client = Client::modern(&bridge, "leaky", Some(&user.bearer));
    let answer = client.call("whoami", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), sha256_hex(user.token.as_bytes()));
    let logged = || bridge.log().contains("my token is").then_some(());
    procs::eventually(std::time::Duration::from_mins(1), logged).await.expect("the line is in the log");
    assert_no_canary(&[user], &[("the log", bridge.log().into_bytes())]);
}

#[tokio::test]
async fn a_deleted_token_is_unknown_to_the_next_request_on_every_node() {
    let (home, redis) = (Home::new(), Redis::start());
    let user = User::new("alice");
    let mut nodes = [serve(&home, &redis, &[&user], "info"), Bridge::start_in(&home, &[])];
    for node in &nodes {
        let answer = Client::modern(node, "whoami", Some(&user.bearer)).call("whoami", json!({})).await;
        assert_eq!(answer.expect("an answer").text(), sha256_hex(user.token.as_bytes()));
    }
    home.delete_token(user.name, "whoami");
    for node in &nodes {
        let answer = Client::modern(node, "whoami", Some(&user.bearer)).call("whoami", json!({})).await;
        let response = answer.expect("an answer").response();
        assert_eq!(response["result"]["isError"], true, "{response}");
    }
    nodes.iter_mut().for_each(Bridge::end_spares);
}

/// The bodies of requests that go wrong in every way that has the token near.
async fn bodies_of_everything_that_fails(bridge: &Bridge, users: &[User]) -> Vec<(&'static str, Vec<u8>)> {
    let mut bodies = Vec::new();
    for user in users {
        let mut whoami = Client::modern(bridge, "whoami", Some(&user.bearer));
        let mut broken = Client::modern(bridge, "broken", Some(&user.bearer));
        let mut wrong = Client::modern(bridge, "whoami", Some(&user.canary));
        let answers = [
            whoami.call("fail", json!({})).await,
            whoami.call("no-such-tool", json!({})).await,
            whoami.request("no/such/method", json!({})).await,
            whoami.exchange(b"{\"jsonrpc\":").await,
            broken.call("act", json!({})).await,
        ];
        bodies.extend(answers.into_iter().flatten().flat_map(|answer| answer.raw).map(|raw| ("an error", raw)));
        let refused = wrong.call("whoami", json!({})).await.expect("an answer");
        assert_eq!(refused.status, 401);
        bodies.extend(refused.raw.into_iter().map(|raw| ("a refusal", raw)));
    }
    bodies
}

fn assert_no_canary(users: &[User], seen: &[(&str, Vec<u8>)]) {
    for (place, bytes) in seen {
        for user in users {
            for form in user.forms() {
                let found = memchr::memmem::find(bytes, form.as_bytes());
                let around = found.map(|at| &bytes[at.saturating_sub(200)..(at + 20).min(bytes.len())]);
                assert!(
                    found.is_none(),
                    "{}'s token is in {place}: {:?}",
                    user.name,
                    around.map(String::from_utf8_lossy)
                );
            }
        }
    }
}

/// Looks at every command line on the machine for as long as it lives.
struct Looker {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<u8>>,
}

impl Looker {
    fn start(users: &[User]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let canaries: Vec<_> = users.iter().map(|user| user.canary.clone()).collect();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for process in procs::all() {
                    let line = procs::command_line(process.pid).join(" ");
                    if canaries.iter().any(|canary| line.contains(canary)) {
                        seen.extend_from_slice(line.as_bytes());
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            seen
        });
        Self { stop, thread }
    }

    fn seen(self) -> Vec<(&'static str, Vec<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        vec![("a command line", self.thread.join().expect("it looks"))]
    }
}
