//! Memory that a burst took is given back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::connections::connect_from;
use crate::support::{self, Bridge, Home, procs};
use crate::{JSON, exchange, post, status};

const MIB: usize = 1 << 20;

/// What the process that serves has in memory, bytes.
fn resident(bridge: &Bridge) -> usize {
    usize::try_from(procs::resident(bridge.worker())).unwrap() << 10
}

fn echo(bytes: usize) -> String {
    let text = "x".repeat(bytes);
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}}}}}}"#
    );
    post("/tiny/mcp", JSON, &body)
}

#[test]
fn a_minute_after_a_burst_the_bridge_is_as_small_as_before() {
    let home = Home::new();
    let bridge = home.serve(json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "tiny": { "command": support::server("tiny") } },
    }));
    let small = echo(10);
    (0..10).for_each(|_| assert_eq!(status(&exchange(&bridge, &small)), "200"));
    let idle = resident(&bridge);
    let large = echo(3 * MIB);
    // As many at once as one user's part of the memory has room for.
    for _ in 0..6 {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(status(&exchange(&bridge, &large)), "200"));
            }
        });
    }
    let mut connections: Vec<TcpStream> = (0..500).map(|_| connect_from([127, 0, 0, 1], &bridge, None)).collect();
    for connection in &mut connections {
        connection.write_all(b"GET /no/where HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_ne!(connection.read(&mut [0; 1024]).unwrap(), 0);
    }
    drop(connections);
    let began = Instant::now();
    let settled = procs::wait_for(Duration::from_mins(1), || (resident(&bridge) <= idle + 16 * MIB).then_some(()));
    let (now, took) = (resident(&bridge) / MIB, began.elapsed());
    assert!(settled.is_some(), "{now} MiB {took:?} after the burst, {} MiB before it", idle / MIB);
}
