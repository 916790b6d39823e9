//! Saving, replacing and removing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Bridge, Home, Redis, free_address, metric};
use crate::visit::Person;
use crate::{alone, config, hash, node, proxied, used};

#[tokio::test]
async fn a_person_connects_replaces_and_removes_and_the_next_message_knows_it() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    let mut alice = Person::at(bridge.address());
    let overview = alice.get("/account").await;
    assert_eq!((overview.status, overview.text.matches("Not connected").count()), (200, 2), "{}", overview.text);
    assert!(used(&bridge, None).await.contains("/notes/connect"));

    for token in ["ntn_first", "ntn_second &<>\"'%+"] {
        let answer = alice.paste("notes", token).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/notes/connect?saved"), "{}", answer.text);
        let page = alice.get("/notes/connect?saved").await;
        assert!(page.is_connected() && page.text.contains("is connected. You can go back"), "{}", page.text);
        assert!(page.text.contains("Pasted on this page"), "{}", page.text);
        assert!(token != "ntn_first" || page.text.contains("Not yet"), "{}", page.text);
        assert_eq!(used(&bridge, None).await, hash(token));
    }
    // It is noted after the answer.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !alice.get("/notes/connect").await.text.contains(":00 UTC") {
        assert!(Instant::now() < deadline, "the hour of its last use is not shown");
    }
    assert!(alice.get("/account").await.is_connected());

    let answer = alice.remove("notes").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/notes/connect?removed"));
    let page = alice.get("/notes/connect?removed").await;
    assert!(!page.is_connected() && page.text.contains("no longer connected"), "{}", page.text);
    assert!(used(&bridge, None).await.contains("/notes/connect"));
}

#[tokio::test]
async fn what_cannot_be_a_token_is_not_saved_and_the_sentence_stands_beside_the_empty_field() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    let mut alice = Person::at(bridge.address());
    let long = "x".repeat((16 << 10) + 1);
    let table = [
        ("notes", "", "Paste it here."),
        ("notes", "  ", "Paste it here."),
        ("notes", long.as_str(), "at most 16 KiB"),
        ("notes", "canary\nline", "line break"),
        ("notes", "canary\0nul", "line break"),
        ("strict", "canary", "does not look like what the service gives"),
        ("strict", "Bearer ntn_canary", "Paste only what comes after “Bearer”."),
        ("notes", "Bearer canary", "Paste only what comes after “Bearer”."),
        ("notes", "Authorization: Bearer canary", "Paste only what comes after “Bearer”."),
        ("notes", "\"canary\"", "between the quotes"),
        ("notes", "export NOTES_TOKEN=canary", "after the equals sign"),
        ("notes", " canary", "a blank before or after"),
        ("notes", "canary\u{a0}", "a blank before or after"),
    ];
    for (server, token, sentence) in table {
        let page = alice.paste(server, token).await;
        assert_eq!(page.status, 422, "{token:?}: {}", page.text);
        assert!(page.text.contains(sentence), "{token:?}: {}", page.text);
        assert!(page.title().starts_with("Error:"), "{}", page.title());
        let field = page.text.split("<input id=\"field-token\"").nth(1).unwrap().split('>').next().unwrap();
        assert!(field.contains("aria-invalid=\"true\" autofocus") && field.contains("fault-token"), "{field}");
        assert!(!field.contains("value") && !page.text.contains("canary"), "{}", page.text);
        assert!(!alice.get(&format!("/{server}/connect")).await.is_connected(), "{token:?}");
    }
    assert_eq!(alice.paste("strict", "ntn_1").await.status, 303);
}

#[tokio::test]
async fn a_body_that_is_no_form_changes_nothing() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    let mut alice = Person::at(bridge.address());
    let form = alice.get("/notes/connect").await.form("/notes/connect");
    let form_type = "application/x-www-form-urlencoded; charset=UTF-8";
    let good = format!("form={form}&field-token=a");
    let table = [
        ("application/json", good.clone(), 415),
        ("multipart/form-data; boundary=x", good.clone(), 415),
        ("text/plain", good.clone(), 415),
        (form_type, format!("{good}&field-token=b"), 400),
        (form_type, format!("form={form}&field-token=%ff"), 400),
        (form_type, format!("form={form}&field-token={}", "x".repeat(64 << 10)), 413),
        (form_type, good, 303),
    ];
    for (kind, body, status) in table {
        let headers = [("Content-Type", kind), ("Sec-Fetch-Site", "same-origin")];
        let answer = alice.ask("POST", "/notes/connect", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{kind}: {}", answer.text);
        assert_eq!(alice.get("/notes/connect").await.is_connected(), status == 303, "{kind}");
    }
}

