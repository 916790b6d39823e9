//! What is kept of sessions, on every store.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::keyring::OpenError;
use tollbridge::store::{
    CallKey, Lookup, MAX_ENDED, MAX_SESSION, MAX_SESSIONS, MAX_SUBSCRIPTIONS, MAX_URI, Rates, SessionKey, SessionState,
    SessionStatus, SessionUpdate, StoreError, TokenStore,
};
use tollbridge::user::UserId;

use crate::home::{Home, Tokens as _, fixed, key, ring, secret, server, user};

static ALICE: LazyLock<UserId> = LazyLock::new(|| user("alice"));
static BOB: LazyLock<UserId> = LazyLock::new(|| user("bob"));
static IN_AN_HOUR: LazyLock<UnixTime> = LazyLock::new(|| UnixTime(Clock::System.now().0 + 3600));
/// How far clocks may be apart, seconds.
const CLOCK_ERROR: u64 = 300;

/// A session of alice that lasts for an hour.
pub(crate) fn session(nonce: &str) -> SessionKey<'_> {
    SessionKey { user: &ALICE, nonce, expires: *IN_AN_HOUR }
}

/// Whether a session is known to be ended.
pub(crate) async fn is_ended(store: &TokenStore, key: &SessionKey<'_>) -> bool {
    let (status, state) = (store.session_status(key).await.unwrap(), store.session_state(key).await.unwrap());
    assert_eq!(status.is_none(), state.is_none());
    status.is_none()
}

/// What a session with this level and these subscriptions looks like.
fn state(level: Option<&str>, subscriptions: &[&str]) -> SessionState {
    let subscriptions = subscriptions.iter().map(|&uri| uri.to_owned()).collect();
    SessionState { level: level.map(str::to_owned), subscriptions }
}

/// What is kept of a session that has not been ended.
async fn open_state(store: &TokenStore, key: &SessionKey<'_>) -> SessionState {
    store.session_state(key).await.unwrap().expect("it was not ended")
}

async fn kept(noted: impl Future<Output = Result<SessionUpdate, StoreError>>) -> bool {
    match noted.await.unwrap() {
        SessionUpdate::Kept(_) => true,
        SessionUpdate::NoRoom => false,
        SessionUpdate::Ended => panic!("it was ended"),
    }
}

pub(crate) async fn an_ended_session_is_ended_on_every_handle_and_takes_nothing_more(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let (ended, open) = (session("s1"), session("s2"));
    for session in [&ended, &open] {
        assert!(kept(one.set_level(session, "info")).await);
    }
    assert_eq!(one.revoke(&ended).await.unwrap(), None);
    assert_eq!(one.revoke(&ended).await.unwrap(), None, "it can be ended twice");
    assert!(is_ended(&other, &ended).await);
    assert!(!is_ended(&other, &open).await && !is_ended(&other, &SessionKey { user: &BOB, ..ended }).await);
    assert!(is_ended(&home.open(&[key("k2"), keys[0].clone()]), &ended).await);
    assert_eq!(other.set_level(&ended, "info").await, Ok(SessionUpdate::Ended));
    assert_eq!(other.subscribe(&ended, "a://").await, Ok(SessionUpdate::Ended));
    assert_eq!(other.unsubscribe(&ended, "a://").await, Ok(SessionUpdate::Ended));
    assert!(!other.claim(&ended, None, "here").await.unwrap());
    // What is kept of others pushes it out of nothing.
    for n in 0..=MAX_SESSIONS {
        assert!(kept(one.set_level(&session(&format!("n{n}")), "info")).await);
    }
    assert!(is_ended(&other, &ended).await);
}

