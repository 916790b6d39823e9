//! A service manager starts the bridge, hears of it and stops it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::http::Connection;
use crate::support::mcp::Era;
use crate::support::{Bridge, Client, Home, free_address, procs, server};

/// How long something may take to show.
const PATIENCE: Duration = Duration::from_mins(1);

fn config(home: &Home, admin: SocketAddr, limits: &Value) -> Value {
    json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": limits,
        "admin": { "listen": admin.to_string() },
        "mcpServers": { "whoami": { "command": server("whoami"), "args": [format!("marker={}", home.marker())] } },
    })
}

async fn readiness(admin: SocketAddr) -> u16 {
    let mut connection = Connection::open(admin).await.unwrap();
    connection.send("GET", "/readyz", &[], b"").await.unwrap().status
}

async fn call(bridge: &Bridge) -> u16 {
    let mut client = Client::modern(bridge, "whoami", None);
    let add = json!({ "name": "add", "arguments": { "a": 1, "b": 2 } });
    client.request("tools/call", add).await.unwrap().status
}

#[tokio::test]
async fn requests_are_taken_until_the_delay_is_over_while_the_bridge_says_that_it_is_not_ready() {
    let (home, admin) = (Home::without_key(), free_address());
    let mut bridge = home.serve(config(&home, admin, &json!({ "preStopDelay": "10m" })));
    assert_eq!((readiness(admin).await, call(&bridge).await), (200, 200));
    bridge.signal(Signal::TERM);
    bridge.log_with("requests are taken until");
    assert_eq!((readiness(admin).await, call(&bridge).await), (503, 200), "on a new connection");
    bridge.signal(Signal::TERM);
    let ended = bridge.ended(PATIENCE).expect("the second signal ends the delay");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_service_manager_hears_when_the_bridge_is_ready_reloads_lives_and_stops() {
    let (home, admin) = (Home::without_key(), free_address());
    home.write(config(&home, admin, &json!({})));
    let path = home.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = heard.recv(&mut buffer).expect("something is said in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let next_but_life = || std::iter::repeat_with(next).find(|said| said != "WATCHDOG=1").unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let mut bridge = Bridge::start_with(&home, &environment, &[]);
    assert_eq!(next_but_life(), "READY=1");
    assert!(std::iter::repeat_with(next).take(50).any(|said| said == "WATCHDOG=1"));
    // What the worker says by signals, nobody else can say: three of them would come before what is heard next.
    let forge = "for number in 1 2 3; do kill -s RTMIN+$number $0; done";
    let forged = Command::new("bash").args(["-c", forge, &bridge.supervisor().to_string()]).status().unwrap();
    assert!(forged.success());
    bridge.signal(Signal::HUP);
    assert!(next_but_life().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next_but_life(), "READY=1");
    bridge.signal(Signal::TERM);
    assert_eq!(next_but_life(), "STOPPING=1");
    assert_eq!(bridge.ended(PATIENCE).unwrap().code(), Some(0));
}

/// What starts a bridge that is handed this socket over, as a service manager does it.
fn started_on(listener: &TcpListener) -> Command {
    let number = listener.as_raw_fd();
    fcntl_setfd(listener, FdFlags::empty()).unwrap();
    let script = format!("[ {number} = 3 ] || exec 3<&{number} {number}<&-; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_tollbridge")]);
    command
}

fn start_on(home: &Home, listener: &TcpListener) -> Bridge {
    home.write(config(home, free_address(), &json!({})));
    Bridge::start_as(home, &mut started_on(listener), &[])
}

#[test]
fn who_can_reach_a_bridge_is_decided_by_the_address_of_the_socket_that_it_is_handed_over() {
    let (home, listener) = (Home::without_key(), TcpListener::bind("0.0.0.0:0").unwrap());
    let mut config = config(&home, free_address(), &json!({}));
    config["publicUrl"] = json!("https://mcp.example");
    home.write(config);
    let mut command = started_on(&listener);
    command.args(["serve", "--config"]).arg(home.config()).current_dir(home.path()).stderr(Stdio::piped());
    let mut started = command.spawn().unwrap();
    let ended = procs::wait_for(PATIENCE, || started.try_wait().unwrap());
    if ended.is_none() {
        procs::kill(started.id(), Signal::TERM);
    }
    let said = String::from_utf8(started.wait_with_output().unwrap().stderr).unwrap();
    assert!(ended.and_then(|ended| ended.code()) == Some(2) && said.contains("identity[0]"), "{said}");
}

