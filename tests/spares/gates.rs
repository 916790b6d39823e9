//! Spares whose runtime waits where the program first needs what is its user's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::late::{User, holds, node};
use super::support::{Client, Home, procs, server, sha256_hex};
use super::{MISSED, SETTLED, TAKEN};

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "{} is missing: run ./scripts/test, which installs it", path.display());
    path
}

/// The runtime that waits, and what runs on it.
#[derive(Clone, Copy)]
struct Runtime {
    hold: &'static str,
    program: &'static str,
    script: &'static str,
}

const NODE: Runtime = Runtime { hold: "node", program: "tests/.tools/node22", script: "tests/spares/reads.mjs" };
const PYTHON: Runtime =
    Runtime { hold: "python", program: "tests/.tools/python/servers/bin/python", script: "tests/spares/reads.py" };

impl Runtime {
    /// A server that reads its token in this way, with one spare.
    fn reading(self, home: &Home, how: &str) -> Value {
        let marker = format!("marker={}", home.marker());
        json!({
            "command": installed(self.program), "args": [installed(self.script), how, reached(home, how), marker],
            "env": { "TOKEN": { "$userToken": "<<token>>" }, "PYTHONDONTWRITEBYTECODE": "1" }, "startTimeout": "1m",
            "spares": { "count": 1, "sameUser": true, "hold": self.hold },
        })
    }
}

/// What a server makes once it is about to read its token.
fn reached(home: &Home, how: &str) -> PathBuf {
    home.path().join(format!("reached-{how}"))
}

/// Each way of reading, by two users in turn: by the spare that waits, and by what comes after it, whichever that is.
async fn each_sees_its_own(runtime: Runtime, ways: &[&str]) {
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    let servers: Map<_, _> = ways.iter().map(|how| ((*how).to_owned(), runtime.reading(&home, how))).collect();
    let node = node(home, &json!(servers), &users.each_ref(), &[]);
    for how in ways {
        let about_to = || reached(&node.home, how).exists().then_some(());
        let asked_for_names = procs::eventually(SETTLED, about_to).await;
        asked_for_names.unwrap_or_else(|| panic!("{how} waits before it needs a value\n{}", node.bridge.log()));
        for user in &users {
            user.is_known_to(&node.bridge, how).await;
        }
    }
    assert!(node.count(TAKEN).await >= ways.len() as u64);
    assert!(node.count(TAKEN).await + node.count(MISSED).await >= 2 * ways.len() as u64);
}

#[tokio::test]
async fn a_program_on_node_sees_its_users_token_however_it_reads_it() {
    let ways = [
        "property",
        "imported",
        "in",
        "spread",
        "entries",
        "descriptor",
        "dotenv",
        "worker",
        "child",
        "writes",
        "inherited",
        "later",
    ];
    each_sees_its_own(NODE, &ways).await;
}

#[tokio::test]
async fn a_program_on_python_sees_its_users_token_however_it_reads_it() {
    let ways = [
        "getenv",
        "item",
        "copy",
        "dict",
        "items",
        "bytes",
        "deepcopy",
        "popped",
        "posix",
        "subprocess",
        "given",
        "system",
        "fork",
        "inherited",
        "imports",
        "later",
    ];
    each_sees_its_own(PYTHON, &ways).await;
}

#[tokio::test]
async fn a_library_that_copies_the_environment_while_it_is_imported_may_be_given_what_is_known() {
    let (home, alice) = (Home::new(), User::new("alice"));
    let mut server = PYTHON.reading(&home, "imports");
    server["spares"]["environmentCopies"] = json!("without");
    let node = node(home, &json!({ "s": server }), &[&alice], &[]);
    let answer = alice.client(&node.bridge, "s").call("whoami", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), sha256_hex(format!("without {}", alice.token).as_bytes()), "{}", node.bridge.log());
}

