//! One suite of behaviour for every token store; `redis_outage` and `embedded_files` hold what only one of them has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "store/as_root.rs"]
mod as_root;
#[path = "store/backup.rs"]
mod backup;
#[path = "store/cells.rs"]
mod cells;
#[path = "store/embedded_files.rs"]
mod embedded_files;
#[path = "store/home.rs"]
mod home;
#[path = "store/keys.rs"]
mod keys;
#[path = "store/proxy.rs"]
mod proxy;
#[path = "store/rates.rs"]
mod rates;
#[path = "store/records.rs"]
mod records;
#[path = "store/redis_outage.rs"]
mod redis_outage;
#[path = "store/redis_path.rs"]
mod redis_path;
#[path = "store/redis_server.rs"]
mod redis_server;
#[path = "store/redis_tls.rs"]
mod redis_tls;
#[path = "store/rotation.rs"]
mod rotation;
#[path = "store/sessions.rs"]
mod sessions;
#[path = "store/shown.rs"]
mod shown;
mod support;
#[path = "store/timeouts.rs"]
mod timeouts;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use backup::{
    a_backup_brings_back_what_is_gone_and_nothing_older_over_what_is_newer,
    a_backup_goes_into_a_store_of_another_kind_and_other_keys, a_damaged_backup_is_told_from_a_whole_one,
};
use cells::{
    a_cell_ends_with_its_time, a_cell_is_written_over_what_was_seen_alone, a_cell_opens_in_its_place_and_as_it_was,
    a_lease_is_its_owner_s_until_it_is_given_back_or_over, cells_outlive_a_change_of_the_sealing_key,
    of_several_who_take_what_lies_in_a_cell_one_has_it,
};
use home::{
    Home, PATIENCE, Seen, Tokens as _, embedded_kind, found, key, look, name, redis_kind_within, ring, secret, server,
    user,
};
use keys::{
    a_key_that_is_needed_is_not_retired, all_records_are_sealed_with_the_first_key_and_keep_what_is_noted,
    swapped_and_damaged_records_are_named_and_untouched,
};
use records::{
    a_change_over_a_revision_that_is_gone_changes_nothing, a_mark_ends_with_its_time,
    a_quota_is_of_all_nodes_and_of_one_minute, a_record_in_place_of_one_that_was_removed_is_noted_when_it_is_used,
    a_record_of_fields_is_foreign_to_an_older_node_and_left_alone,
    a_record_of_one_unnamed_value_is_one_an_older_node_reads, a_removed_token_takes_its_notes_with_it,
    a_use_while_a_record_is_replaced_is_noted, an_overview_says_of_each_record_what_may_be_shown,
    one_of_two_savers_at_once_is_told, the_hour_of_use_is_written_once, what_does_not_open_is_not_written_over,
};
use sessions::{
    a_session_has_room_for_so_many_bytes_and_a_user_for_so_many_sessions,
    a_session_has_room_for_so_many_subscriptions_and_no_more, a_session_is_claimed_by_one_listener_at_a_time,
    a_session_s_level_and_subscriptions_are_seen_by_every_handle_and_by_no_other_session,
    a_session_that_a_fast_node_has_ended_is_ended_for_a_slow_one_as_long_as_that_takes_it,
    a_tampered_session_is_failed_and_not_empty, a_token_and_its_session_are_found_in_one_question,
    an_ended_session_is_ended_on_every_handle_and_takes_nothing_more,
    ended_sessions_are_forgotten_once_no_node_takes_them_any_more, session,
    so_many_ended_sessions_are_remembered_and_with_one_more_all_older_ones_count_as_ended,
    what_is_kept_of_a_session_outlives_a_change_of_the_sealing_key,
};
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::config::TokenStoreKind;
use tollbridge::keyring::OpenError;
use tollbridge::store::{Entry, Listing, StoreError, TokenStore};
use tollbridge::user::UserId;

/// Runs each behaviour against every store.
macro_rules! on_every_store {
    ($($behaviour:ident),+ $(,)?) => {
        mod on_redis {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Home::redis()).await; })+
        }
        mod on_embedded {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Home::embedded()).await; })+
        }
    };
}

