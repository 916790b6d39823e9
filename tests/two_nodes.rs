//! Two nodes that share a Redis, behind a real nginx, `HAProxy` or Caddy in plain round robin.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::http::{Connection, Reply};
use support::mcp::{Era, LEGACY};
use support::{Bridge, Client, Home, Redis, ReverseProxy, free_address, procs, server};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// Clients at once, half of each era.
const CLIENTS: usize = 8;
/// How often a node is killed.
const KILLS: usize = 4;
/// How long to wait for what has no bound of its own.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the proxy says to prove itself.
const PROOF: &str = "a-secret-that-only-the-proxy-knows";

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

    /// Two with the same key.
    fn two(redis: &Redis) -> [Self; 2] {
        let (home, other) = (Home::new(), Home::without_key());
        std::fs::copy(home.key(), other.key()).expect("a key for both");
        [Self::new(home, redis), Self::new(other, redis)]
    }

    /// The same with an identity as in docs/operate.md: the proxy says who is calling, and proves itself.
    fn behind_a_proxy(mut self) -> Self {
        self.config["identity"] = json!([{
            "kind": "trustedHeader", "header": "X-Forwarded-User", "trustedPeers": ["127.0.0.1"],
            "secretHeader": "X-Tollbridge-Proxy", "secret": PROOF,
        }]);
        self
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

/// What clients tell of their calls.
struct Outcomes {
    heard: UnboundedReceiver<Outcome>,
    all: Vec<Outcome>,
}

impl Outcomes {
    /// Waits until a node has answered as many calls as there are clients, all of them begun from now on.
    async fn until_served_by(&mut self, node: SocketAddr) {
        let (node, now, mut served) = (node.to_string(), Instant::now(), 0);
        while served < CLIENTS {
            let outcome = tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("it gets something to do");
            let outcome = outcome.expect("clients go on");
            served += usize::from(outcome.failure.is_none() && outcome.node == node && outcome.began > now);
            self.all.push(outcome);
        }
    }

    /// All of them, once no client goes on.
    async fn until_the_end(mut self) -> Vec<Outcome> {
        while let Some(outcome) = self.heard.recv().await {
            self.all.push(outcome);
        }
        self.all
    }
}

/// One of the clients of a proxy, of which every other one is a legacy client with a session.
async fn client(proxy: SocketAddr, number: usize) -> Client {
    let mut client = Client::new(proxy, "whoami", None, Era::Modern);
    if number.is_multiple_of(2) {
        client.era = Era::Legacy(None);
        client.initialize(LEGACY, json!({})).await.expect("a session");
    }
    client
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
    let nodes = Node::two(&redis);
    let (steady, mut mortal) = (nodes[0].start(), nodes[1].start());
    let nginx = ReverseProxy::nginx(&[nodes[0].address, nodes[1].address]);

    let stop = Arc::new(AtomicBool::new(false));
    let (tell, heard) = unbounded_channel();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = client(nginx.address(), number).await;
        let (stop, tell) = (Arc::clone(&stop), tell.clone());
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                tell.send(call(&mut client, number / 2 % 2 == 0).await).expect("somebody hears it");
            }
        });
    }
    drop(tell);

    let mut outcomes = Outcomes { heard, all: Vec::new() };
    let mut absences = Vec::new();
    for _ in 0..KILLS {
        outcomes.until_served_by(nodes[1].address).await;
        let (worker, began) = (mortal.worker(), Instant::now());
        procs::kill(worker, Signal::KILL);
        mortal.ended(PATIENCE).expect("a supervisor without its worker ends");
        absences.push((began, Instant::now()));
        drop(mortal); // sees to it that nothing of it is left
        outcomes.until_served_by(nodes[0].address).await;
        mortal = nodes[1].start();
    }
    // The one that came back gets something to do, and so does the other.
    for node in &nodes {
        outcomes.until_served_by(node.address).await;
    }
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let outcomes = outcomes.until_the_end().await;

    let mortal_address = nodes[1].address.to_string();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    for outcome in &failed {
        let was_killed = absences.iter().any(|(from, to)| outcome.began <= *to && *from <= outcome.ended);
        assert!(outcome.node == mortal_address && was_killed, "nobody killed what served this: {outcome:?}");
    }
    assert!(!failed.is_empty(), "the test has missed every request");
    assert!(failed.len() <= 2 * KILLS * CLIENTS, "{} of {} failed", failed.len(), outcomes.len());
    drop((nginx, steady, mortal));
}

/// How often a node is restarted at least, however slow that is.
const RESTARTS: usize = 4;

