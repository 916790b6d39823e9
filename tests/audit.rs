//! What is written down of users' tokens: what is in a line, when it is written, and what happens when it cannot be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::home::TOLLBRIDGE;
use support::{Bridge, Client, Home, Redis, bearer_identity, free_address, metric, procs, server};

/// How long a line may take.
const DEADLINE: Duration = Duration::from_mins(1);
/// What nobody may find in a line.
const TOKEN: &str = "canary-3f9a51c2";
const ALICE: (&str, &str) = ("alice", "alice-presents-this-to-the-bridge");
const BOB: (&str, &str) = ("bob", "bob-presents-this-to-the-bridge-too");

/// A bridge's configuration with this `audit`.
fn config(home: &Home, audit: &Value) -> Value {
    json!({
        "identity": bearer_identity(&[ALICE, BOB]),
        "tokenStore": home.embedded(),
        "audit": audit,
        "mcpServers": { "whoami": {
            "command": server("whoami"), "args": [format!("marker={}", home.marker())],
            "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
        } },
    })
}

/// The whole lines of a file.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The lines of a file once there are so many.
fn lines_once(path: &Path, count: usize) -> Vec<Value> {
    procs::wait_for(DEADLINE, || (lines(path).len() >= count).then_some(()));
    lines(path)
}

/// The events and outcomes of lines.
fn events(lines: &[Value]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line["event"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect()
}

async fn call(bridge: &Bridge, bearer: &str) -> support::mcp::Answer {
    Client::modern(bridge, "whoami", Some(bearer)).call("whoami", json!({})).await.unwrap()
}

fn token_command(home: &Home, what: &str, user: &str) -> std::process::Output {
    let config = home.config();
    let arguments = ["token", what, "--config", &config.to_string_lossy(), "--user", user, "--server", "whoami"];
    home.output(&arguments, TOKEN.as_bytes())
}

#[tokio::test]
async fn each_line_says_who_did_what_by_which_request_and_none_holds_a_token() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    home.write(config(&home, &json!({ "file": path })));
    for what in ["set", "set", "delete", "set"] {
        assert!(token_command(&home, what, "alice").status.success(), "{what}");
    }
    let bridge = Bridge::start_in(&home, &[]);
    let answered = call(&bridge, ALICE.1).await;
    assert_eq!(answered.text(), support::sha256_hex(TOKEN.as_bytes()));
    let led = call(&bridge, BOB.1).await;
    assert!(led.text().contains("/whoami/connect"), "{led:?}");
    assert_eq!(call(&bridge, "nobody-presents-this-to-the-bridge").await.status, 401);

    let lines = lines_once(&path, 11);
    let change = |event| [(event, "begun"), (event, "done")];
    let changes = ["token-set", "token-replaced", "token-removed", "token-set"].map(change);
    let calls = [("token-released", "done"), ("link-given", "done"), ("refused", "refused")];
    assert_eq!(events(&lines), [changes.as_flattened(), &calls].concat());
    for pair in lines[..8].chunks(2) {
        assert_eq!(pair[0]["change"], pair[1]["change"]);
        assert_eq!(pair[0]["client"], "tollbridge token");
    }
    assert_ne!(lines[0]["change"], lines[2]["change"]);
    assert_eq!((lines[0]["fingerprint"].as_str().unwrap().len(), &lines[0]["key"]), (6, &"k1".into()));
    assert_eq!(lines[0]["fingerprint"], lines[2]["fingerprint"], "the same token");
    for (line, user, answer) in [(&lines[8], "alice", &answered), (&lines[9], "bob", &led)] {
        assert_eq!(
            (&line["user"], &line["issuer"], &line["server"]),
            (&user.into(), &"local".into(), &"whoami".into())
        );
        assert_eq!((&line["client"], &line["source"]), (&"tollbridge-tests".into(), &"127.0.0.1".into()));
        assert_eq!(line["request"].as_str(), answer.header("x-request-id"));
    }
    assert!(lines[10].get("user").is_none() && lines[10]["source"] == "127.0.0.1", "{}", lines[10]);
    let text = fs::read_to_string(&path).unwrap();
    for secret in [TOKEN, ALICE.1, BOB.1, &support::sha256_hex(TOKEN.as_bytes())] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_becomes_of_sealing_keys_and_backups_is_written_down() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    let file = home.write(config(&home, &json!({ "file": path })));
    let file = file.to_string_lossy();
    home.set_token("alice", "whoami", TOKEN);
    home.run(&["keys", "rotate", "--config", &file], b"");
    assert_eq!(home.output(&["keys", "retire", "--config", &file, "k1"], b"").status.code(), Some(1));
    home.run(
        &["token", "restore", "--config", &file],
        home.run(&["token", "export", "--config", &file], b"").as_bytes(),
    );
    let lines = lines(&path);
    assert_eq!(events(&lines)[6..], [("tokens-restored", "begun"), ("tokens-restored", "done")]);
    let lines = &lines[..6];
    let rotated = [("key-rotated", "begun"), ("key-rotated", "done")];
    assert_eq!(events(lines)[2..], [rotated, [("key-retired", "begun"), ("key-retired", "refused")]].concat());
    assert!(lines[2..].iter().all(|line| line["key"] == "k1"), "{lines:?}");
}

