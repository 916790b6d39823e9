//! The token commands as root, on a host where the bridge is a service with a user of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::unprivileged::{USER, Unprivileged};
use crate::support::{Bridge, Client, Home, server, sha256_hex};

/// The users and directories of `deploy/systemd/tollbridge.service`: the configuration is root's, what the service keeps is below a
/// directory of its user, who alone may enter it.
fn installed() -> Option<Unprivileged> {
    let host = Unprivileged::new()?;
    let home = &host.0;
    let state = home.path().join("state");
    home.run(&["keygen", "--out", &state.join("k1.key").to_string_lossy()], b"");
    for path in [state.join("k1.key"), state.clone()] {
        chown(path, Some(USER), Some(USER)).expect("root may");
    }
    fs::set_permissions(&state, Permissions::from_mode(0o700)).expect("ours");
    let whoami = home.path().join("whoami");
    fs::copy(server("whoami"), &whoami).expect("a copy");
    home.write(json!({
        "identity": [{ "kind": "bearer", "tokens": [{ "user": "alice", "sha256": { "$env": "ALICE_SHA256" } }] }],
        "tokenStore": {
            "kind": "embedded", "path": state.join("data"), "keys": [{ "id": "k1", "file": state.join("k1.key") }]
        },
        "mcpServers": { "whoami": {
            "command": whoami, "args": [format!("marker={}", home.marker())],
            "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" }, "REGION": { "$env": "REGION_OF_THE_SERVICE" } },
        } },
    }));
    Some(host)
}

fn token(home: &Home, arguments: &[&str], input: &[u8]) -> String {
    let config = home.config();
    let config = config.to_string_lossy();
    let arguments = [&["token"], arguments, &["--config", &config]].concat();
    home.run(&arguments, input)
}

fn owners(directory: &Path) -> Vec<u32> {
    let files = fs::read_dir(directory).expect("root may").map(|entry| entry.expect("a file").path());
    files.chain([directory.to_owned()]).map(|path| fs::metadata(path).expect("a file").uid()).collect()
}

#[tokio::test]
async fn root_saves_tokens_that_the_service_reads_and_needs_nothing_of_its_environment() {
    let Some(host) = installed() else { return };
    let home = &host.0;
    let whose = ["--user", "alice", "--server", "whoami"];
    let saved = token(home, &[&["set"][..], &whose].concat(), b"token-of-alice");
    assert_eq!(saved, "saved the token of alice for whoami\n");
    let data = home.path().join("state/data");
    assert!(owners(&data).iter().all(|owner| *owner == USER), "{:?}", owners(&data));

    let hash = sha256_hex(b"a-bearer-token-of-alice-and-nobody-else");
    let mut service = Command::new("setpriv");
    service.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned(), "--".to_owned()]);
    service.arg(home.path().join("tollbridge")).env_remove("TMPDIR").env_remove("XDG_RUNTIME_DIR");
    service.envs([("ALICE_SHA256", hash.as_str()), ("REGION_OF_THE_SERVICE", "eu")]);
    let bridge = Bridge::start_as(home, &mut service, &["--cgroup", "off"]);
    let mut client = Client::modern(&bridge, "whoami", Some("a-bearer-token-of-alice-and-nobody-else"));
    let answer = client.call("whoami", json!({})).await.expect("an answer");
    assert_eq!(answer.text(), sha256_hex(b"token-of-alice"));

    // Beside the running service, too.
    assert!(token(home, &["list"], b"").starts_with("alice\twhoami\t"));
    assert!(!token(home, &["export"], b"").is_empty());
    token(home, &[&["delete"][..], &whose].concat(), b"");
    assert_eq!(token(home, &["list"], b""), "");
    assert!(owners(&data).iter().all(|owner| *owner == USER), "{:?}", owners(&data));
}
