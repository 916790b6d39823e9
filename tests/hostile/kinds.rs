//! The servers that misbehave, and a bridge in front of all of them.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::can_bind;
use super::support::{Bridge, Home, server};

/// What the answer of a server must be.
#[derive(Clone, Copy)]
pub(super) enum Right {
    /// This text.
    Text(&'static str),
    /// An error of the server's making: 502 or 504, or one after the stream began.
    Error,
    /// Anything that is an answer: it depends on what the host keeps it from.
    Any,
}

/// Servers by name, with their arguments and what is right of them; how often each is called follows from `weight`.
pub(super) const KINDS: [(&str, &[&str], Right, usize); 22] = [
    ("polite", &["polite"], Right::Text("done"), 8),
    ("stubborn", &["stubborn", "family=yes"], Right::Text("done"), 4),
    ("joins-parent", &["stubborn", "joins=parent"], Right::Text("done"), 2),
    // It may be ended with the request whose group it has joined.
    ("joins-sibling", &["stubborn", "joins=sibling", "family=yes"], Right::Any, 2),
    ("silent", &["silent"], Right::Error, 1),
    ("deaf", &["deaf"], Right::Error, 1),
    ("garbage", &["garbage", "lines=3"], Right::Text("done"), 4),
    ("much-garbage", &["garbage", "lines=2000"], Right::Error, 2),
    ("endless", &["endless"], Right::Error, 1),
    ("chatter", &["chatter"], Right::Text("done"), 2),
    ("flood", &["flood", "mib=16"], Right::Text("done"), 1),
    ("exits-at-start", &["exits", "at=start", "code=3"], Right::Error, 4),
    ("exits-after-handshake", &["exits", "at=initialized", "hold=yes"], Right::Error, 4),
    ("exits-in-call", &["exits", "at=call", "signal=11", "family=yes"], Right::Error, 4),
    ("holder", &["holder"], Right::Error, 4),
    ("wrong-ids", &["wrong-ids", "then=right"], Right::Text("done"), 4),
    ("twice", &["twice"], Right::Text("first"), 4),
    ("eager", &["eager"], Right::Text("done"), 4),
    ("long", &["long", "family=yes"], Right::Error, 1),
    ("bomb", &["bomb"], Right::Any, 1),
    ("fork-bomb", &["bomb", "grow=yes"], Right::Any, 1),
    ("hog", &["hog"], Right::Any, 1),
];
/// Those that need a host which can hold them.
pub(super) const BOUND: [&str; 3] = ["bomb", "fork-bomb", "hog"];
/// Servers that live until somebody ends them, as their arguments and how many processes they are.
pub(super) const LIVING: [(&str, &[&str], usize); 5] = [
    ("living-silent", &["silent"], 1),
    ("living-deaf", &["deaf"], 1),
    ("living-long", &["long", "family=yes"], 4),
    ("living-stubborn", &["stubborn", "family=yes", "delay=100000"], 4),
    ("living-slow", &["polite", "delay=100000"], 1),
];
/// The control group to make those of requests in, if the script was told of one.
fn cgroup() -> String {
    let named = std::env::vars_os().find(|(name, _)| name == "TOLLBRIDGE_HOSTILE_CGROUP");
    named.and_then(|(_, path)| path.into_string().ok()).unwrap_or_else(|| "auto".to_owned())
}
/// A bridge whose servers have so long to answer, if no answer is to come of them.
pub(super) fn bridge(home: &Home, admin: Option<SocketAddr>, patience: &str) -> Bridge {
    let marker = format!("marker={}", home.marker());
    let one = |name: &str, command: String, arguments: &[&str]| {
        let answers = KINDS.iter().any(|(of, _, right, _)| *of == name && matches!(right, Right::Text(_)));
        let request_timeout = if answers || name == "tiny" { "1m" } else { patience };
        let arguments = [arguments, &[marker.as_str()]].concat();
        json!({ "command": command, "args": arguments,
            "startTimeout": request_timeout, "requestTimeout": request_timeout, "line": "1MiB",
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let kinds = KINDS.iter().map(|&(name, arguments, ..)| (name, arguments));
    let kinds = kinds.chain(LIVING.iter().map(|&(name, arguments, _)| (name, arguments)));
    let mut servers: Map<_, _> =
        kinds.map(|(name, arguments)| (name.to_owned(), one(name, server("hostile"), arguments))).collect();
    for (name, limits) in [
        ("bomb", json!({ "runAs": "63000-63099", "pids": 60 })),
        // Each of them takes as much of the processors as it can.
        ("fork-bomb", json!({ "runAs": "63000-63099", "pids": 12 })),
        ("hog", json!({ "runAs": "63000-63099", "memory": "128MiB" })),
    ] {
        let fields = servers[name].as_object_mut().expect("an object");
        fields.extend(limits.as_object().filter(|_| can_bind()).cloned().unwrap_or_default());
    }
    servers.insert("tiny".to_owned(), one("tiny", server("tiny"), &[]));
    let mut config = json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "perUser": 500, "perServer": 500, "total": 500 },
        "mcpServers": Value::Object(servers),
    });
    if let Some(admin) = admin {
        config["admin"] = json!({ "listen": admin.to_string() });
    }
    home.write(config);
    Bridge::start_with(home, &[], &["--cgroup", &cgroup()])
}
