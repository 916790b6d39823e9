//! `tollbridge pull`, from a real registry by both engines; what is asked of a client, with one that only says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "containers/engine.rs"]
mod engine;
#[path = "containers/fixture.rs"]
#[expect(dead_code, reason = "the tests of Docker use all of it")]
mod fixture;
mod support;

use std::fs;
use std::process::{Command, Output, Stdio};

use engine::Engine;
use serde_json::{Value, json};
use support::{Client, Home, Registry, procs};

/// Pulls for these servers with a `docker` that takes note of its arguments.
fn pull(servers: &str) -> (Output, String) {
    let place = tempfile::tempdir().unwrap();
    let (docker, notes) = (place.path().join("docker"), place.path().join("notes"));
    let script = format!("#!/bin/sh\necho \"$*\" \"$HTTPS_PROXY\" >>{}\n", notes.display());
    procs::write_program(&docker, &script);
    let config = place.path().join("tollbridge.json");
    fs::write(&config, format!("{{ \"mcpServers\": {servers} }}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
    command
        .args(["pull", "--config"])
        .arg(config)
        .env_clear()
        .env("PATH", place.path())
        .env("HTTPS_PROXY", "(a proxy)");
    let output = command.output().unwrap();
    (output, fs::read_to_string(notes).unwrap_or_default())
}

#[test]
fn every_image_is_pulled_once_by_its_own_engine_through_the_proxy() {
    let (output, asked) = pull(
        r#"{ "a": { "image": "mcp/a:1" }, "again": { "image": "mcp/a:1", "args": ["x"] },
            "raw": { "command": "docker", "args": ["-H", "unix:///x", "run", "-i", "mcp/b:2", "serve"] },
            "off": { "image": "mcp/off", "disabled": true }, "web": { "url": "https://a.example" } }"#,
    );
    assert_eq!(asked, "pull --quiet mcp/a:1 (a proxy)\n-H unix:///x pull --quiet mcp/b:2 (a proxy)\n");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "pulled mcp/a:1 (server a)\npulled mcp/b:2 (server raw)\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_image_is_pulled_as_it_is_run() {
    let (output, asked) = pull(
        r#"{ "one": { "command": "docker", "args": ["run", "--platform", "linux/arm64", "mcp/a:1"] },
            "other": { "command": "docker", "args": ["run", "--tls-verify=false", "--name-of-nobody=1", "mcp/a:1"],
                       "allowUnsafe": ["--tls-verify", "--name-of-nobody"] },
            "same": { "command": "docker", "args": ["run", "--tls-verify=false", "--user", "1", "mcp/a:1"], "allowUnsafe": ["--tls-verify"] } }"#,
    );
    let expected = "pull --quiet --platform=linux/arm64 mcp/a:1 (a proxy)\n\
        pull --quiet --tls-verify=false mcp/a:1 (a proxy)\n";
    assert_eq!(asked, expected, "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

/// Puts an image into the registry, which is nowhere else.
fn publish(engine: &Engine, environment: &[(&str, &str)], name: &str) {
    let container = engine.call(&["create", "tollbridge-test/hostile:1"]);
    let client = |arguments: &[&str]| {
        let mut command = Command::new(engine.kind);
        command.args(arguments).envs(environment.iter().copied());
        command
    };
    let mut export = client(&["export", container.trim()]).stdout(Stdio::piped()).spawn().unwrap();
    let files = export.stdout.take().unwrap();
    let import = client(&["import", "--change", r#"ENTRYPOINT ["/server"]"#, "-", name]).stdin(files).output().unwrap();
    assert!(import.status.success() && export.wait().unwrap().success(), "{import:?}");
    let push = client(&["push", name]).output().unwrap();
    assert!(push.status.success(), "{push:?}");
    engine.call(&["rm", container.trim()]);
    engine.call(&["rmi", name]);
    assert!(!engine.output(&["image", "inspect", name]).status.success(), "it is only in the registry");
}

async fn a_pulled_image_serves_requests(engine: &Engine) {
    let (registry, home) = (Registry::start(), Home::new());
    let settings = registry.settings();
    let mut environment = engine.environment();
    environment.push(("CONTAINERS_REGISTRIES_CONF", settings.to_str().unwrap()));
    let name = format!("{}/hostile:1", registry.address());
    publish(engine, &environment, &name);
    let by_digest = format!("{}/hostile@{}", registry.address(), registry.digest("hostile", "1"));
    let server = |image: &str| json!({ "image": image, "engine": engine.kind, "args": ["polite"] });
    let missing = by_digest.replacen("@sha256:", "@sha256:00", 1)[..by_digest.len()].to_owned();
    let unknown = name.replace("hostile", "nobody");
    let mut pinned = server(&by_digest);
    pinned["requireDigest"] = json!(true);
    // The engine may take its time to say that there is no such image.
    let config = |servers: Value| {
        json!({ "identity": [{ "kind": "local", "user": "alice" }],
        "limits": { "commitDelay": "1m" }, "mcpServers": servers })
    };
    let bridge = home.serve_with(config(json!({ "pinned": pinned, "named": server(&name) })), &environment);
    let call = async |server: &str| Client::modern(&bridge, server, None).call("act", json!({})).await.unwrap();
    for server in ["pinned", "named"] {
        assert_eq!(call(server).await.status, 502, "no request pulls an image");
    }

    let pull = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollbridge"));
        command.args(["pull", "--config"]).arg(home.config()).envs(environment.iter().copied()).output().unwrap()
    };
    let output = pull();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, format!("pulled {name} (server named)\npulled {by_digest} (server pinned)\n"));
    for server in ["pinned", "named"] {
        assert_eq!(call(server).await.text(), "done", "{}", bridge.log());
    }

    home.write(config(json!({ "a": server(&missing), "b": server(&unknown), "c": server(&name) })));
    let output = pull();
    let (said, why) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let expected = format!("FAILED {missing} (server a)\nFAILED {unknown} (server b)\npulled {name} (server c)\n");
    assert_eq!((said.as_str(), output.status.code()), (expected.as_str(), Some(1)), "{why}");
    // The registry's own word, and which image it is of.
    for part in [missing.as_str(), unknown.as_str(), "manifest unknown", "2 of 3 images were not pulled"] {
        assert!(why.contains(part), "{why}");
    }
    assert!(engine.reaches(0, fixture::PATIENCE).await, "nothing uses the image any more");
    engine.call(&["rmi", "--force", &name]);
    engine.output(&["rmi", "--force", &by_digest]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_docker_has_pulled_serves_requests_and_one_that_is_not_there_is_named() {
    a_pulled_image_serves_requests(&Engine::docker().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_podman_has_pulled_serves_requests_and_one_that_is_not_there_is_named() {
    a_pulled_image_serves_requests(&Engine::podman().await).await;
}
