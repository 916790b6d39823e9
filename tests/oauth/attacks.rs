//! What is known to have been done to clients of OAuth, and to those of MCP servers among them, by the names under which it
//! was published: each comes to nothing.

use serde_json::json;

use crate::hostile::{METADATA, RESOURCE, Script, Siege};
use crate::one_click::{click, leads_to, parameter};

/// An attack by what a server or its service says before anybody is led there: what that does, the status and what the
/// page says.
type ByWords = (&'static str, fn(&mut Script), u16, &'static str);

const UNUSABLE: &str = "cannot be used";
const NOT_HTTPS: &str = "not https, or not one to call";
const OTHER_ISSUER: &str = "it is of another issuer";

const BY_WORDS: [ByWords; 40] = [
    ("CVE-2025-6514, mcp-remote: a command", |s| asks_at(s, "a:$(cmd.exe /c echo canary)"), 502, NOT_HTTPS),
    ("CVE-2025-54074, Cherry Studio: a program", |s| asks_at(s, "file:///c:/windows/canary.exe"), 502, NOT_HTTPS),
    ("CVE-2025-58444, MCP Inspector: a script", |s| asks_at(s, "javascript:alert('canary')//"), 502, NOT_HTTPS),
    ("a script in another case", |s| asks_at(s, " JavaScript:alert('canary')"), 502, NOT_HTTPS),
    ("a page in the address", |s| asks_at(s, "data:text/html,<script>canary</script>"), 502, NOT_HTTPS),
    ("CVE-2025-61591, Cursor: another program's link", |s| asks_at(s, "cursor://canary/mcp"), 502, NOT_HTTPS),
    ("no TLS", |s| asks_at(s, "http://as.example/canary"), 502, NOT_HTTPS),
    ("somebody's name in the address", |s| asks_at(s, "https://bank.example@as.example/"), 502, NOT_HTTPS),
    ("no TLS for tokens", |s| s.metadata["token_endpoint"] = json!("http://as.example/canary"), 502, NOT_HTTPS),
    ("no TLS to register", |s| s.metadata["registration_endpoint"] = json!("http://as.example/"), 502, NOT_HTTPS),
    ("a script to revoke", |s| s.metadata["revocation_endpoint"] = json!("javascript:canary"), 502, NOT_HTTPS),
    ("another question: redirect_uri", |s| asks_at(s, &own(s, "?redirect_uri=https://canary.example")), 502, UNUSABLE),
    ("another question: client_id", |s| asks_at(s, &own(s, "?x=1&client_id=canary")), 502, UNUSABLE),
    ("another question: request_uri", |s| asks_at(s, &own(s, "?request%5furi=https://canary.example")), 502, UNUSABLE),
    ("another question: response_mode", |s| asks_at(s, &own(s, "?response_mode=form_post")), 502, UNUSABLE),
    ("the question in a fragment", |s| asks_at(s, &own(s, "#canary")), 502, UNUSABLE),
    (
        "modelcontextprotocol#1721, mix-up: the honest page",
        |s| elsewhere(s, "https://honest.example/"),
        502,
        "elsewhere",
    ),
    ("mix-up: a page under a name like it", |s| elsewhere(s, "https://127.0.0.2.honest.example/"), 502, "elsewhere"),
    (
        "CVE-2025-4144, workers-oauth-provider: PKCE is given up",
        |s| s.metadata["code_challenge_methods_supported"] = json!(["plain"]),
        502,
        "S256",
    ),
    ("PKCE is not offered", |s| drop(s.metadata["code_challenge_methods_supported"].take()), 502, "S256"),
    ("RFC 8414: another issuer", |s| s.metadata["issuer"] = json!("https://honest.example"), 502, OTHER_ISSUER),
    ("RFC 8414: no issuer", |s| drop(s.metadata["issuer"].take()), 502, OTHER_ISSUER),
    ("RFC 8414: nearly the issuer", |s| s.metadata["issuer"] = json!(own_base(s) + "/"), 502, OTHER_ISSUER),
    ("RFC 8414: a document in a place of its own", |s| claims_to_be(s, "https://honest.example"), 502, OTHER_ISSUER),
    ("RFC 9728: another's resource", |s| s.resource["resource"] = json!("https://honest.example/mcp"), 502, UNUSABLE),
    ("RFC 9728: a path that is none of its own", |s| s.resource["resource"] = json!(own_base(s) + "/m"), 502, UNUSABLE),
    ("RFC 9728: no resource", |s| drop(s.resource["resource"].take()), 502, UNUSABLE),
    ("RFC 8707: a fragment", |s| s.resource["resource"] = json!(own_base(s) + "/mcp#canary"), 502, UNUSABLE),
    ("a document without an end", |s| s.says(METADATA, 200, "canary ".repeat(150_000)), 502, UNUSABLE),
    ("a document without a bottom", |s| s.says(METADATA, 200, "[".repeat(100_000)), 502, UNUSABLE),
    ("a page where a document should be", |s| s.says(METADATA, 200, "<html>canary</html>"), 502, UNUSABLE),
    ("a document somewhere else", |s| s.sends_on(METADATA, "/canary"), 502, UNUSABLE),
    ("a thousand services", many_services, 502, UNUSABLE),
    ("what a terminal obeys, in the resource", resource_for_terminals, 502, "no place to sign in"),
    ("an address without an end", |s| s.metadata["token_endpoint"] = json!(own(s, &"/".repeat(9_000))), 502, NOT_HTTPS),
    ("a thousand scopes", many_scopes, 502, "too long"),
    ("a name of a client without an end", |s| s.registration["client_id"] = json!("c".repeat(9_000)), 502, "client id"),
    ("what it says of a refusal", |s| s.says("/register", 400, "<b>canary</b>"), 502, "for a client id"),
    ("nothing, and endpoints to be guessed", silent, 502, "does not say where to sign in"),
    ("nobody is there", |s| s.says(METADATA, 500, "canary"), 503, "does not answer as it should now"),
];

