//! Very many requests at once when a token has just expired. Their server takes what the service gave, and is as fast as
//! this machine: what takes long is the bridge's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::faults::{call, just_expired, renewals};
use crate::relay::{Fault, Relay};
use crate::service::Service;
use crate::support::{Home, Redis, number};
use crate::{Setting, config};

/// How long the service takes.
const SERVICE: Duration = Duration::from_millis(500);

/// A server of the modern era in this process. `says` makes its answer of a call's token, or `None` of one that it refuses.
pub(crate) fn quick_server(says: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, says) = (listener.local_addr().expect("bound"), Arc::new(says));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let says = Arc::clone(&says);
            // Who hangs up in the middle hears nothing.
            std::thread::spawn(move || drop(serve(&connection, &*says)));
        }
    });
    address
}

/// Answers every call of a connection.
fn serve(mut connection: &TcpStream, says: &dyn Fn(&str) -> Option<String>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    loop {
        let (mut bearer, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line)? {
                0 => return Ok(()),
                1 | 2 => break,
                _ => {}
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "authorization" => value.trim().trim_start_matches("Bearer ").clone_into(&mut bearer),
                "content-length" => length = value.trim().parse().expect("a number"),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let id = serde_json::from_slice::<Value>(&body).expect("JSON")["id"].take();
        let Some(text) = says(&bearer) else {
            let head =
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 0";
            connection.write_all(format!("{head}\r\n\r\n").as_bytes())?;
            continue;
        };
        let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] });
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", answer.len());
        connection.write_all(format!("{head}\r\n\r\n{answer}").as_bytes())?;
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn many_requests_on_three_nodes_renew_a_token_by_one_call() {
    let relay = Arc::new(Relay::start());
    let service = Service::behind(&relay, &json!({}));
    let (home, redis) = (Home::new(), Redis::start());
    let oauth =
        json!({ "issuer": service.issuer(), "scopes": ["read", "offline_access"], "allowHosts": ["127.0.0.1"] });
    let mut configured = config(&home, &redis, &service, &oauth);
    let guarded = &mut configured["mcpServers"]["guarded"];
    let given = Arc::clone(&relay);
    let says = move |bearer: &str| if given.newest().as_deref() == Some(bearer) { "the newest" } else { "another" };
    let server = quick_server(move |bearer| Some(says(bearer).to_owned()));
    guarded["url"] = format!("http://{server}/mcp").into();
    guarded["protocol"] = "modern".into();
    // One person has very many calls at once.
    configured["limits"] = json!({ "perUser": 256, "perServer": 256, "total": 256 });
    let nodes = (0..3).map(|_| home.serve(configured.clone())).collect();
    let setting = Setting { service, nodes, home, redis };

    let (rounds, calls) = (number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1), number("TOLLBRIDGE_TEST_OAUTH_CALLS", 20));
    relay.always(Some(Fault::Late(SERVICE)));
    let mut longest = Vec::new();
    for round in 1..=rounds {
        just_expired(&setting).await;
        let begun = Instant::now();
        let call = async |n| (call(&setting, n % 3).await, begun.elapsed());
        let mut took = Duration::ZERO;
        for ((status, said), after) in join_all((0..3 * calls).map(call)).await {
            assert_eq!((status, said.as_str()), (200, "the newest"), "round {round}");
            took = took.max(after);
        }
        longest.push(took);
        assert_eq!((relay.came(), renewals(&setting).await), (round, (round as u64, 0)), "one call each");
    }
    longest.sort();
    let (median, last) = (longest[rounds / 2], longest.last().expect("there are rounds"));
    println!("{rounds} rounds of 3 x {calls}: the longest call of a round took {median:?}, at most {last:?}");
    assert_eq!(setting.redis.ask(&["--scan", "--pattern", "*:lease:*"]).trim(), "", "each lease is given back");
}