#[tokio::test]
async fn an_eleventh_change_in_a_minute_is_refused_in_words_on_whichever_node() {
    let (home, redis) = (Home::new(), Redis::start());
    home.write(config(&home, &proxied(), &home.in_redis(&redis)));
    let nodes = [Bridge::start_in(&home, &[]), Bridge::start_in(&home, &[])];
    let mut alice = nodes.each_ref().map(|node| Person::at(node.address()).named("alice"));
    for change in 0..10 {
        let person = &mut alice[change % 2];
        let answer = if change == 5 { person.remove("notes").await } else { person.paste("notes", "ntn_1").await };
        assert_eq!(answer.status, 303, "{change}: {}", answer.text);
    }
    let answer = alice[0].paste("notes", "ntn_2").await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert!((1..=60).contains(&answer.header("retry-after").parse().unwrap()), "{:?}", answer.headers);
    assert!(answer.text.contains("Wait a minute"), "{}", answer.text);
    let mut bob = Person::at(nodes[0].address()).named("bob");
    assert_eq!(bob.paste("notes", "ntn_3").await.status, 303, "another user");
}

#[tokio::test]
async fn a_store_that_is_down_never_says_saved() {
    let (home, mut redis) = (Home::new(), Redis::start());
    let bridge = home.serve(config(&home, &alone(), &home.in_failing_redis(&redis)));
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.paste("notes", "ntn_1").await.status, 303);
    let page = alice.get("/notes/connect").await;
    let (save, remove) = (page.form("/notes/connect"), page.form("/notes/connect/remove"));

    redis.freeze();
    let answer = alice.post("/notes/connect", &[("form", &save), ("field-token", "ntn_2")]).await;
    assert_eq!((answer.status, answer.text.contains("<h1>Not saved</h1>")), (503, true), "{}", answer.text);
    assert!(!answer.text.contains("ntn_2") && answer.header("location").is_empty());
    let answer = alice.post("/notes/connect/remove", &[("form", &remove)]).await;
    assert_eq!((answer.status, answer.text.contains("<h1>Not removed</h1>")), (503, true), "{}", answer.text);
    let answer = alice.get("/notes/connect").await;
    assert_eq!(answer.status, 503, "nobody knows what is saved: {}", answer.text);
    redis.thaw();

    redis.crash();
    for path in ["/account", "/notes/connect"] {
        let answer = alice.get(path).await;
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert!(!answer.text.contains("Not connected"), "{}", answer.text);
    }
    let answer = alice.post("/notes/connect", &[("form", &save), ("field-token", "ntn_2")]).await;
    assert_eq!((answer.status, answer.text.contains("<h1>Not saved</h1>")), (503, true), "{}", answer.text);
}

#[tokio::test]
async fn what_cannot_be_read_is_said_so_and_not_written_over() {
    let (home, redis) = (Home::new(), Redis::start());
    let mut config = config(&home, &proxied(), &home.in_redis(&redis));
    // Who writes down what is replaced looks at it first.
    config["audit"] = json!({ "file": home.path().join("audit.jsonl") });
    let admin = free_address();
    config["admin"] = json!({ "listen": admin.to_string() });
    let bridge = home.serve(config);
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Person::at(bridge.address()).named(user));
    assert_eq!(alice.paste("notes", "ntn_1").await.status, 303);
    assert_eq!(bob.paste("notes", "ntn_2").await.status, 303);
    let save = alice.get("/notes/connect").await.form("/notes/connect");
    let (records, _) = redis.keys();
    let records: Vec<&str> = records.iter().map(String::as_str).filter(|key| key.contains(":tokens:")).collect();
    let [one, other] = records[..] else { panic!("two users: {records:?}") };
    let script = "local a, b = redis.call('HGET', KEYS[1], 'notes'), redis.call('HGET', KEYS[2], 'notes') \
                  redis.call('HSET', KEYS[1], 'notes', b) redis.call('HSET', KEYS[2], 'notes', a)";
    redis.ask(&["EVAL", script, "2", one, other]);
    let page = alice.get("/notes/connect").await;
    assert!(page.text.contains("Cannot be read") && !page.is_connected(), "{}", page.text);
    assert_eq!(metric(admin, "tollbridge_store_unopened_total").await, Some(1.0), "an operator should know");
    let answer = alice.post("/notes/connect", &[("form", &save), ("field-token", "ntn_3")]).await;
    assert_eq!((answer.status, answer.text.contains("<h1>Not saved</h1>")), (503, true), "{}", answer.text);
    assert_eq!(alice.remove("notes").await.status, 303);
    assert_eq!(alice.paste("notes", "ntn_3").await.status, 303);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_404_and_one_without_tokens_says_so() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    let mut alice = Person::at(bridge.address());
    for path in ["/nothing/connect", "/account/connect", "/%3Cb%3E/connect", "/account/mcp"] {
        assert_eq!(alice.get(path).await.status, 404, "{path}");
    }
    assert_eq!(alice.post("/nothing/connect", &[("field-token", "x")]).await.status, 404);
    let page = alice.get("/open/connect").await;
    assert_eq!((page.status, page.text.contains("It needs no token of yours")), (200, true), "{}", page.text);
    assert!(!page.text.contains("type=\"password\""));
    for (method, path) in [("PUT", "/account"), ("DELETE", "/notes/connect"), ("GET", "/notes/connect/remove")] {
        let answer = alice.ask(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.header("allow").is_empty()), (405, false), "{method} {path}");
    }
}

