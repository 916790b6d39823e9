//! Sealing keys: every record sealed anew while bridges run, and an old key let go.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::keyring::OpenError;
use tollbridge::store::{
    KeyStatus, LeftAlone, Over, Record, Retired, Rotated, SavedBy, StoreError, TokenStore, Written,
};

use crate::home::{
    Home, Key, PATIENCE, Seen, Tokens as _, embedded_kind, fixed, found, key, look, name, ring, secret, server, user,
};
use crate::rotation::{Shared, bearer};
use crate::support::home::TOLLBRIDGE;
use crate::support::{self, Bridge, Client, free_address, sha256_hex};

const DAY: Duration = Duration::from_hours(24);
/// How far clocks may be apart.
const CLOCK_ERROR: Duration = Duration::from_mins(5);

pub(crate) async fn all_records_are_sealed_with_the_first_key_and_keep_what_is_noted(home: Home) {
    const USERS: usize = 120;
    let (old, new) = (key("k1"), key("k2"));
    let before = home.open(std::slice::from_ref(&old));
    for number in 0..USERS {
        let record = Record::token(UnixTime(1_000), SavedBy::Page, secret(&format!("t{number}")));
        before.save(&user(&format!("u{number}")), &server("notion"), &record, Over::Anything).await.unwrap();
    }
    let alice = user("u0");
    let fields = Record { saved_by: Some(SavedBy::Api), ..crate::home::record(2_000, &[("a", "1"), ("b", "2")]) };
    before.save(&alice, &server("linear"), &fields, Over::Anything).await.unwrap();
    before.used(&alice, &server("notion"), 1).await;
    let said = |store: TokenStore| async move {
        let overview = store.overview(&user("u0")).await.unwrap();
        let about = |o: &tollbridge::store::Overview| {
            let about = o.about.as_ref().unwrap();
            (o.server.clone(), o.last_used, about.saved_at, about.saved_by)
        };
        overview.iter().map(about).collect::<Vec<_>>()
    };
    let said_before = said(home.open(std::slice::from_ref(&old))).await;
    assert!(said_before.iter().any(|(_, last_used, _, by)| last_used.is_some() && *by == Some(SavedBy::Page)));

    let rotated = home.open(&[new.clone(), old]);
    let never = |left: LeftAlone| panic!("{left:?}");
    let all = Rotated { resealed: USERS + 1, left_alone: 0 };
    assert_eq!(rotated.rotate(None, never).await.unwrap(), all);
    let again = Rotated::default();
    assert_eq!(rotated.rotate(None, never).await.unwrap(), again);
    let status = rotated.key_status().await.unwrap();
    assert_eq!(status.unknown, 0);
    let expected = KeyStatus { records: USERS + 1, owners: USERS, proof: Some(Ok(())), ..KeyStatus::default() };
    assert_eq!(status.keys["k2"], expected);
    assert_eq!((status.keys["k1"].records, status.keys["k1"].owners), (0, 0));
    assert_eq!(said(rotated).await, said_before);
    // Nothing needs the old key any more, but that it wrote here is known.
    let alone = home.open(std::slice::from_ref(&new));
    for number in 0..USERS {
        assert_eq!(look(&alone, &user(&format!("u{number}")), "notion").await, found(&format!("t{number}")));
    }
    assert_eq!(alone.check().await, Err(StoreError::Sealed(OpenError::UnknownKey)));
}

