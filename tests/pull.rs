//! `tollbridge pull`, with an engine's client that only says what it was asked.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// Pulls for these servers with a `docker` that takes note of its arguments and knows no image called `missing`.
fn pull(servers: &str) -> (Output, String) {
    let place = tempfile::tempdir().unwrap();
    let (docker, notes) = (place.path().join("docker"), place.path().join("notes"));
    let script = format!("#!/bin/sh\necho \"$*\" >>{}\ncase $* in *missing*) exit 1 ;; esac\n", notes.display());
    fs::write(&docker, script).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let config = place.path().join("tollbridge.json");
    fs::write(&config, format!("{{ \"mcpServers\": {servers} }}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
    command.args(["pull", "--config"]).arg(config).env_clear().env("PATH", place.path());
    let output = command.output().unwrap();
    (output, fs::read_to_string(notes).unwrap_or_default())
}

#[test]
fn every_image_is_pulled_once_from_its_own_engine() {
    let (output, asked) = pull(
        r#"{ "a": { "image": "mcp/a:1" }, "again": { "image": "mcp/a:1", "args": ["x"] },
            "raw": { "command": "docker", "args": ["-H", "unix:///x", "run", "-i", "mcp/b:2", "serve"] },
            "off": { "image": "mcp/off", "disabled": true }, "web": { "url": "https://a.example" } }"#,
    );
    assert_eq!(asked, "pull --quiet mcp/a:1\n-H unix:///x pull --quiet mcp/b:2\n");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "pulled mcp/a:1 (server a)\npulled mcp/b:2 (server raw)\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_and_the_others_are_pulled() {
    let (output, asked) = pull(r#"{ "a": { "image": "mcp/missing" }, "b": { "image": "mcp/b" } }"#);
    assert_eq!(asked, "pull --quiet mcp/missing\npull --quiet mcp/b\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "FAILED mcp/missing (server a)\npulled mcp/b (server b)\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 of 2 images were not pulled"));
}
