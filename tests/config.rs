//! The configuration by the front door: `check`, `schema` and the example file.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "config/import.rs"]
mod import;
#[path = "config/warnings.rs"]
mod warnings;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const EXAMPLE: &str = include_str!("../config.example.json");

/// A directory with a configuration file in it, and programs that the example names.
struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("target/demo")).unwrap();
        symlink("/bin/sh", place.path().join("target/demo/whoami")).unwrap();
        fs::write(place.path().join("tollbridge.json"), text).unwrap();
        let key = place.path().join("tollbridge-data/k1.key");
        assert_eq!(said(tollbridge().args(["keygen", "--out"]).arg(key).output().unwrap()).2, Some(0));
        Self(place)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn check(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (String, String, Option<i32>) {
        let file = self.path().join("tollbridge.json");
        let mut command = tollbridge();
        command.args(["check", "--config"]).arg(file).args(arguments);
        said(command.env("PATH", "/usr/bin:/bin").envs(variables.iter().copied()).output().unwrap())
    }
}

fn tollbridge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
    command.env_clear();
    command
}

fn said(output: Output) -> (String, String, Option<i32>) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

const ALICE: (&str, &str) =
    ("TOLLBRIDGE_ALICE_SHA256", "9d5d8a3c1f0f64f6a4cbf6e3f6a0f3a3a4c8d8e5b7f1c2d3e4f5061728394a5b");
const BOB: (&str, &str) = ("TOLLBRIDGE_BOB_SHA256", "1d5d8a3c1f0f64f6a4cbf6e3f6a0f3a3a4c8d8e5b7f1c2d3e4f5061728394a5b");