pub(crate) async fn swapped_and_damaged_records_are_named_and_untouched(home: Home) {
    let keys = [key("k2"), key("k1")];
    let before = home.open(&keys[1..]);
    let users = ["alice", "bob", "carol", "dave", "erin"].map(user);
    for user in &users {
        before.set(user, &server("notion"), &secret(user.subject())).await.unwrap();
    }
    let [alice, bob, carol, dave, _] = users.each_ref().map(|user| name(&keys[1..], user));
    let raw = |name: &str| home.raw(name, "notion").unwrap();
    let (of_alice, of_bob) = (raw(&alice), raw(&bob));
    home.put_raw(&alice, "notion", &of_bob);
    home.put_raw(&bob, "notion", &of_alice);
    let mut damaged = raw(&carol);
    *damaged.last_mut().unwrap() ^= 1;
    home.put_raw(&carol, "notion", &damaged);
    home.put_raw(&dave, "notion", b"\x03of a later year");
    home.put_raw("not-a-name-of-ours", "notion", b"what is this");
    let mut named = BTreeSet::new();
    let store = home.open(&keys);
    let done = store
        .rotate(None, |left| {
            assert!(matches!(left.why, StoreError::Sealed(_) | StoreError::Shape), "{left:?}");
            assert_eq!(left.server, "notion");
            named.insert(left.user.map_or(left.name, |user| user.subject().to_owned()));
        })
        .await
        .unwrap();
    assert_eq!(done, Rotated { resealed: 1, left_alone: 5 });
    assert_eq!(named, ["alice", "bob", "carol", "dave", "not-a-name-of-ours"].map(str::to_owned).into());
    assert_eq!((raw(&alice), raw(&bob), raw(&carol)), (of_bob, of_alice, damaged));
    assert_eq!(raw(&dave), b"\x03of a later year");
    assert_eq!(look(&store, &users[4], "notion").await, found("erin"));
    let status = store.key_status().await.unwrap();
    assert_eq!((status.unknown, status.keys["k1"].records, status.keys["k1"].unreadable), (2, 3, 3));
    assert!(matches!(store.retire("k1", DAY).await, Ok(Retired::Needed(_))));
    // Who lacks the key that sealed them seals nothing, for it would look as if there were nothing.
    let stranger = home.open(&keys[..1]);
    let failed = stranger.rotate(None, |left| panic!("{left:?}")).await;
    assert_eq!(failed, Err(StoreError::Sealed(OpenError::UnknownKey)));
}

pub(crate) async fn a_key_that_is_needed_is_not_retired(home: Home) {
    let (old, new) = (key("k1"), key("k2"));
    let (clock, time) = fixed(1_000);
    let (alice, notion) = (user("alice"), server("notion"));
    let behind = home.open_at(&[old.clone(), new.clone()], clock.clone());
    let store = home.open_at(&[new.clone(), old.clone()], clock);
    let never = |left: LeftAlone| panic!("{left:?}");
    behind.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
    assert_eq!(store.retire("k2", DAY).await.unwrap(), Retired::IsFirst);
    assert_eq!(store.retire("k3", DAY).await.unwrap(), Retired::Unknown);
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::Needed(1));
    behind.delete(&alice, &notion).await.unwrap();
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::NotRotated);
    behind.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
    assert_eq!(store.rotate(None, never).await.unwrap().resealed, 1);
    let until = |at: u64| UnixTime(at + (DAY + CLOCK_ERROR).as_secs());
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::SessionsUntil(until(1_000)));
    // A node with the old order seals with the old key again.
    time.store(until(1_000).0, Ordering::Relaxed);
    behind.set(&alice, &notion, &secret("ntn_2")).await.unwrap();
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::Needed(1));
    assert_eq!(store.rotate(None, never).await.unwrap().resealed, 1);
    let last = until(until(1_000).0);
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::SessionsUntil(last));
    // Sealing nothing anew changes nothing.
    time.store(last.0 - 1, Ordering::Relaxed);
    assert_eq!(store.rotate(None, never).await.unwrap().resealed, 0);
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::SessionsUntil(last));
    time.store(last.0, Ordering::Relaxed);
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::Done);
    assert_eq!(store.retire("k1", DAY).await.unwrap(), Retired::Unknown);
    let alone = home.open(&[new]);
    alone.check().await.unwrap();
    assert_eq!(look(&alone, &alice, "notion").await, found("ntn_2"));
    assert_eq!(look(&alone, &user("bob"), "notion").await, Seen::Absent);
}

