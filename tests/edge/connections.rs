//! How many connections there may be, and clients that hold one without taking anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{self, Bridge, Home};
use crate::{bridge_with, long_call, probe, status, wait_until};

/// A connection from this address of the machine to itself.
pub(super) fn connect_from(source: [u8; 4], bridge: &Bridge, receive: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(receive) = receive {
        socket.set_recv_buffer_size(receive).unwrap();
    }
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&bridge.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// Whether the bridge answers on this connection rather than turning it away.
fn is_served(mut stream: &TcpStream) -> bool {
    // One that is turned away need not take it.
    let _ = stream.write_all(b"GET /no/where HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = [0; 12];
    let read = stream.read(&mut answer).unwrap_or_default();
    answer[..read] == *b"HTTP/1.1 404"
}

#[test]
fn connections_leave_room_for_other_addresses_and_for_the_operator() {
    // A quarter of these descriptors is for connections, and a quarter of those for one address.
    const FILES: usize = 256;
    let (home, admin) = (Home::new(), support::free_address());
    home.write(json!({
        "admin": { "listen": admin.to_string() },
        "identity": [{ "kind": "local", "user": "alice" }],
        "mcpServers": { "whoami": { "command": support::server("whoami") } },
    }));
    let limited = format!("--nofile={FILES}");
    let bridge = Bridge::start_as(&home, Command::new("prlimit").arg(limited).arg(support::home::TOLLBRIDGE), &[]);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", bridge.worker())).unwrap().count();
    let before = files();
    let mut held = Vec::new();
    for last in 1..=4 {
        let of_one = (0..FILES / 16).map(|_| connect_from([127, 0, 0, last], &bridge, None));
        held.extend(of_one.inspect(|stream| assert!(is_served(stream), "127.0.0.{last}")));
        assert!(!is_served(&connect_from([127, 0, 0, last], &bridge, None)), "one more from 127.0.0.{last}");
    }
    assert!(!is_served(&connect_from([127, 0, 0, 9], &bridge, None)), "one more in all");
    // The bridge opens others now and then.
    assert!(files() - before < held.len() + 16, "a connection is one descriptor: {before} before, {} now", files());
    assert_eq!(status(&probe(admin, "/livez")), "200");
    let metrics = probe(admin, "/metrics");
    assert!(metrics.contains("\ntollbridge_open_connections 64\n"), "{metrics}");
    assert!(metrics.contains("\ntollbridge_connections_refused_total 5\n"), "{metrics}");
    held.clear();
    wait_until("there is room again", || is_served(&connect_from([127, 0, 0, 9], &bridge, None)));
}

#[test]
fn a_client_that_has_stopped_reading_is_found_although_the_system_keeps_what_is_sent_to_it() {
    let home = Home::new();
    let bridge = bridge_with(&home, &json!({ "writeStall": "1s" }));
    let call = long_call().replace("Accept: application/json", "Accept: application/json, text/event-stream");
    let mut stream = connect_from([127, 0, 0, 1], &bridge, Some(2048));
    stream.write_all(call.as_bytes()).unwrap();
    wait_until("the server runs", || !bridge.children().is_empty());
    wait_until("the server is gone", || bridge.children().is_empty());
}