fn asks_at(script: &mut Script, url: &str) {
    script.metadata["authorization_endpoint"] = json!(url);
}

fn own_base(script: &Script) -> String {
    script.base.clone()
}

fn own(script: &Script, rest: &str) -> String {
    format!("{}/authorize{rest}", script.base)
}

/// Its own tokens for what was allowed on another's page, whose answers name nobody.
fn elsewhere(script: &mut Script, page: &str) {
    asks_at(script, page);
    script.metadata["authorization_response_iss_parameter_supported"] = json!(false);
}

fn claims_to_be(script: &mut Script, issuer: &str) {
    let place = "/.well-known/canary";
    script.resource["authorization_servers"] = json!([format!("{}{place}", script.base), issuer]);
    script.metadata["issuer"] = json!(issuer);
    let document = script.metadata.to_string();
    script.says(place, 200, document);
}

fn resource_for_terminals(script: &mut Script) {
    script.resource["resource"] = json!(format!("{}/mcp?\u{1b}[2J", script.base));
}

fn many_services(script: &mut Script) {
    let names = (0..1_000).map(|n| format!("{}/canary-{n}", script.base));
    script.resource["authorization_servers"] = names.collect();
}

fn many_scopes(script: &mut Script) {
    script.challenge = format!("Bearer resource_metadata=\"{}{RESOURCE}\"", script.base);
    script.resource["scopes_supported"] = (0..1_000).map(|n| format!("{n}{}", "s".repeat(200))).collect();
}

fn silent(script: &mut Script) {
    "Bearer".clone_into(&mut script.challenge);
    script.says(RESOURCE, 404, "");
    script.says(METADATA, 404, "");
}