#[tokio::test]
async fn a_missing_key_is_503_with_its_own_metric_and_overwrites_nothing() {
    let (shared, admin) = (Shared::new(), free_address());
    let (alice, whoami) = (user("alice"), server("whoami"));
    let before = shared.open(&shared.keys[1..]);
    before.set(&alice, &whoami, &secret("token-of-alice")).await.unwrap();
    let place = Shared::place(&shared.keys[1..], "alice");
    let record = || shared.redis.raw::<Vec<u8>>(&["HGET", &place, "whoami"]).unwrap();
    let sealed = record();
    // One node lacks the key, another has a wrong one under its id.
    for keys in [shared.keys[..1].to_vec(), vec![key("k1")]] {
        shared.configure(&shared.token_store(&keys), &["alice".to_owned(), "bob".to_owned()], Some(admin));
        let bridge = Bridge::start_in(&shared.home, &[]);
        for (calls, who) in [(1.0, "alice"), (2.0, "bob")] {
            let answer = Client::modern(&bridge, "whoami", Some(&bearer(who))).call("whoami", json!({})).await.unwrap();
            assert_eq!(answer.status, 503, "{who}");
            assert!(!answer.response().to_string().contains("no token"), "{}", answer.response());
            assert_eq!(support::metric(admin, "tollbridge_store_unopened_total").await, Some(calls));
        }
        let config = shared.home.config();
        let config = config.to_string_lossy();
        let set = ["token", "set", "--config", &config, "--user", "alice", "--server", "whoami"];
        for command in [&set[..], &["keys", "rotate", "--config", &config]] {
            assert_eq!(shared.home.output(command, b"another").status.code(), Some(1), "{command:?}");
        }
        let store = shared.open(&keys);
        let another = Record::token(UnixTime(1), SavedBy::Api, secret("another"));
        for over in [Over::Anything, Over::Nothing] {
            let saved = store.save(&alice, &whoami, &another, over).await;
            assert!(matches!(saved, Err(StoreError::Sealed(_))), "{saved:?}");
        }
        assert_eq!(record(), sealed);
        assert!(
            !shared.redis.raw::<bool>(&["EXISTS", &Shared::place(&keys[..1], "alice")]).unwrap() || keys[0].0 == "k1"
        );
    }
    assert_eq!(look(&before, &alice, "whoami").await, found("token-of-alice"));
    assert!(matches!(before.read(&alice, &whoami).await, Ok(Some(_))));
}

#[tokio::test]
async fn the_commands_say_what_each_key_seals_and_what_was_done() {
    let shared = Shared::new();
    let before = shared.open(&shared.keys[1..]);
    let saved = before
        .save(&user("alice"), &server("whoami"), &Record::token(UnixTime(1), SavedBy::Cli, secret("t")), Over::Nothing)
        .await;
    assert!(matches!(saved, Ok(Written::Done(_))));
    shared.configure(&shared.token_store(&shared.keys), &["alice".to_owned()], None);
    let config = shared.home.config();
    let config = config.to_string_lossy();
    let run = |arguments: &[&str]| {
        let output = shared.home.output(&[&["keys"], arguments, &["--config", &config]].concat(), b"");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, said, _) = run(&["status"]);
    let lines = "k2\tseals what is saved now\tseals 0 tokens of 0 users\thas never sealed anything here\n\
        k1\topens what it sealed before\tseals 1 token of 1 user\tis the right key\tsessions may need it: run `tollbridge keys rotate`\n";
    assert_eq!((code, &*said), (0, lines));
    let (code, _, why) = run(&["retire", "k1"]);
    assert!(
        code == 1 && why.contains("k1 is not retired: it still seals 1 token; run `tollbridge keys rotate`"),
        "{why}"
    );
    assert_eq!(run(&["rotate"]), (0, "sealed 1 token with k2\n".to_owned(), String::new()));
    let (_, said, _) = run(&["status"]);
    let (first, second) = said.split_once('\n').unwrap();
    assert_eq!(first, "k2\tseals what is saved now\tseals 1 token of 1 user\tis the right key");
    assert!(
        second.starts_with("k1\topens what it sealed before\tseals 0 tokens of 0 users\tis the right key\tsessions may need it until 20"),
        "{second}"
    );
    let (code, _, why) = run(&["retire", "k1"]);
    assert!(code == 1 && why.contains("k1 is not retired: sessions may need it until 20"), "{why}");
    // A day later.
    shared.redis.raw::<()>(&["HSET", "tollbridge:rotated", "k1", "1000"]).unwrap();
    let (code, said, _) = run(&["retire", "k1"]);
    assert_eq!((code, &*said), (0, "nothing needs k1 any more: take it out of tokenStore.keys on every node\n"));
    shared.configure(&shared.token_store(&shared.keys[..1]), &["alice".to_owned()], None);
    let (_, said, _) = run(&["status"]);
    assert_eq!(said, "k2\tseals what is saved now\tseals 1 token of 1 user\tis the right key\n");
    assert!(run(&["rotate", "--rate", "0"]).0 == 2);
}