pub(crate) async fn a_session_that_a_fast_node_has_ended_is_ended_for_a_slow_one_as_long_as_that_takes_it(home: Home) {
    let keys = [key("k1")];
    let ((fast, ahead), (slow, behind)) = (fixed(1_300), fixed(1_000));
    let (fast, slow) = (home.open_at(&keys, fast), home.open_at(&keys, slow));
    let ended = SessionKey { expires: UnixTime(1_301), ..session("s1") };
    fast.revoke(&ended).await.unwrap();
    // Redis counts by itself, and on the fast node the session expires in a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(is_ended(&slow, &ended).await);
    // What else the fast one does forgets nothing while the slow one takes the session.
    ahead.store(1_300 + CLOCK_ERROR, Ordering::Relaxed);
    behind.store(1_300, Ordering::Relaxed);
    fast.revoke(&SessionKey { expires: UnixTime(2_000), ..session("s2") }).await.unwrap();
    assert!(is_ended(&slow, &ended).await);
}

pub(crate) async fn ended_sessions_are_forgotten_once_no_node_takes_them_any_more(home: Home) {
    let (clock, time) = fixed(1_000);
    let store = home.open_at(&[key("k1")], clock);
    let ended = SessionKey { expires: UnixTime(2_000), ..session("s1") };
    let later = SessionKey { expires: UnixTime(9_000), ..session("s2") };
    store.revoke(&ended).await.unwrap();
    time.store(2_001 + CLOCK_ERROR, Ordering::Relaxed);
    store.revoke(&later).await.unwrap();
    assert!(!is_ended(&store, &ended).await && is_ended(&store, &later).await);
}

pub(crate) async fn so_many_ended_sessions_are_remembered_and_with_one_more_all_older_ones_count_as_ended(home: Home) {
    let (clock, _) = fixed(1_000);
    let store = home.open_at(&[key("k1")], clock);
    let nonces: Vec<_> = (0..=MAX_ENDED).map(|n| format!("s{n}")).collect();
    let expiring = |at: u64, nonce| SessionKey { expires: UnixTime(at), ..session(nonce) };
    let end = |range: std::ops::Range<usize>| {
        let all = nonces[range].iter().zip(2_000..).map(|(nonce, at)| (expiring(at, nonce), nonce));
        futures_util::stream::iter(all.collect::<Vec<_>>())
    };
    let store = &store;
    end(0..MAX_ENDED).for_each_concurrent(32, async |(key, _)| drop(store.revoke(&key).await.unwrap())).await;
    let [older, newer] = [expiring(2_001, "older"), expiring(2_002, "newer")];
    assert!(!is_ended(store, &older).await);
    store.revoke(&expiring(5_000, "one-more")).await.unwrap();
    store.revoke(&expiring(5_000, "one-more")).await.unwrap();
    assert!(is_ended(store, &older).await, "it expires no later than the first that was forgotten");
    assert!(!is_ended(store, &newer).await);
    assert!(!is_ended(store, &SessionKey { user: &BOB, ..older }).await);
    for (nonce, at) in nonces[..MAX_ENDED].iter().zip(2_000..) {
        assert!(store.session_status(&expiring(at, nonce)).await.unwrap().is_none(), "{nonce}");
    }
}

pub(crate) async fn a_session_s_level_and_subscriptions_are_seen_by_every_handle_and_by_no_other_session(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let session = session("s1");
    assert_eq!(open_state(&other, &session).await, state(None, &[]));
    for level in ["info", "error"] {
        assert!(kept(one.set_level(&session, level)).await);
    }
    for uri in ["b://", "a://", "b://"] {
        assert!(kept(one.subscribe(&session, uri)).await);
    }
    assert_eq!(open_state(&other, &session).await, state(Some("error"), &["a://", "b://"]));
    assert_eq!(
        other.session_status(&session).await.unwrap(),
        Some(SessionStatus { level: Some("error".to_owned()), listener: None })
    );
    for uri in ["b://", "c://"] {
        assert!(kept(other.unsubscribe(&session, uri)).await);
    }
    assert_eq!(open_state(&one, &session).await, state(Some("error"), &["a://"]));
    for stranger in [SessionKey { nonce: "s2", ..session }, SessionKey { user: &BOB, ..session }] {
        assert_eq!(open_state(&one, &stranger).await, state(None, &[]));
    }
}