#[tokio::test]
async fn what_lacks_a_field_that_is_asked_for_now_says_which_and_is_not_connected() {
    let home = Home::new();
    let mut config = config(&home, &alone(), &home.embedded());
    let bridge = home.serve(config.clone());
    assert_eq!(Person::at(bridge.address()).paste("notes", "ntn_1").await.status, 303);
    drop(bridge);
    let notes = &mut config["mcpServers"]["notes"];
    notes["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<email>>:<<apiKey>>" } });
    notes["tokenSetup"]["fields"] = json!({ "email": { "label": "E-mail address" }, "apiKey": {} });
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    let told = used(&bridge, None).await;
    let lacking = "now asks for more than you have saved (apiKey, E-mail address)";
    assert!(told.contains(lacking) && told.contains("/notes/connect"), "{told}");
    // Anybody can make a link that ends so.
    for path in ["/notes/connect", "/notes/connect?saved"] {
        let page = alice.get(path).await;
        assert!(!page.is_connected() && !page.text.contains("is connected"), "{}", page.text);
        assert!(
            page.text.contains("Needs another value") && page.text.contains("apiKey, E-mail address"),
            "{}",
            page.text
        );
        assert!(!page.text.contains("ntn_1"));
    }
    let overview = alice.get("/account").await;
    assert!(overview.text.contains("Needs another value"), "{}", overview.text);
    let form = alice.get("/notes/connect").await.form("/notes/connect");
    let all = [("form", form.as_str()), ("field-email", "a@b"), ("field-apiKey", "key")];
    assert_eq!(alice.post("/notes/connect", &all).await.status, 303);
    assert!(alice.get("/notes/connect").await.is_connected());
    assert_eq!(used(&bridge, None).await, hash("a@b:key"));
}

#[tokio::test]
async fn two_tabs_both_work() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    let mut alice = Person::at(bridge.address());
    let path = "/notes/connect";
    let (one, other) = (alice.get(path).await.form(path), alice.get(path).await.form(path));
    for (form, token) in [(&one, "ntn_1"), (&other, "ntn_2"), (&one, "ntn_3")] {
        assert_eq!(alice.post(path, &[("form", form), ("field-token", token)]).await.status, 303);
        assert_eq!(used(&bridge, None).await, hash(token));
    }
}

#[tokio::test]
async fn fields_are_saved_all_or_none_and_their_end_is_shown() {
    let home = Home::new();
    let mut config = config(&home, &alone(), &home.embedded());
    let notes = &mut config["mcpServers"]["notes"];
    notes["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<email>>:<<apiKey>>" } });
    notes["tokenSetup"] = json!({ "expires": "90d", "fields": {
        "email": { "label": "E-mail address", "secret": false, "format": "@", "help": "The one you sign in with." },
        "apiKey": { "label": "API key" },
    } });
    config["mcpServers"]["strict"]["tokenSetup"]["expires"] = "3d".into();
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    let page = alice.get("/notes/connect").await;
    assert!(page.text.contains("E-mail address</label>") && page.text.contains("The one you sign in with."));
    assert!(page.text.contains("id=\"field-email\" name=\"field-email\" type=\"text\""), "{}", page.text);
    assert!(page.text.contains("id=\"field-apiKey\" name=\"field-apiKey\" type=\"password\""), "{}", page.text);
    let form = page.form("/notes/connect");

    let entered = |email: &'static str, key: &'static str| [("field-email", email), ("field-apiKey", key)];
    for (fields, faults, focus) in [
        (entered("", ""), 2, "field-email"),
        (entered("nobody", "key"), 1, "field-email"),
        (entered("a@b", "Bearer key"), 1, "field-apiKey"),
    ] {
        let page = alice.post("/notes/connect", &[&[("form", form.as_str())], &fields[..]].concat()).await;
        assert_eq!((page.status, page.text.matches("class=\"fault\"").count()), (422, faults), "{}", page.text);
        let focused = page.text.split("<input ").find(|field| field.contains(" autofocus")).unwrap();
        assert!(focused.contains(focus), "{focused}");
        assert!(!alice.get("/notes/connect").await.is_connected());
    }
    let good = [&[("form", form.as_str())], &entered("a@b", "key")[..]].concat();
    assert_eq!(alice.post("/notes/connect", &good).await.status, 303);
    assert_eq!(used(&bridge, None).await, hash("a@b:key"));
    let page = alice.get("/notes/connect").await;
    assert!(page.is_connected() && page.text.contains("Good until"), "{}", page.text);
    assert!(!page.text.contains("a@b"), "what was sent is not shown");
    for (day, status) in [("2020-01-01", 422), ("soon", 422), ("9999-01-01", 422)] {
        let dated = [&good[..], &[("expires", day)]].concat();
        let page = alice.post("/notes/connect", &dated).await;
        assert_eq!((page.status, page.text.contains("Enter a date in the future")), (status, true), "{}", page.text);
    }
    alice.paste("strict", "ntn_1").await;
    assert!(alice.get("/strict/connect").await.text.contains("expires in a few days"));
}