#[tokio::test]
async fn an_embedded_store_is_rotated_beside_a_bridge_that_reads_and_a_writer() {
    const USERS: usize = 150;
    let home = support::Home::new();
    let keys = [key("k2"), ("k1", std::fs::read_to_string(home.key()).unwrap().trim().to_owned())];
    std::fs::write(home.path().join("k2.key"), &keys[0].1).unwrap();
    std::fs::set_permissions(home.path().join("k2.key"), Permissions::from_mode(0o600)).unwrap();
    let mut config = json!({
        "identity": [{ "kind": "local", "user": "u0" }],
        "tokenStore": home.embedded(),
        "mcpServers": { "whoami": {
            "command": support::server("whoami"), "args": [format!("marker={}", home.marker())],
            "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } }, "requiresUserToken": true,
        } },
    });
    config["tokenStore"]["keys"] = json!([{ "id": "k2", "file": "k2.key" }, { "id": "k1", "file": home.key() }]);
    let open = |keys: &[Key]| {
        let kind = embedded_kind(home.path().join("data"));
        TokenStore::open(&kind, Arc::new(ring(keys)), Clock::System).unwrap()
    };
    let before = open(&keys[1..]);
    for number in 0..USERS {
        before.set(&user(&format!("u{number}")), &server("whoami"), &secret("first")).await.unwrap();
    }
    let bridge = home.serve(config);
    let mut client = Client::modern(&bridge, "whoami", None);
    let mut rotation = Command::new(TOLLBRIDGE)
        .args(["keys", "rotate", "--rate", "100", "--config"])
        .arg(home.config())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let store = open(&keys);
    let mut number = 0;
    let done = loop {
        let answer = client.call("whoami", json!({})).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, sha256_hex(b"first")));
        // Never that of u0, whom the bridge takes everybody for.
        number = number % (USERS - 1) + 1;
        store.set(&user(&format!("u{number}")), &server("whoami"), &secret("second")).await.unwrap();
        assert_eq!(look(&store, &user(&format!("u{number}")), "whoami").await, found("second"));
        if let Some(done) = rotation.try_wait().unwrap() {
            break done;
        }
    };
    assert!(done.success() && number > 1, "{done}, {number}");
    let status = store.key_status().await.unwrap();
    assert_eq!((status.keys["k1"].records, status.keys["k2"].records), (0, USERS));
}

#[tokio::test]
async fn a_call_is_one_question_to_the_store_and_notes_its_use_once_an_hour() {
    const CALLS: usize = 20;
    let shared = Shared::new();
    let store = shared.open(&shared.keys[..1]);
    store.set(&user("alice"), &server("whoami"), &secret("token-of-alice")).await.unwrap();
    shared.configure(&shared.token_store(&shared.keys[..1]), &["alice".to_owned()], None);
    let bridge = Bridge::start_in(&shared.home, &[]);
    let mut client = Client::modern(&bridge, "whoami", Some(&bearer("alice")));
    client.call("whoami", json!({})).await.unwrap();
    let noted = support::procs::eventually(PATIENCE, || {
        let notes: Vec<String> = shared.redis.raw(&["KEYS", "tollbridge:notes:*"]).unwrap();
        (!notes.is_empty()).then_some(())
    });
    assert!(noted.await.is_some(), "the first use is noted");
    shared.redis.raw::<()>(&["CONFIG", "RESETSTAT"]).unwrap();
    for _ in 0..CALLS {
        assert_eq!(client.call("whoami", json!({})).await.unwrap().status, 200);
    }
    let stats: String = shared.redis.raw(&["INFO", "commandstats"]).unwrap();
    let asked = |command: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    };
    // The record, and in the same question which keys wrote to the store.
    assert_eq!((asked("hget"), asked("hgetall")), (CALLS, CALLS));
    let others = ["eval", "hset", "hmget", "set", "get", "exists", "zscore", "scan"];
    assert_eq!(others.map(asked), [0; 8], "{stats}");
    assert!(store.overview(&user("alice")).await.unwrap()[0].last_used.is_some());
}
