//! Spares that wait before their program's first instruction, and are given what is the user's with a request.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Bridge, Client, Home, Redis, bearer_identity, number, procs, random_hex, server, sha256_hex};
use super::{Node, SETTLED, TAKEN, discarded, free_address, shell};

/// A user with a bearer token of ours and a token of the service.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    bearer: String,
    pub(crate) token: String,
}

impl User {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, bearer: random_hex(32), token: format!("canary-{}", random_hex(24)) }
    }

    pub(crate) fn client(&self, bridge: &Bridge, server: &str) -> Client {
        Client::without_session(bridge, server, Some(&self.bearer))
    }

    /// Calls `whoami`, and checks that it has this user's token.
    pub(crate) async fn is_known_to(&self, bridge: &Bridge, server: &str) {
        let answer = self.client(bridge, server).call("whoami", json!({})).await.expect("an answer");
        assert_eq!(answer.text(), sha256_hex(self.token.as_bytes()), "{answer:?}\n{}", bridge.log());
    }

    /// The same, after the one spare that there is was killed: it is not taken, or made up for.
    pub(crate) async fn is_known_to_another(&self, node: &Node, server: &str) {
        node.until_waiting(1).await;
        for pid in node.until_servers(1).await {
            procs::kill(pid, Signal::KILL);
        }
        self.is_known_to(&node.bridge, server).await;
    }
}

/// A server that says the hash of its token, with so many spares of which none has a system user of its own.
fn whoami(home: &Home, spares: usize) -> Value {
    json!({
        "command": server("whoami"), "args": [format!("marker={}", home.marker())],
        "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
        "spares": { "count": spares, "sameUser": true },
    })
}

/// The same program, as its user gets it, with one spare.
fn started_by(home: &Home, script: &str) -> Value {
    let mut server = shell(home, script, "whoami", &json!({ "count": 1, "sameUser": true }));
    server["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<token>>" } });
    server
}

/// A bridge whose users have saved their tokens for these servers.
pub(crate) fn node(home: Home, servers: &Value, users: &[&User], environment: &[(&str, &str)]) -> Node {
    let admin = free_address();
    let bearers: Vec<_> = users.iter().map(|user| (user.name, user.bearer.as_str())).collect();
    home.write(json!({
        "identity": bearer_identity(&bearers), "tokenStore": home.embedded(), "admin": { "listen": admin.to_string() },
        "mcpServers": servers,
    }));
    for (name, server) in servers.as_object().expect("servers") {
        for user in users.iter().filter(|_| server.to_string().contains("$userToken")) {
            home.set_token(user.name, name, &user.token);
        }
    }
    let bridge = Bridge::start_in(&home, environment);
    Node { home, bridge, admin }
}

#[tokio::test]
async fn a_spare_is_given_the_token_of_the_request_that_takes_it() {
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    let servers = json!({ "s": whoami(&home, 2) });
    let node = node(home, &servers, &users.each_ref(), &[]);
    for round in 0..3 {
        for user in &users {
            node.until_waiting(2).await;
            user.is_known_to(&node.bridge, "s").await;
        }
        assert_eq!(node.count(TAKEN).await, 2 * (round + 1));
    }
    assert_eq!(node.count(super::MISSED).await, 0);
}

/// What of a process can be read from outside: its memory, arguments and environment.
pub(crate) fn holds(pid: u32, text: &str) -> bool {
    let contains = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    let files = ["cmdline", "environ"].map(|name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default());
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let memory = fs::File::open(format!("/proc/{pid}/mem"));
    let in_memory = maps.lines().filter_map(|line| line.split_once(' ')?.0.split_once('-')).any(|(from, to)| {
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap_or_default());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        // What the kernel shows of its own cannot be read so.
        memory.as_ref().is_ok_and(|memory| memory.read_exact_at(&mut bytes, from).is_ok()) && contains(&bytes)
    });
    in_memory || files.iter().any(|file| contains(file))
}

