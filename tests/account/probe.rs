//! What a person pastes is tried before it is saved.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::corpus::MARKUP;
use crate::forgeries::harmful;
use crate::service::Service;
use crate::support::http::Connection;
use crate::support::{Bridge, Home, free_address, procs, server};
use crate::visit::{OURS, Person, Seen, encoded};
use crate::{alone, config, hash, proxied, used};

const PATH: &str = "/notes/connect";

/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bridge whose server `notes` is tried so.
fn node_with(home: &Home, identity: &Value, probe: &Value) -> Bridge {
    let mut config = config(home, identity, &home.embedded());
    config["mcpServers"]["notes"]["probe"] = probe.clone();
    config["audit"] = json!({ "file": home.path().join("audit.jsonl") });
    home.serve(config)
}

/// A request to the service itself.
fn get(url: &str) -> Value {
    json!({ "url": url, "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } } })
}

/// Pastes a token and presses the button that saves it without a trial.
async fn insist(person: &mut Person, page: &Seen, token: &str) -> Seen {
    assert!(page.text.contains("name=\"anyway\" value=\"yes\"") && page.text.contains(">Save anyway</button>"));
    person.post(PATH, &[("form", &page.form(PATH)), ("field-token", token), ("anyway", "yes")]).await
}

/// What was written down of trials and changes for `notes`, the event and what came of it; and all that was.
fn written_down(bridge: &mut Bridge, home: &Home) -> (Vec<String>, String) {
    bridge.stop();
    let text = std::fs::read_to_string(home.path().join("audit.jsonl")).expect("it is there");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of_notes = lines.filter(|line| line["server"] == "notes" && line["event"] != "token-released");
    let said = |line: Value| {
        let who = ["user", "client", "source"].map(|member| line[member].as_str().unwrap_or_default());
        assert_eq!(who, ["alice", "account page", "127.0.0.1"], "{line}");
        assert_eq!(line["fingerprint"].as_str().map(str::len), Some(6), "{line}");
        format!("{} {}", line["event"], line["outcome"]).replace('"', "")
    };
    (of_notes.map(said).collect(), text)
}

#[tokio::test]
async fn a_good_token_is_saved_and_its_user_sees_once_what_came_back() {
    let home = Home::new();
    let bridge = node_with(&home, &proxied(), &json!({ "tool": "whoami" }));
    let mut alice = Person::at(bridge.address()).named("alice");
    assert!(alice.get(PATH).await.text.contains("It is tried before it is saved."));
    assert!(!alice.get("/strict/connect").await.text.contains("It is tried"));
    let answer = alice.paste("notes", "ntn_good").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/notes/connect?saved"), "{}", answer.text);
    let mut bob = Person { cookies: alice.cookies.clone(), ..Person::at(bridge.address()).named("bob") };
    bob.paste("strict", "ntn_1").await;

    let shown = format!("this came back: <code>{}</code>", hash("ntn_good"));
    for page in ["/notes/connect", "/strict/connect?saved"] {
        assert!(!alice.clone().get(page).await.text.contains(&hash("ntn_good")), "{page}");
    }
    assert!(!bob.get("/strict/connect?saved").await.text.contains(&hash("ntn_good")), "it is for alice");
    let page = alice.get("/notes/connect?saved").await;
    assert!(page.is_connected() && page.text.contains("is connected. You can go back to your application."));
    assert!(page.text.contains(&shown), "{}", page.text);
    assert!(!alice.get("/notes/connect?saved").await.text.contains(&hash("ntn_good")), "it is shown once");
    let left = procs::eventually(PATIENCE, || procs::with_marker(home.marker()).is_empty().then_some(()));
    left.await.expect("nothing is left of the server that was tried");
}

#[tokio::test]
async fn a_refused_token_is_saved_only_if_its_user_pastes_it_again_and_insists() {
    let home = Home::new();
    let service = Service::that_says(401, "no").await;
    let mut bridge = node_with(&home, &alone(), &get(&service.url("/me")));
    let mut alice = Person::at(bridge.address());
    let page = alice.paste("notes", "ntn_bad").await;
    assert_eq!((page.status, page.title().starts_with("Error:")), (422, true), "{}", page.text);
    assert!(page.text.contains("Notes &#38; more refused this token (401)."), "{}", page.text);
    let field = page.text.split("<input id=\"field-token\"").nth(1).unwrap().split('>').next().unwrap();
    assert!(field.contains("aria-invalid=\"true\" autofocus") && field.contains("describedby=\"trial "), "{field}");
    assert!(!field.contains("value") && !page.text.contains("ntn_bad") && page.header("set-cookie").is_empty());
    assert!(!alice.get(PATH).await.is_connected());
    assert_eq!(service.asked(), [("/me".to_owned(), "Bearer ntn_bad".to_owned())]);

    // Nothing was kept, so there is nothing to save.
    let empty = insist(&mut alice, &page, "").await;
    assert_eq!((empty.status, empty.text.contains("Paste it here.")), (422, true), "{}", empty.text);
    let answer = insist(&mut alice, &page, "ntn_bad").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/notes/connect?saved"), "{}", answer.text);
    assert!(alice.get("/notes/connect?saved").await.is_connected());
    assert_eq!(used(&bridge, None).await, hash("ntn_bad"));
    assert_eq!(service.asked().len(), 1, "it is not tried again");
    // Where nothing can be tried, nothing is left out.
    let form = alice.get("/strict/connect").await.form("/strict/connect");
    let fields = [("form", form.as_str()), ("field-token", "ntn_1"), ("anyway", "yes")];
    assert_eq!(alice.post("/strict/connect", &fields).await.status, 303);

    let (said, text) = written_down(&mut bridge, &home);
    assert_eq!(said, ["token-probed refused", "token-saved-anyway begun", "token-saved-anyway done"]);
    assert_eq!(text.matches("\"token-set\"").count(), 2, "{text}");
    assert!(!text.contains("ntn_bad") && !bridge.log().contains("ntn_bad"), "{text}");
}

#[tokio::test]
async fn an_mcp_server_that_refuses_the_token_is_told_as_the_service_is() {
    let home = Home::new();
    for status in [401, 403] {
        let service = Service::that_says(status, "").await;
        let mut config = config(&home, &alone(), &home.embedded());
        config["mcpServers"]["notes"] = json!({ "url": service.url("/mcp"), "probe": "tools/list",
            "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } },
            "tokenSetup": { "displayName": "Notion" } });
        let bridge = home.serve(config);
        let page = Person::at(bridge.address()).paste("notes", "ntn_bad").await;
        let sentence = format!("Notion refused this token ({status}).");
        assert_eq!((page.status, page.text.contains(&sentence)), (422, true), "{}", page.text);
    }
}

#[tokio::test]
async fn a_service_that_is_down_does_not_make_a_good_token_bad() {
    let elsewhere = Service::that_says(200, "you are alice").await;
    let moved = format!("Location: {}\r\n", elsewhere.url("/me"));
    let down = Service::start(move |path, _| match path {
        "/moved" => Some((302, moved.clone(), String::new())),
        "/cut" => Some((200, "X: y\r\nContent-Length: 9\r\n".to_owned(), String::new())),
        _ => Some((503, String::new(), "<b>down</b>".to_owned())),
    });
    let down = down.await;
    let nobody = format!("http://{}/me", free_address());
    for (url, why) in [
        (nobody, "it refused the connection"),
        (down.url("/me"), "it answered with HTTP status 503"),
        (down.url("/moved"), "it answered with HTTP status 302"),
        (down.url("/cut"), ""),
    ] {
        let home = Home::new();
        let bridge = node_with(&home, &alone(), &get(&url));
        let mut alice = Person::at(bridge.address());
        let page = alice.paste("notes", "ntn_good").await;
        assert_eq!(page.status, 422, "{url}: {}", page.text);
        let says = page.text.contains("This could not be tried with Notes &#38; more:") && page.text.contains(why);
        assert!(says && page.text.contains("This does not mean that the token is wrong"), "{url}: {}", page.text);
        assert!(!page.text.contains("refused this token") && !page.text.contains("aria-invalid"), "{url}");
        assert!(!alice.get(PATH).await.is_connected(), "{url}");
        assert_eq!(insist(&mut alice, &page, "ntn_good").await.status, 303, "{url}");
        assert!(alice.get(PATH).await.is_connected(), "{url}");
    }
    assert_eq!(elsewhere.asked(), [], "a token follows no redirect");
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_after_20_s_and_a_third_trial_meanwhile_is_refused() {
    let home = Home::new();
    let service = Service::start(|_, authorization| {
        authorization.ends_with("quick").then(|| (200, String::new(), "you are bob".to_owned()))
    });
    let service = service.await;
    let bridge = node_with(&home, &proxied(), &get(&service.url("/me")));
    let mut people: Vec<Person> = (0..3).map(|_| Person::at(bridge.address()).named("alice")).collect();
    let began = Instant::now();
    let [one, two, three] = &mut people[..] else { unreachable!("three") };
    let third = async {
        while service.asked().len() < 2 {
            tokio::time::sleep(procs::LOOK).await;
        }
        let busy = three.paste("notes", "ntn_quick").await;
        assert_eq!((busy.status, busy.header("retry-after")), (429, "20"), "{}", busy.text);
        assert!(busy.text.contains("You are already trying two tokens.") && !busy.text.contains("Save anyway"));
        assert_eq!(service.asked().len(), 2, "it is not tried");
        let mut bob = Person::at(bridge.address()).named("bob");
        assert_eq!(bob.paste("notes", "ntn_quick").await.status, 303, "others are not kept from it");
    };
    let (one, two, ()) = tokio::join!(one.paste("notes", "ntn_1"), two.paste("notes", "ntn_2"), third);
    assert!(began.elapsed() >= Duration::from_secs(20), "{:?}", began.elapsed());
    for page in [one, two] {
        assert_eq!(page.status, 422, "{}", page.text);
        assert!(page.text.contains("more: it did not answer within 20 s."), "{}", page.text);
    }
    assert_eq!(three.paste("notes", "ntn_quick").await.status, 303, "there is room again");
}

#[tokio::test]
async fn whoever_leaves_leaves_no_server_and_saves_nothing() {
    let home = Home::new();
    let mut config = config(&home, &alone(), &home.embedded());
    let marker = format!("marker={}", home.marker());
    config["mcpServers"]["notes"]["command"] = server("hostile").into();
    config["mcpServers"]["notes"]["args"] = json!(["silent", marker]);
    config["mcpServers"]["notes"]["probe"] = "tools/list".into();
    config["audit"] = json!({ "file": home.path().join("audit.jsonl") });
    let mut bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    let form = alice.get(PATH).await.form(PATH);
    let body = encoded(&[("form", &form), ("field-token", "ntn_good")]);
    let mut headers: Vec<_> = OURS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    headers.push(("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
    let mut connection = Connection::open(bridge.address()).await.unwrap();
    connection.request("POST", PATH, &headers, body.as_bytes()).await.unwrap();
    let runs = || !procs::with_marker(home.marker()).is_empty();
    procs::eventually(PATIENCE, || runs().then_some(())).await.expect("it is started");
    drop(connection);
    // Sooner than the trial would have ended by itself.
    procs::eventually(Duration::from_secs(15), || (!runs()).then_some(())).await.expect("it is ended");
    assert!(!alice.get(PATH).await.is_connected());
    assert_eq!(written_down(&mut bridge, &home).0, ["token-probed unknown"]);
}

#[tokio::test]
async fn a_server_that_is_slow_to_end_delays_no_page_and_is_ended() {
    let home = Home::new();
    let mut config = config(&home, &alone(), &home.embedded());
    let marker = format!("marker={}", home.marker());
    let notes = &mut config["mcpServers"]["notes"];
    notes["command"] = server("hostile").into();
    notes["args"] = json!(["polite", "stubborn=yes", marker]);
    notes["probe"] = json!({ "tool": "act" });
    (notes["eofGrace"], notes["termGrace"]) = ("8s".into(), "1s".into());
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.paste("notes", "ntn_good").await.status, 303);
    assert!(!procs::with_marker(home.marker()).is_empty(), "the page waits for nothing");
    assert!(alice.get("/notes/connect?saved").await.text.contains("<code>done</code>"));
    let left = procs::eventually(PATIENCE, || procs::with_marker(home.marker()).is_empty().then_some(()));
    left.await.expect("it is ended");
}

#[tokio::test]
async fn what_is_shown_of_an_answer_holds_no_form_of_the_token_and_no_markup() {
    const TOKEN: &str = "ntn_a\"b ?canary/+";
    let hex = TOKEN.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let percent = encoded(&[("", TOKEN)]).replacen('=', "", 1);
    let [standard, url_safe] = [BASE64_STANDARD.encode(format!("user:{TOKEN}")), BASE64_URL_SAFE_NO_PAD.encode(TOKEN)];
    let escaped = TOKEN.replace('"', "\\\"");
    let apart = TOKEN.replace(' ', "\t");
    let forms = [TOKEN.to_owned(), percent, hex, standard, url_safe, escaped, apart];
    let home = Home::new();
    let said = Arc::new(Mutex::new((0, String::new())));
    let says = Arc::clone(&said);
    let service = Service::start(move |_, _| {
        let (status, said) = says.lock().unwrap().clone();
        Some((status, String::new(), format!("{said}\r\nyou are alice")))
    });
    let bridge = node_with(&home, &proxied(), &get(&service.await.url("/me")));
    for (number, text) in forms.iter().map(String::as_str).chain(MARKUP).enumerate() {
        for status in [200, 401] {
            *said.lock().unwrap() = (status, text.to_owned());
            let mut person = Person::at(bridge.address()).named(&format!("user{number}"));
            let answer = person.paste("notes", TOKEN).await;
            assert_eq!(answer.status, if status == 200 { 303 } else { 422 }, "{text}: {}", answer.text);
            let page = if status == 200 { person.get("/notes/connect?saved").await } else { answer };
            assert_eq!(harmful(&page.text), None, "{}", page.text);
            assert_eq!(page.text.contains("you are alice"), status == 200, "{}", page.text);
            assert!(
                MARKUP.contains(&text) || (status == 200) == page.text.contains("[token]"),
                "{text}: {}",
                page.text
            );
            for form in &forms {
                assert!(!page.text.contains(&form[8..form.len() - 4]), "{form}: {}", page.text);
            }
        }
    }
    assert!(!bridge.log().contains("canary"), "{}", bridge.log());
}

#[tokio::test]
async fn an_answer_without_end_is_cut_to_300_characters() {
    let home = Home::new();
    let service = Service::that_says(200, &"\u{e4}<".repeat(4 << 20)).await;
    let bridge = node_with(&home, &alone(), &get(&service.url("/me")));
    let mut alice = Person::at(bridge.address());
    assert_eq!(alice.paste("notes", "ntn_good").await.status, 303);
    let page = alice.get("/notes/connect?saved").await;
    assert_eq!(page.text.matches("\u{e4}&#60;").count(), 150, "{}", page.text);
}

#[tokio::test]
async fn a_trial_counts_as_a_change_and_with_what_it_saves_as_one() {
    let home = Home::new();
    let service = Service::start(|_, authorization| {
        Some((if authorization.ends_with("good") { 200 } else { 401 }, String::new(), "hello".to_owned()))
    });
    let service = service.await;
    let mut bridge = node_with(&home, &alone(), &get(&service.url("/me")));
    let mut alice = Person::at(bridge.address());
    for (token, status) in [("ntn_good", 303), ("ntn_bad", 422)].repeat(5) {
        assert_eq!(alice.paste("notes", token).await.status, status);
    }
    let answer = alice.paste("notes", "ntn_good").await;
    assert_eq!((answer.status, answer.text.contains("Too many tries")), (429, true), "{}", answer.text);
    assert_eq!(service.asked().len(), 10, "nothing more is tried");
    let (said, _) = written_down(&mut bridge, &home);
    let saved =
        |change: &str| vec!["token-probed done".to_owned(), format!("{change} begun"), format!("{change} done")];
    let refused = vec!["token-probed refused".to_owned()];
    assert_eq!(said[..8], [saved("token-set"), refused.clone(), saved("token-replaced"), refused].concat());
    assert_eq!(said.len(), 20);
}
