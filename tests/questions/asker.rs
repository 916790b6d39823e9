//! Cluster in front of `asker` servers, clients that answer, and what was done outside of the processes.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::SOON;
use crate::support::mcp::{Answer, LEGACY};
use crate::support::{Bridge, Client, Home, Redis, bearer_identity, procs, server};

pub(super) const ALICE: &str = "a-bearer-token-of-alice-that-is-long-enough";
pub(super) const BOB: &str = "a-bearer-token-of-bob-that-is-long-enough-too";

/// Cluster that share a Redis and keys, and the directory that their servers write to.
pub(super) struct Cluster {
    // Bridges end before what they need does.
    pub(super) bridges: Vec<Bridge>,
    pub(super) home: Home,
    directory: TempDir,
    pub(super) redis: Redis,
}

impl Cluster {
    /// That many nodes, with the servers `park` and `replay` in front of the same program; both with these fields.
    pub(super) fn start(count: usize, fields: &Value) -> Self {
        Self::start_in(Home::in_redis, count, fields, &json!({}))
    }

    /// The same, with these limits.
    pub(super) fn limited(count: usize, fields: &Value, limits: &Value) -> Self {
        Self::start_in(Home::in_redis, count, fields, limits)
    }

    /// The same, for tests that end a node: that it is gone is known soon.
    pub(super) fn mortal(count: usize, fields: &Value) -> Self {
        Self::start_in(Home::in_failing_redis, count, fields, &json!({}))
    }

    /// Nodes with servers whose tool answers with a task: `hold`, `durable` and `off`, all with these fields.
    pub(super) fn of_tasks(store: fn(&Home, &Redis) -> Value, count: usize, fields: &Value, limits: &Value) -> Self {
        let servers = [
            ("hold", "tasker", json!({ "tasks": "hold" })),
            ("durable", "tasker", json!({ "durableTasks": true })),
            ("off", "tasker", json!({})),
        ];
        Self::of(&servers, store, (count, fields, limits))
    }

    fn start_in(store: fn(&Home, &Redis) -> Value, count: usize, fields: &Value, limits: &Value) -> Self {
        let servers = ["park", "replay"].map(|questions| (questions, "asker", json!({ "questions": questions })));
        Self::of(&servers, store, (count, fields, limits))
    }

    fn of(
        servers: &[(&str, &str, Value)],
        store: fn(&Home, &Redis) -> Value,
        (count, fields, limits): (usize, &Value, &Value),
    ) -> Self {
        let (home, redis) = (Home::new(), Redis::start());
        let directory = tempfile::Builder::new().prefix("tollbridge-asked-").tempdir().expect("a directory");
        let entry = |(name, program, own): &(&str, &str, Value)| {
            let place = directory.path().to_string_lossy().into_owned();
            let mut entry =
                json!({ "command": server(program), "args": [place, name, format!("marker={}", home.marker())] });
            for (name, value) in [fields, own].into_iter().flat_map(|fields| fields.as_object().expect("fields")) {
                entry[name] = value.clone();
            }
            ((*name).to_owned(), entry)
        };
        let mut config = json!({
            "identity": bearer_identity(&[("alice", ALICE), ("bob", BOB)]),
            "tokenStore": store(&home, &redis),
            "limits": { "perUser": 500, "perServer": 500, "total": 500, "queue": "30s" },
            "mcpServers": servers.iter().map(entry).collect::<serde_json::Map<_, _>>(),
        });
        for (name, value) in limits.as_object().expect("limits") {
            config["limits"][name] = value.clone();
        }
        let bridges = (0..count).map(|_| home.serve(config.clone())).collect();
        Self { bridges, home, directory, redis }
    }

    /// A modern client that can be asked.
    pub(super) fn modern(&self, node: usize, server: &str, bearer: &str) -> Client {
        let mut client = Client::modern(&self.bridges[node], server, Some(bearer));
        client.capabilities = json!({ "elicitation": { "form": {} } });
        client
    }

    /// A legacy client with a session, that can be asked.
    pub(super) async fn legacy(&self, node: usize, bearer: &str) -> Client {
        let mut client = Client::without_session(&self.bridges[node], "park", Some(bearer));
        let answer = client.initialize(LEGACY, json!({ "elicitation": {} })).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        client
    }

    /// The lines of a file that the servers write.
    pub(super) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a file has that many lines.
    pub(super) async fn until_lines(&self, file: &str, count: usize) -> Vec<String> {
        let lines = procs::eventually(SOON, || Some(self.lines(file)).filter(|lines| lines.len() >= count)).await;
        lines.unwrap_or_else(|| panic!("{file} has {:?}", self.lines(file)))
    }

    /// The processes of all servers.
    pub(super) fn processes(&self) -> Vec<u32> {
        procs::with_marker(self.home.marker())
    }

    /// Waits until there are at most so many processes.
    pub(super) async fn until_processes(&self, at_most: usize) {
        let settled = procs::eventually(SOON, || (self.processes().len() <= at_most).then_some(())).await;
        assert!(settled.is_some(), "{} processes are left", self.processes().len());
    }
}

/// What a call of `ask` was answered with: questions, and the state to come back with.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) message: String,
    pub(super) state: String,
}

impl Asked {
    pub(super) fn of(answer: &Answer) -> Self {
        let result = answer.response()["result"].clone();
        assert_eq!(result["resultType"], "input_required", "HTTP {}: {}", answer.status, answer.response());
        let questions = result["inputRequests"].as_object().expect("questions by key");
        assert_eq!(questions.len(), 1, "{result}");
        let (key, question) = questions.iter().next().expect("there is one");
        assert_eq!(question["method"], "elicitation/create");
        let message = question["params"]["message"].as_str().expect("a message").to_owned();
        let state = result["requestState"].as_str().expect("a state").to_owned();
        Self { key: key.clone(), message, state }
    }

    /// The parameters of a call that brings this answer.
    pub(super) fn answered(&self, arguments: &Value, answer: &str) -> Value {
        let mut params = call(arguments);
        params["requestState"] = json!(self.state);
        params["inputResponses"] = json!({ &self.key: { "action": "accept", "content": { "answer": answer } } });
        params
    }
}

/// The parameters of a call of `ask`.
pub(super) fn call(arguments: &Value) -> Value {
    json!({ "name": "ask", "arguments": arguments })
}

/// Calls `ask`, which must ask.
pub(super) async fn ask(client: &mut Client, params: Value) -> Asked {
    Asked::of(&client.request("tools/call", params).await.expect("an answer"))
}
