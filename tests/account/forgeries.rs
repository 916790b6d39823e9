//! What others make a browser send, and what they make a page show.

use serde_json::json;

use crate::corpus::MARKUP;
use crate::support::http::Connection;
use crate::support::{Home, bearer_identity};
use crate::visit::{OURS, Person, encoded};
use crate::{ALICE, BOB, PROOF, alone, config, hash, node, proxied, signed_in, used};

const PATH: &str = "/notes/connect";

#[tokio::test]
async fn twelve_forgeries_change_nothing() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    let mut alice = Person::at(bridge.address());
    alice.sign_in("notes", ALICE).await;
    assert_eq!(alice.paste("notes", "ntn_good").await.status, 303);
    let page = alice.get(PATH).await;
    let (form, remove) = (page.form(PATH), page.form("/notes/connect/remove"));
    let sign_out = page.form("/account/sign-out");
    let mut mallory = Person::at(bridge.address());
    mallory.sign_in("notes", BOB).await;
    let of_mallory = mallory.get(PATH).await.form(PATH);

    let good = [("form", form.as_str()), ("field-token", "ntn_bad")];
    let forged = |form: &'static str| [("form", form), ("field-token", "ntn_bad")];
    let with = |headers: &[(&'static str, &'static str)]| headers.to_vec();
    let forgeries = [
        ("another site", with(&[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")]), good),
        ("a site beside ours", with(&[("Origin", "null"), ("Sec-Fetch-Site", "same-site")]), good),
        ("the address bar", with(&[("Sec-Fetch-Site", "none")]), good),
        ("a sandboxed frame", with(&[("Origin", "null")]), good),
        ("nobody says from where", with(&[]), good),
        ("another origin in an old browser", with(&[("Origin", "https://evil.example")]), good),
        ("our host with another port", with(&[("Origin", "http://127.0.0.1:1")]), good),
        ("a lie in two values", with(&[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")]), good),
        ("no token", OURS.to_vec(), [("field-token", "ntn_bad"), ("x", "y")]),
        ("a made-up token", OURS.to_vec(), forged("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("the token of another form", OURS.to_vec(), [("form", remove.as_str()), ("field-token", "ntn_bad")]),
        ("the token of another person", OURS.to_vec(), [("form", of_mallory.as_str()), ("field-token", "ntn_bad")]),
    ];
    assert_eq!(forgeries.len(), 12);
    for (what, headers, fields) in forgeries {
        let answer = alice.post_from(&headers, PATH, &fields).await;
        assert_eq!(answer.status, 403, "{what}: {}", answer.text);
        assert!(answer.text.contains("href=\"/notes/connect\">Go back"), "{what}: {}", answer.text);
        let answer = alice.post_from(&headers, "/notes/connect/remove", &fields).await;
        // The token of the form that removes is good there.
        assert!(answer.status == 403 || what == "the token of another form", "{what}: {}", answer.text);
        if answer.status == 303 {
            assert_eq!(alice.paste("notes", "ntn_good").await.status, 303);
        }
        assert_eq!(used(&bridge, Some(ALICE)).await, hash("ntn_good"), "{what}");
    }
    let answer =
        alice.post_from(&[("Sec-Fetch-Site", "cross-site")], "/account/sign-out", &[("form", &sign_out)]).await;
    assert_eq!(answer.status, 403);
    assert_eq!(alice.get("/account").await.status, 200, "nobody else signs alice out");
    let body = encoded(&good);
    let answer = alice.get(&format!("{PATH}?{body}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(used(&bridge, Some(ALICE)).await, hash("ntn_good"), "GET changes nothing");
}

#[tokio::test]
async fn a_form_of_alice_sent_by_bob_changes_nothing() {
    let home = Home::new();
    let bridge = node(&home, &proxied());
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Person::at(bridge.address()).named(user));
    let form = alice.get(PATH).await.form(PATH);
    let answer = bob.post(PATH, &[("form", &form), ("field-token", "ntn_1")]).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    for person in [&mut alice, &mut bob] {
        assert!(!person.get(PATH).await.is_connected());
    }
    assert_eq!(alice.post(PATH, &[("form", &form), ("field-token", "ntn_1")]).await.status, 303);
    assert!(alice.get(PATH).await.is_connected() && !bob.get(PATH).await.is_connected());
}

#[tokio::test]
async fn nobody_is_signed_in_as_somebody_else_by_a_form_from_elsewhere() {
    let home = Home::new();
    let bridge = node(&home, &signed_in());
    // Mallory has a form of their own, and lets the browser of alice send it.
    let mut mallory = Person::at(bridge.address());
    let form = mallory.get("/account/sign-in").await.form("/account/sign-in");
    for opens_first in [false, true] {
        let mut alice = Person::at(bridge.address());
        if opens_first {
            alice.get("/account/sign-in").await;
        }
        let answer = alice.post("/account/sign-in", &[("form", &form), ("token", BOB)]).await;
        assert_eq!(answer.status, 403, "{}", answer.text);
        assert!(!alice.cookies.contains_key("__Host-tollbridge"));
    }
    let from = [("Origin", "null"), ("Sec-Fetch-Site", "cross-site")];
    let answer = mallory.post_from(&from, "/account/sign-in", &[("form", &form), ("token", BOB)]).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert_eq!(mallory.post("/account/sign-in", &[("form", &form), ("token", BOB)]).await.status, 303);
}

/// Tags and attributes of our pages.
const TAGS: &str = "html head meta title link body a header div span svg rect path p strong form input button main h1 h2 h3 \
                    ul li dl dt dd section label details summary pre code footer !doctype";
const ATTRIBUTES: &str = "html lang charset name content rel href class width height viewBox fill stroke stroke-width \
                          stroke-linecap stroke-linejoin aria-hidden x y rx d id method action type value novalidate for \
                          autocomplete autocapitalize spellcheck aria-describedby aria-invalid autofocus \
                          aria-labelledby role tabindex open";

/// What a browser would read as markup that is not ours.
pub(crate) fn harmful(page: &str) -> Option<String> {
    let is_one_of = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
    page.split('<').skip(1).find_map(|piece| {
        let tag = piece.split('>').next()?;
        let (name, rest) = tag.split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let outside = rest.split('"').step_by(2).collect::<Vec<_>>().join("");
        let mut names = outside.split([' ', '=', '/', '\'']).filter(|name| !name.is_empty());
        let unknown = names.find(|name| !is_one_of(ATTRIBUTES, name));
        let is_ours = is_one_of(TAGS, name.trim_start_matches('/')) && unknown.is_none();
        let leads = rest.split("href=\"").nth(1).unwrap_or("/");
        let leads_where_it_may = ["/", "#content", "https://notes.example/", "vscode:mcp/", "cursor://anysphere."];
        let is_harmless = leads_where_it_may.iter().any(|start| leads.starts_with(start));
        (!is_ours || !is_harmless).then(|| tag.to_owned())
    })
}

/// What is shown as it is written, wherever it comes from: of the operator, of the proxy, of whoever issued the name.
const SHOWN: [&str; 7] = ["bridge", "issuer", "user", "service", "instructions", "label", "help"];

#[tokio::test]
async fn what_operators_servers_and_people_say_is_text_in_nine_places() {
    for markup in MARKUP {
        let home = Home::new();
        let at = |place: &str| format!("{place} {markup}");
        let mut config = config(&home, &proxied(), &home.embedded());
        config["name"] = at("bridge").into();
        config["identity"][0]["issuer"] = at("issuer").into();
        config["mcpServers"]["notes"]["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<one>>" } });
        config["mcpServers"]["notes"]["tokenSetup"] = json!({
            "displayName": at("service"), "instructions": at("instructions"),
            "helpUrl": format!("https://notes.example/{markup}?{markup}#{markup}"),
            "fields": { "one": { "label": at("label"), "help": at("help") } },
        });
        let bridge = home.serve(config);
        let user = at("user").replace(|c: char| c == ',' || !c.is_ascii(), " ");
        let mut person = Person::at(bridge.address()).named(&user);
        let page = person.get(PATH).await;
        let form = page.form(PATH);
        for place in SHOWN {
            let written = if place == "user" { user.trim().to_owned() } else { at(place) };
            assert!(page.text.contains(&as_text(&written)), "{written}: {}", page.text);
        }
        let escaped = encoded(&[("", markup)]).replace('=', "");
        let entered = |value: String| [("form", form.clone()), ("field-one", value)];
        let mut pages = vec![page, person.get("/account").await];
        for path in [
            format!("{PATH}?{escaped}"),
            format!("/{escaped}/connect"),
            format!("/account/sign-in?to={escaped}"),
            format!("/account/{escaped}"),
        ] {
            pages.push(person.get(&path).await);
        }
        for value in [format!("Bearer {markup}"), format!("{markup}\n"), markup.to_owned()] {
            let fields = entered(value);
            let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
            pages.push(person.post(PATH, &fields).await);
        }
        pages.push(person.get(&format!("{PATH}?saved")).await);
        pages.push(person.post(PATH, &[("form", markup), ("field-one", markup)]).await);
        pages.push(person.post(PATH, &[(markup, markup)]).await);
        person.cookies.insert("__Host-tollbridge".to_owned(), markup.replace(';', ""));
        pages.push(person.get("/account").await);
        for page in &pages {
            assert_eq!(harmful(&page.text), None, "{markup}: {}", page.text);
            assert!(!page.text.contains(">49") && !page.text.contains(" 49{"), "{markup}");
        }
    }
}

/// Text as a page of ours writes it.
fn as_text(text: &str) -> String {
    let text = text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

#[tokio::test]
async fn a_redirect_never_leaves() {
    let home = Home::new();
    let mut config = config(&home, &signed_in(), &home.embedded());
    config["publicUrl"] = "https://mcp.example.com//evil.example/".into();
    config["allowedHosts"] = json!(["127.0.0.1"]);
    let bridge = home.serve(config);
    for elsewhere in ["X-Forwarded-Host", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL", "Forwarded"] {
        let lie = [(elsewhere, "https://evil.example/host=evil.example")];
        let answer = Person::at(bridge.address()).ask("GET", PATH, &lie, b"").await;
        assert_eq!(answer.header("location"), "/evil.example/account/sign-in?to=notes", "{elsewhere}");
    }
    for to in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:x",
        "..%2f..",
        "notes%2f..%2f..",
        "%09//evil.example",
        "a%0d%0aLocation:x",
        "notes&to=b",
        "notes@evil.example",
    ] {
        let mut alice = Person::at(bridge.address());
        let page = alice.get(&format!("/account/sign-in?to={to}")).await;
        assert_eq!(page.status, 200);
        let form = page.form("/evil.example/account/sign-in");
        let answer = alice.post("/account/sign-in", &[("form", &form), ("to", to), ("token", ALICE)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/evil.example/account"), "{to}");
    }
}

#[tokio::test]
async fn a_page_is_only_for_our_hosts() {
    let home = Home::new();
    let bridge = node(&home, &alone());
    for path in ["/account", PATH, "/account/style.css", "/account/sign-in"] {
        let mut connection = Connection::open(bridge.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: rebound.example\r\n\r\n");
        connection.write(request.as_bytes()).await.unwrap();
        assert_eq!(connection.reply().await.unwrap().status, 403, "{path}");
    }
}

#[tokio::test]
async fn somebody_whom_nobody_vouches_for_is_told_so() {
    let home = Home::new();
    let bridge = node(&home, &proxied());
    let mut nobody = Person::at(bridge.address());
    for path in ["/account", PATH, "/account/sign-in"] {
        let page = nobody.get(path).await;
        assert_eq!(
            (page.status, page.text.contains("The bridge does not know who you are")),
            (401, true),
            "{path}: {}",
            page.text
        );
    }
    nobody.headers = vec![("X-User".to_owned(), "alice".to_owned()), ("X-Proof".to_owned(), PROOF.replace('a', "b"))];
    assert_eq!(nobody.get("/account").await.status, 401);
    let other = bearer_identity(&[("alice", ALICE)]);
    let bridge = node(&home, &other);
    let page = Person::at(bridge.address()).ask("GET", "/account", &[("Authorization", "Bearer x")], b"").await;
    assert_eq!(page.status, 401, "a credential that is no good is never passed over");
}
