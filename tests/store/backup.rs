//! Backups, on every store; and what is in the files of a bridge that has stopped.

use serde_json::{Value, json};
use tollbridge::store::{BackupError, Restored};

use crate::home::{Home, Seen, Tokens as _, found, key, look, name, secret, server, user};
use crate::support;

pub(crate) async fn a_backup_brings_back_what_is_gone_and_nothing_older_over_what_is_newer(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    for user in [&alice, &bob, &carol] {
        store.set_at(1_000, user, &server("notion"), &secret("ntn_old")).await.unwrap();
    }
    let mut backup = Vec::new();
    assert_eq!(store.export(&mut backup).await.unwrap(), (3, 0));
    assert!(memchr::memmem::find(&backup, b"ntn_old").is_none());
    assert!(memchr::memmem::find(&backup, b"alice").is_none());
    store.delete(&alice, &server("notion")).await.unwrap();
    store.set_at(2_000, &bob, &server("notion"), &secret("ntn_new")).await.unwrap();
    let done = store.restore(&backup[..]).await.unwrap();
    assert_eq!(done, Restored { restored: 1, unchanged: 1, kept: 1, unreadable: 0 });
    for (user, token) in [(&alice, "ntn_old"), (&bob, "ntn_new"), (&carol, "ntn_old")] {
        assert_eq!(look(&store, user, "notion").await, found(token), "{user}");
    }
    // An older one gives way to that of the backup.
    backup.clear();
    store.export(&mut backup).await.unwrap();
    store.set_at(500, &bob, &server("notion"), &secret("ntn_older")).await.unwrap();
    assert_eq!(store.restore(&backup[..]).await.unwrap().restored, 1);
    assert_eq!(look(&store, &bob, "notion").await, found("ntn_new"));
}

pub(crate) async fn a_backup_goes_into_a_store_of_another_kind_and_other_keys(home: Home) {
    let keys = [key("k2"), key("k1")];
    let before = home.open(&keys[1..]);
    before.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    let mut backup = Vec::new();
    before.export(&mut backup).await.unwrap();
    let other = if matches!(home, Home::Redis(_)) { Home::embedded() } else { Home::redis() };
    let store = other.open(&keys);
    assert_eq!(store.restore(&backup[..]).await.unwrap().restored, 1);
    assert_eq!(look(&store, &user("alice"), "notion").await, found("ntn_1"));
    assert_eq!(store.list(None).await.unwrap().entries.len(), 1);
    // Who lacks the key that sealed it is told so, and not that there is none.
    let stranger = other.open(&keys[..1]);
    assert!(matches!(look(&stranger, &user("alice"), "notion").await, Seen::Failed(_)));
    assert!(matches!(stranger.restore(&backup[..]).await, Err(BackupError::Key(id)) if id == "k1"));
}

pub(crate) async fn a_damaged_backup_is_told_from_a_whole_one(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    for user in [user("alice"), user("bob")] {
        store.set(&user, &server("notion"), &secret("ntn_1")).await.unwrap();
    }
    // What is not ours is in no backup, and what does not open is not put back.
    home.put_raw("not-a-name-of-ours", "notion", b"what is this");
    home.put_raw(&name(&keys, &user("alice")), "linear", b"what is this");
    let mut backup = Vec::new();
    assert_eq!(store.export(&mut backup).await.unwrap(), (3, 1));
    let text = String::from_utf8(backup).unwrap();
    let empty = if matches!(home, Home::Redis(_)) { Home::redis() } else { Home::embedded() };
    let store = empty.open(&keys);
    let lines: Vec<&str> = text.lines().collect();
    let without_end = lines[..lines.len() - 1].join("\n") + "\n";
    assert!(matches!(store.restore(without_end.as_bytes()).await, Err(BackupError::CutShort)));
    assert!(matches!(store.restore(&text.as_bytes()[..text.len() - 4]).await, Err(BackupError::Line(_))));
    assert!(matches!(store.restore(&b""[..]).await, Err(BackupError::CutShort)));
    assert!(matches!(store.restore(&b"{}\n"[..]).await, Err(BackupError::Line(1))));
    let done = store.restore(text.as_bytes()).await.unwrap();
    assert_eq!(done, Restored { restored: 0, unchanged: 2, kept: 0, unreadable: 1 });
    let listing = store.list(None).await.unwrap();
    assert_eq!((listing.entries.len(), listing.unreadable), (2, 0));
}

/// A server that needs a token of the user alice, kept in an embedded store of that home.
fn configuration(home: &support::Home) -> Value {
    json!({
        "identity": [{ "kind": "local", "user": "alice" }],
        "tokenStore": home.embedded(),
        "mcpServers": { "whoami": {
            "command": support::server("whoami"), "env": { "TOKEN": { "$userToken": "<<token>>" } }, "requiresUserToken": true,
        } },
    })
}

#[test]
fn the_file_of_a_bridge_that_has_stopped_holds_every_token() {
    let home = support::Home::new();
    let mut bridge = home.serve(configuration(&home));
    // Whoever closes a database last takes its log into it; here that is not the bridge.
    let other = rusqlite::Connection::open(home.path().join("data/tokens.db")).unwrap();
    let keys = "SELECT count(*) FROM keys";
    other.query_row(keys, (), |row| row.get::<_, i64>(0)).unwrap();
    home.set_token("alice", "whoami", "ntn_1");
    assert!(bridge.stop().success());
    let copied = support::Home::new();
    std::fs::copy(home.key(), copied.key()).unwrap();
    copied.write(configuration(&copied));
    let file = copied.path().join("data/tokens.db");
    copied.run(&["token", "list", "--config", &copied.config().to_string_lossy()], b"");
    for name in std::fs::read_dir(file.parent().unwrap()).unwrap() {
        std::fs::remove_file(name.unwrap().path()).unwrap();
    }
    std::fs::copy(home.path().join("data/tokens.db"), &file).unwrap();
    let listed = copied.run(&["token", "list", "--config", &copied.config().to_string_lossy()], b"");
    assert!(listed.starts_with("alice\twhoami\t"), "{listed}");
}

#[test]
fn the_commands_make_a_backup_and_bring_it_back() {
    let home = support::Home::new();
    home.write(configuration(&home));
    let config = home.config();
    let config = config.to_string_lossy();
    home.set_token("alice", "whoami", "ntn_1");
    let backup = home.run(&["token", "export", "--config", &config], b"");
    assert!(!backup.contains("ntn_1") && backup.starts_with("{\"tollbridgeTokens\":1}\n"), "{backup}");
    home.delete_token("alice", "whoami");
    assert_eq!(home.run(&["token", "list", "--config", &config], b""), "");
    let done = home.output(&["token", "restore", "--config", &config], backup.as_bytes());
    assert!(String::from_utf8_lossy(&done.stderr).starts_with("1 tokens restored; 0 were there already; 0 kept"));
    assert!(home.run(&["token", "list", "--config", &config], b"").starts_with("alice\twhoami\t"));
    let cut = home.output(&["token", "restore", "--config", &config], &backup.as_bytes()[..backup.len() - 3]);
    assert_eq!(cut.status.code(), Some(1));
}

#[test]
fn a_read_only_disk_is_called_one() {
    let home = support::Home::new();
    home.write(configuration(&home));
    home.set_token("alice", "whoami", "ntn_1");
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .arg(home.path())
        .arg(support::home::TOLLBRIDGE)
        .args(["token", "delete", "--user", "alice", "--server", "whoami", "--config"])
        .arg(home.config())
        .output()
        .expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("read-only"), "{said}");
}