#[tokio::test]
async fn no_token_is_in_the_memory_of_spares_that_wait_and_each_is_in_that_of_its_own_server_alone() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    let servers = json!({ "s": whoami(&home, 3) });
    let node = node(home, &servers, &users.each_ref(), &[]);
    for user in &users {
        node.until_waiting(3).await;
        user.is_known_to(&node.bridge, "s").await;
    }
    node.until_waiting(3).await;
    let long = json!({ "name": "countdown", "arguments": { "from": 1000, "delay_ms": 1000 } });
    let mut calls = Vec::new();
    for user in &users {
        calls.push(user.client(&node.bridge, "s").post("tools/call", long.clone()).await.expect("accepted"));
    }
    for user in &users {
        let with_it = || {
            let with_it: Vec<u32> = node.servers().into_iter().filter(|&pid| holds(pid, &user.token)).collect();
            (!with_it.is_empty()).then_some(with_it)
        };
        let with_it = procs::eventually(SETTLED, with_it).await.expect("its own server has it");
        assert_eq!(with_it.len(), 1, "one process has the token of {}", user.name);
        let other = users.iter().find(|other| other.name != user.name).expect("two");
        assert!(!holds(with_it[0], &other.token));
    }
    node.until_waiting(3).await;
    let waiting = node.until_servers(users.len() + 3).await;
    let with_any = waiting.iter().filter(|&&pid| users.iter().any(|user| holds(pid, &user.token))).count();
    assert_eq!(with_any, users.len(), "the others wait, and have none");
}

#[tokio::test]
async fn what_a_program_gets_is_the_same_whether_it_was_a_spare_or_not() {
    let home = Home::without_key();
    let describing = |spares: Value| {
        json!({
            "command": server("hostile"), "args": ["describe", format!("marker={}", home.marker())], "cwd": "/",
            "env": { "FIXED": "1", "USER_NAME": { "$userToken": "<<user.id>>" } }, "spares": spares,
        })
    };
    let spare = describing(json!({ "count": 1, "sameUser": true }));
    let servers = json!({ "spare": spare, "fresh": describing(json!(0)) });
    let node = Node::start(home, &servers, &json!({}));
    node.until_waiting(1).await;
    let mut described = Vec::new();
    for name in ["spare", "fresh"] {
        let answer = Client::modern(&node.bridge, name, None).call("act", json!({})).await.expect("an answer");
        let mut description: Value = serde_json::from_str(&answer.text()).expect("a description");
        let fields = description.as_object_mut().expect("an object");
        for own in ["group", "pid", "session", "descriptors", "directory", "temporary"] {
            fields.remove(own);
        }
        // How many signals wait for processes of this user, which are not this one's alone.
        fields["signals"].as_object_mut().expect("signals").remove("SigQ");
        if let Some(names) = fields.get_mut("environment").and_then(Value::as_array_mut) {
            names.sort_by_key(ToString::to_string);
            assert!(names.contains(&json!("USER_NAME")), "{names:?}");
        }
        described.push(description);
    }
    assert_eq!(node.count(TAKEN).await, 1);
    assert_eq!(described[0], described[1]);
}

#[tokio::test]
async fn a_spare_that_ends_when_it_is_given_its_token_is_made_up_for_by_a_fresh_server() {
    let (home, alice) = (Home::new(), User::new("alice"));
    let once = home.path().join("once");
    let servers = json!({ "s": started_by(&home, &format!("mkdir {} 2>&- && exit 3", once.display())) });
    let node = node(home, &servers, &[&alice], &[]);
    node.until_waiting(1).await;
    assert!(!once.exists(), "the program has done nothing yet");
    alice.is_known_to(&node.bridge, "s").await;
    assert!(once.exists());
    alice.is_known_to_another(&node, "s").await;
    node.until(&discarded("ended"), |_| true).await;
}

#[tokio::test]
async fn a_request_that_is_refused_takes_no_spare() {
    let (home, alice, bob) = (Home::new(), User::new("alice"), User::new("bob"));
    let servers = json!({ "s": whoami(&home, 1) });
    let node = node(home, &servers, &[&alice], &[]);
    node.until_waiting(1).await;
    let waiting = node.until_servers(1).await;
    let unknown = bob.client(&node.bridge, "s").call("whoami", json!({})).await.expect("an answer");
    assert_eq!(unknown.status, 401);
    node.home.delete_token("alice", "s");
    let without = alice.client(&node.bridge, "s").call("whoami", json!({})).await.expect("an answer");
    assert!(without.error_code().is_some() || without.text() != sha256_hex(alice.token.as_bytes()), "{without:?}");
    assert_eq!((node.servers(), node.count(TAKEN).await), (waiting, 0));
}