#[tokio::test]
async fn a_record_that_is_longer_than_a_socket_takes_at_once_arrives_whole() {
    const TIMES: usize = 1200;
    let (home, mut alice) = (Home::new(), User::new("alice"));
    alice.token = format!("{}{}", alice.token, "x".repeat(50));
    let mut server = NODE.reading(&home, "large");
    let value = "<<token>>".repeat(TIMES);
    server["env"]["FIRST"] = json!({ "$userToken": value });
    server["env"]["SECOND"] = json!({ "$userToken": value });
    let node = node(home, &json!({ "s": server }), &[&alice], &[]);
    let all = alice.token.repeat(2 * TIMES + 1);
    assert!(all.len() > 212_992);
    for _ in 0..2 {
        let answer = alice.client(&node.bridge, "s").call("whoami", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), sha256_hex(all.as_bytes()), "{answer:?}\n{}", node.bridge.log());
    }
}

#[tokio::test]
async fn a_program_that_closes_the_channel_fails_and_gets_nobodys_token() {
    let (home, alice) = (Home::new(), User::new("alice"));
    let servers = json!({ "node": NODE.reading(&home, "closes"), "python": PYTHON.reading(&home, "closes") });
    let node = node(home, &servers, &[&alice], &[]);
    for server in ["node", "python"] {
        let answer = alice.client(&node.bridge, server).call("whoami", json!({})).await.expect("an answer");
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    let log = node.bridge.log_with("the program has closed the descriptor");
    assert!(!log.contains(&alice.token), "{log}");
}

#[tokio::test]
async fn a_spare_that_ends_when_it_gets_its_token_or_was_killed_before_is_made_up_for() {
    let (home, alice) = (Home::new(), User::new("alice"));
    let server = NODE.reading(&home, "dies");
    let once = reached(&home, "dies").with_extension("once");
    let node = node(home, &json!({ "s": server }), &[&alice], &[]);
    node.until_waiting(1).await;
    assert!(!once.exists(), "it waits for its token");
    alice.is_known_to(&node.bridge, "s").await;
    assert!(once.exists());
    alice.is_known_to_another(&node, "s").await;
}

#[tokio::test]
async fn no_token_is_in_a_runtime_that_waits_nor_in_the_environment_that_the_system_shows_of_one_that_has_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    let server = PYTHON.reading(&home, "getenv");
    let node = node(home, &json!({ "s": server }), &users.each_ref(), &[]);
    let mut calls = Vec::new();
    for user in &users {
        node.until_waiting(1).await;
        user.is_known_to(&node.bridge, "s").await;
        node.until_waiting(1).await;
        let call = json!({ "name": "waits", "arguments": {} });
        calls.push(user.client(&node.bridge, "s").post("tools/call", call).await.expect("accepted"));
    }
    node.until_waiting(1).await;
    for user in &users {
        let with_it = || {
            let with_it: Vec<u32> = node.servers().into_iter().filter(|&pid| holds(pid, &user.token)).collect();
            (!with_it.is_empty()).then_some(with_it)
        };
        let with_it = procs::eventually(SETTLED, with_it).await.expect("its own server has it");
        assert_eq!(with_it.len(), 1, "one process has the token of {}", user.name);
        let environment = fs::read(format!("/proc/{}/environ", with_it[0])).expect("it runs");
        assert!(memchr::memmem::find(&environment, user.token.as_bytes()).is_none(), "it came by the channel alone");
        let other = users.iter().find(|other| other.name != user.name).expect("two");
        assert!(!holds(with_it[0], &other.token));
    }
    assert_eq!(node.until_servers(3).await.len(), 3, "the third waits, and has none");
}

/// Takes the one variable of its request from descriptor 3, as a gate does, and becomes the program.
const BY_HAND: &str = r#"length=$(head -c 4 <&3 | od -An -tu4 --endian=big)
export "$(head -c $length <&3 | tr -d '\0')"
exec 3<&-
exec "$@""#;

