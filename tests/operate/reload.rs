//! The configuration changes while requests run: all of it or nothing, and nobody loses a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::http::Connection;
use crate::support::{Client, Home, bearer_identity, free_address, metric, number, procs, server, sha256_hex};

/// Reloads while requests run, unless the environment says how many.
const RELOADS: usize = 25;

pub(super) const ALICE: &str = "token-of-alice-0123456789";
const BOB: &str = "token-of-bob-0123456789";

pub(super) fn config(home: &Home, admin: SocketAddr, users: &[(&str, &str)]) -> Value {
    json!({
        "identity": bearer_identity(users),
        "admin": { "listen": admin.to_string() },
        "mcpServers": { "whoami": { "command": server("whoami"), "args": [format!("marker={}", home.marker())] } },
    })
}

/// What a command about this configuration says, and its exit code.
pub(super) fn command(home: &Home, arguments: &[&str]) -> (i32, String) {
    let file = home.config();
    let file = file.to_string_lossy();
    let arguments = [arguments, &["--config", &file]].concat();
    let output = home.output(&arguments, b"");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

pub(super) async fn status(client: &mut Client) -> u16 {
    let add = json!({ "name": "add", "arguments": { "a": 1, "b": 2 } });
    client.request("tools/call", add).await.unwrap().status
}

async fn is_ready(admin: SocketAddr) -> bool {
    let mut connection = Connection::open(admin).await.unwrap();
    connection.send("GET", "/readyz", &[], b"").await.unwrap().status == 200
}

/// The fingerprint of the configuration that is served.
async fn fingerprint(admin: SocketAddr) -> String {
    let mut connection = Connection::open(admin).await.unwrap();
    let mut reply = connection.send("GET", "/metrics", &[], b"").await.unwrap();
    let text = String::from_utf8(reply.body().await.unwrap()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("tollbridge_build_info{")).collect();
    let [line] = lines[..] else { panic!("{lines:?}") };
    assert!(line.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")) && line.ends_with("} 1"), "{line}");
    line.split("config=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_servers_and_limits_change_while_a_call_goes_on_and_no_connection_is_lost() {
    let (home, admin) = (Home::without_key(), free_address());
    let bridge = home.serve(config(&home, admin, &[("alice", ALICE)]));
    let (mut alice, mut bob) =
        (Client::modern(&bridge, "whoami", Some(ALICE)), Client::modern(&bridge, "whoami", Some(BOB)));
    assert_eq!((status(&mut alice).await, status(&mut bob).await), (200, 401));
    let mut running = Client::modern(&bridge, "whoami", Some(ALICE));
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let countdown = json!({ "name": "countdown", "arguments": { "from": 100_000, "delay_ms": 20 } });
        running.request("tools/call", countdown).await
    });
    procs::wait_for(Duration::from_mins(1), || (!bridge.children().is_empty()).then_some(())).unwrap();
    let before = fingerprint(admin).await;

    let mut new = config(&home, admin, &[("bob", BOB)]);
    new["mcpServers"]["other"] = new["mcpServers"]["whoami"].clone();
    new["limits"] = json!({ "perUser": 7 });
    new["listen"] = json!("127.0.0.1:1");
    new["logFilter"] = json!("error");
    home.write(new);
    let lines = [
        "identity[0].tokens[0].sha256: changed",
        "identity[0].tokens[0].user: changed",
        "limits: added",
        "listen: changed; only a restart changes it",
        "logFilter: added",
        "mcpServers.other: added",
    ];
    let (code, said) = command(&home, &["check", "--diff"]);
    assert!(code == 0 && said.contains("a reload would change 5 things"), "{said}");
    assert!(lines.iter().all(|line| said.contains(&format!("\n  {line}\n"))), "{said}");
    assert_eq!(
        (status(&mut bob).await, fingerprint(admin).await),
        (401, before.clone()),
        "nothing was changed by that"
    );

    let (code, said) = command(&home, &["reload"]);
    assert!(code == 0 && said.contains("reloaded: 5 things changed"), "{said}");
    assert!(lines.iter().all(|line| said.contains(&format!("\n  {line}\n"))), "{said}");
    let (code, said) = command(&home, &["reload"]);
    let restart = "reloaded: nothing changed\n  listen: changed; only a restart changes it\n";
    assert!(code == 0 && said.contains(restart), "it is said for as long as it is so: {said}");
    let mut other = Client::modern(&bridge, "other", Some(BOB));
    assert_eq!((status(&mut bob).await, status(&mut other).await), (200, 200));
    assert_eq!(status(&mut alice).await, 401, "on a connection that was there before");
    assert_ne!(fingerprint(admin).await, before);
    assert!(calls.try_join_next().is_none() && !bridge.children().is_empty(), "what runs keeps what it began with");
    calls.shutdown().await;
    std::fs::write(home.config(), "{").unwrap();
    bridge.signal(Signal::HUP);
    let log = bridge.log_with("this is not JSON");
    assert!(!log.contains("reloaded config=") && log.contains("INFO"), "the log shows less: {log}");
}

