//! Signing in, and what the session of a browser is good for.

use crate::support::{Bridge, Client, Home, Redis, bearer_identity};
use crate::visit::Person;
use crate::{ALICE, BOB, config, hash, node, signed_in, used};

const COOKIE: &str = "__Host-tollbridge";

#[tokio::test]
async fn who_is_not_signed_in_is_led_there_and_back_by_a_name() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let mut alice = Person::at(bridge.address());
    let there = alice.get("/notes/connect").await;
    assert_eq!((there.status, there.header("location")), (303, "/account/sign-in?to=notes"));
    assert_eq!(alice.get("/account").await.header("location"), "/account/sign-in");

    let wrong = alice.sign_in("notes", &ALICE.replace('a', "b")).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("not a token that this bridge knows") && wrong.title().starts_with("Error:"));
    assert!(wrong.text.contains("name=\"to\" value=\"notes\""), "{}", wrong.text);
    assert!(!alice.cookies.contains_key(COOKIE));

    let back = alice.sign_in("notes", &format!(" {ALICE}\n")).await;
    assert_eq!((back.status, back.header("location")), (303, "/notes/connect"));
    let page = alice.get("/notes/connect").await;
    assert!(page.text.contains("<strong>alice</strong>"), "{}", page.text);
    assert_eq!(alice.get("/account/sign-in?to=notes").await.header("location"), "/notes/connect");
    assert_eq!(alice.paste("notes", "ntn_1").await.status, 303);
    assert_eq!(used(&bridge, Some(ALICE)).await, hash("ntn_1"));
    assert!(!bridge.log().contains("ntn_1") && !bridge.log().contains(ALICE));
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_a_good_one_is_taken_all_the_same() {
    let (home, redis) = (Home::new(), Redis::start());
    home.write(config(&home, &signed_in(), &home.in_redis(&redis)));
    let nodes = [Bridge::start_in(&home, &[]), Bridge::start_in(&home, &[])];
    let mut guesser = nodes.each_ref().map(|node| Person::at(node.address()));
    let mut statuses = Vec::new();
    for attempt in 0..24 {
        let answer = guesser[attempt % 2].sign_in("", &format!("a-wrong-token-of-good-length-{attempt}")).await;
        assert!(answer.status != 429 || !answer.header("retry-after").is_empty());
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..20], [401; 20]);
    assert_eq!(statuses[20..], [429; 4], "20 a minute on both nodes together");
    assert_eq!(guesser[0].sign_in("", ALICE).await.status, 303);
}

/// Whoever it is, nobody knows them yet.
#[tokio::test]
async fn the_form_that_signs_in_is_short() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let mut guesser = Person::at(bridge.address());
    for (length, status) in [(7 << 10, 401), (8 << 10, 413), (60 << 10, 413)] {
        let answer = guesser.sign_in("", &"x".repeat(length)).await;
        assert_eq!(answer.status, status, "{length}: {}", answer.text);
    }
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("", ALICE).await.status, 303);
    let page = alice.get("/notes/connect").await;
    let fields = [("form", page.form("/notes/connect")), ("field-token", "x".repeat(16 << 10))];
    let fields = fields.each_ref().map(|(name, value)| (*name, &**value));
    assert_eq!(alice.post("/notes/connect", &fields).await.status, 303, "other forms hold the longest token");
}

