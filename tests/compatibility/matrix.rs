//! The matrix: each official client in front of a server of each official SDK, both with their defaults and written as
//! their quick starts have it, over both transports, directly and through the bridge.
//!
//! A server is one program for each SDK, told `stdio` or a port, and a file whose changes it tells its subscribers. It has
//! these tools, and a client does with them what is in brackets, one [operation](OPERATIONS) after the other:
//!
//! | tool | |
//! |---|---|
//! | `echo` | says the text that it is given (call) |
//! | `steps` | reports three steps, and ends once its client has seen them (progress) |
//! | `log` | writes a log line (log) |
//! | `wait` | waits until it is cancelled, and leaves a file (cancel) |
//! | `ask`, `sample`, `roots` | ask for a name, words, or where the client works, as each era does (elicitation, sampling, roots) |
//! | `ask_live`, `sample_live` | ask in the middle of the call, which is for legacy clients alone |
//! | `fail` | fails (error) |
//! | `large` | says two mebibytes (large) |
//! | `crash` | ends the server (crash: and the client goes on with another call) |
//!
//! Through the bridge nothing may fail that works directly. What fails in both ways is in the table of `docs/protocol.md`:
//! the tests of [`cells`](super::cells) do everything else; `scripts/compatibility` runs all
//! of them, in both ways, and writes the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{self, Bridge, Elsewhere};
use super::table;

/// What every client does, once each, in this order after it has connected.
pub(super) const OPERATIONS: [&str; 13] = [
    "connect",
    "list",
    "call",
    "progress",
    "log",
    "cancel",
    "elicitation",
    "sampling",
    "roots",
    "subscribe",
    "error",
    "large",
    "crash",
];

/// How long an operation may take, in seconds, where something slow is no failure.
const PATIENCE: f64 = 120.0;

/// How long something that is on its way may take, in seconds.
const SOON: f64 = 30.0;

/// A program, by the name of its SDK in the table.
#[derive(Clone, Copy)]
pub(super) struct Sdk {
    /// Its name there.
    pub(super) name: &'static str,
    program: &'static [&'static str],
    /// How it finds out the era, where that can be told.
    mode: Option<&'static str>,
}

const fn sdk(name: &'static str, program: &'static [&'static str]) -> Sdk {
    Sdk { name, program, mode: None }
}

const NODE: &str = "tests/.tools/node22";
const GO: &str = "tests/.tools/go-tools";
const RMCP: &str = "rmcp";
const PYTHON_1_9: &str = "tests/.tools/python/mcp19/bin/python";
const PYTHON_1: &str = "tests/.tools/python/mcp1/bin/python";
const PYTHON_2: &str = "tests/.tools/python/mcp2/bin/python";
const FASTMCP: &str = "tests/.tools/python/fastmcp/bin/python";

/// An adapter from stdio to HTTP, beneath the TypeScript client.
const MCP_REMOTE: &str = "mcp-remote";
const ADAPTER: &str = "tests/node/node_modules/mcp-remote/dist/proxy.js";

/// The rows of the table.
pub(super) static CLIENTS: [Sdk; 11] = [
    sdk("TypeScript 1.x", &[NODE, "tests/node/client-v1.mjs"]),
    sdk("TypeScript 2.x", &[NODE, "tests/node/client-v2.mjs"]),
    Sdk { mode: Some("auto"), ..sdk("TypeScript 2.x, auto", &[NODE, "tests/node/client-v2.mjs"]) },
    sdk("Python 1.9", &[PYTHON_1_9, "tests/python/client_v1.py"]),
    sdk("Python 1.x", &[PYTHON_1, "tests/python/client_v1.py"]),
    sdk("Python 2.x", &[PYTHON_2, "tests/python/client_v2.py"]),
    sdk("FastMCP 4", &[FASTMCP, "tests/python/client_fastmcp.py"]),
    sdk("Go", &[GO, "client"]),
    sdk("rmcp", &[RMCP, "client"]),
    sdk("Inspector CLI", &[NODE, "tests/node/client-inspector.mjs"]),
    sdk(MCP_REMOTE, &[NODE, "tests/node/client-v1.mjs"]),
];

/// The columns of the table.
pub(super) static SERVERS: [Sdk; 7] = [
    sdk("TypeScript 1.x", &[NODE, "tests/node/quick-start-v1.mjs"]),
    sdk("TypeScript 2.x", &[NODE, "tests/node/quick-start-v2.mjs"]),
    sdk("Python 1.x", &[PYTHON_1, "tests/python/server_v1.py"]),
    sdk("Python 2.x", &[PYTHON_2, "tests/python/server_v2.py"]),
    sdk("FastMCP 4", &[FASTMCP, "tests/python/server_fastmcp.py"]),
    sdk("Go", &[GO, "server"]),
    sdk("rmcp", &[RMCP, "server"]),
];

/// What a server is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    /// The pipes of a process.
    Stdio,
    /// Streamable HTTP.
    Http,
}