on_every_store! {
    a_saved_token_is_found_by_its_user_for_its_server_alone,
    a_new_token_takes_the_place_of_the_old,
    what_one_handle_deletes_is_absent_on_another_at_once,
    a_copied_record_opens_nowhere_else,
    a_tampered_record_is_failed_and_left_as_it_is,
    a_wrong_key_is_failed_and_not_absent,
    tokens_outlive_a_change_of_the_sealing_key,
    a_newer_version_s_record_is_not_overwritten,
    a_list_shows_names_and_dates_and_no_token,
    a_list_counts_what_it_cannot_read,
    a_change_over_a_revision_that_is_gone_changes_nothing,
    one_of_two_savers_at_once_is_told,
    a_record_of_one_unnamed_value_is_one_an_older_node_reads,
    a_record_of_fields_is_foreign_to_an_older_node_and_left_alone,
    what_does_not_open_is_not_written_over,
    an_overview_says_of_each_record_what_may_be_shown,
    a_removed_token_takes_its_notes_with_it,
    the_hour_of_use_is_written_once,
    a_record_in_place_of_one_that_was_removed_is_noted_when_it_is_used,
    a_use_while_a_record_is_replaced_is_noted,
    a_mark_ends_with_its_time,
    a_quota_is_of_all_nodes_and_of_one_minute,
    all_records_are_sealed_with_the_first_key_and_keep_what_is_noted,
    swapped_and_damaged_records_are_named_and_untouched,
    a_key_that_is_needed_is_not_retired,
    nothing_is_kept_in_the_clear,
    writers_in_two_processes_lose_nothing,
    an_ended_session_is_ended_on_every_handle_and_takes_nothing_more,
    a_session_that_a_fast_node_has_ended_is_ended_for_a_slow_one_as_long_as_that_takes_it,
    ended_sessions_are_forgotten_once_no_node_takes_them_any_more,
    so_many_ended_sessions_are_remembered_and_with_one_more_all_older_ones_count_as_ended,
    a_session_has_room_for_so_many_bytes_and_a_user_for_so_many_sessions,
    a_session_s_level_and_subscriptions_are_seen_by_every_handle_and_by_no_other_session,
    a_session_has_room_for_so_many_subscriptions_and_no_more,
    what_is_kept_of_a_session_outlives_a_change_of_the_sealing_key,
    a_token_and_its_session_are_found_in_one_question,
    a_session_is_claimed_by_one_listener_at_a_time,
    a_tampered_session_is_failed_and_not_empty,
    a_store_that_works_is_ready,
    of_several_who_take_what_lies_in_a_cell_one_has_it,
    a_cell_is_written_over_what_was_seen_alone,
    a_cell_ends_with_its_time,
    a_lease_is_its_owner_s_until_it_is_given_back_or_over,
    a_cell_opens_in_its_place_and_as_it_was,
    cells_outlive_a_change_of_the_sealing_key,
    a_backup_brings_back_what_is_gone_and_nothing_older_over_what_is_newer,
    a_backup_goes_into_a_store_of_another_kind_and_other_keys,
    a_damaged_backup_is_told_from_a_whole_one,
}

async fn a_saved_token_is_found_by_its_user_for_its_server_alone(home: Home) {
    let store = home.open(&[key("k1")]);
    let alice = user("alice");
    assert_eq!(look(&store, &alice, "notion").await, Seen::Absent);
    store.set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
    for other in [user("bob"), user("Alice"), UserId::new("https://idp.example", "alice").unwrap()] {
        assert_eq!(look(&store, &other, "notion").await, Seen::Absent, "{other}");
    }
    for other in ["linear", "Notion"] {
        assert_eq!(look(&store, &alice, other).await, Seen::Absent, "{other}");
    }
}

async fn a_new_token_takes_the_place_of_the_old(home: Home) {
    let store = home.open(&[key("k1")]);
    let long = "x".repeat(16 * 1024);
    for token in ["first", "second", &long] {
        store.set(&user("alice"), &server("notion"), &secret(token)).await.unwrap();
        assert_eq!(look(&store, &user("alice"), "notion").await, found(token));
    }
}

async fn what_one_handle_deletes_is_absent_on_another_at_once(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let (alice, notion) = (user("alice"), server("notion"));
    assert!(!one.delete(&alice, &notion).await.unwrap());
    for _ in 0..20 {
        one.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
        one.set(&alice, &server("linear"), &secret("lin_1")).await.unwrap();
        assert_eq!(look(&other, &alice, "notion").await, found("ntn_1"));
        assert!(one.delete(&alice, &notion).await.unwrap());
        assert_eq!(look(&other, &alice, "notion").await, Seen::Absent);
        assert_eq!(look(&other, &alice, "linear").await, found("lin_1"));
    }
    assert!(one.delete(&alice, &server("linear")).await.unwrap());
    assert_eq!(one.list(None).await.unwrap(), Listing::default());
}

async fn a_copied_record_opens_nowhere_else(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let (alice, bob) = (user("alice"), user("bob"));
    store.set(&alice, &server("notion"), &secret("alice's")).await.unwrap();
    store.set(&bob, &server("notion"), &secret("bob's")).await.unwrap();
    let record = home.raw(&name(&keys, &alice), "notion").unwrap();
    for (user, server) in [(&bob, "notion"), (&alice, "linear")] {
        home.put_raw(&name(&keys, user), server, &record);
        assert_eq!(look(&store, user, server).await, Seen::Failed(StoreError::Sealed(OpenError::Tampered)));
    }
    assert_eq!(look(&store, &alice, "notion").await, found("alice's"));
}

