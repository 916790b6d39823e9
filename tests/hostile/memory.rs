//! Clients and servers that would have the bridge hold whatever they send: it holds its budget, and everybody else is
//! served meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::polite::Noticed;
use super::support::http::Connection;
use super::support::mcp::LEGACY;
use super::support::{self, Bridge, Client, Home, bearer_identity, procs, server};
use super::{SETTLED, is_quick, let_many_connect};

/// The budget at a first look and else, MiB.
const MEMORY: [u64; 2] = [64, 256];
/// How many budgets more than idle the bridge may ever have resident.
const BOUND: u64 = 2;
/// For how long all of them go on, at a first look and else.
const GO_ON: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(1)];
/// For how long one of them keeps what it got before it comes again.
const KEEP: Duration = Duration::from_secs(8);
/// How long each of them waits in between: what is looked for is memory, not who gets the processors.
const PAUSE: Duration = Duration::from_millis(500);
/// How soon a request is refused by what its head says.
const REFUSED: Duration = Duration::from_millis(50);
/// The longest line of a server and a large answer, MiB: a user's part of the budget is two lines.
const LINE: [usize; 2] = [4, 16];
const LARGE: [usize; 2] = [3, 12];
/// Requests of a batch.
const BATCH: usize = 20;
/// All users; the last does nothing of all this.
const USERS: [&str; 4] = ["sender", "reader", "runner", "polite"];

/// An attack, who does it, against which server, and by how many of its kind at once: much more than the budget in all. So
/// few users leave the polite one room, as each may hold an eighth.
const ATTACKS: [(Attack, &str, &str, usize); 7] = [
    (Attack::Unfinished, "sender", "large", 60),
    (Attack::Unread, "reader", "large", 20),
    (Attack::Windowless, "reader", "large", 20),
    (Attack::Batch, "reader", "large", 2),
    (Attack::Call, "runner", "asks", 2),
    (Attack::Call, "runner", "pings", 2),
    (Attack::Call, "runner", "announces", 2),
];

#[derive(Debug, Clone, Copy)]
enum Attack {
    /// A request body whose last byte does not come.
    Unfinished,
    /// A large answer that is not read.
    Unread,
    /// The same over HTTP/2, with a window of no byte.
    Windowless,
    /// A small request for many large answers that are not read.
    Batch,
    /// A call of a server that floods the bridge.
    Call,
}

/// How often each status came; 0 is a connection that was cut.
type Statuses = BTreeMap<u16, usize>;

fn bearer(user: &str) -> String {
    format!("a-key-of-{user}-0123456789abcdef")
}