/// How a client reaches a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By itself.
    Direct,
    /// Through the bridge.
    Bridge,
    /// Through the bridge by HTTP+SSE, the transport of 2024.
    Sse,
}

/// What came of each operation: "ok", or in a few words what came instead.
pub(super) type Seen = BTreeMap<String, String>;

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "{} is missing: run ./scripts/test, which installs it", path.display());
    path
}

impl Sdk {
    fn command(&self) -> Vec<PathBuf> {
        let part = |part: &&str| match *part {
            RMCP => support::server(RMCP).into(),
            part if part.contains('/') => installed(part),
            part => part.into(),
        };
        self.program.iter().map(part).collect()
    }
}

/// One client in front of one server.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    /// The client.
    pub(super) client: &'static Sdk,
    /// The server.
    pub(super) server: &'static Sdk,
    /// What the server is reached by, from the bridge or directly.
    pub(super) transport: Transport,
}

impl Cell {
    /// The cell of these names.
    pub(super) fn named(client: &str, server: &str, transport: Transport) -> Self {
        let find = |sdks: &'static [Sdk], name| {
            let found = sdks.iter().find(|sdk: &&Sdk| sdk.name == name);
            found.unwrap_or_else(|| panic!("there is no {name}"))
        };
        Self { client: find(&CLIENTS, client), server: find(&SERVERS, server), transport }
    }

    /// Has the client do these operations, with these waits in seconds: how long one may take, and something
    /// that is on its way. Returns the bridge's log as well; `None` where there is no such way.
    pub(super) fn run(&self, way: Way, only: &BTreeSet<&str>, waits: (f64, f64)) -> Option<(Seen, String)> {
        let directory = tempfile::Builder::new().prefix("tollbridge-matrix-").tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        fs::write(place("note"), "a note").expect("it can be written");
        let (trace, back) = (place("trace"), place("trace.back"));
        let mut task = json!({ "trace": trace, "note": place("note"), "patience": waits.0, "soon": waits.1 });
        (task["only"], task["mode"]) = (json!(only), json!(self.client.mode));

        let mut server = self.server.command();
        let (mut elsewhere, mut bridge) = (None, None);
        let is_stdio = self.transport == Transport::Stdio;
        if is_stdio {
            server.extend(["stdio".into(), place("note")]);
            // It is started for each connection, and so there again at once.
            fs::write(back, "").expect("it can be written");
        } else {
            let again = move || fs::write(&back, "").expect("it can be written");
            elsewhere = Some(Elsewhere::start(&server, &[place("note")], again));
        }
        let entry = match &elsewhere {
            Some(elsewhere) => json!({ "url": elsewhere.url() }),
            None => json!({ "command": server[0], "args": server[1..] }),
        };
        let url = match way {
            Way::Direct => elsewhere.as_ref().map(Elsewhere::url),
            Way::Bridge => Some(bridge.insert(front_of(entry)).url("matrix")),
            Way::Sse => Some(bridge.insert(front_of(entry)).url("matrix").replace("/mcp", "/sse")),
        };
        if self.client.name == MCP_REMOTE {
            task["command"] = json!([installed(NODE), installed(ADAPTER), url?]);
        } else if let Some(url) = url {
            task["url"] = json!(url);
        } else {
            task["command"] = json!(server);
        }
        let seen = self.visit(&task, &directory);
        Some((seen, bridge.as_ref().map(Bridge::log).unwrap_or_default()))
    }

    fn visit(&self, task: &Value, home: &TempDir) -> Seen {
        let program = self.client.command();
        let mut client = Command::new(&program[0]);
        // What they keep of their users is not for the next.
        client.args(&program[1..]).arg(task.to_string()).env("HOME", home.path()).stdin(Stdio::null());
        client.env("MCP_REMOTE_CONFIG_DIR", home.path());
        let output = client.output().expect("the client can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let last = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in the client's answer: {stdout}\n{stderr}"))
    }
}

fn front_of(mut server: Value) -> Bridge {
    server["startTimeout"] = json!("2m");
    let identity = json!([{ "kind": "local", "user": "alice" }]);
    Bridge::start(json!({ "identity": identity, "mcpServers": { "matrix": server } }))
}

/// Has a client do through the bridge everything that the table says it does.
pub(super) fn does_what_the_table_says(client: &str, server: &str, transport: Transport, way: Way) {
    let cell = Cell::named(client, server, transport);
    let table = table::of_the_documentation();
    let missing = table::missing(&table, &cell);
    let wanted: BTreeSet<&str> = OPERATIONS.into_iter().filter(|operation| !missing.contains(operation)).collect();
    let (seen, log) = cell.run(way, &wanted, (PATIENCE, SOON)).expect("there is a way through the bridge");
    let failed: Vec<_> = seen.iter().filter(|(_, came)| *came != "ok").collect();
    assert!(failed.is_empty(), "{failed:?}\nthe bridge's log:\n{log}");
    assert_eq!(seen.len(), wanted.len(), "{seen:?}");
}
