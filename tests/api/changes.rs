//! Saving, replacing and removing, and what is known of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::program::{Answer, Program};
use crate::service::Service;
use crate::support::http::Connection;
use crate::support::{Bridge, Client, Home, Redis, free_address, procs};
use crate::visit::Person;
use crate::{ALICE, BOB, NOTES, config, hash, serve, used};

const NOTHING: (&str, &str) = ("If-None-Match", "*");

fn node(home: &Home) -> Bridge {
    serve(home, config(home, &home.embedded(), free_address()))
}

fn token(value: &str) -> Value {
    json!({ "token": value })
}

async fn entry(program: Program<'_>, server: &str) -> Value {
    let list = program.get("/api/v1/servers").await.json();
    list["servers"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|entry| entry["name"] == server)
        .expect("it is there")
        .clone()
}

#[tokio::test]
async fn what_is_saved_on_one_node_is_used_on_the_other_with_the_next_message() {
    let (home, redis) = (Home::new(), Redis::start());
    let nodes = [(); 2].map(|()| serve(&home, config(&home, &home.in_redis(&redis), free_address())));
    let [one, other] = nodes.each_ref().map(|node| Program::of(ALICE, node.address()));
    let before = entry(one, "notes").await;
    assert_eq!(
        (&before["status"], &before["fields"]),
        (&"notConnected".into(), &json!([{ "name": "token", "secret": true }]))
    );
    assert_eq!((&before["displayName"], &before["hasProbe"]), (&"Notes & more".into(), &true.into()));

    let saved = one.put(NOTES, NOTHING, &token("ntn_1")).await;
    assert_eq!(saved.status, 201, "{saved:?}");
    assert_eq!(used(&nodes[1], "notes", ALICE).await, hash("ntn_1"));
    let seen = other.get(NOTES).await;
    assert_eq!((seen.etag(), seen.json()["savedBy"].clone()), (saved.etag(), "api".into()));
    let replaced = other.put(NOTES, ("If-Match", saved.etag()), &token("ntn_2")).await;
    assert_eq!(replaced.status, 204, "{replaced:?}");
    assert_eq!(used(&nodes[0], "notes", ALICE).await, hash("ntn_2"));
    let after = one.get(NOTES).await.json();
    assert_ne!(after["fingerprint"], seen.json()["fingerprint"], "two values are told apart");
    assert!(after.get("expiresAt").is_none(), "{after}");
    assert_eq!(one.delete(NOTES, replaced.etag()).await.status, 204);
    assert!(used(&nodes[1], "notes", ALICE).await.contains("/notes/connect"));
    assert_eq!(other.get(NOTES).await.said(), (404, "no-token".to_owned()));

    assert!(entry(one, "strict").await["fields"][0]["format"].is_string());
    let strict = NOTES.replace("notes", "strict");
    let early = json!({ "token": "ntn_1", "expiresAt": "2020-01-01T00:00:00Z" });
    let refused = one.put(&strict, NOTHING, &early).await;
    assert_eq!(refused.json()["errors"][0]["pointer"], "#/expiresAt", "{refused:?}");
    assert_eq!(one.put(&strict, NOTHING, &token("ntn_1")).await.status, 201);
    assert!(one.get(&strict).await.json()["expiresAt"].is_string(), "as the operator says");
}