fn bridge(home: &Home, admin: SocketAddr) -> Bridge {
    let size = usize::from(!is_quick());
    let greedy = |behaviour: &str, kib: usize| {
        json!({ "line": format!("{}MiB", LINE[size]), "command": server("greedy"), "args": [behaviour, format!("kib={kib}"), format!("marker={}", home.marker())],
            "protocol": "legacy", "startTimeout": "5s", "requestTimeout": "5s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let line = home.path().join("large.json");
    let text = json!([{ "type": "text", "text": "x".repeat(LARGE[size] << 20) }]);
    std::fs::write(&line, format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{{"content":{text}}}}}"#))
        .expect("a directory");
    let mut large = greedy("large", 0);
    large["command"] = json!(server("hostile"));
    large["args"] = json!(["exact", format!("line=@{}", line.display()), format!("marker={}", home.marker())]);
    let bearers = USERS.map(|user| (user, bearer(user)));
    let bearers = bearers.each_ref().map(|(user, bearer)| (*user, bearer.as_str()));
    home.serve(json!({
        "identity": bearer_identity(&bearers),
        "admin": { "listen": admin.to_string() },
        // Nothing but memory is short.
        "limits": { "memory": format!("{}MiB", MEMORY[size]), "writeStall": "2s", "perUser": 500, "perServer": 500, "total": 500 },
        "mcpServers": {
            "large": large,
            "asks": greedy("asks", 100),
            "pings": greedy("pings", 16),
            "announces": greedy("announces", LARGE[size] << 10),
            "tiny": { "command": server("tiny"), "args": [home.marker()], "line": "1MiB" },
        },
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn what_clients_and_servers_would_have_the_bridge_hold_is_within_its_budget_and_given_back() {
    let (home, admin) = (Home::new(), support::free_address());
    let_many_connect();
    let bridge = bridge(&home, admin);
    let polite = Client::modern(&bridge, "tiny", Some(&bearer(USERS[3])));
    procs::reset_peak(bridge.worker());
    let idle = procs::resident(bridge.worker());

    let statuses = Noticed::little_of(&polite, admin, "besieged", async || all_attacks(&bridge).await).await;

    for ((attack, user, ..), statuses) in ATTACKS.iter().zip(&statuses) {
        println!("{attack:?} of {user}: {statuses:?}");
        let known = statuses.keys().all(|status| [0, 200, 202, 429, 502, 503, 504].contains(status));
        assert!(known, "{attack:?} of {user}: {statuses:?}");
    }
    let peak = procs::peak_resident(bridge.worker());
    println!("at most {peak} KiB resident (were {idle})");
    nothing_is_left(&bridge, &home, admin).await;
    println!("afterwards {} KiB", procs::resident(bridge.worker()));
    let most = idle + BOUND * (MEMORY[usize::from(!is_quick())] << 10);
    assert!(peak <= most, "{peak} KiB, {idle} before");
}

/// Everybody attacks at once until the time is up: how often each got which status.
async fn all_attacks(bridge: &Bridge) -> Vec<Statuses> {
    let end = Instant::now() + GO_ON[usize::from(!is_quick())];
    let (machines, mut attackers) = (machines_of_attackers(), JoinSet::new());
    for (number, &(attack, user, server, count)) in ATTACKS.iter().enumerate() {
        for turn in 0..count {
            let client = Client::without_session(bridge, server, Some(&bearer(user)));
            // Not all of a kind in the same moment: that would only keep the processors from everybody else.
            let later = KEEP * u32::try_from(turn).expect("a few") / u32::try_from(count).expect("a few");
            let attacker = async move {
                tokio::time::sleep(later).await;
                (number, again_and_again(attack, client, turn, end).await)
            };
            attackers.spawn_on(attacker, machines.handle());
        }
    }
    let mut all = vec![Statuses::new(); ATTACKS.len()];
    while let Some(done) = attackers.join_next().await {
        let (number, statuses) = done.expect("no attacker panics");
        for (status, count) in statuses {
            *all[number].entry(status).or_default() += count;
        }
    }
    machines.shutdown_background();
    all
}

/// Where the attackers' clients run. They would be other machines, and so take no processor that the bridge wants.
fn machines_of_attackers() -> Runtime {
    const LOWEST_PRIORITY: i32 = 19;
    let yielding = || {
        rustix::process::nice(LOWEST_PRIORITY).expect("anybody may take less");
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).on_thread_start(yielding).enable_all().build().expect("a machine that runs servers")
}

async fn again_and_again(attack: Attack, mut client: Client, turn: usize, end: Instant) -> Statuses {
    let mut statuses = Statuses::new();
    while Instant::now() < end {
        let until = end.min(Instant::now() + KEEP);
        let status = match attack {
            Attack::Unfinished => unfinished(&client, turn.is_multiple_of(2), until).await,
            Attack::Unread => unread(&mut client, until).await,
            Attack::Windowless => windowless(&mut client, until).await,
            Attack::Batch => batch(&mut client, turn.is_multiple_of(2), until).await,
            Attack::Call => call(&mut client).await,
        };
        *statuses.entry(status.unwrap_or(0)).or_default() += 1;
        tokio::time::sleep_until(end.min(Instant::now() + PAUSE).into()).await;
    }
    statuses
}

/// The status that has come by then, if any has; the connection is kept until then unless it was refused.
async fn answered_by(until: Instant, mut connection: Connection) -> io::Result<u16> {
    let until = until.into();
    let status = match tokio::time::timeout_at(until, connection.reply()).await {
        Ok(reply) => reply?.status,
        Err(_) => return Ok(202),
    };
    if status == 200 {
        tokio::time::sleep_until(until).await;
    }
    Ok(status)
}

async fn unfinished(client: &Client, says_length: bool, until: Instant) -> io::Result<u16> {
    const BODY: usize = 4 << 20;
    let mut connection = Connection::open(client.address()).await?;
    let fields: Vec<_> = client.headers(b"{}").iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let fields = fields.concat();
    let framing =
        if says_length { format!("Content-Length: {BODY}\r\n") } else { "Transfer-Encoding: chunked\r\n".into() };
    let head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n{framing}{fields}\r\n", client.path(), client.address());
    connection.write(head.as_bytes()).await?;
    if says_length {
        // Who is refused at once writes nothing: that would keep this machine busy, and not the bridge.
        let refused = tokio::time::timeout(REFUSED, connection.reply()).await;
        if let Ok(reply) = refused {
            return Ok(reply?.status);
        }
    } else {
        connection.write(format!("{BODY:x}\r\n").as_bytes()).await?;
    }
    // What is refused later may be so before all of it is written.
    let written = tokio::time::timeout_at(until.into(), connection.write(&vec![b' '; BODY - 1])).await;
    drop(written);
    answered_by(until, connection).await
}

async fn unread(client: &mut Client, until: Instant) -> io::Result<u16> {
    let connection = client.post("tools/call", json!({ "name": "x", "arguments": {} })).await?;
    answered_by(until, connection).await
}

#[expect(clippy::disallowed_methods, reason = "a client that misbehaves is built by itself")]
async fn windowless(client: &mut Client, until: Instant) -> io::Result<u16> {
    let http = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(0);
    let http = http.build().map_err(io::Error::other)?;
    let message = client.message("tools/call", json!({ "name": "x", "arguments": {} }));
    let mut request = http.post(format!("http://{}{}", client.address(), client.path()));
    for (name, value) in client.headers(message.as_bytes()) {
        request = request.header(name, value);
    }
    match tokio::time::timeout_at(until.into(), request.body(message).send()).await {
        Ok(Ok(reply)) if reply.status() == 200 => {
            tokio::time::sleep_until(until.into()).await;
            Ok(200)
        }
        Ok(Ok(reply)) => Ok(reply.status().as_u16()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Ok(202),
    }
}

async fn batch(client: &mut Client, as_events: bool, until: Instant) -> io::Result<u16> {
    const BATCHES: &str = "2025-03-26";
    let begun = client.initialize(BATCHES, json!({})).await?;
    if begun.status != 200 {
        return Ok(begun.status);
    }
    let requests: Vec<Value> = (0..BATCH)
        .map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "x", "arguments": {} } }))
        .collect();
    let body = Value::from(requests).to_string();
    let mut headers = client.headers(b"{}");
    if !as_events {
        for (_, value) in headers.iter_mut().filter(|(name, _)| name == "Accept") {
            "application/json".clone_into(value);
        }
    }
    let mut connection = Connection::open(client.address()).await?;
    connection.request("POST", &client.path(), &headers, body.as_bytes()).await?;
    answered_by(until, connection).await
}

async fn call(client: &mut Client) -> io::Result<u16> {
    let begun = client.initialize(LEGACY, json!({ "elicitation": {} })).await?;
    if begun.status != 200 {
        return Ok(begun.status);
    }
    let answer = client.call("x", json!({})).await?;
    Ok(if answer.error_code().is_some() && answer.status == 200 { 502 } else { answer.status })
}

/// Waits until nothing is held for anybody and no server runs.
async fn nothing_is_left(bridge: &Bridge, home: &Home, admin: SocketAddr) {
    let deadline = Instant::now() + SETTLED;
    loop {
        let mut held = Vec::new();
        for name in ["tollbridge_permits", "tollbridge_waiting", "tollbridge_memory_held_bytes"] {
            held.push((name, support::metric(admin, name).await));
        }
        let (processes, below) = (procs::with_marker(home.marker()).len(), bridge.children().len());
        if held.iter().all(|(_, held)| *held == Some(0.0)) && processes + below == 0 {
            println!("0 permits, 0 bytes, 0 processes");
            return;
        }
        assert!(Instant::now() < deadline, "{held:?}, {processes} processes, {below} below");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