#[test]
fn an_import_is_written_down_where_the_configuration_that_it_is_for_says() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    let file = home.write(config(&home, &json!({ "file": path, "required": true })));
    let file = file.to_string_lossy();
    let theirs = home.path().join("theirs.json");
    fs::write(&theirs, json!({ "mcpServers": { "one": { "url": "https://one.example/mcp" } } }).to_string()).unwrap();
    let theirs = theirs.to_string_lossy();
    let printed = home.run(&["import", &theirs], b"");
    assert_eq!(home.run(&["import", &theirs, "--config", &file], b""), printed);
    let lines = lines(&path);
    assert_eq!(events(&lines), [("import", "begun"), ("import", "done")]);
    assert!(lines.iter().all(|line| line["client"] == "tollbridge import"), "{lines:?}");
    home.write(config(&home, &json!({ "file": "/dev/full", "required": true })));
    let output = home.output(&["import", &theirs, "--config", &file], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[tokio::test]
async fn the_first_use_of_a_day_is_the_only_line_of_it() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    home.write(config(&home, &json!({ "file": path, "uses": "daily" })));
    for user in ["alice", "bob"] {
        home.set_token(user, "whoami", TOKEN);
    }
    let mut bridge = Bridge::start_in(&home, &[]);
    for bearer in [ALICE.1, ALICE.1, BOB.1, ALICE.1] {
        call(&bridge, bearer).await.text();
    }
    // Nothing is left unwritten.
    bridge.stop();
    let lines = lines(&path);
    let released = lines.iter().filter(|line| line["event"] == "token-released");
    assert_eq!(released.map(|line| line["user"].as_str().unwrap()).collect::<Vec<_>>(), ["alice", "bob"]);
}

#[tokio::test]
async fn the_file_is_opened_anew_on_sighup_and_no_line_is_lost() {
    let home = Home::new();
    let [path, moved] = ["audit.jsonl", "audit.jsonl.1"].map(|name| home.path().join(name));
    home.write(config(&home, &json!({ "file": path })));
    home.set_token("alice", "whoami", TOKEN);
    let bridge = Bridge::start_in(&home, &[]);
    call(&bridge, ALICE.1).await.text();
    assert_eq!(lines_once(&path, 3).len(), 3);
    fs::rename(&path, &moved).unwrap();
    // What is written before anybody says that it was moved goes to the file that is open.
    call(&bridge, ALICE.1).await.text();
    assert_eq!(lines_once(&moved, 4).len(), 4);
    bridge.signal(Signal::HUP);
    assert!(procs::wait_for(DEADLINE, || path.exists().then_some(())).is_some(), "no new file");
    call(&bridge, ALICE.1).await.text();
    assert_eq!(events(&lines_once(&path, 1)), [("token-released", "done")]);
    assert_eq!(lines(&moved).len(), 4);
}