#[tokio::test]
async fn nobody_is_led_anywhere_by_what_a_hostile_service_says() {
    let mut siege = Siege::lay();
    for (attack, does, status, says) in BY_WORDS {
        siege.hostile.does(|_| ());
        let mut person = siege.somebody();
        let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
        siege.hostile.does(does);
        // Nothing that was registered before may help.
        let seen = person.post("/guarded/connect/start", &[("form", &form), ("anew", "1")]).await;
        assert_eq!((seen.status, seen.header("refresh")), (status, ""), "{attack}: {}", seen.text);
        assert!(seen.text.contains(says) && !seen.text.contains("canary"), "{attack}: {}", seen.text);
        assert_eq!(status == 503, !seen.header("retry-after").is_empty(), "{attack}");
        assert!(siege.hostile.asked("").len() <= 32, "{attack}: it calls without an end");
        for path in ["POST /token", "POST /authorize", "GET /authorize", "GET /canary "] {
            assert_eq!(siege.hostile.asked(path), [""; 0], "{attack}");
        }
        let page = person.get("/guarded/connect").await;
        assert_eq!((page.status, page.text.contains("canary")), (200, false), "{attack}: {}", page.text);
    }
    let log = siege.bridge.log();
    assert!(!log.contains(crate::PROOF) && !log.contains("<b>canary") && !log.contains("canary canary"));
}

/// Who brings an answer back.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Themself,
    OtherUser,
    OtherBrowser,
    Nobody,
}
use By::{Nobody, OtherBrowser, OtherUser, Themself};