#[test]
fn the_example_runs_as_it_is() {
    let place = Place::new(EXAMPLE);
    let (summary, problems, code) = place.check(&[], &[ALICE, BOB]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    let program = place.path().join("target/demo/whoami");
    for expected in [
        "listen       127.0.0.1:8080",
        "bearer tokens of alice, bob",
        "server whoami (needs the user's token)",
        &format!("program    {}", program.display()),
        "env        WHOAMI_TOKEN = the user's token",
        "server notion (disabled)",
        "server linear (disabled)",
        "token store: it is not there yet, and can be made",
    ] {
        assert!(summary.contains(expected), "{expected:?} is missing in\n{summary}");
    }
    assert!(!summary.contains(&ALICE.1[..16]), "a value is shown:\n{summary}");
}

#[test]
fn the_example_can_be_checked_without_production_secrets() {
    let place = Place::new(EXAMPLE);
    fs::remove_dir_all(place.path().join("tollbridge-data")).unwrap();
    let (summary, problems, code) = place.check(&["--allow-missing-env"], &[BOB]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    assert!(summary.contains("bearer tokens of bob, and of alice (their variables are not set here)"), "{summary}");
    let (_, problems, code) = place.check(&[], &[ALICE, (BOB.0, "")]);
    assert!(
        problems.contains("identity[0].tokens[1].sha256: the environment variable `TOLLBRIDGE_BOB_SHA256` is empty")
    );
    assert_eq!(code, Some(2));
}

/// Switching the disabled servers of the example on must not reveal mistakes in them.
#[test]
fn the_examples_of_other_servers_are_right_too() {
    let place = Place::new(&EXAMPLE.replace("\"disabled\": true,", ""));
    let docker = place.path().join("docker");
    symlink("/bin/sh", &docker).unwrap();
    let path = place.path().display().to_string();
    let (summary, problems, code) = place.check(&[], &[ALICE, BOB, ("PATH", &path), ("NOTION_IMAGE", "sk-image")]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    assert!(summary.contains(&format!("engine     {}", docker.display())), "{summary}");
    assert!(summary.contains("header     authorization = the user's token"), "{summary}");
    assert!(!summary.contains("sk-image"), "{summary}");
}

#[test]
fn a_table_pasted_from_a_client_works_by_itself() {
    let text = r#"{ "mcpServers": { "time": { "type": "stdio", "command": "sh", "args": ["sk-1"], "env": { "A": "sk-2" } },
                                     "web": { "type": "http", "url": "https://a.example/sk-3?k=sk-4" } } }"#;
    let (summary, problems, code) = Place::new(text).check(&[], &[]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    assert!(
        summary.contains("identity     every caller is taken for the user local") && summary.contains("ok: 2 servers"),
        "{summary}"
    );
    assert!(summary.contains("url        https://a.example") && !summary.contains("sk-"), "{summary}");
}

#[test]
fn what_becomes_of_tasks_is_told() {
    let text = r#"{ "limits": { "taskLease": "10m" }, "mcpServers": {
        "held": { "command": "sh", "tasks": "hold" }, "longer": { "command": "sh", "tasks": "hold", "taskLease": "24h" },
        "durable": { "command": "sh", "durableTasks": true }, "plain": { "command": "sh", "tasks": "off" },
        "passes": { "url": "https://a.example/mcp" }, "not": { "url": "https://b.example/mcp", "tasks": "off" } } }"#;
    let (summary, problems, code) = Place::new(text).check(&[], &[]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    let of = |server: &str| {
        let of_server = summary.split(&format!("server {server}\n")).nth(1).unwrap().split("\nserver").next().unwrap();
        of_server.lines().find_map(|line| line.strip_prefix("  tasks      ")).unwrap_or_default().to_owned()
    };
    assert_eq!(of("held"), "held: a process and a permit of its user for each, for up to 600s");
    assert_eq!(of("longer"), "held: a process and a permit of its user for each, for up to 86400s");
    assert_eq!(of("durable"), "durable: fresh processes are asked about them");
    assert_eq!((of("plain"), of("passes"), of("not")), (String::new(), String::new(), "none are offered".into()));
}

#[test]
fn a_container_is_shown_with_what_it_was_completed_by() {
    let text = r#"{ "mcpServers": {
        "image": { "image": "mcp/time:1", "args": ["sk-1"], "env": { "A": "sk-2", "HOME": "sk-3" }, "memory": "64MiB" },
        "raw": { "command": "docker", "args": ["-H", "sk-4", "run", "-i", "--init", "-v", "sk-5:/x", "mcp/time:2"],
                 "allowUnsafe": ["-v"] },
        "gateway": { "command": "docker", "args": ["mcp", "gateway", "run"], "allowUnsafe": ["mcp"] } } }"#;
    let place = Place::new(text);
    symlink("/bin/sh", place.path().join("docker")).unwrap();
    let path = place.path().display().to_string();
    let (summary, problems, code) = place.check(&[], &[("PATH", &path)]);
    assert_eq!((problems.as_str(), code), ("", Some(0)));
    for expected in [
        "image      mcp/time:1\n  completed  --rm --interactive --init --stop-timeout=0 --pull=never --log-driver=none \
         --security-opt=no-new-privileges --cap-drop=ALL --pids-limit=256 --oom-score-adj=500 --memory=67108864b\n  arguments  1\n",
        "image      mcp/time:2\n  completed  --rm --stop-timeout=0 --pull=never --log-driver=none --security-opt=no-new-privileges \
         --cap-drop=ALL --pids-limit=256 --oom-score-adj=500 --memory=1073741824b\n  arguments  8\n",
        &format!("server gateway\n  program    {path}/docker\n  arguments  3\n"),
    ] {
        assert!(summary.contains(expected), "{expected:?} is missing in\n{summary}");
    }
    assert!(!summary.contains("sk-"), "a value is shown:\n{summary}");
}

#[test]
fn every_problem_is_reported_at_once_in_the_order_of_the_file() {
    let text = r#"{
      // Comments are fine.
      "listen": "0.0.0.0:80",
      "publicUrl": "x",
      "identity": [{ "kind": "local", "user": "" }, { "kind": "bearer", "tokens": [{ "user": 5, "sha256": "sk-1" }] }],
      "limits": { "body": "4", "perUser": "many" },
      "mcpServers": {
        "a": { "comand": "sh", "env": { "X": { "$env": "MISSING" }, "Y": "sk-2 <<token>>", "Z": 1 } },
        "b": { "command": "no-such-program", "args": [{ "$userToken": "<<x>>" }, 7] },
      },
    }"#;
    let (_, problems, code) = Place::new(text).check(&[], &[]);
    let paths: Vec<&str> = problems
        .lines()
        .filter_map(|line| line.strip_prefix("error: "))
        .map(|line| line.split(": ").next().unwrap_or_default())
        .collect();
    let expected = [
        "publicUrl",
        "identity[0]",
        "identity[0].user",
        "identity[1].tokens[0].user",
        "identity[1].tokens[0].sha256",
        "limits.body",
        "limits.perUser",
        "mcpServers.a",
        "mcpServers.a.comand",
        "mcpServers.a.env.Z",
        "mcpServers.b.command",
        "mcpServers.b.args[0].$userToken",
        "mcpServers.b.args[1]",
    ];
    assert_eq!(paths, expected, "{problems}");
    assert!(problems.ends_with(&format!("\n{} problems\n", expected.len())), "{problems}");
    assert!(!problems.contains("sk-"), "a value is shown:\n{problems}");
    assert_eq!(code, Some(2));
}

