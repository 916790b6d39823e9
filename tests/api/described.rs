//! Every operation and every error of the description, sent to real nodes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::description::Description;
use crate::program::{Answer, Program};
use crate::support::http::Connection;
use crate::support::{Bridge, Home, Redis, free_address, metric};
use crate::visit::Person;
use crate::{ALICE, BOB, NOTES, OPERATOR, config, serve};

const SERVERS: &str = "/api/v1/servers";
const PROBE: &str = "/api/v1/servers/notes/probe";
const MADE: &str = "/api/v1/connections";
const SIGNED: &str = "/api/v1/connections/signed";
const DESCRIPTION: &str = "/api/v1/openapi.json";
const ALICES: &str = "/api/v1/admin/users/alice/servers/notes/token";
const CONNECTIONS: &str = "/api/v1/admin/connections";
const AUDIT: &str = "/api/v1/admin/audit";

/// How long a body that is announced may take to be counted.
const DEADLINE: Duration = Duration::from_mins(1);

/// What needs a credential.
const USERS: [(&str, &str); 8] = [
    ("GET", SERVERS),
    ("GET", NOTES),
    ("PUT", NOTES),
    ("DELETE", NOTES),
    ("POST", PROBE),
    ("GET", MADE),
    ("POST", SIGNED),
    ("DELETE", SIGNED),
];
const OPERATORS: [(&str, &str); 5] =
    [("GET", ALICES), ("PUT", ALICES), ("DELETE", ALICES), ("GET", CONNECTIONS), ("GET", AUDIT)];

/// What takes values.
const WITH_BODY: [(&str, &str); 3] = [("PUT", NOTES), ("POST", PROBE), ("PUT", ALICES)];

const JSON: (&str, &str) = ("Content-Type", "application/json");
const NOTHING: (&str, &str) = ("If-None-Match", "*");
const SOMETHING: (&str, &str) = ("If-Match", "*");

/// A node and its description.
struct Node {
    bridge: Bridge,
    admin: SocketAddr,
}

impl Node {
    fn start(home: &Home, config: Value) -> Self {
        let admin = config["admin"]["listen"].as_str().expect("an address").parse().expect("an address");
        Self { bridge: serve(home, config), admin }
    }

    /// Whoever may do this.
    fn program(&self, path: &str) -> Program<'static> {
        if path.starts_with("/api/v1/admin/") {
            Program::of(OPERATOR, self.admin)
        } else if path.starts_with(MADE) || path.contains("/signed/") {
            // One user may not change as much in a minute as is changed here.
            Program::of(BOB, self.bridge.address())
        } else {
            Program::of(ALICE, self.bridge.address())
        }
    }

    async fn ask(
        &self,
        described: &mut Description,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = self.program(path).ask(method, path, headers, body).await;
        described.check(method, path, answer)
    }

    /// As [`Node::ask`] with a good body where one is needed, and with what is known of what is there.
    async fn do_well(&self, described: &mut Description, what: (&str, &str), knows: (&str, &str)) -> Answer {
        let body: &[u8] = if matches!(what.0, "PUT" | "POST") { br#"{"token":"ntn_1"}"# } else { b"" };
        self.ask(described, what, &[JSON, knows], body).await
    }
}