pub(crate) async fn a_session_has_room_for_so_many_subscriptions_and_no_more(home: Home) {
    let store = home.open(&[key("k1")]);
    let session = session("s1");
    assert!(kept(store.set_level(&session, "info")).await);
    for number in 0..MAX_SUBSCRIPTIONS {
        assert!(kept(store.subscribe(&session, &format!("{number}://"))).await);
    }
    assert!(!kept(store.subscribe(&session, "one-more://")).await);
    assert!(kept(store.subscribe(&session, "7://")).await, "it is there already");
    assert!(kept(store.unsubscribe(&session, "7://")).await);
    assert!(!kept(store.subscribe(&session, &"x".repeat(MAX_URI + 1))).await);
    assert!(kept(store.subscribe(&session, &"x".repeat(MAX_URI))).await);
    let state = open_state(&store, &session).await;
    assert_eq!(state.subscriptions.len(), MAX_SUBSCRIPTIONS);
}

pub(crate) async fn a_session_has_room_for_so_many_bytes_and_a_user_for_so_many_sessions(home: Home) {
    let store = home.open(&[key("k1")]);
    let long = |number: usize| format!("{number:02}{}", "x".repeat(MAX_URI - 2));
    let first = session("s0");
    let mut subscribed = 0;
    while kept(store.subscribe(&first, &long(subscribed))).await {
        subscribed += 1;
    }
    assert!((MAX_SESSION * 9 / 10..=MAX_SESSION).contains(&(subscribed * MAX_URI)), "{subscribed}");
    // Room that is given back is there again, as much as was taken and no more.
    for _ in 0..2 {
        assert!(kept(store.unsubscribe(&first, &long(0))).await);
        assert!(kept(store.subscribe(&first, &long(0))).await);
        assert!(!kept(store.subscribe(&first, &long(subscribed))).await);
    }
    let names: Vec<_> = (0..=MAX_SESSIONS).map(|n| format!("s{n}")).collect();
    let bobs = SessionKey { user: &BOB, ..first };
    assert!(kept(store.set_level(&bobs, "info")).await);
    for name in &names[1..MAX_SESSIONS] {
        assert!(kept(store.set_level(&session(name), "info")).await);
    }
    // Written to again, it is no longer the first to go.
    assert!(kept(store.set_level(&first, "error")).await);
    assert!(kept(store.set_level(&session(&names[MAX_SESSIONS]), "info")).await);
    for (at, name) in names.iter().enumerate() {
        let state = open_state(&store, &session(name)).await;
        let expected = if at == 0 { subscribed } else { 0 };
        assert_eq!((state.level.is_some(), state.subscriptions.len()), (at != 1, expected), "{name}");
    }
    assert_eq!(open_state(&store, &bobs).await, state(Some("info"), &[]));
}

pub(crate) async fn what_is_kept_of_a_session_outlives_a_change_of_the_sealing_key(home: Home) {
    let (old, new) = (key("k1"), key("k2"));
    let before = home.open(std::slice::from_ref(&old));
    let session = session("s1");
    assert!(kept(before.set_level(&session, "info")).await);
    for uri in ["a://", "b://"] {
        assert!(kept(before.subscribe(&session, uri)).await);
    }
    assert!(before.claim(&session, None, "first").await.unwrap());
    let rotated = home.open(&[new, old]);
    assert_eq!(open_state(&rotated, &session).await, state(Some("info"), &["a://", "b://"]));
    assert!(kept(rotated.set_level(&session, "error")).await);
    assert!(kept(rotated.unsubscribe(&session, "a://")).await);
    assert!(kept(rotated.subscribe(&session, "b://")).await);
    assert_eq!(open_state(&rotated, &session).await, state(Some("error"), &["b://"]));
    let seen = rotated.session_status(&session).await.unwrap().unwrap().listener.unwrap();
    assert!(rotated.claim(&session, Some(&seen), "second").await.unwrap());
    assert_eq!(rotated.revoke(&session).await.unwrap().as_deref(), Some("second"));
}