#[tokio::test]
async fn on_a_full_disk_changes_are_refused_if_they_must_be_written_down_and_calls_go_on() {
    let (home, admin) = (Home::new(), free_address());
    let full = |required: bool| {
        let mut config = config(&home, &json!({ "file": "/dev/full", "required": required }));
        config["admin"] = json!({ "listen": admin.to_string() });
        home.write(config)
    };
    full(false);
    assert!(token_command(&home, "set", "alice").status.success());
    full(true);
    for (what, user) in [("set", "bob"), ("set", "alice"), ("delete", "alice")] {
        let output = token_command(&home, what, user);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(said.contains("could not be written down"), "{said}");
    }
    let bridge = Bridge::start_in(&home, &[]);
    assert_eq!(call(&bridge, ALICE.1).await.text(), support::sha256_hex(TOKEN.as_bytes()));
    assert!(call(&bridge, BOB.1).await.text().contains("/whoami/connect"));
    bridge.log_with("`audit.file` cannot be written to");
    let failures = metric(admin, "tollbridge_audit_failures_total").await.unwrap();
    assert!(failures >= 1.0, "{failures}");
}

#[test]
fn a_change_that_is_killed_before_it_is_made_has_its_first_line() {
    let home = Home::new();
    let path: PathBuf = home.path().join("audit.jsonl");
    let file = home.write(config(&home, &json!({ "file": path, "required": true })));
    home.set_token("alice", "whoami", TOKEN);
    // Whoever wants to write waits.
    let database = rusqlite::Connection::open(home.path().join("data/tokens.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = Command::new(TOLLBRIDGE)
        .args(["token", "set", "--config", &file.to_string_lossy(), "--user", "bob", "--server", "whoami"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(TOKEN.as_bytes()).unwrap();
    assert_eq!(lines_once(&path, 3).len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(database);
    let lines = lines(&path);
    assert_eq!(events(&lines)[2..], [("token-set", "begun")]);
    assert_eq!(lines[2]["user"], "bob");
    let listed = home.run(&["token", "list", "--config", &file.to_string_lossy()], b"");
    assert!(listed.contains("alice") && !listed.contains("bob"), "{listed}");
}

#[tokio::test]
async fn nodes_add_to_one_stream_in_redis_which_keeps_no_more_than_it_may() {
    let (home, redis) = (Home::new(), Redis::start());
    let mut config = config(&home, &json!({ "redis": { "maxLength": 5 }, "required": true }));
    config["tokenStore"] = home.in_redis(&redis);
    home.write(config);
    home.set_token("alice", "whoami", TOKEN);
    let mut nodes = [(); 2].map(|()| Bridge::start_in(&home, &[]));
    for node in &nodes {
        for _ in 0..2 {
            call(node, ALICE.1).await.text();
        }
    }
    for node in &mut nodes {
        node.stop();
    }
    let port = redis.address().port().to_string();
    let range = ["-p", &port, "--json", "XRANGE", "tollbridge:audit", "-", "+"];
    let output = Command::new("redis-cli").args(range).output().unwrap();
    let entries: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<Value> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            assert_eq!(entry[1][0], "line");
            serde_json::from_str(entry[1][1].as_str().unwrap()).unwrap()
        })
        .collect();
    let uses = [("token-released", "done"); 4];
    assert_eq!(events(&lines), [&[("token-set", "done")][..], &uses].concat(), "of six lines the last five");
    assert!(!redis.stored_bytes().windows(TOKEN.len()).any(|bytes| bytes == TOKEN.as_bytes()));
}
