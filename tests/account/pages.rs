//! What is true of every page.

use serde_json::json;

use crate::support::Home;
use crate::support::http::Connection;
use crate::visit::{Person, Seen};
use crate::{ALICE, alone, config, node, signed_in};

/// Headers that every answer has.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("access-control-allow-origin", ""),
];

/// The longest page, bytes.
const LONGEST: usize = 30_000;

async fn every_page(alice: &mut Person) -> Vec<(&'static str, Seen)> {
    let mut pages =
        vec![("not signed in", alice.get("/account").await), ("sign in", alice.get("/account/sign-in").await)];
    pages.push(("wrong token", alice.sign_in("notes", "a-wrong-token-of-good-length").await));
    pages.push(("signed in", alice.sign_in("notes", ALICE).await));
    pages.push(("all servers", alice.get("/account").await));
    pages.push(("not connected", alice.get("/notes/connect").await));
    pages.push(("refused entry", alice.paste("notes", "").await));
    pages.push(("not good", alice.paste("tried", "ntn_1").await));
    pages.push(("saved", alice.paste("notes", "ntn_1").await));
    pages.push(("connected", alice.get("/notes/connect?saved").await));
    pages.push(("needs none", alice.get("/open/connect").await));
    pages.push(("stale", alice.post("/notes/connect", &[]).await));
    pages.push(("forged", alice.post_from(&[], "/notes/connect", &[]).await));
    pages.push(("not there", alice.get("/never/connect").await));
    pages.push(("method", alice.ask("PUT", "/account", &[], b"").await));
    pages.push(("style", alice.get("/account/style.css").await));
    pages.push(("removed", alice.remove("notes").await));
    pages
}

#[tokio::test]
async fn every_page_has_its_headers_is_short_and_loads_nothing_but_our_style() {
    let home = Home::new();
    let mut config = config(&home, &signed_in(), &home.embedded());
    config["mcpServers"]["tried"] = config["mcpServers"]["notes"].clone();
    config["mcpServers"]["tried"]["probe"] = json!({ "tool": "fail" });
    for number in 0..20 {
        let name = format!("a-server-with-a-name-{number}");
        config["mcpServers"][&name] = config["mcpServers"]["notes"].clone();
    }
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    for (what, page) in every_page(&mut alice).await {
        for (name, value) in HEADERS {
            assert_eq!(page.header(name), value, "{what}: {name}");
        }
        assert!(page.text.len() <= LONGEST, "{what}: {} bytes", page.text.len());
        if !page.header("content-type").starts_with("text/html") {
            continue;
        }
        for never in ["<script", "<style", " style=", "<img", "<iframe", " onclick", "src=", "@import", "http-equiv"] {
            assert!(!page.text.contains(never), "{what}: {never} in {}", page.text);
        }
        let loads: Vec<&str> = page.text.matches("<link ").collect();
        assert_eq!(loads.len(), 1, "{what}");
        assert!(page.text.contains("<link rel=\"stylesheet\" href=\"/account/style.css\">"), "{what}");
        for needed in ["<html lang=\"en\">", "<main id=\"content\">", "<h1>", "name=\"viewport\""] {
            assert!(page.text.contains(needed), "{what}: {needed}");
        }
        assert!(page.title().ends_with(" · Tollbridge") && page.title().len() > 14, "{what}: {}", page.title());
    }
    let style = alice.get("/account/style.css").await;
    assert!(!style.text.contains("url(") && !style.text.contains("@import"));
    assert!(style.text.len() < 12_000 && style.text.contains("prefers-color-scheme: dark"));
    for path in ["/account/style.css", "/account/sign-in"] {
        let mut connection = Connection::open(bridge.address()).await.unwrap();
        let head = connection.send("HEAD", path, &[], b"").await.unwrap();
        let length = head.header("content-length").unwrap().parse::<usize>().unwrap();
        assert!(head.status == 200 && length > 1000, "{path} is there for who only asks whether it is");
    }
}

#[tokio::test]
async fn a_server_says_how_it_is_added_to_an_application_and_nothing_secret() {
    let home = Home::new();
    let mut config = config(&home, &signed_in(), &home.embedded());
    config["publicUrl"] = "https://mcp.example.com/tools".into();
    config["allowedHosts"] = json!(["127.0.0.1"]);
    config["name"] = "Acme tools".into();
    let bridge = home.serve(config);
    let mut alice = Person::at(bridge.address());
    let form = alice.get("/account/sign-in").await.form("/tools/account/sign-in");
    alice.post("/account/sign-in", &[("form", &form), ("token", ALICE)]).await;
    let page = alice.get("/notes/connect").await;
    let text = page.text.replace("&#34;", "\"").replace("&#38;", "&");
    assert!(page.title().ends_with(" · Acme tools"), "{}", page.title());
    for needed in [
        "<code>https://mcp.example.com/tools/notes/mcp</code>",
        "claude mcp add --transport http notes https://mcp.example.com/tools/notes/mcp --header \"Authorization: Bearer YOUR_TOKEN\"",
        "\"mcp-remote\",",
        "\"AUTH\": \"Bearer YOUR_TOKEN\"",
        "href=\"vscode:mcp/install?%7B",
        "href=\"cursor://anysphere.cursor-deeplink/mcp/install?name=notes&config=",
        "action=\"/tools/notes/connect\"",
    ] {
        assert!(text.contains(needed), "{needed} in {text}");
    }
    assert!(!text.contains(ALICE) && !text.contains("allow-http"));

    let bridge = node(&home, &alone());
    let page = Person::at(bridge.address()).get("/notes/connect").await;
    assert!(!page.text.contains("YOUR_TOKEN") && page.text.contains("--allow-http"), "{}", page.text);
}