#[test]
fn a_problem_shows_its_line() {
    let (_, problems, _) = Place::new("{ \"mcpServers\": {},\n  \"listen\": \"nowhere\" }").check(&[], &[]);
    for expected in ["tollbridge.json:2:13", "\"listen\": \"nowhere\" }", "^^^^^^^^^", "= help: write IP:PORT"] {
        assert!(problems.contains(expected), "{expected:?} is missing in\n{problems}");
    }
}

#[test]
fn a_missing_file_is_a_sentence() {
    let (_, problems, code) = said(tollbridge().args(["check", "--config", "/no/such/file"]).output().unwrap());
    assert!(problems.starts_with("error: cannot read /no/such/file: No such file"), "{problems}");
    assert_eq!(code, Some(2));
}

#[test]
fn disabled_servers_are_checked_but_not_looked_up() {
    let server = |fields: &str| format!("{{ \"mcpServers\": {{ \"s\": {{ \"disabled\": true, {fields} }} }} }}");
    let missing = r#""command": "no-such-program", "cwd": "nowhere", "env": { "A": { "$env": "MISSING" } }"#;
    assert_eq!(Place::new(&server(missing)).check(&[], &[]).2, Some(0));
    let (_, problems, code) = Place::new(&server(r#""command": "x", "startTimeout": "1""#)).check(&[], &[]);
    assert!(problems.contains("mcpServers.s.startTimeout: this is not a time"), "{problems}");
    assert_eq!(code, Some(2));
}

#[test]
fn a_server_that_lacks_a_variable_is_named_when_that_is_allowed() {
    let text = r#"{ "mcpServers": { "s": { "url": { "$env": "MISSING" } } } }"#;
    let (summary, _, code) = Place::new(text).check(&["--allow-missing-env"], &[]);
    assert!(summary.contains("server s (a variable it needs is not set here)"), "{summary}");
    assert_eq!(code, Some(0));
}

fn schema() -> serde_json::Value {
    let (schema, _, code) = said(tollbridge().arg("schema").output().unwrap());
    assert_eq!(code, Some(0));
    serde_json::from_str(&schema).unwrap()
}

#[test]
fn the_schema_accepts_the_example_and_refuses_mistakes() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let example: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    if let Err(error) = validator.validate(&example) {
        panic!("{error} at {}", error.instance_path());
    }
    for place in ["/mcpServers", "/tokenStore/path", "/identity/0/tokens", "/tokenStore/keys/0/id"] {
        let mut file = example.clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
        assert!(!validator.is_valid(&file), "{place} may be left out");
    }
    for (place, wrong) in [
        ("/listen", serde_json::json!(8080)),
        ("/listen", serde_json::Value::Null),
        ("/identity/0/kind", serde_json::json!("nobody")),
        ("/identity/0/user", serde_json::json!("alice")),
        ("/tokenStore/prefix", serde_json::json!("x")),
        ("/limits", serde_json::json!({ "queue": "2" })),
        ("/limits", serde_json::json!({ "perUser": "2" })),
        ("/mcpServers/whoami/comand", serde_json::json!("x")),
        ("/mcpServers/whoami/url", serde_json::json!("https://a.example")),
        ("/mcpServers/whoami/env/X", serde_json::json!(5)),
        ("/mcpServers/whoami/env/X", serde_json::json!({ "$userToken": "no hole" })),
    ] {
        let mut file = example.clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        file.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(field.to_owned(), wrong);
        assert!(!validator.is_valid(&file), "{place}");
    }
}

#[test]
fn which_tools_may_be_used_is_told() {
    let text = r#"{ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "s": { "command": "sh",
        "tools": { "allow": ["search_*", "read"], "deny": ["*_all"],
            "groups": { "staff": { "deny": ["drop"] }, "guests": { "allow": [] } } } }, "t": { "command": "sh" } } }"#;
    let (summary, _, code) = Place::new(text).check(&[], &[]);
    assert_eq!(code, Some(0));
    let told: Vec<_> = summary.lines().filter(|line| line.contains("tools  ")).map(str::trim).collect();
    let everybody = "tools      search_*, read except *_all";
    let groups = ["tools      none, for group:guests", "tools      all except drop, for group:staff"];
    assert_eq!(told, [everybody, groups[0], groups[1]]);
}