#[tokio::test]
async fn a_cookie_is_nothing_to_mcp() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let mut alice = Person::at(bridge.address());
    alice.sign_in("notes", ALICE).await;
    assert_eq!(alice.get("/account").await.status, 200);
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (method, path) in
        [("POST", "/notes/mcp"), ("GET", "/notes/mcp"), ("DELETE", "/notes/mcp"), ("GET", "/notes/sse")]
    {
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
        assert_eq!(alice.ask(method, path, &headers, body).await.status, 401, "{method} {path}");
    }
    let mut client = Client::modern(&bridge, "notes", Some(ALICE));
    assert_eq!(client.call("whoami", serde_json::json!({})).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_token_that_is_no_longer_configured_ends_its_session_at_once() {
    let home = Home::new();
    let other = "another-key-0123456789abcdef";
    let bridge = node(&home, &signed_in());
    let mut alice = Person::at(bridge.address());
    alice.sign_in("notes", ALICE).await;
    assert_eq!(alice.get("/account").await.status, 200);
    drop(bridge);
    for (identity, status) in [
        (bearer_identity(&[("alice", other), ("bob", BOB)]), 303),
        (bearer_identity(&[("bob", ALICE)]), 303),
        (bearer_identity(&[("carol", other), ("alice", ALICE)]), 200),
    ] {
        let bridge = node(&home, &identity);
        assert_eq!(alice.on(bridge.address()).get("/account").await.status, status, "{identity}");
    }
}

#[tokio::test]
async fn signed_out_on_one_node_is_signed_out_on_all() {
    let (home, redis) = (Home::new(), Redis::start());
    home.write(config(&home, &signed_in(), &home.in_redis(&redis)));
    let nodes = [Bridge::start_in(&home, &[]), Bridge::start_in(&home, &[])];
    let mut alice = Person::at(nodes[0].address());
    alice.sign_in("", ALICE).await;
    let mut elsewhere = alice.clone();
    let page = alice.get("/notes/connect").await;
    let (save, sign_out) = (page.form("/notes/connect"), page.form("/account/sign-out"));
    let mut kept = alice.on(nodes[1].address());
    assert_eq!(kept.get("/account").await.status, 200);

    let answer = alice.post("/account/sign-out", &[("form", &sign_out)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/account/sign-in"));
    assert!(!alice.cookies.contains_key(COOKIE));
    assert_eq!(kept.get("/account").await.header("location"), "/account/sign-in");
    for person in [&mut alice, &mut kept, &mut elsewhere] {
        let answer = person.post("/notes/connect", &[("form", &save), ("field-token", "ntn_1")]).await;
        assert_eq!(answer.status, 403, "a tab that was open says so: {}", answer.text);
    }
    alice.sign_in("", ALICE).await;
    let answer = alice.post("/notes/connect", &[("form", &save), ("field-token", "ntn_1")]).await;
    assert_eq!(answer.status, 403, "and its form is not of the next session: {}", answer.text);
    assert!(!alice.get("/notes/connect").await.is_connected());
}

#[tokio::test]
async fn a_store_that_is_down_ends_no_session_and_says_so() {
    let (home, redis) = (Home::new(), Redis::start());
    let bridge = home.serve(config(&home, &signed_in(), &home.in_failing_redis(&redis)));
    let mut alice = Person::at(bridge.address());
    alice.sign_in("", ALICE).await;
    let sign_out = alice.get("/account").await.form("/account/sign-out");
    let form = Person::at(bridge.address()).get("/account/sign-in").await.form("/account/sign-in");
    redis.freeze();
    let answer = alice.post("/account/sign-out", &[("form", &sign_out)]).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(alice.cookies.contains_key(COOKIE));
    let mut other = Person::at(bridge.address());
    other.get("/account/sign-in").await;
    assert_eq!(other.post("/account/sign-in", &[("form", &form), ("token", ALICE)]).await.status, 403);
    assert_eq!(other.sign_in("", &ALICE.replace('a', "b")).await.status, 503, "nobody counts it");
    assert_eq!(other.sign_in("", ALICE).await.status, 303);
    assert_eq!(other.get("/account").await.status, 503);
    redis.thaw();
    assert_eq!(alice.post("/account/sign-out", &[("form", &sign_out)]).await.status, 303);
}

#[tokio::test]
async fn a_fixed_or_tossed_cookie_is_not_taken() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let mut mallory = Person::at(bridge.address());
    mallory.sign_in("", BOB).await;
    let of_mallory = mallory.cookies[COOKIE].clone();
    let mut alice = Person::at(bridge.address());
    // Set by a site beside ours, under names that browsers let it set.
    for name in ["tollbridge", "__host-tollbridge", "__Secure-tollbridge"] {
        alice.cookies = [(name.to_owned(), of_mallory.clone())].into();
        assert_eq!(alice.get("/account").await.status, 303, "{name}");
    }
    alice.cookies.clear();
    alice.sign_in("", ALICE).await;
    let session = alice.cookies[COOKIE].clone();
    let both = format!("{COOKIE}={of_mallory}; {COOKIE}={session}");
    let answer = Person::at(bridge.address()).ask("GET", "/account", &[("Cookie", &both)], b"").await;
    assert_eq!(answer.status, 303, "which of two is alice's, nobody knows");
    // A session that was there before is not the one after signing in.
    alice.cookies.insert(COOKIE.to_owned(), of_mallory.clone());
    let page = alice.get("/account").await;
    assert!(page.text.contains("<strong>bob</strong>"));
    let sign_out = page.form("/account/sign-out");
    alice.post("/account/sign-out", &[("form", &sign_out)]).await;
    alice.sign_in("", ALICE).await;
    assert!(alice.cookies[COOKIE] != of_mallory && alice.cookies[COOKIE] != session);
    // Sealed for something else, or changed by a byte.
    let form = alice.get("/notes/connect").await.form("/notes/connect");
    let mut changed = session.clone().into_bytes();
    let last = changed.len() / 2;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    for value in [form, String::from_utf8(changed).unwrap(), session.to_uppercase()] {
        alice.cookies.insert(COOKIE.to_owned(), value);
        assert_eq!(alice.get("/account").await.status, 303);
    }
}

#[tokio::test]
async fn a_link_of_somebody_else_connects_the_one_who_opens_it() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let link = used(&bridge, Some(BOB)).await;
    let link = link.split_whitespace().find(|word| word.contains("/connect")).unwrap();
    assert!(link.ends_with("/notes/connect") && !link.contains('?'), "no user, ticket or secret: {link}");
    let mut alice = Person::at(bridge.address());
    alice.sign_in("notes", ALICE).await;
    let path = link.strip_prefix("http://127.0.0.1:0").unwrap_or("/notes/connect");
    let form = alice.get(path).await.form("/notes/connect");
    assert_eq!(alice.post(path, &[("form", &form), ("field-token", "ntn_alice")]).await.status, 303);
    assert_eq!(used(&bridge, Some(ALICE)).await, hash("ntn_alice"));
    assert!(used(&bridge, Some(BOB)).await.contains("/connect"), "bob has nothing");
}