#[tokio::test]
async fn every_operation_and_every_documented_error_is_as_the_description_says() {
    let (home, mut redis) = (Home::new(), Redis::start());
    let mut with_stream = config(&home, &home.in_failing_redis(&redis), free_address());
    with_stream["audit"] = json!({ "redis": {} });
    with_stream["limits"] = json!({ "bodyIdle": "300ms" });
    add_services(&mut with_stream);
    let node = Node::start(&home, with_stream);
    let nobody = Program { address: node.bridge.address(), bearer: None };
    let document = nobody.get(DESCRIPTION).await;
    let mut described = Description::of(document.json());
    described.check("GET", DESCRIPTION, document);

    what_is_done(&node, &mut described).await;
    what_cannot_be_read(&node, &mut described).await;
    what_is_not_there(&node, &mut described, &redis).await;
    who_may_not(&node, &mut described).await;
    let mut browser = Person::at(node.bridge.address());
    assert_eq!(browser.sign_in("", ALICE).await.status, 303);
    let csrf = browser.get(SERVERS).await.header("x-tollbridge-csrf").to_owned();
    redis.crash();
    for what in USERS.into_iter().chain(OPERATORS).filter(|what| what.1 != PROBE) {
        assert_eq!(node.do_well(&mut described, what, SOMETHING).await.said(), (503, "store".to_owned()), "{what:?}");
    }
    let seen = browser.ask("POST", PROBE, &[JSON, ("X-Tollbridge-CSRF", &csrf)], b"{}").await;
    let answer = described.check("POST", PROBE, Answer { status: seen.status, headers: seen.headers, text: seen.text });
    assert_eq!(answer.said(), (503, "store".to_owned()));
    drop(node);

    without_audit_or_memory(&mut described).await;
    assert_eq!(described.unseen(), []);
}

async fn what_is_done(node: &Node, described: &mut Description) {
    for (token, issuer) in [(NOTES, ""), (ALICES, "?issuer=local")] {
        let path = &format!("{token}{issuer}");
        assert_eq!(node.do_well(described, ("PUT", path), NOTHING).await.status, 201);
        assert_eq!(node.do_well(described, ("PUT", path), SOMETHING).await.status, 204);
        assert_eq!(node.ask(described, ("GET", path), &[], b"").await.status, 200);
        assert_eq!(node.ask(described, ("DELETE", path), &[SOMETHING], b"").await.status, 204);
    }
    assert_eq!(node.do_well(described, ("PUT", ALICES), NOTHING).await.status, 201);
    for path in [SERVERS, CONNECTIONS, AUDIT] {
        assert_eq!(node.ask(described, ("GET", path), &[], b"").await.status, 200);
    }
    assert_eq!(node.do_well(described, ("POST", PROBE), NOTHING).await.json()["outcome"], "good");

    let begun = node.ask(described, ("POST", SIGNED), &[], b"").await;
    let leads_to = begun.json()["authorizationUrl"].as_str().unwrap_or_default().to_owned();
    assert!(leads_to.starts_with("https://service.example/authorize?") && leads_to.contains("S256"), "{begun:?}");
    let path = "/api/v1/servers/signed/token";
    assert_eq!(node.do_well(described, ("PUT", path), NOTHING).await.status, 201);
    let made = node.ask(described, ("GET", MADE), &[], b"").await.json();
    let statuses = made["connections"].as_array().expect("a list").iter().map(|made| &made["status"]);
    assert_eq!(statuses.collect::<Vec<_>>(), ["notConnected", "notConnected", "connected"], "{made}");
    assert_eq!(node.ask(described, ("DELETE", SIGNED), &[], b"").await.json(), json!({ "revoked": false }));
    for (server, status) in [("elsewhere", 502), ("down", 503)] {
        let answer = node.ask(described, ("POST", &format!("{MADE}/{server}")), &[], b"").await;
        assert_eq!(answer.said(), (status, "service".to_owned()), "{answer:?}");
    }
}

/// Servers whose users sign in: at a service that is never called, at one that is none, and at one that is not there.
fn add_services(config: &mut Value) {
    let admin = format!("http://{}", config["admin"]["listen"].as_str().expect("an address"));
    let server = |oauth: &Value| {
        let mut entry = config["mcpServers"]["strict"].clone();
        entry["oauth"] = oauth.clone();
        entry.as_object_mut().expect("an object").remove("tokenSetup");
        entry
    };
    let added = [
        (
            "signed",
            server(&json!({ "authorizationEndpoint": "https://service.example/authorize", "clientId": "c",
                "tokenEndpoint": "https://service.example/token", "also": "token" })),
        ),
        ("elsewhere", server(&json!({ "issuer": admin, "allowHosts": ["127.0.0.1"] }))),
        ("down", server(&json!({ "issuer": "http://127.0.0.1:1", "allowHosts": ["127.0.0.1"] }))),
    ];
    // Services know it by its port.
    config["publicUrl"] = json!("http://127.0.0.1:7777");
    config["allowedHosts"] = json!(["127.0.0.1"]);
    config["mcpServers"]
        .as_object_mut()
        .expect("an object")
        .extend(added.map(|(name, entry)| (name.to_owned(), entry)));
}