#[tokio::test]
async fn a_change_over_an_old_etag_is_412() {
    let home = Home::new();
    let bridge = node(&home);
    let alice = Program::of(ALICE, bridge.address());
    let first = alice.put(NOTES, NOTHING, &token("ntn_1")).await.etag().to_owned();
    assert_eq!(alice.put(NOTES, NOTHING, &token("ntn_2")).await.said(), (412, "changed".to_owned()));
    let second = alice.put(NOTES, ("If-Match", &first), &token("ntn_1")).await.etag().to_owned();
    assert_ne!(first, second, "the same value, saved again");
    let weak = format!("W/{second}");
    for stale in [first.as_str(), &weak, "\"\"", "\"another\", \"one\""] {
        assert_eq!(alice.put(NOTES, ("If-Match", stale), &token("ntn_2")).await.said().0, 412, "{stale}");
        assert_eq!(alice.delete(NOTES, stale).await.said().0, 412, "{stale}");
    }
    for bad in ["", "x", second.trim_matches('"'), "*, \"x\"", &format!("{second} {second}")] {
        assert_eq!(alice.put(NOTES, ("If-Match", bad), &token("ntn_2")).await.said().0, 400, "{bad}");
    }
    assert_eq!(alice.ask("DELETE", NOTES, &[NOTHING], b"").await.status, 400);
    assert_eq!(used(&bridge, "notes", ALICE).await, hash("ntn_1"));
    let listed = format!("\"x\",{first} , {second}");
    assert_eq!(alice.put(NOTES, ("If-Match", &listed), &token("ntn_3")).await.status, 204);
    assert_eq!(alice.delete(NOTES, "*").await.status, 204);
    assert_eq!(alice.put(NOTES, ("If-Match", "*"), &token("ntn_4")).await.status, 412);

    // Of those who write at once over the same, one does.
    let etag = alice.put(NOTES, NOTHING, &token("ntn_0")).await.etag().to_owned();
    let values = [1, 2, 3, 4].map(|number| token(&format!("ntn_{number}")));
    let writers = values.iter().map(|value| alice.put(NOTES, ("If-Match", &etag), value));
    let answers = futures_util::future::join_all(writers).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 412, 412, 412]);
}