/// Calls of the rolling restart, at least; 800 take a minute.
fn rolling_calls() -> usize {
    support::number("TOLLBRIDGE_ROLLING_CALLS", 160)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_the_nginx_of_deploy_are_restarted_by_turns_and_no_call_of_a_slow_server_is_lost() {
    let redis = Redis::start();
    let nodes = Node::two(&redis).map(Node::behind_a_proxy);
    let nginx = ReverseProxy::deployed_nginx(&[nodes[0].address, nodes[1].address], "alice", PROOF);
    let mut running = nodes.each_ref().map(|node| Some(node.start()));

    let (calls, done, over) = (rolling_calls(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = client(nginx.address(), number).await;
        let (done, over) = (Arc::clone(&done), Arc::clone(&over));
        clients.spawn(async move {
            let mut failures = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // Half a second, of which the caller hears a part, as with a server that is slow.
                let arguments = json!({ "from": 2, "delay_ms": 250 });
                let params = json!({ "name": "countdown", "arguments": arguments, "_meta": { "progressToken": 7 } });
                let mut connection = Connection::open(client.address()).await.expect("nginx takes connections");
                let mut reply = client.start(&mut connection, "tools/call", params).await.expect("nginx answers");
                failures.extend(failure(&mut reply, 2).await);
                done.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
    }

    let mut restarts = 0;
    while done.load(Ordering::Relaxed) < calls || restarts < RESTARTS {
        let node = restarts % 2;
        let served = done.load(Ordering::Relaxed);
        assert!(running[node].as_mut().expect("it runs").stop().success());
        running[node] = None; // sees to it that nothing of it is left
        running[node] = Some(nodes[node].start());
        restarts += 1;
        // The other is not stopped before this one has had time to be asked.
        let asked = || (done.load(Ordering::Relaxed) >= served + CLIENTS).then_some(());
        procs::eventually(PATIENCE, asked).await.expect("calls go on");
    }
    over.store(true, Ordering::Relaxed);
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let failed = failures.len();
    assert_eq!(failed, 0, "of {calls} in {restarts} restarts: {failures:?}\n{}", nginx.errors());
    drop((nginx, running));
}

/// `alice:wonderland`.
const ALICE: &str = "YWxpY2U6d29uZGVybGFuZA==";
/// `alice:looking-glass`.
const NOBODY: &str = "YWxpY2U6bG9va2luZy1nbGFzcw==";

/// The headers of a message with a login, which say in vain that somebody else is calling.
fn logged_in(login: &str, client: &Client, message: &str) -> Vec<(String, String)> {
    let more = [
        ("Authorization", format!("Basic {login}")),
        ("X-Forwarded-User", "mallory".to_owned()),
        ("X-Tollbridge-Proxy", "a-guess".to_owned()),
    ];
    let more = more.map(|(name, value)| (name.to_owned(), value));
    client.headers(message.as_bytes()).into_iter().chain(more).collect()
}

/// Through such a proxy a caller is who has logged in there; events come as they are said, and a client that leaves is
/// heard of: its server ends.
async fn tells_who_calls_and_who_has_left(deployed: fn(&[SocketAddr; 2], &str) -> ReverseProxy) {
    let redis = Redis::start();
    let mut nodes = Node::two(&redis).map(Node::behind_a_proxy);
    for node in &mut nodes {
        node.config["mcpServers"]["whoami"]["allow"] = json!(["alice"]);
    }
    let running = nodes.each_ref().map(Node::start);
    let proxy = deployed(&[nodes[0].address, nodes[1].address], PROOF);
    let mut client = Client::new(proxy.address(), "whoami", None, Era::Modern);

    let list = client.message("tools/list", json!({}));
    for (login, expected) in [(ALICE, 200), (NOBODY, 401)] {
        let headers = logged_in(login, &client, &list);
        for _ in &nodes {
            let mut connection = Connection::open(proxy.address()).await.expect("it takes connections");
            let reply = connection.send("POST", "/whoami/mcp", &headers, list.as_bytes()).await.expect("it answers");
            assert_eq!(reply.status, expected, "{} {}", running[0].log(), running[1].log());
        }
    }

    // It would go on for an hour.
    let arguments = json!({ "from": 36_000, "delay_ms": 100 });
    let params = json!({ "name": "countdown", "arguments": arguments, "_meta": { "progressToken": 7 } });
    let call = client.message("tools/call", params);
    let headers = logged_in(ALICE, &client, &call);
    let mut connection = Connection::open(proxy.address()).await.expect("it takes connections");
    let mut reply = connection.send("POST", "/whoami/mcp", &headers, call.as_bytes()).await.expect("it answers");
    assert!(reply.event().await.expect("a stream").is_some());
    drop(connection);
    let ended = || nodes.iter().all(|node| procs::with_marker(node.home.marker()).is_empty()).then_some(());
    procs::eventually(Duration::from_mins(1), ended).await.expect("its server ends");
}

#[tokio::test]
async fn behind_the_haproxy_of_deploy_a_caller_is_who_has_logged_in_there_and_nobody_else() {
    tells_who_calls_and_who_has_left(ReverseProxy::deployed_haproxy).await;
}

#[tokio::test]
async fn behind_the_caddy_of_deploy_a_caller_is_who_has_logged_in_there_and_nobody_else() {
    tells_who_calls_and_who_has_left(ReverseProxy::deployed_caddy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_keep_one_rate_say_when_to_come_back_and_take_another_rate_while_they_run() {
    const CALLS: usize = 44;
    let mut redis = Redis::start();
    let [one, two] = Node::two(&redis);
    let home = Home::without_key();
    std::fs::copy(one.home.key(), home.key()).expect("a key for all");
    let mut nodes = [one, two, Node::new(home, &redis)];
    for node in &mut nodes {
        // No other limit is to refuse any of them.
        node.config["limits"] = json!({ "rate": format!("{CALLS}/h"), "perUser": CALLS, "queue": "5m" });
        let few =
            json!({ "command": server("whoami"), "args": node.config["mcpServers"]["whoami"]["args"], "rate": "4/h" });
        node.config["mcpServers"]["few"] = few;
    }
    let running = nodes.each_ref().map(Node::start);

    // Each request of a batch is a call, and so is the one that begins its session.
    let mut batching = Client::new(running[0].address(), "few", None, Era::Legacy(None));
    batching.initialize("2025-03-26", json!({})).await.expect("a session");
    let batch: Vec<Value> = (1..=5).map(|_| batching.message("tools/call", add())).map(|text| parsed(&text)).collect();
    let answer = batching.exchange(json!(batch).to_string().as_bytes()).await.expect("it answers");
    let said = String::from_utf8_lossy(&answer.raw.concat()).into_owned();
    let refusal = "too many calls of this user to this server in a short time; try again in ";
    assert_eq!((said.matches("\"result\"").count(), said.matches(refusal).count()), (3, 2), "{said}");

    let mut calls = JoinSet::new();
    for node in &running {
        for _ in 0..CALLS {
            let mut client = Client::modern(node, "whoami", None);
            calls.spawn(async move { client.request("tools/call", add()).await.expect("it answers") });
        }
    }
    let (passed, refused): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(|call| call.status == 200);
    let expected = CALLS - 4;
    assert!((expected..=expected + expected / 10).contains(&passed.len()), "{} of {expected}", passed.len());
    for call in &refused {
        let (after, error) = (call.header("retry-after").expect("when"), call.response());
        assert!(call.status == 429 && (1..=82).contains(&after.parse::<u64>().expect("seconds")), "{after}: {error}");
        let said = format!("too many calls of this user in a short time; try again in {after} s");
        assert!(error["error"]["message"] == said && !error["id"].is_null(), "{error}");
    }
    let mut legacy = Client::without_session(&running[1], "whoami", None);
    assert_eq!(legacy.request("ping", json!({})).await.expect("it answers").status, 200, "it needs no server");

    let is_let_in = async |at: usize| {
        let mut client = Client::modern(&running[at], "whoami", None);
        client.request("tools/call", add()).await.expect("it answers").status == 200
    };
    nodes[2].config["limits"] = json!({ "rate": "10000/h" });
    nodes[2].home.write(nodes[2].config.clone());
    running[2].signal(Signal::HUP);
    // By the rate before, one call is let in after 82 s, by this one three in a second.
    let (until, mut let_in) = (Instant::now() + Duration::from_mins(2), 0);
    while let_in < 4 {
        let_in += u32::from(is_let_in(2).await);
        assert!(Instant::now() < until, "{}", running[2].log());
    }
    redis.crash();
    assert!(is_let_in(2).await, "what needs no token goes on while Redis is down");
    let mut share = 0;
    while is_let_in(0).await {
        share += 1;
        assert!(share <= CALLS, "and not without end");
    }
    assert!(share > 0);
}

fn add() -> Value {
    json!({ "name": "add", "arguments": { "a": 1, "b": 2 } })
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}