#[tokio::test]
async fn bad_credentials_that_were_presented_before_count_after_a_reload() {
    let (home, admin) = (Home::without_key(), free_address());
    let bridge = home.serve(config(&home, admin, &[("alice", ALICE)]));
    let mut guessing = Client::modern(&bridge, "whoami", Some(BOB));
    let mut guess = async || status(&mut guessing).await;
    let mut refused = false;
    for _ in 0..30 {
        refused |= guess().await == 429;
    }
    assert!(refused);
    home.write(config(&home, admin, &[("alice", ALICE), ("carol", "token-of-carol-0123456789")]));
    assert_eq!(command(&home, &["reload"]).0, 0);
    let mut refused = false;
    // One more is let through every few seconds; after a fresh start twenty would be.
    for _ in 0..15 {
        refused |= guess().await == 429;
    }
    assert!(refused);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_the_caller_the_log_and_a_metric_are_told_since_when() {
    let (home, admin) = (Home::without_key(), free_address());
    let good = config(&home, admin, &[("alice", ALICE)]);
    let bridge = home.serve(good.clone());
    let mut alice = Client::modern(&bridge, "whoami", Some(ALICE));
    let since = async || metric(admin, "tollbridge_config_bad_since_seconds").await.unwrap();
    assert!(since().await.abs() < 1.0);

    let mut bad = good.clone();
    bad["limits"] = json!({ "perUsr": 7 });
    home.write(bad);
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("perUsr") && said.contains("nothing was changed"), "{code} {said}");
    let first = since().await;
    assert!(first > 1e9, "{first}");
    std::fs::write(home.config(), "{").unwrap();
    bridge.signal(Signal::HUP);
    assert!(bridge.log_with("this is not JSON").contains("the file is bad and nothing is changed"));
    assert!((since().await - first).abs() < 0.5, "it is bad since the first time");
    let (code, said) = command(&home, &["check", "--diff"]);
    assert!(code == 2 && said.contains("a reload would change nothing"), "{code} {said}");
    assert_eq!((status(&mut alice).await, is_ready(admin).await), (200, true));
    let refused = "tollbridge_config_reloads_total{outcome=\"refused\"}";
    assert_eq!(metric(admin, refused).await.map(f64::to_bits), Some(2f64.to_bits()));

    home.write(good);
    bridge.signal(Signal::HUP);
    bridge.log_with("reloaded config");
    assert!(since().await.abs() < 1.0);
    std::fs::remove_file(home.config()).unwrap();
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("cannot read"), "{code} {said}");
    assert_eq!(status(&mut alice).await, 200);
}

