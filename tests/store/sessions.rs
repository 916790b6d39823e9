//! What is kept of sessions, on every store.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tollbridge::keyring::OpenError;
use tollbridge::store::{Lookup, MAX_SUBSCRIPTIONS, MAX_URI, SessionState, StoreError};

use crate::HOUR;
use crate::home::{Home, fixed, key, secret, server, user};

pub(crate) async fn an_ended_session_is_ended_on_every_handle_until_it_expires(home: Home) {
    let keys = [key("k1")];
    let (clock, time) = fixed(1_000);
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock.clone()));
    assert!(!other.session_state("s1").await.unwrap().revoked);
    one.revoke("s1", Duration::from_hours(1)).await.unwrap();
    one.revoke("s2", Duration::from_millis(1)).await.unwrap();
    assert!(other.session_state("s1").await.unwrap().revoked);
    assert!(!other.session_state("s3").await.unwrap().revoked);
    assert!(home.open_at(&[key("k2"), keys[0].clone()], clock).session_state("s1").await.unwrap().revoked);
    // Redis counts the time itself; the embedded store asks the clock.
    time.store(1_002, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(5);
    while other.session_state("s2").await.unwrap().revoked {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(other.session_state("s1").await.unwrap().revoked);
}

/// What a session with this level and these subscriptions looks like.
fn state(level: Option<&str>, subscriptions: &[&str]) -> SessionState {
    let subscriptions = subscriptions.iter().map(|&uri| uri.to_owned()).collect();
    SessionState { level: level.map(str::to_owned), subscriptions, ..SessionState::default() }
}

pub(crate) async fn a_session_s_level_and_subscriptions_are_seen_by_every_handle_and_by_no_other_session(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    assert_eq!(other.session_state("s1").await.unwrap(), SessionState::default());
    one.set_level("s1", "info", HOUR).await.unwrap();
    one.set_level("s1", "error", HOUR).await.unwrap();
    for uri in ["b://", "a://", "b://"] {
        assert!(one.subscribe("s1", uri, HOUR).await.unwrap());
    }
    assert_eq!(other.session_state("s1").await.unwrap(), state(Some("error"), &["a://", "b://"]));
    other.unsubscribe("s1", "b://").await.unwrap();
    other.unsubscribe("s1", "c://").await.unwrap();
    assert_eq!(one.session_state("s1").await.unwrap(), state(Some("error"), &["a://"]));
    assert_eq!(one.session_state("s2").await.unwrap(), SessionState::default());
}

pub(crate) async fn a_session_has_room_for_so_many_subscriptions_and_no_more(home: Home) {
    let store = home.open(&[key("k1")]);
    store.set_level("s1", "info", HOUR).await.unwrap();
    for number in 0..MAX_SUBSCRIPTIONS {
        assert!(store.subscribe("s1", &format!("{number}://"), HOUR).await.unwrap());
    }
    assert!(!store.subscribe("s1", "one-more://", HOUR).await.unwrap());
    assert!(store.subscribe("s1", "7://", HOUR).await.unwrap(), "it is there already");
    store.unsubscribe("s1", "7://").await.unwrap();
    assert!(!store.subscribe("s1", &"x".repeat(MAX_URI + 1), HOUR).await.unwrap());
    assert!(store.subscribe("s1", &"x".repeat(MAX_URI), HOUR).await.unwrap());
    assert_eq!(store.session_state("s1").await.unwrap().subscriptions.len(), MAX_SUBSCRIPTIONS);
}

pub(crate) async fn what_is_kept_of_a_session_outlives_a_change_of_the_sealing_key(home: Home) {
    let (old, new) = (key("k1"), key("k2"));
    let before = home.open(std::slice::from_ref(&old));
    before.set_level("s1", "info", HOUR).await.unwrap();
    for uri in ["a://", "b://"] {
        assert!(before.subscribe("s1", uri, HOUR).await.unwrap());
    }
    let rotated = home.open(&[new, old]);
    assert_eq!(rotated.session_state("s1").await.unwrap(), state(Some("info"), &["a://", "b://"]));
    rotated.set_level("s1", "error", HOUR).await.unwrap();
    rotated.unsubscribe("s1", "a://").await.unwrap();
    assert!(rotated.subscribe("s1", "b://", HOUR).await.unwrap());
    assert_eq!(rotated.session_state("s1").await.unwrap(), state(Some("error"), &["b://"]));
}

pub(crate) async fn a_token_and_its_session_are_found_in_one_question(home: Home) {
    let store = home.open(&[key("k1")]);
    let (alice, notion) = (user("alice"), server("notion"));
    store.set(&alice, &notion, &secret("ntn_1")).await.unwrap();
    store.set_level("s1", "info", HOUR).await.unwrap();
    store.revoke("s1", HOUR).await.unwrap();
    let (token, session) = store.lookup_in_session(&alice, &notion, "s1").await;
    assert!(matches!(token, Lookup::Found(token) if token.expose() == "ntn_1"));
    assert_eq!(session.unwrap(), SessionState { revoked: true, ..state(Some("info"), &[]) });
    let (token, session) = store.lookup_in_session(&user("bob"), &notion, "s2").await;
    assert!(matches!(token, Lookup::Absent));
    assert_eq!(session.unwrap(), SessionState::default());
}

pub(crate) async fn a_session_is_claimed_by_one_listener_at_a_time(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    assert!(one.claim("s1", None, "first", HOUR).await.unwrap());
    assert!(!other.claim("s1", None, "second", HOUR).await.unwrap());
    let seen = other.session_state("s1").await.unwrap().listener.unwrap();
    assert_eq!(seen.address, "first");
    let claims =
        tokio::join!(one.claim("s1", Some(&seen), "third", HOUR), other.claim("s1", Some(&seen), "fourth", HOUR));
    assert!(claims.0.unwrap() != claims.1.unwrap(), "one of two that saw the same takes its place");
    assert!(!one.claim("s1", Some(&seen), "fifth", HOUR).await.unwrap(), "what was seen is there no more");
    assert!(one.subscribe("s1", "a://", HOUR).await.unwrap());
}

pub(crate) async fn a_tampered_session_is_failed_and_not_empty(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    store.set_level("s1", "info", HOUR).await.unwrap();
    store.set_level("s2", "error", HOUR).await.unwrap();
    home.swap_levels(&keys, ["s1", "s2"]);
    let tampered = Err(StoreError::Sealed(OpenError::Tampered));
    assert_eq!(store.session_state("s1").await, tampered);
}