async fn what_cannot_be_read(node: &Node, described: &mut Description) {
    let long = format!("{{\"token\":\"{}\"}}", "x".repeat(64 << 10));
    for what in WITH_BODY {
        for (headers, body, said) in [
            (vec![JSON, SOMETHING], "{", (400, "bad-request")),
            (vec![("Content-Type", "text/plain"), SOMETHING], "{}", (415, "media-type")),
            (vec![JSON, SOMETHING], &long, (413, "too-large")),
            (vec![JSON, SOMETHING], r#"{"token":"Bearer x"}"#, (422, "invalid-token")),
        ] {
            let answer = node.ask(described, what, &headers, body.as_bytes()).await;
            assert_eq!(answer.said(), (said.0, said.1.to_owned()), "{what:?}");
        }
        let (method, path) = what;
        let program = node.program(path);
        let mut connection = Connection::open(program.address).await.expect("it listens");
        let bearer = program.bearer.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {bearer}\r\nIf-Match: *\r\n\
             Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{{",
            program.address,
        );
        connection.write(head.as_bytes()).await.expect("it reads");
        let answer = described.check(method, path, Answer::read(&mut connection).await);
        assert_eq!(answer.said(), (408, "request-timeout".to_owned()), "{what:?}");
    }
    let bad = ("If-Match", "none");
    for what in [("DELETE", NOTES), ("DELETE", ALICES)] {
        assert_eq!(node.ask(described, what, &[bad], b"").await.status, 400);
    }
    for path in [ALICES, CONNECTIONS, AUDIT] {
        assert_eq!(node.ask(described, ("GET", &format!("{path}?x=y")), &[], b"").await.status, 400);
    }
}

async fn what_is_not_there(node: &Node, described: &mut Description, redis: &Redis) {
    let other = ("If-Match", "\"another\"");
    for token in [NOTES, ALICES] {
        for method in ["PUT", "DELETE"] {
            assert_eq!(node.do_well(described, (method, token), other).await.said(), (412, "changed".to_owned()));
            let answer = node.do_well(described, (method, token), ("X-Any", "x")).await;
            assert_eq!(answer.said(), (428, "precondition-required".to_owned()));
        }
        let at = |server: &str| token.replace("/notes/", &format!("/{server}/"));
        for method in ["GET", "PUT", "DELETE"] {
            let answer = node.do_well(described, (method, &at("open")), SOMETHING).await;
            assert_eq!(answer.said(), (409, "needs-no-token".to_owned()));
            let unknown = at(if token == ALICES { "no%20name" } else { "nothing" });
            assert_eq!(node.do_well(described, (method, &unknown), SOMETHING).await.said().1, "not-found");
        }
        for method in ["GET", "DELETE"] {
            let answer = node.do_well(described, (method, &at("strict")), SOMETHING).await;
            assert_eq!(answer.said(), (404, "no-token".to_owned()));
        }
    }
    for (method, server, said) in [
        ("POST", "nothing", "not-found"),
        ("POST", "notes", "not-found"),
        ("DELETE", "nothing", "not-found"),
        ("DELETE", "signed", "no-token"),
    ] {
        let answer = node.ask(described, (method, &format!("{MADE}/{server}")), &[], b"").await;
        assert_eq!(answer.said(), (404, said.to_owned()));
    }
    for (server, said) in [("nothing", "not-found"), ("open", "needs-no-token"), ("strict", "no-probe")] {
        let path = PROBE.replace("/notes/", &format!("/{server}/"));
        let answer = node.do_well(described, ("POST", &path), NOTHING).await;
        assert_eq!(answer.problem().as_deref(), Some(said));
    }
    // Whatever opens it no more is not written over.
    let (lasting, _) = redis.keys();
    let key = lasting.iter().find(|key| key.starts_with("tollbridge:tokens:")).expect("somebody has saved something");
    redis.ask(&["HSET", key, "notes", "damaged"]);
    for token in [NOTES, ALICES] {
        for method in ["GET", "PUT"] {
            assert_eq!(
                node.do_well(described, (method, token), SOMETHING).await.said(),
                (503, "unreadable".to_owned())
            );
        }
    }
    let list = node.ask(described, ("GET", SERVERS), &[], b"").await.json();
    let notes = list["servers"].as_array().expect("a list").iter().find(|server| server["name"] == "notes");
    assert_eq!(notes.expect("it is there")["status"], "unreadable");
    assert_eq!(node.ask(described, ("DELETE", ALICES), &[SOMETHING], b"").await.status, 204);
}

async fn who_may_not(node: &Node, described: &mut Description) {
    let elsewhere = ("Origin", "https://elsewhere.example");
    let unknown = "nobodys-key-0123456789abcdef";
    for (method, path) in USERS.into_iter().chain([("GET", DESCRIPTION)]) {
        assert_eq!(node.ask(described, (method, path), &[elsewhere], b"").await.said(), (403, "forbidden".to_owned()));
    }
    for (method, path) in USERS.into_iter().chain(OPERATORS) {
        let nobody = Program { bearer: None, ..node.program(path) };
        let answer = described.check(method, path, nobody.ask(method, path, &[], b"").await);
        assert_eq!(answer.said(), (401, "unauthorized".to_owned()));
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
    }
    for (method, path) in USERS.into_iter().chain(OPERATORS) {
        let guesser = Program::of(unknown, node.program(path).address);
        for attempt in 0.. {
            assert!(attempt < 40, "it is not limited");
            if guesser.ask(method, path, &[], b"").await.status == 429 {
                break;
            }
        }
        let answer = described.check(method, path, guesser.ask(method, path, &[], b"").await);
        assert_eq!(answer.said(), (429, "too-many".to_owned()));
        assert_ne!(node.do_well(described, (method, path), SOMETHING).await.status, 401, "a good one is taken");
    }
}

async fn without_audit_or_memory(described: &mut Description) {
    let home = Home::new();
    let mut full = config(&home, &home.embedded(), free_address());
    add_services(&mut full);
    home.write(full.clone());
    home.set_token("alice", "notes", "t");
    home.set_token("bob", "signed", "t");
    full["audit"] = json!({ "file": "/dev/full", "required": true });
    let node = Node::start(&home, full.clone());
    for what in [("PUT", NOTES), ("DELETE", NOTES), ("PUT", ALICES), ("DELETE", ALICES), ("DELETE", SIGNED)] {
        assert_eq!(node.do_well(described, what, SOMETHING).await.said(), (503, "audit".to_owned()), "{what:?}");
    }
    assert_eq!(node.ask(described, ("GET", AUDIT), &[], b"").await.said(), (404, "not-found".to_owned()));
    drop(node);

    full["audit"] = json!({ "file": "stderr" });
    full["limits"] = json!({ "memory": "64KiB" });
    let node = Node::start(&home, full);
    // What bob has announced and not sent is counted.
    let mut bob = Connection::open(node.bridge.address()).await.expect("it listens");
    let head = format!(
        "PUT {NOTES} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {BOB}\r\nIf-None-Match: *\r\n\
         Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
        node.bridge.address(),
    );
    bob.write(head.as_bytes()).await.expect("it reads");
    let until = Instant::now() + DEADLINE;
    while metric(node.admin, "tollbridge_memory_held_bytes").await.is_none_or(|held| held < 60_000.0) {
        assert!(Instant::now() < until, "it is not counted");
    }
    let body = format!("{{\"token\":\"{}\"}}", "x".repeat(40_000));
    for what in WITH_BODY {
        let answer = node.ask(described, what, &[JSON, NOTHING], body.as_bytes()).await;
        assert_eq!(answer.said(), (503, "unavailable".to_owned()), "{what:?}");
    }
}