#[tokio::test]
async fn all_fields_are_saved_or_none_and_each_fault_is_named_without_its_value() {
    let home = Home::new();
    let bridge = node(&home);
    let alice = Program::of(ALICE, bridge.address());
    let pair = NOTES.replace("notes", "pair");
    let put = async |body: &str| {
        let headers = [NOTHING, ("Content-Type", "application/json; charset=utf-8")];
        alice.ask("PUT", &pair, &headers, body.as_bytes()).await
    };
    for (body, faults) in [
        (r#"{"fields":{"email":"a@b"}}"#, json!([["#/fields/apiKey", "this is missing"]])),
        (r#"{"fields":{"email":"a@b","apiKey":""}}"#, json!([["#/fields/apiKey", "this is empty"]])),
        (
            r#"{"fields":{"email":"a@b","apiKey":"Bearer canary"}}"#,
            json!([["#/fields/apiKey", "paste only what comes after `Bearer`"]]),
        ),
        (
            r#"{"fields":{"email":"a@b","apiKey":"k","apiKey":"canary"}}"#,
            json!([["#/fields/apiKey", "this was given twice"]]),
        ),
        (r#"{"fields":{"email":"a@b","apiKey":"k","canary":"k"}}"#, json!([["#/fields", "there is no such field"]])),
        (
            r#"{"token":"canary"}"#,
            json!([
                ["#/fields/apiKey", "this is missing"],
                ["#/fields/email", "this is missing"],
                ["#/token", "there is no such field"],
            ]),
        ),
    ] {
        let answer = put(body).await;
        assert_eq!(answer.said(), (422, "invalid-token".to_owned()), "{body}");
        let told = answer.json()["errors"].as_array().expect("a list").clone();
        let told: Vec<Value> = told.iter().map(|fault| json!([fault["pointer"], fault["detail"]])).collect();
        assert_eq!(json!(told), faults, "{body}");
        assert!(!answer.text.contains("canary"), "{answer:?}");
    }
    for malformed in [
        "",
        "null",
        "[]",
        "\"canary\"",
        "{}",
        r#"{"token":7}"#,
        r#"{"token":"canary","fields":{}}"#,
        r#"{"tokn":"canary"}"#,
        r#"{"token":"canary","token":"x"}"#,
        r#"{"token":"canary"} x"#,
        "{\"token\":\"canary\u{0}\"}",
        r#"{"token":"\ud800"}"#,
        r#"{"fields":["canary"]}"#,
        r#"{"fields":{"apiKey":{"canary":1}}}"#,
        r#"{"token":"canary","expiresAt":5}"#,
    ] {
        let answer = put(malformed).await;
        assert_eq!(answer.said(), (400, "bad-request".to_owned()), "{malformed}");
        assert!(!answer.text.contains("canary"), "{answer:?}");
    }
    assert_eq!(alice.get(&pair).await.status, 404, "nothing was saved");
    assert_eq!(put(r#"{"fields":{"apiKey":"k","email":"a@b"}}"#).await.status, 201);
    assert_eq!(used(&bridge, "pair", ALICE).await, hash("a@b:k"));
}

#[tokio::test]
async fn no_answer_has_a_value() {
    let home = Home::new();
    let path = home.path().join("audit.jsonl");
    let mut with_audit = config(&home, &home.embedded(), free_address());
    with_audit["audit"] = json!({ "file": path });
    let mut bridge = serve(&home, with_audit);
    let alice = Program::of(ALICE, bridge.address());
    let pair = NOTES.replace("notes", "pair");
    let values = json!({ "fields": { "email": "canary-email", "apiKey": "canary-key" } });
    let mut answers = vec![
        alice.put(NOTES, NOTHING, &token("canary-token")).await,
        alice.put(&pair, NOTHING, &values).await,
        alice.put(NOTES, NOTHING, &token("canary-other")).await,
        alice.put(NOTES, ("If-Match", "*"), &token(" canary-blank")).await,
    ];
    for path in ["/api/v1/servers", NOTES, &pair] {
        answers.push(alice.get(path).await);
    }
    answers.push(alice.delete(NOTES, "*").await);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 201, 412, 422, 200, 200, 200, 204]);
    bridge.stop();
    let written = std::fs::read_to_string(&path).expect("it is there");
    for text in answers.iter().map(|answer| format!("{answer:?}")).chain([written.clone(), bridge.log()]) {
        assert!(!text.contains("canary") && !text.contains(ALICE), "{text}");
    }
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let changes: Vec<_> = lines.iter().map(|line| (&line["event"], &line["outcome"], &line["client"])).collect();
    let change = |event: &str| ["begun", "done"].map(|outcome| [event, outcome, "API"].map(Value::from));
    let expected = [change("token-set"), change("token-set"), change("token-removed")].concat();
    assert_eq!(changes, expected.iter().map(|[event, outcome, by]| (event, outcome, by)).collect::<Vec<_>>());
    assert!(
        lines
            .iter()
            .all(|line| line["user"] == "alice" && line["source"] == "127.0.0.1" && line["request"].is_string())
    );
}

#[tokio::test]
async fn a_cookie_alone_changes_nothing() {
    let home = Home::new();
    let bridge = node(&home);
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.sign_in("", ALICE).await.status, 303);
    let list = alice.get("/api/v1/servers").await;
    let csrf = list.header("x-tollbridge-csrf").to_owned();
    assert_eq!((list.status, csrf.is_empty()), (200, false), "reading needs nothing else");
    let program = Program::of(ALICE, bridge.address()).get("/api/v1/servers").await;
    assert_eq!(program.header("x-tollbridge-csrf"), "", "nobody else needs it");
    let mut bob = Person::at(bridge.address());
    bob.sign_in("", BOB).await;
    let of_bob = bob.get("/api/v1/servers").await.header("x-tollbridge-csrf").to_owned();
    let of_a_form = alice.get("/notes/connect").await.form("/notes/connect");

    let json = ("Content-Type", "application/json");
    for forged in ["", "x", &of_bob, &of_a_form] {
        let header = ("X-Tollbridge-CSRF", forged);
        for (method, knows) in [("PUT", NOTHING), ("DELETE", ("If-Match", "*"))] {
            let body = token("ntn_bad").to_string();
            let answer = alice.ask(method, NOTES, &[json, knows, header], body.as_bytes()).await;
            assert_eq!(answer.status, 403, "{method} {forged}: {}", answer.text);
        }
    }
    let twice = [json, NOTHING, ("X-Tollbridge-CSRF", &csrf), ("X-Tollbridge-CSRF", &csrf)];
    assert_eq!(alice.ask("PUT", NOTES, &twice, b"{}").await.status, 403);
    let elsewhere = [json, NOTHING, ("X-Tollbridge-CSRF", &csrf), ("Origin", "https://elsewhere.example")];
    assert_eq!(alice.ask("PUT", NOTES, &elsewhere, b"{}").await.status, 403);
    assert_eq!(alice.get(NOTES).await.status, 404, "nothing was saved");
    let good = [json, NOTHING, ("X-Tollbridge-CSRF", csrf.as_str())];
    assert_eq!(alice.ask("PUT", NOTES, &good, token("ntn_1").to_string().as_bytes()).await.status, 201);
    assert_eq!(used(&bridge, "notes", ALICE).await, hash("ntn_1"));

    let sign_out = alice.get("/account").await.form("/account/sign-out");
    let kept = alice.clone();
    alice.post("/account/sign-out", &[("form", &sign_out)]).await;
    alice.cookies = kept.cookies;
    assert_eq!(alice.get("/api/v1/servers").await.status, 401, "signed out");
}

#[tokio::test]
async fn an_eleventh_change_in_a_minute_is_refused_and_pages_count_too() {
    let (home, redis) = (Home::new(), Redis::start());
    let nodes = [(); 2].map(|()| serve(&home, config(&home, &home.in_redis(&redis), free_address())));
    let alice = nodes.each_ref().map(|node| Program::of(ALICE, node.address()));
    let mut person = Person::at(nodes[0].address());
    person.sign_in("", ALICE).await;
    assert_eq!(person.paste("notes", "ntn_0").await.status, 303);
    for change in 0..9 {
        assert_eq!(alice[change % 2].put(NOTES, ("If-Match", "*"), &token("ntn_1")).await.status, 204, "{change}");
    }
    for program in alice {
        for answer in [program.put(NOTES, ("If-Match", "*"), &token("ntn_2")).await, program.delete(NOTES, "*").await] {
            assert_eq!(answer.said(), (429, "too-many".to_owned()));
            assert!((1..=60).contains(&answer.header("retry-after").parse().expect("seconds")), "{answer:?}");
        }
        assert_eq!(program.get(NOTES).await.status, 200);
    }
    assert_eq!(used(&nodes[0], "notes", ALICE).await, hash("ntn_1"));
    assert_eq!(Program::of(BOB, nodes[0].address()).put(NOTES, NOTHING, &token("ntn_b")).await.status, 201);
}

#[tokio::test]
async fn what_is_tried_is_not_saved_and_what_is_shown_has_no_value() {
    let home = Home::new();
    let mut with_probes = config(&home, &home.embedded(), free_address());
    let dead = free_address();
    with_probes["mcpServers"]["strict"]["probe"] = json!({
        "url": format!("http://{dead}/me"), "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } },
    });
    let bridge = serve(&home, with_probes);
    let alice = Program::of(ALICE, bridge.address());
    let probe = async |server: &str, value: &str| {
        let path = format!("/api/v1/servers/{server}/probe");
        alice.ask("POST", &path, &[("Content-Type", "application/json")], token(value).to_string().as_bytes()).await
    };
    let good = probe("notes", "ntn_canary").await;
    assert_eq!((good.status, &good.json()["outcome"]), (200, &"good".into()), "{good:?}");
    assert!(good.json()["shown"].as_str().expect("text").contains("whoami"), "{good:?}");
    let unknown = probe("strict", "ntn_canary").await;
    assert_eq!(unknown.json()["outcome"], "unknown", "a service that is down says nothing of a token: {unknown:?}");
    assert_eq!(probe("strict", "canary").await.said(), (422, "invalid-token".to_owned()));
    assert_eq!(probe("private", "canary").await.said(), (404, "not-found".to_owned()));
    for answer in [&good, &unknown] {
        assert!(!answer.text.contains("canary"), "{answer:?}");
    }
    assert!(entry(alice, "notes").await.get("token").is_none() && entry(alice, "strict").await.get("token").is_none());
}

#[tokio::test]
async fn a_refused_value_and_a_third_trial_at_a_time_are_told_as_such() {
    let home = Home::new();
    let service = Service::start(|_, authorization| {
        (!authorization.ends_with("slow")).then(|| (401, String::new(), "who is canary".to_owned()))
    });
    let service = service.await;
    let mut with_probes = config(&home, &home.embedded(), free_address());
    with_probes["mcpServers"]["notes"]["probe"] =
        json!({ "url": service.url("/me"), "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } } });
    let bridge = serve(&home, with_probes);
    let probe = async |bearer: &str, value: &str| {
        let program = Program::of(bearer, bridge.address());
        let json = [("Content-Type", "application/json")];
        program.ask("POST", "/api/v1/servers/notes/probe", &json, token(value).to_string().as_bytes()).await
    };
    let refused = probe(ALICE, "canary").await;
    let expected = json!({ "outcome": "refused", "detail": "Notes & more refused this token (401)" });
    assert_eq!((refused.status, refused.json()), (200, expected));
    let third = async {
        while service.asked().len() < 3 {
            tokio::time::sleep(procs::LOOK).await;
        }
        let busy = probe(ALICE, "canary").await;
        assert_eq!(busy.said(), (429, "too-many".to_owned()));
        assert_eq!(busy.header("retry-after"), "20", "{busy:?}");
        assert_eq!(probe(BOB, "canary").await.status, 200, "others are not kept from it");
        assert_eq!(service.asked().len(), 4, "it is not tried");
    };
    // Whoever does not wait for the slow ones ends them.
    tokio::select! {
        () = third => {}
        early = async { tokio::join!(probe(ALICE, "slow"), probe(ALICE, "slow")) } => panic!("nobody answered: {early:?}"),
    }
}

#[tokio::test]
async fn who_listens_on_the_other_node_hears_of_a_change() {
    let (home, redis) = (Home::new(), Redis::start());
    let nodes = [(); 2].map(|()| serve(&home, config(&home, &home.in_redis(&redis), free_address())));
    let client = Client::legacy(&nodes[1], "notes", Some(ALICE)).await;
    let mut connection = Connection::open(nodes[1].address()).await.expect("it listens");
    let headers = client.headers(b"{}");
    let mut stream = connection.send("GET", &client.path(), &headers, b"").await.expect("an answer");
    assert_eq!(stream.status, 200);
    let alice = Program::of(ALICE, nodes[0].address());
    assert_eq!(alice.put(NOTES, NOTHING, &token("ntn_1")).await.status, 201);
    // Less than it takes a stream to look by itself.
    let event = timeout(Duration::from_mins(1), stream.event()).await.expect("it is told");
    let event = event.expect("a stream").expect("an event");
    assert!(String::from_utf8_lossy(&event.data).contains("tools/list_changed"), "{event:?}");
}

#[tokio::test]
async fn what_a_user_may_not_use_does_not_exist() {
    let home = Home::new();
    let bridge = node(&home);
    let [alice, bob] = [ALICE, BOB].map(|bearer| Program::of(bearer, bridge.address()));
    let private = NOTES.replace("notes", "private");
    assert_eq!(bob.put(&private, NOTHING, &token("ntn_1")).await.status, 201);
    let nowhere = async |answer: Answer| {
        let same = alice.get(&NOTES.replace("notes", "nothing")).await;
        assert_eq!((answer.status, &answer.text), (404, &same.text));
    };
    nowhere(alice.get(&private).await).await;
    nowhere(alice.put(&private, NOTHING, &token("ntn_1")).await).await;
    nowhere(alice.delete(&private, "*").await).await;
    assert!(!alice.get("/api/v1/servers").await.text.contains("private"));
    assert_eq!(bob.get(&private).await.status, 200);
}