async fn a_tampered_record_is_failed_and_left_as_it_is(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let alice = user("alice");
    store.set(&alice, &server("notion"), &secret("ntn_1")).await.unwrap();
    let name = name(&keys, &alice);
    let mut record = home.raw(&name, "notion").unwrap();
    *record.last_mut().unwrap() ^= 1;
    home.put_raw(&name, "notion", &record);
    let tampered = StoreError::Sealed(OpenError::Tampered);
    assert_eq!(look(&store, &alice, "notion").await, Seen::Failed(tampered.clone()));
    let entry = Entry { user: alice, server: server("notion"), saved_at: Err(tampered) };
    assert_eq!(store.list(None).await.unwrap().entries, [entry]);
    assert_eq!(home.raw(&name, "notion").unwrap(), record);
}

async fn a_wrong_key_is_failed_and_not_absent(home: Home) {
    let (alice, notion) = (user("alice"), server("notion"));
    let right = home.open(&[key("k1")]);
    right.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
    for (wrong, kind) in [(key("k1"), OpenError::Tampered), (key("k2"), OpenError::UnknownKey)] {
        let store = home.open(&[wrong]);
        for user in [&alice, &user("nobody")] {
            assert_eq!(look(&store, user, "notion").await, Seen::Failed(StoreError::Sealed(kind)));
        }
        let failed = Err(StoreError::Sealed(kind));
        assert_eq!(store.check().await, failed);
        assert_eq!(store.set(&alice, &notion, &secret("ntn_2")).await, failed);
        assert_eq!(store.delete(&alice, &notion).await.map(|_| ()), failed);
    }
    assert_eq!(look(&right, &alice, "notion").await, found("ntn_1"));
    assert_eq!(look(&right, &user("nobody"), "notion").await, Seen::Absent);
}

async fn tokens_outlive_a_change_of_the_sealing_key(home: Home) {
    let (old, new) = (key("k1"), key("k2"));
    let alice = user("alice");
    let before = home.open(std::slice::from_ref(&old));
    for name in ["notion", "linear"] {
        before.set(&alice, &server(name), &secret(name)).await.unwrap();
    }
    let rotated = home.open(&[new.clone(), old.clone()]);
    assert_eq!(look(&rotated, &alice, "notion").await, found("notion"));
    rotated.set(&alice, &server("notion"), &secret("renewed")).await.unwrap();
    assert_eq!(look(&rotated, &alice, "notion").await, found("renewed"));
    assert_eq!(look(&rotated, &alice, "linear").await, found("linear"));
    assert_eq!(rotated.list(None).await.unwrap().entries.len(), 2);
    // The old name was cleared, and who has only the old key knows that there may be more.
    assert_eq!(home.raw(&name(std::slice::from_ref(&old), &alice), "notion"), None);
    assert_eq!(look(&before, &alice, "notion").await, Seen::Failed(StoreError::Sealed(OpenError::UnknownKey)));
    let joined = home.open(&[old, new]);
    assert_eq!(look(&joined, &alice, "notion").await, found("renewed"));
    assert!(joined.delete(&alice, &server("notion")).await.unwrap());
    assert_eq!(look(&rotated, &alice, "notion").await, Seen::Absent);
}

async fn a_newer_version_s_record_is_not_overwritten(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let (alice, notion) = (user("alice"), server("notion"));
    let name = name(&keys, &alice);
    home.put_raw(&name, "notion", b"\x03of a later year");
    assert_eq!(look(&store, &alice, "notion").await, Seen::Failed(StoreError::Sealed(OpenError::Format)));
    assert_eq!(store.set(&alice, &notion, &secret("ntn_1")).await, Err(StoreError::Newer));
    assert_eq!(home.raw(&name, "notion").unwrap(), b"\x03of a later year");
    assert!(store.delete(&alice, &notion).await.unwrap());
    store.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_1"));
}

async fn a_list_shows_names_and_dates_and_no_token(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let foreign = UserId::new("https://idp.example", "alice").unwrap();
    let mut expected = Vec::new();
    for (at, (user, name)) in
        [(user("bob"), "notion"), (user("alice"), "b"), (user("alice"), "a"), (foreign, "a")].into_iter().enumerate()
    {
        let at = 1_000 + at as u64;
        store.set_at(at, &user, &server(name), &secret("hidden")).await.unwrap();
        expected.push(Entry { user, server: server(name), saved_at: Ok(UnixTime(at)) });
    }
    expected.sort_by(|a, b| (&a.user, &a.server).cmp(&(&b.user, &b.server)));
    let all = store.list(None).await.unwrap();
    assert!(!format!("{all:?} {store:?}").contains("hidden"));
    assert_eq!(all, Listing { entries: expected, unreadable: 0 });
    let names = |listing: Listing| listing.entries.into_iter().map(|e| e.server.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.list(Some(&user("alice"))).await.unwrap()), ["a", "b"]);
    assert_eq!(names(store.list(Some(&user("carol"))).await.unwrap()), [""; 0]);
}

