//! JSON that is short to send and would be long to read: nobody else notices who sends it, or the server that says it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::is_quick;
use super::polite::Noticed;
use super::support::http::Connection;
use super::support::{self, Client, Home, bearer_identity, server};

const MALLORY: &str = "mallorys-key-0123456789abcdef";
const BOB: &str = "bobs-key-0123456789abcdef";
/// Connections of the one who sends them, and for how long they go on, at a first look and else.
const CONNECTIONS: usize = 8;
const GO_ON: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(30)];
/// How long each waits in between: what is looked for is a thread that is kept busy, not who gets the processors.
const PAUSE: Duration = Duration::from_millis(500);
/// About how long a message is, of a client and of a server, at a first look and else, bytes. What takes a time that does
/// not grow with the length alone shows in the shorter ones, too.
const LONG: [usize; 2] = [512 << 10, 4 << 20];
const LINE: [usize; 2] = [2 << 20, 15 << 20];

/// Messages of every shape that has cost somebody time, none longer than a body may be.
fn shapes() -> Vec<String> {
    let long = LONG[usize::from(!is_quick())] - 1024;
    let ping = |rest: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping"{rest}}}"#);
    let with = |params: &str| ping(&format!(r#","params":{{"x":{params}}}"#));
    let keys = |count: usize| (0..count).map(|key| format!(r#","{key:x}":0"#)).collect::<Vec<_>>().concat();
    let nested =
        |open: &str, close: &str, depth: usize| with(&[&open.repeat(depth), "0", &close.repeat(depth)].concat());
    vec![
        ping(&keys(80_000)),
        ping(&format!(r#","params":{{"a":0{}}}"#, keys(long / 10))),
        ping(&r#","jsonrpc":"2.0""#.repeat(long / 17)),
        nested("[", "]", 120),
        nested("[", "]", long / 2),
        nested(r#"{"a":"#, "}", long / 6),
        with(&format!("\"{}\"", r"\u0041".repeat(long / 6))),
        with(&format!("\"{}\"", r"\ud83d\ude00".repeat(long / 12))),
        with(&"9".repeat(long)),
        with(&format!("1e{}", "9".repeat(long))),
        with(&format!("[{}0]", "0,".repeat(long / 2 - 1))),
        with(&format!("[{}{{}}]", "{},".repeat(long / 3 - 1))),
        ping(&" ".repeat(long)),
        ping(&format!(r#","{}":0"#, r"\u0069".repeat(long / 6))),
        format!("[{}0]", "0,".repeat(long / 2 - 1)),
        format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "1".repeat(long)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn json_of_the_worst_shapes_keeps_nobody_waiting() {
    let (home, admin) = (Home::new(), support::free_address());
    let keys =
        (0..LINE[usize::from(!is_quick())] / 10).map(|key| format!(r#""{key:x}":0"#)).collect::<Vec<_>>().join(",");
    let line = home.path().join("line.json");
    std::fs::write(&line, format!(r#"{{"jsonrpc":"2.0","id":@id@,"result":{{{keys}}}}}"#))
        .expect("a writable directory");
    let marker = format!("marker={}", home.marker());
    let bridge = home.serve(json!({
        "identity": bearer_identity(&[("mallory", MALLORY), ("bob", BOB)]),
        "admin": { "listen": admin.to_string() },
        "limits": { "perUser": 500, "perServer": 500, "total": 500 },
        "mcpServers": {
            "worst": { "command": server("hostile"), "args": ["exact", format!("line=@{}", line.display()), marker] },
            "tiny": { "command": server("tiny"), "args": [home.marker()] },
        },
    }));
    let polite = Client::modern(&bridge, "tiny", Some(BOB));
    let counts = Noticed::little_of(&polite, admin, "beside the worst shapes", async || {
        let end = Instant::now() + GO_ON[usize::from(!is_quick())];
        let mut senders = JoinSet::new();
        for number in 0..CONNECTIONS {
            let client = Client::without_session(&bridge, ["tiny", "worst"][usize::from(number == 0)], Some(MALLORY));
            senders.spawn(send(client, number, end));
        }
        senders.join_all().await
    })
    .await;
    println!("{} messages of all shapes", counts.iter().sum::<usize>());
}

/// How many were answered until the time was up: the first asks the server for its long line, the others send.
async fn send(mut client: Client, number: usize, end: Instant) -> usize {
    let shapes = shapes();
    let headers = client.headers(b"{}");
    let mut sent = 0;
    while Instant::now() < end {
        let shape = (sent + number) % shapes.len();
        let status = if number == 0 {
            client.call("x", json!({})).await.map(|answer| answer.status)
        } else {
            once(&client, &headers, shapes[shape].as_bytes()).await
        };
        let status = status.unwrap_or(0);
        assert!([0, 200, 400, 413, 429, 502, 503].contains(&status), "{status} for shape {shape}");
        sent += 1;
        tokio::time::sleep_until(end.min(Instant::now() + PAUSE).into()).await;
    }
    sent
}

async fn once(client: &Client, headers: &[(String, String)], message: &[u8]) -> io::Result<u16> {
    let mut connection = Connection::open(client.address()).await?;
    let mut reply = connection.send("POST", &client.path(), headers, message).await?;
    reply.body().await?;
    Ok(reply.status)
}