#[tokio::test]
async fn a_socket_that_is_handed_over_is_served_and_no_server_gets_it() {
    let (home, listener) = (Home::without_key(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, bridge) = (listener.local_addr().unwrap(), start_on(&home, &listener));
    drop(listener);
    assert_eq!((bridge.address(), call(&bridge).await), (address, 200));
    let mut client = Client::modern(&bridge, "whoami", None);
    let countdown = json!({ "name": "countdown", "arguments": { "from": 1000, "delay_ms": 20 } });
    let looking = async {
        loop {
            let children = bridge.children();
            if let Some(child) =
                children.iter().find(|child| procs::command_line(child.pid).iter().any(|a| a.contains("whoami")))
            {
                break procs::descriptor_targets(child.pid);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let open = tokio::select! {
        _ = client.request("tools/call", countdown) => panic!("it takes 20 s"),
        open = looking => open,
    };
    let socket = |pid| {
        procs::descriptor_targets(pid).into_iter().filter(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let ours: Vec<_> = socket(bridge.worker()).collect();
    assert!(!ours.is_empty() && !open.iter().any(|target| ours.contains(target)), "{open:?}");
}

#[tokio::test]
async fn a_second_bridge_takes_the_port_over_while_the_first_one_serves_it() {
    let (homes, address) = ([Home::without_key(), Home::without_key()], free_address());
    let serve = |home: &Home, is_shared: bool| {
        let mut config = config(home, free_address(), &json!({}));
        config["listen"] = json!(address.to_string());
        config["reusePort"] = json!(is_shared);
        home.write(config);
        Bridge::start_in(home, &[])
    };
    let mut old = serve(&homes[0], true);
    let new = serve(&homes[1], true);
    assert_eq!(old.stop().code(), Some(0));
    for _ in 0..5 {
        assert_eq!(call(&new).await, 200);
    }
}

/// Calls a tool that takes so many tenths of a second, says when it has begun, and answers what it was told at last.
async fn call_of(address: SocketAddr, tenths: u32, begun: Sender<()>) -> Value {
    let mut client = Client::new(address, "whoami", None, Era::Modern);
    let params = json!({ "name": "countdown", "arguments": { "from": tenths, "delay_ms": 100 },
        "_meta": { "progressToken": "begun" } });
    let mut connection = client.post("tools/call", params).await.unwrap();
    let mut reply = connection.reply().await.unwrap();
    assert!(reply.event().await.unwrap().is_some());
    begun.send(()).await.unwrap();
    serde_json::from_slice(reply.messages().await.unwrap().last().unwrap()).unwrap()
}

/// So many of these calls, all of which have begun.
async fn begin(address: SocketAddr, count: usize, tenths: u32) -> JoinSet<Value> {
    let (begun, mut heard) = channel(count);
    let mut calls = JoinSet::new();
    for _ in 0..count {
        calls.spawn(call_of(address, tenths, begun.clone()));
    }
    for _ in 0..count {
        heard.recv().await.unwrap();
    }
    calls
}

/// So many connections on which this was sent.
async fn open(address: SocketAddr, count: usize, sent: &[u8]) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::open(address).await.unwrap();
        connection.write(sent).await.unwrap();
        connections.push(connection);
    }
    connections
}

/// Whether this is what a call comes to whose time ends with its bridge.
fn is_stopped(answer: &Value) -> bool {
    answer["error"]["message"].as_str().is_some_and(|said| said.contains("bridge stopped"))
}

#[tokio::test]
async fn requests_have_the_time_that_is_configured_when_the_bridge_is_told_to_stop_and_no_more() {
    const GRACE: Duration = Duration::from_secs(2);
    let (home, admin) = (Home::without_key(), free_address());
    let limits = json!({ "shutdownGrace": format!("{}s", GRACE.as_secs()), "commitDelay": "0s" });
    let mut bridge = home.serve(config(&home, admin, &limits));
    let long = begin(bridge.address(), 1, 1_000_000).await;
    let told = Instant::now();
    bridge.signal(Signal::TERM);
    let answers = long.join_all().await;
    assert!(told.elapsed() >= GRACE && is_stopped(&answers[0]), "{answers:?} after {:?}", told.elapsed());
    assert_eq!(bridge.ended(PATIENCE).unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_clients_each_gets_the_end_that_it_is_due_when_the_bridge_is_told_to_stop() {
    let (home, admin) = (Home::without_key(), free_address());
    let limits = json!({ "shutdownGrace": "10m", "perUser": 200, "perServer": 200, "total": 200, "commitDelay": "0s" });
    let mut bridge = home.serve(config(&home, admin, &limits));
    let address = bridge.address();
    let mut idle = open(address, 60, b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    for connection in &mut idle {
        connection.reply().await.unwrap().body().await.unwrap();
    }
    let half_sent = open(address, 40, b"POST /whoami/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-").await;
    let long = begin(address, 40, 1_000_000).await;
    let short = begin(address, 60, 20).await;

    bridge.signal(Signal::TERM);
    assert_eq!(procs::wait_for(PATIENCE, || TcpStream::connect(address).is_err().then_some(())), Some(()));
    assert_eq!(readiness(admin).await, 503);
    for answer in short.join_all().await {
        assert_eq!(answer.pointer("/result/content/0/text"), Some(&json!("lift-off")), "{answer}");
    }
    bridge.signal(Signal::TERM);
    for answer in long.join_all().await {
        assert!(is_stopped(&answer), "{answer}");
    }
    assert_eq!(bridge.ended(PATIENCE).unwrap().code(), Some(0));
    for mut connection in idle.into_iter().chain(half_sent) {
        assert!(connection.reply().await.is_err(), "nothing is left to be said");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_bridge_takes_over_from_another_no_connection_is_refused_on_a_socket_that_is_handed_over() {
    let (homes, listener) = ([(); 3].map(|()| Home::without_key()), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let over = CancellationToken::new();
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let over = over.clone();
        calls.spawn(async move {
            let mut answered = 0;
            while !over.is_cancelled() {
                // On a connection of its own, each.
                let mut client = Client::new(address, "whoami", None, Era::Modern);
                match client.call("add", json!({ "a": 1, "b": 2 })).await {
                    Ok(answer) => assert_eq!((answer.status, answer.text().as_str()), (200, "3")),
                    // The old bridge waits only so long for who has connected and says nothing.
                    Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionRefused),
                }
                answered += 1;
            }
            answered
        });
    }
    let mut serving = start_on(&homes[0], &listener);
    for home in &homes[1..] {
        let next = start_on(home, &listener);
        assert_eq!(serving.stop().code(), Some(0));
        serving = next;
    }
    assert_eq!(call(&serving).await, 200);
    over.cancel();
    assert!(calls.join_all().await.iter().sum::<usize>() > 0);
    assert_eq!(serving.stop().code(), Some(0));
}