/// An attack by the answer that comes back: who brings it, what comes after `?` (STATE and ISS are filled in), the status and
/// what the page says, and whether the sign-in can still be answered.
type ByAnswer = (&'static str, By, &'static str, u16, &'static str, bool);

const ENDED: &str = "This sign-in has ended";
const SOMEBODY_ELSE: &str = "came from somebody else";

const BY_ANSWER: [ByAnswer; 25] = [
    ("session fixation: another user's browser", OtherUser, "code=c&state=STATE&iss=ISS", 403, "", true),
    ("login CSRF: another browser of the user", OtherBrowser, "code=c&state=STATE&iss=ISS", 403, "", true),
    ("librefang#3730: nobody, to end it", Nobody, "code=c&state=STATE&iss=ISS", 403, "", true),
    ("nobody refuses for them", Nobody, "error=access_denied&state=STATE&iss=ISS", 403, "", true),
    ("login CSRF: a state of nobody's", Themself, "code=canary&state=canary&iss=ISS", 400, ENDED, true),
    ("metamcp#299: no state", Themself, "code=canary&iss=ISS", 400, ENDED, true),
    ("an empty state", Themself, "code=canary&state=&iss=ISS", 400, ENDED, true),
    ("code injection: two codes", Themself, "code=c&code=canary&state=STATE&iss=ISS", 400, ENDED, true),
    ("code injection: a code and an error", Themself, "code=c&error=canary&state=STATE&iss=ISS", 400, ENDED, true),
    ("parameter pollution: two states", Themself, "code=c&state=STATE&state=canary&iss=ISS", 400, ENDED, true),
    ("parameter pollution: two issuers", Themself, "code=c&state=STATE&iss=ISS&iss=canary", 400, ENDED, true),
    ("an empty code", Themself, "code=&state=STATE&iss=ISS", 400, ENDED, true),
    ("a token in place of a code", Themself, "access_token=canary&state=STATE&iss=ISS", 400, ENDED, true),
    ("a state of markup", Themself, "code=c&state=%3Cscript%3Ecanary%3C/script%3E&iss=ISS", 400, ENDED, true),
    ("a state of bytes that are no text", Themself, "code=c&state=%FF%00canary&iss=ISS", 400, ENDED, true),
    ("RFC 9207: no issuer where one is promised", Themself, "code=c&state=STATE", 400, SOMEBODY_ELSE, false),
    ("RFC 9207: another issuer", Themself, "code=c&state=STATE&iss=https://canary.example", 400, SOMEBODY_ELSE, false),
    ("RFC 9207: nearly the issuer", Themself, "code=c&state=STATE&iss=ISS/", 400, SOMEBODY_ELSE, false),
    ("RFC 9207: an empty issuer", Themself, "code=c&state=STATE&iss=", 400, SOMEBODY_ELSE, false),
    (
        "RFC 9207: an error of another issuer",
        Themself,
        "error=canary&state=STATE&iss=canary",
        400,
        SOMEBODY_ELSE,
        false,
    ),
    ("RFC 9207: a refusal of nobody", Themself, "error=access_denied&state=STATE", 400, SOMEBODY_ELSE, false),
    (
        "CVE-2025-62800, FastMCP: markup in an error",
        Themself,
        "error=%3Cscript%3Ecanary&state=STATE&iss=ISS",
        502,
        "has refused",
        false,
    ),
    (
        "GHSA-gh95-xx4q-qch8, aeon: markup beside an error",
        Themself,
        "error=server_error&error_description=%3Cscript%3Ecanary&error_uri=javascript:canary&state=STATE&iss=ISS",
        502,
        "(server_error)",
        false,
    ),
    (
        "an open redirect",
        Themself,
        "code=c&state=STATE&iss=ISS&redirect_uri=https://canary.example&to=//canary.example&next=canary",
        200,
        "is connected",
        false,
    ),
    (
        "identity from the answer",
        Themself,
        "code=c&state=STATE&iss=ISS&user=canary&sub=canary&id_token=canary",
        200,
        "is connected",
        false,
    ),
];

#[tokio::test]
async fn an_answer_does_nothing_but_what_it_was_asked_for_and_that_once() {
    let mut siege = Siege::lay();
    for (attack, by, query, status, says, goes_on) in BY_ANSWER {
        siege.hostile.does(|_| ());
        let mut person = siege.somebody();
        let url = leads_to(&click(&mut person).await);
        let state = parameter(&url, "state").expect("a state");
        let issuer = url.split("/authorize").next().expect("it is there").to_owned();
        let filled = |query: &str| query.replace("STATE", &state).replace("ISS", &issuer);
        let mut other = siege.somebody();
        other.cookies.clone_from(&person.cookies);
        let (mut browser, mut nobody) = (person.clone(), person.clone());
        browser.cookies.clear();
        nobody.headers.clear();
        let bringer = match by {
            Themself => &mut person,
            OtherUser => &mut other,
            OtherBrowser => &mut browser,
            Nobody => &mut nobody,
        };
        let seen = bringer.get(&format!("/oauth/callback/guarded?{}", filled(query))).await;
        assert_eq!((seen.status, seen.header("location")), (status, ""), "{attack}: {}", seen.text);
        assert!(seen.text.contains(says) && !seen.text.contains("canary"), "{attack}: {}", seen.text);
        assert!(seen.header("referrer-policy") == "no-referrer", "{attack}: a code would be sent on");
        let redeemed = usize::from(status == 200);
        assert_eq!(siege.hostile.asked("POST /token").len(), redeemed, "{attack}");
        // Neither another server's address nor another method takes it.
        let good = filled("code=c&state=STATE&iss=ISS");
        assert_eq!(person.get(&format!("/oauth/callback/other?{good}")).await.status, 400, "{attack}");
        assert_eq!(person.post(&format!("/oauth/callback/guarded?{good}"), &[]).await.status, 405, "{attack}");
        let again = person.get(&format!("/oauth/callback/guarded?{good}")).await;
        assert_eq!(again.status, if goes_on { 200 } else { 400 }, "{attack}: {}", again.text);
        let redeemed = redeemed + usize::from(goes_on);
        assert_eq!(siege.hostile.asked("POST /token").len(), redeemed, "{attack}: nothing was sent anywhere twice");
        assert_eq!(person.get("/guarded/connect").await.is_connected(), redeemed == 1, "{attack}");
        assert!(!other.get("/guarded/connect").await.is_connected(), "{attack}");
    }
}

/// An attack by what is given for a code: what that does, the status and what the page says.
const BY_TOKENS: [ByWords; 9] = [
    ("a token endpoint somewhere else", |s| s.sends_on("/token", "/canary"), 502, "cannot be read"),
    ("a token with another header in it", |s| s.token["access_token"] = json!("a\r\nX-Canary: canary"), 502, "read"),
    ("a token without an end", |s| s.token["access_token"] = json!("t".repeat(100_000)), 502, "cannot be read"),
    ("an answer without an end", |s| s.says("/token", 200, "canary ".repeat(150_000)), 502, "cannot be read"),
    ("a token that needs a proof", |s| s.token["token_type"] = json!("DPoP"), 502, "cannot be read"),
    (
        "what it says of a refusal",
        |s| s.token = json!({ "error": "canary", "error_description": "canary" }),
        502,
        "refused",
    ),
    ("a page in place of a token", |s| s.says("/token", 200, "<script>canary</script>"), 502, "cannot be read"),
    ("an unknown client, for ever", |s| s.token = json!({ "error": "invalid_client" }), 200, ""),
    ("markup in the name of an account", |s| s.token["id_token"] = json!(named()), 200, "is connected"),
];

/// An ID token for somebody of this name, of which nobody looks at the signature.
fn named() -> String {
    use base64::Engine as _;
    let claims = json!({ "sub": "1", "email": "<script>canary</script>\u{202e}" }).to_string();
    format!("e30.{}.e30", base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn what_is_given_for_a_code_is_used_as_a_token_or_not_at_all() {
    let mut siege = Siege::lay();
    for (attack, does, status, says) in BY_TOKENS {
        siege.hostile.does(|_| ());
        let mut person = siege.somebody();
        let url = leads_to(&click(&mut person).await);
        siege.hostile.does(does);
        let back = |url: &str| {
            let issuer = url.split("/authorize").next().expect("it is there");
            format!("/oauth/callback/guarded?code=c&iss={issuer}&state={}", parameter(url, "state").expect("a state"))
        };
        let mut seen = person.get(&back(&url)).await;
        assert_eq!((seen.status, seen.header("location")), (status, ""), "{attack}: {}", seen.text);
        if !seen.header("refresh").is_empty() {
            // The bridge has registered itself anew, and asks once more.
            assert_eq!(siege.hostile.asked("POST /register").len(), 1, "{attack}");
            seen = person.get(&back(&leads_to(&seen))).await;
            assert_eq!(seen.status, 502, "{attack}: {}", seen.text);
            assert_eq!(siege.hostile.asked("POST /register").len(), 1, "{attack}: once");
        }
        assert!(seen.text.contains(says) && !seen.text.contains("canary"), "{attack}: {}", seen.text);
        assert_eq!(siege.hostile.asked("GET /canary").len(), 0, "{attack}");
        let page = person.get("/guarded/connect").await;
        assert_eq!(page.is_connected(), says == "is connected", "{attack}: {}", page.text);
        assert!(!page.text.contains("<script>"), "{attack}: {}", page.text);
    }
}

#[tokio::test]
async fn codes_that_a_service_fails_on_keep_nobody_else_from_it() {
    let mut siege = Siege::lay();
    let back = |url: &str| {
        let issuer = url.split("/authorize").next().expect("it is there");
        format!("/oauth/callback/guarded?code=c&iss={issuer}&state={}", parameter(url, "state").expect("a state"))
    };
    for status in [500, 429, 503, 500, 429, 500] {
        siege.hostile.does(|script| script.says("/token", status, "not with this code"));
        let mut mallory = siege.somebody();
        let url = leads_to(&click(&mut mallory).await);
        assert_eq!(mallory.get(&back(&url)).await.status, 503);
        assert_eq!(siege.hostile.asked("POST /token").len(), 1, "it is not left alone");
    }
    siege.hostile.does(|_| ());
    let mut person = siege.somebody();
    let url = leads_to(&click(&mut person).await);
    assert_eq!(person.get(&back(&url)).await.status, 200);
}

#[tokio::test]
async fn scopes_that_are_none_are_neither_shown_nor_asked_for() {
    let mut siege = Siege::lay();
    siege.hostile.does(|script| {
        let scope = "read <b>canary</b> call:\\\"0800\\\" write";
        script.challenge = format!("Bearer resource_metadata=\"{}{RESOURCE}\", scope=\"{scope}\"", script.base);
        script.registration["client_id"] = json!("a client\r\nSet-Cookie: injected=1");
    });
    let mut person = siege.somebody();
    let page = person.get("/guarded/connect").await;
    assert!(page.text.contains("read") && page.text.contains("write"), "{}", page.text);
    assert!(!page.text.contains("<b>canary"), "{}", page.text);
    let led = click(&mut person).await;
    assert!(!led.headers.iter().any(|(name, value)| name == "set-cookie" && value.contains("injected")));
    let asked = parameter(&leads_to(&led), "scope").expect("scopes");
    assert!(asked.starts_with("read ") && asked.ends_with(" write") && !asked.contains('"'), "{asked}");
}

#[tokio::test]
async fn a_service_that_forgot_the_bridge_is_known_anew_by_who_has_not_come_back_from_it() {
    let mut siege = Siege::lay();
    siege.hostile.does(|_| ());
    let mut person = siege.somebody();
    let offered = |page: &crate::visit::Seen| page.text.contains("Try again as a new application");
    assert!(!offered(&person.get("/guarded/connect").await), "nobody has gone there");
    click(&mut person).await;
    assert!(offered(&person.get("/guarded/connect").await), "they have not come back");
    assert!(!offered(&person.get("/other/connect").await), "they have gone elsewhere");
    assert!(!offered(&siege.somebody().get("/guarded/connect").await), "it is theirs alone");

    siege.hostile.does(|script| script.registration["client_id"] = json!("a-new-client"));
    let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
    let url = leads_to(&person.post("/guarded/connect/start", &[("form", &form), ("anew", "1")]).await);
    assert_eq!(parameter(&url, "client_id").as_deref(), Some("a-new-client"));
    let (issuer, state) = (url.split("/authorize").next().expect("one"), parameter(&url, "state").expect("a state"));
    person.get(&format!("/oauth/callback/guarded?error=access_denied&state={state}&iss={issuer}")).await;
    assert!(!offered(&person.get("/guarded/connect").await), "they have come back");
}

#[tokio::test]
async fn who_looks_at_a_page_over_and_over_does_not_make_the_bridge_call_the_service_each_time() {
    let mut siege = Siege::lay();
    siege.hostile.does(|_| ());
    let mut person = siege.somebody();
    for _ in 0..60 {
        assert_eq!(person.get("/guarded/connect").await.status, 200);
    }
    let asked = siege.hostile.asked("POST /mcp").len();
    assert!((20..40).contains(&asked), "{asked}");
    leads_to(&click(&mut person).await);
    assert!(siege.somebody().get("/guarded/connect").await.text.contains(crate::hostile::HOST), "others see it");
}

#[tokio::test]
async fn a_server_that_greets_anybody_is_left_no_session_of_who_only_looks_where_to_sign_in() {
    let mut siege = Siege::lay();
    let headers = "Mcp-Session-Id: one\r\nContent-Type: application/json\r\n";
    siege.hostile.does(|script| {
        script.instead.insert("/mcp".to_owned(), (200, headers.to_owned(), "{}".to_owned()));
    });
    siege.somebody().get("/guarded/connect").await;
    let ended = siege.hostile.asked("DELETE /mcp");
    assert!(ended.len() == 1 && ended[0].to_lowercase().contains("mcp-session-id: one\r\n"), "{ended:?}");
}

#[tokio::test]
async fn who_asks_over_and_over_to_be_known_anew_does_not_fill_the_store() {
    let mut siege = Siege::lay();
    siege.hostile.does(|_| ());
    let mut led = 0;
    for _ in 0..30 {
        let mut person = siege.somebody();
        let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
        let seen = person.post("/guarded/connect/start", &[("form", &form), ("anew", "1")]).await;
        assert!([200, 503].contains(&seen.status), "{}", seen.text);
        led += usize::from(seen.status == 200);
    }
    assert_eq!((led, siege.hostile.asked("POST /register").len()), (21, 21));
    leads_to(&click(&mut siege.somebody()).await);
    assert_eq!(siege.hostile.asked("POST /register").len(), 21, "the last one is good");
    // No one person uses up what there is for all.
    let mut person = siege.somebody();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let form = person.get("/guarded/connect").await.form("/guarded/connect/start");
        seen.push(person.post("/guarded/connect/start", &[("form", &form), ("anew", "1")]).await.status);
    }
    assert_eq!(seen, [503, 503, 503, 429]);
}