#[tokio::test]
async fn a_program_that_runs_as_a_user_of_its_own_gets_the_channel_as_well() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("ours");
    let program = home.path().join("whoami");
    procs::copy_program(Path::new(&server("whoami")), &program);
    let marker = format!("marker={}", home.marker());
    let entry = json!({
        "command": "/bin/sh", "args": ["-c", BY_HAND, "sh", program, marker], "runAs": "43000-43300",
        "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } }, "spares": { "count": 1, "hold": "node" },
    });
    let node = node(home, &json!({ "s": entry }), &users.each_ref(), &[]);
    for user in &users {
        node.until_waiting(1).await;
        user.is_known_to(&node.bridge, "s").await;
    }
    assert_eq!((node.count(TAKEN).await, node.count(MISSED).await), (2, 0));
}

/// The variables that `get-env` says.
async fn variables(client: &mut Client) -> Map<String, Value> {
    let answer = client.call("get-env", json!({})).await.expect("an answer");
    let mut said: Map<_, _> = serde_json::from_str(&answer.text()).expect("an object");
    // Of each process its own.
    said.remove("TMPDIR").expect("it has one");
    said
}

#[tokio::test]
async fn real_servers_answer_as_without_spares() {
    const EVERYTHING: &str = "tests/.tools/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let (home, alice) = (Home::new(), User::new("alice"));
    let everything = |spares: Value| {
        json!({
            "command": installed(NODE.program), "args": [installed(EVERYTHING)], "startTimeout": "1m", "spares": spares,
            "env": { "TOKEN": { "$userToken": "<<token>>" }, "NODE_OPTIONS": "--no-warnings" },
        })
    };
    let time = json!({
        "command": installed("tests/.tools/python/servers/bin/mcp-server-time"), "startTimeout": "1m",
        "env": { "TOKEN": { "$userToken": "<<token>>" } }, "spares": { "count": 1, "sameUser": true, "hold": "python" },
    });
    let spare = everything(json!({ "count": 1, "sameUser": true, "hold": "node" }));
    let servers = json!({ "spare": spare, "fresh": everything(json!(0)), "time": time });
    let node = node(home, &servers, &[&alice], &[]);
    node.until_waiting(2).await;
    let fresh = variables(&mut alice.client(&node.bridge, "fresh")).await;
    assert_eq!(fresh["TOKEN"], json!(alice.token));
    assert_eq!(variables(&mut alice.client(&node.bridge, "spare")).await, fresh);
    let zone = json!({ "timezone": "Europe/Paris" });
    let told = alice.client(&node.bridge, "time").call("get_current_time", zone).await.expect("an answer");
    assert!(told.text().contains("Europe/Paris"), "{told:?}");
    assert_eq!((node.count(TAKEN).await, node.count(MISSED).await), (2, 0));
}

#[test]
fn doctor_says_where_a_runtime_waits_and_which_program_does_not() {
    let home = Home::new();
    let ignoring = |mut server: Value| {
        server["args"].as_array_mut().expect("arguments").insert(0, json!("-I"));
        server
    };
    home.write(json!({
        "identity": [{ "kind": "local", "user": "alice" }], "tokenStore": home.embedded(), "mcpServers": {
            "node": NODE.reading(&home, "property"), "copies": PYTHON.reading(&home, "copy"),
            "ignores": ignoring(PYTHON.reading(&home, "later")),
        },
    }));
    let output = home.output(&["doctor", "--spares", "--config", &home.config().to_string_lossy()], b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |name: &str| {
        let line = said.lines().find(|line| line.contains(&format!("spares of {name}:")));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert!(of("node").contains("each waits at the first read of TOKEN, with "), "{said}");
    let copies = of("copies");
    assert!(copies.contains("each waits at a copy of the environment in ") && copies.contains("reads.py:"), "{said}");
    assert!(copies.ends_with("see `environmentCopies`"), "{said}");
    assert!(of("ignores").starts_with("MISSING"), "{said}");
    assert_eq!(procs::with_marker(home.marker()), [0; 0]);
}
