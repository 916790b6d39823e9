//! Official clients, as they are by default, connect without a token, see the one tool, are led to the page, and go on in the
//! same session once the token is there.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const NODE: &str = "tests/.tools/node22";
const PYTHON_1: &str = "tests/.tools/python/mcp1/bin/python";
const PYTHON_2: &str = "tests/.tools/python/mcp2/bin/python";

/// A running client, and what it says.
struct Official {
    client: Child,
    steps: Lines<BufReader<ChildStdout>>,
    bridge: Bridge,
    _home: Home,
}

impl Official {
    /// Starts a client whose user has saved nothing; `task` says what else it is told.
    fn start(program: &str, script: &str, task: Value) -> Self {
        let home = Home::new();
        let bridge = serve(&home);
        let mut task = task;
        if task["command"].is_null() {
            task["url"] = json!(bridge.url("one"));
        } else {
            task["command"].as_array_mut().expect("a command").push(json!(bridge.url("one")));
        }
        let mut command = Command::new(installed(program));
        command.arg(installed(script)).arg(task.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut client = command.spawn().expect("the client starts");
        let steps = BufReader::new(client.stdout.take().expect("piped")).lines();
        Self { client, steps, bridge, _home: home }
    }

    /// What it says next.
    fn step(&mut self) -> Value {
        let step = self.steps.next().unwrap_or_else(|| panic!("the client ended: {}", self.bridge.log()));
        serde_json::from_str(&step.expect("it can be read")).expect("JSON")
    }

    fn lists_one_tool(&mut self) {
        assert_eq!(self.step(), json!({ "tools": ["connect_account"] }));
    }

    fn save(&self) {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(save_on(&self.bridge));
    }

    /// It hears that there are other tools, lists and calls them.
    fn goes_on(&mut self) {
        let list = self.step();
        assert!(list["tools"].as_array().is_some_and(|tools| tools.contains(&json!("whoami"))), "{list}");
        assert_eq!(self.step(), json!({ "second": was_served() }));
        assert!(self.client.wait().expect("our child").success());
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(path.exists(), "{} is missing: run ./scripts/test, which installs it", path.display());
    path
}

fn was_served() -> Value {
    json!({ "isError": false, "text": sha256_hex(TOKEN.as_bytes()) })
}

/// A client that says nothing of pages reads the link in the result.
fn reads_the_link(program: &str, script: &str, task: Value) {
    let mut client = Official::start(program, script, task);
    client.lists_one_tool();
    let first = client.step()["first"].clone();
    assert!(first["isError"] == true && first["text"].as_str().is_some_and(|text| text.contains(LINK)), "{first}");
    client.save();
    client.goes_on();
}

/// A client of 2025-11-25 that goes to pages gets the error that leads there, and hears when it is done.
fn gets_the_error(program: &str, script: &str) {
    let mut client = Official::start(program, script, json!({ "pages": true }));
    client.lists_one_tool();
    let first = client.step()["first"].clone();
    let page = &first["data"]["elicitations"][0];
    assert_eq!((&first["code"], &page["url"]), (&json!(-32042), &json!(LINK)), "{first}");
    client.save();
    assert_eq!(client.step(), json!({ "completed": page["elicitationId"] }));
    client.goes_on();
}

/// A modern client sends its person to the page by itself, and its one call goes on when the token is there.
fn sends_its_person_there(program: &str, script: &str, task: Value) {
    let mut client = Official::start(program, script, task);
    client.lists_one_tool();
    assert_eq!(client.step(), json!({ "visit": LINK }));
    client.save();
    assert_eq!(client.step(), json!({ "first": was_served() }));
    assert!(client.client.wait().expect("our child").success());
}

#[test]
fn typescript_1_reads_the_link() {
    reads_the_link(NODE, "tests/node/connect-v1.mjs", json!({ "pages": false }));
}

#[test]
fn typescript_1_that_goes_to_pages_gets_the_error() {
    gets_the_error(NODE, "tests/node/connect-v1.mjs");
}

#[test]
fn typescript_2_reads_the_link() {
    reads_the_link(NODE, "tests/node/connect-v2.mjs", json!({ "pages": false }));
}

#[test]
fn typescript_2_that_goes_to_pages_gets_the_error() {
    gets_the_error(NODE, "tests/node/connect-v2.mjs");
}

#[test]
fn modern_typescript_2_reads_the_link() {
    reads_the_link(NODE, "tests/node/connect-v2.mjs", json!({ "pages": false, "mode": "auto" }));
}

#[test]
fn modern_typescript_2_sends_its_person_there() {
    sends_its_person_there(NODE, "tests/node/connect-v2.mjs", json!({ "pages": true, "mode": "auto" }));
}

#[test]
fn python_1_reads_the_link() {
    reads_the_link(PYTHON_1, "tests/python/connect_v1.py", json!({ "pages": false }));
}

#[test]
fn python_1_that_goes_to_pages_gets_the_error() {
    gets_the_error(PYTHON_1, "tests/python/connect_v1.py");
}

#[test]
fn python_2_reads_the_link() {
    reads_the_link(PYTHON_2, "tests/python/connect_v2.py", json!({ "pages": false }));
}

#[test]
fn python_2_sends_its_person_there() {
    sends_its_person_there(PYTHON_2, "tests/python/connect_v2.py", json!({ "pages": true }));
}

#[test]
fn mcp_remote_reads_the_link() {
    let adapter = [installed(NODE), installed("tests/node/node_modules/mcp-remote/dist/proxy.js")];
    reads_the_link(NODE, "tests/node/connect-v1.mjs", json!({ "pages": false, "command": adapter }));
}