async fn a_list_counts_what_it_cannot_read(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    home.put_raw("not-a-name-of-ours", "notion", b"what is this");
    home.put_raw(&name(&keys, &user("alice")), "not a server", b"what is this");
    let listing = store.list(None).await.unwrap();
    assert_eq!((listing.entries.len(), listing.unreadable), (1, 2));
    let stranger = home.open(&[key("k2")]).list(None).await.unwrap();
    assert_eq!((stranger.entries.len(), stranger.unreadable), (0, 3));
}

async fn nothing_is_kept_in_the_clear(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let user = UserId::new("https://idp.example", "subject-of-alice").unwrap();
    store.set(&user, &server("notion"), &secret("ntn_in_the_clear")).await.unwrap();
    store.set_level(&session("nonce-of-a-session"), "level-of-a-session").await.unwrap();
    store.subscribe(&session("nonce-of-a-session"), "file:///of-a-session").await.unwrap();
    store.revoke(&session("nonce-that-was-ended")).await.unwrap();
    let bytes = home.bytes();
    let holds = |text: &str| memchr::memmem::find(&bytes, text.as_bytes()).is_some();
    assert!(holds("notion"), "the test looks in the wrong place");
    for hidden in [
        "ntn_in_the_clear",
        "subject-of-alice",
        "idp.example",
        "nonce-of-a-session",
        "level-of",
        "file:///",
        &keys[0].1,
    ] {
        assert!(!holds(hidden), "{hidden}");
    }
}

async fn writers_in_two_processes_lose_nothing(home: Home) {
    let keys = [key("k1")];
    let (here, also_here) = (home.open(&keys), home.open(&keys));
    let other = second_process(&home.kind(), &keys[0].1, &[]);
    for i in 0..40 {
        let name = server(&format!("s{i}"));
        let [(alice, a), (shared, b)] = [("alice", "a"), ("shared", "b")].map(|(u, t)| (user(u), secret(t)));
        let (one, two) = tokio::join!(here.set(&alice, &name, &a), also_here.set(&shared, &name, &b));
        one.and(two).unwrap();
    }
    other.await.unwrap();
    for (user, tokens) in [("alice", &["a"][..]), ("shared", &["b", "other"]), ("other", &["other"])] {
        for i in 0..40 {
            let Seen::Found(token) = look(&here, &self::user(user), &format!("s{i}")).await else {
                panic!("{user} s{i}");
            };
            assert!(tokens.contains(&&*token), "{user} s{i} {token}");
        }
    }
}

async fn a_store_that_works_is_ready(home: Home) {
    let store = home.open(&[key("k1")]);
    store.check().await.unwrap();
    assert_eq!(store.check_policy().await.unwrap(), []);
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    store.check().await.unwrap();
}

/// Starts [`in_another_process`], which saves tokens in the store of `kind` and ends.
fn second_process(
    kind: &TokenStoreKind,
    key: &str,
    environment: &[(&str, &std::path::Path)],
) -> tokio::task::JoinHandle<()> {
    let (kind, place) = match kind {
        TokenStoreKind::Redis { url, .. } => ("redis", url.expose().to_owned()),
        TokenStoreKind::Embedded { path, .. } => ("embedded", path.to_str().unwrap().to_owned()),
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_another_process", "--ignored"])
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{kind}\n{place}\n{key}").as_bytes()).unwrap();
    tokio::task::spawn_blocking(move || assert!(child.wait().unwrap().success()))
}

#[tokio::test]
#[ignore = "this is the second process of a test, which says on stdin what to do"]
async fn in_another_process() {
    let mut orders = String::new();
    std::io::stdin().read_to_string(&mut orders).unwrap();
    let [kind, place, key] = orders.lines().collect::<Vec<_>>()[..] else { return };
    let kind = match kind {
        "redis" => redis_kind_within(PATIENCE, place.to_owned()),
        _ => embedded_kind(place.into()),
    };
    let store = TokenStore::open(&kind, Arc::new(ring(&[("k1", key.to_owned())])), Clock::System).unwrap();
    for i in 0..40 {
        for subject in ["other", "shared"] {
            store.set(&user(subject), &server(&format!("s{i}")), &secret("other")).await.unwrap();
        }
    }
}