#[tokio::test]
async fn sealing_keys_are_read_again_and_a_ring_without_one_that_is_needed_is_refused() {
    let (home, admin) = (Home::new(), free_address());
    let other = home.path().join("k2.key");
    home.run(&["keygen", "--out", &other.to_string_lossy()], b"");
    let mut config = config(&home, admin, &[("alice", ALICE)]);
    config["mcpServers"]["whoami"]["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<token>>" } });
    config["tokenStore"] = home.embedded();
    let bridge = home.serve(config.clone());
    home.set_token("alice", "whoami", "secret-of-alice");
    let mut alice = Client::modern(&bridge, "whoami", Some(ALICE));
    let whoami = json!({ "name": "whoami", "arguments": {} });
    let seen = async |alice: &mut Client| alice.request("tools/call", whoami.clone()).await.unwrap().text();
    assert_eq!(seen(&mut alice).await, sha256_hex(b"secret-of-alice"));

    let old = config["tokenStore"]["keys"][0].clone();
    let new = json!({ "id": "k2", "file": other });
    config["tokenStore"]["keys"] = json!([new]);
    home.write(config.clone());
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("\"k1\" is in use, and is missing or another key"), "{said}");
    assert_eq!(seen(&mut alice).await, sha256_hex(b"secret-of-alice"));

    config["tokenStore"]["keys"] = json!([new, old]);
    home.write(config.clone());
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 0 && !said.contains("restart"), "{said}");
    assert_eq!(seen(&mut alice).await, sha256_hex(b"secret-of-alice"), "the old key still opens");
    command(&home, &["keys", "rotate"]);
    assert_eq!(seen(&mut alice).await, sha256_hex(b"secret-of-alice"), "the new key opens, too");
    config["tokenStore"]["keys"] = json!([new]);
    home.write(config.clone());
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("the sealing key is not in the key ring"), "k1 was not let go: {said}");
    config["tokenStore"]["keys"] = json!([new, old]);
    home.write(config);

    // The same file of the configuration, and another key in the file that it names.
    std::fs::remove_file(&other).unwrap();
    home.run(&["keygen", "--out", &other.to_string_lossy()], b"");
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("\"k2\" is in use, and is missing or another key"), "{said}");
    assert_eq!(seen(&mut alice).await, sha256_hex(b"secret-of-alice"));
}

#[tokio::test]
async fn health_says_whether_the_bridge_is_ready_and_without_one_there_is_nobody_to_be_told() {
    let (home, admin) = (Home::without_key(), free_address());
    let mut bridge = home.serve(config(&home, admin, &[("alice", ALICE)]));
    let (code, said) = command(&home, &["health"]);
    assert_eq!((code, said), (0, format!("process {}: ready\n", bridge.worker())));
    bridge.stop();
    for arguments in [&["health"][..], &["reload"], &["check", "--diff"]] {
        let (code, said) = command(&home, arguments);
        assert!(code == 1 && said.contains("no bridge that was started with"), "{arguments:?}: {code} {said}");
    }
}

/// Calls until it is told to stop; how often, and how many did not succeed.
async fn call_until(mut client: Client, stop: Arc<AtomicBool>) -> (usize, usize) {
    let (mut calls, mut failed) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        failed += usize::from(status(&mut client).await != 200);
        calls += 1;
    }
    (calls, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_through_many_reloads_and_nothing_of_the_old_ones_is_left() {
    let (home, admin) = (Home::without_key(), free_address());
    let mut config = config(&home, admin, &[("alice", ALICE)]);
    let bridge = home.serve(config.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        callers.spawn(call_until(Client::modern(&bridge, "whoami", Some(ALICE)), Arc::clone(&stop)));
    }
    let reloads = number("TOLLBRIDGE_TEST_RELOADS", RELOADS);
    let mut resident = Vec::new();
    for reload in 0..reloads {
        config["limits"] = json!({ "perUser": 8 + reload % 4, "total": 8 + reload % 3 });
        home.write(config.clone());
        let said = tokio::task::block_in_place(|| command(&home, &["reload"]));
        assert_eq!(said.0, 0, "{}", said.1);
        resident.push(procs::resident(bridge.worker()));
    }
    stop.store(true, Ordering::Relaxed);
    for (calls, failed) in callers.join_all().await {
        assert!(calls > 0 && failed == 0, "{failed} of {calls} failed");
    }
    let (warm, last) = (resident[reloads / 5], resident[reloads - 1]);
    assert!(last < warm + (8 << 10), "resident memory grew from {warm} to {last} KiB");
}