#[tokio::test]
async fn what_a_spare_says_of_its_token_is_not_in_the_log() {
    let (home, alice) = (Home::new(), User::new("alice"));
    let servers = json!({ "s": started_by(&home, "echo \"is-starting with $WHOAMI_TOKEN\" >&2") });
    let node = node(home, &servers, &[&alice], &[("TOLLBRIDGE_LOG", "debug")]);
    node.until_waiting(1).await;
    alice.is_known_to(&node.bridge, "s").await;
    let log = node.bridge.log_with("is-starting");
    assert!(log.contains("is-starting") && !log.contains(&alice.token), "{log}");
    assert_eq!(node.count(TAKEN).await, 1);
}

#[tokio::test]
async fn each_spare_with_a_token_has_a_user_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (home, users) = (Home::new(), [User::new("alice"), User::new("bob")]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("ours");
    let program = home.path().join("whoami");
    procs::copy_program(Path::new(&server("whoami")), &program);
    let mut server = whoami(&home, 2);
    server["command"] = json!(program);
    server["runAs"] = json!("42000-42300");
    server["spares"] = json!(2);
    let node = node(home, &json!({ "s": server }), &users.each_ref(), &[]);
    for user in &users {
        node.until_waiting(2).await;
        let user_of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().find(|line| line.starts_with("Uid:")).map(str::to_owned)
        };
        let users: Vec<_> = node.until_servers(2).await.iter().map(user_of).collect();
        assert!(users[0] != users[1] && users.iter().flatten().all(|line| line.contains("\t42")), "{users:?}");
        user.is_known_to(&node.bridge, "s").await;
    }
    assert_eq!(node.count(TAKEN).await, 2);
}

#[tokio::test]
async fn spares_of_programs_with_a_token_are_refused_where_others_are_the_same_user() {
    let home = Home::new();
    let check = |spares: Value| {
        let mut server = whoami(&home, 1);
        server["spares"] = spares;
        home.write(json!({ "identity": [{ "kind": "local", "user": "alice" }], "tokenStore": home.embedded(),
            "mcpServers": { "s": server } }));
        home.output(&["check", "--config", &home.config().to_string_lossy()], b"")
    };
    let refused = check(json!(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("sameUser") && said.contains("runAs"), "{said}");
    let accepted = check(json!({ "count": 1, "sameUser": true }));
    let said = String::from_utf8_lossy(&accepted.stdout).into_owned();
    assert!(said.contains("1: each waits before its program's first instruction"), "{said}");
    let doctor = home.output(&["doctor", "--spares", "--config", &home.config().to_string_lossy()], b"");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("good        spares of s: each waits before its program's first instruction"), "{said}");
    assert_eq!(procs::with_marker(home.marker()), [0; 0]);
}

/// How many requests of two users, if this variable does not say.
const REQUESTS: (&str, usize) = ("TOLLBRIDGE_SPARES_REQUESTS", 200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_on_two_nodes_get_their_own_tokens_from_spares_and_fresh_servers_in_turn_and_nothing_is_left() {
    let (home, redis, users) = (Home::new(), Redis::start(), [User::new("alice"), User::new("bob")]);
    let bearers = users.each_ref().map(|user| (user.name, user.bearer.as_str()));
    let admins = [free_address(), free_address()];
    let node = |admin| {
        home.write(json!({
            "identity": bearer_identity(&bearers), "tokenStore": home.in_redis(&redis),
            "admin": { "listen": std::net::SocketAddr::to_string(admin) },
            "mcpServers": { "s": whoami(&home, 2) },
        }));
        for user in &users {
            home.set_token(user.name, "s", &user.token);
        }
        Bridge::start_in(&home, &[])
    };
    let mut bridges = admins.each_ref().map(node);
    let requests = number(REQUESTS.0, REQUESTS.1);
    for request in 0..requests {
        // Both users at once on one node, so that they take its spares one after the other, and then on the other.
        let bridge = &bridges[request % 2];
        tokio::join!(users[0].is_known_to(bridge, "s"), users[1].is_known_to(bridge, "s"));
    }
    for admin in admins {
        let count = async |name: &str| super::metric(admin, &format!("tollbridge_spares_{name}_total")).await;
        let (taken, missed) = (count("taken").await.unwrap_or_default(), count("missed").await.unwrap_or_default());
        assert!(taken > 0.0 && missed > 0.0, "{taken} taken, {missed} missed");
    }
    for bridge in &mut bridges {
        assert!(bridge.stop().success());
    }
    assert_eq!(procs::with_marker(home.marker()), [0; 0]);
}