pub(crate) async fn a_token_and_its_session_are_found_in_one_question(home: Home) {
    let store = home.open(&[key("k1")]);
    let (notion, session) = (server("notion"), session("s1"));
    store.set(&ALICE, &notion, &secret("ntn_1")).await.unwrap();
    assert!(kept(store.set_level(&session, "info")).await);
    let look = async |session: SessionKey<'_>| {
        let call = CallKey { user: session.user, server: &notion, session: Some(&session), rates: Rates::default() };
        store.lookup_for_call(&call).await.unwrap()
    };
    let (token, status) = look(session).await;
    assert!(matches!(token, Lookup::Found(record, _) if record.fields[0].1.expose() == "ntn_1"));
    assert_eq!(status.unwrap(), Some(SessionStatus { level: Some("info".to_owned()), listener: None }));
    store.revoke(&session).await.unwrap();
    let (token, status) = look(session).await;
    assert!(matches!(token, Lookup::Found(record, _) if record.fields[0].1.expose() == "ntn_1"));
    assert_eq!(status.unwrap(), None);
    let (token, status) = look(SessionKey { user: &BOB, ..session }).await;
    assert!(matches!(token, Lookup::Absent));
    assert_eq!(status.unwrap(), Some(SessionStatus::default()));
}

pub(crate) async fn a_session_is_claimed_by_one_listener_at_a_time(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let session = session("s1");
    assert!(one.claim(&session, None, "first").await.unwrap());
    assert!(!other.claim(&session, None, "second").await.unwrap());
    let seen = other.session_status(&session).await.unwrap().unwrap().listener.unwrap();
    assert_eq!(seen.address, "first");
    let claims = tokio::join!(one.claim(&session, Some(&seen), "third"), other.claim(&session, Some(&seen), "fourth"));
    assert!(claims.0.unwrap() != claims.1.unwrap(), "one of two that saw the same takes its place");
    assert!(!one.claim(&session, Some(&seen), "fifth").await.unwrap(), "what was seen is there no more");
    let now = one.session_status(&session).await.unwrap().unwrap().listener.unwrap().address;
    assert!(["third", "fourth"].contains(&&*now));
    // Whoever changes something, or ends the session, learns of it.
    for noted in [one.set_level(&session, "info").await, other.subscribe(&session, "a://").await] {
        assert_eq!(noted.unwrap(), SessionUpdate::Kept(Some(now.clone())));
    }
    assert_eq!(one.unsubscribe(&session, "a://").await.unwrap(), SessionUpdate::Kept(Some(now.clone())));
    assert_eq!(other.revoke(&session).await.unwrap(), Some(now));
}

pub(crate) async fn a_tampered_session_is_failed_and_not_empty(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let (one, other) = (session("s1"), session("s2"));
    assert!(kept(store.set_level(&one, "info")).await);
    assert!(kept(store.set_level(&other, "error")).await);
    home.swap_levels(&keys, [&one, &other]);
    let tampered = StoreError::Sealed(OpenError::Tampered);
    assert_eq!(store.session_state(&one).await, Err(tampered.clone()));
    assert_eq!(store.session_status(&one).await, Err(tampered));
}

#[tokio::test]
async fn a_store_in_memory_that_sessions_have_filled_ends_sessions_all_the_same() {
    let store = TokenStore::in_memory(Arc::new(ring(&[key("k1")])), Clock::System).unwrap();
    let names: Vec<_> = (0..MAX_SESSIONS).map(|n| n.to_string()).collect();
    let mut full = None;
    for number in 0..100 {
        let user = user(&number.to_string());
        for (nonce, uri) in names.iter().flat_map(|nonce| (0..31).map(move |uri| (nonce, uri))) {
            let session = SessionKey { user: &user, ..session(nonce) };
            full = store.subscribe(&session, &format!("{uri}{}", "x".repeat(1980))).await.err();
            if full.is_some() {
                break;
            }
        }
        if full.is_some() {
            break;
        }
    }
    assert_eq!(full, Some(StoreError::Database("it is full")));
    for n in 0..MAX_ENDED {
        store.revoke(&session(&n.to_string())).await.unwrap();
    }
    assert!(is_ended(&store, &session("0")).await);
}
