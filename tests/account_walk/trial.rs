//! A token is tried before it is saved, and the page says what came of it.

use crate::service::Service;
use crate::{ALICE, Client, TOKENS, Walk, json, sha256_hex};

#[tokio::test]
async fn a_person_sees_what_the_trial_of_a_token_saw_and_may_save_it_anyway() {
    let service = Service::start(|_, authorization| {
        let knows = authorization.ends_with(TOKENS[1]);
        let said = if knows { "{\"name\": \"<b>Alice</b>\"}" } else { "who is this?" };
        Some((if knows { 200 } else { 401 }, String::new(), said.to_owned()))
    });
    let me = service.await.url("/me");
    let walk = Walk::start_with(|config| {
        let headers = json!({ "Authorization": { "$userToken": "Bearer <<token>>" } });
        config["mcpServers"]["notes"]["probe"] = json!({ "url": me, "headers": headers });
    });
    let walk = walk.await;
    let browser = &walk.browser;
    walk.sign_in().await;
    walk.send("main", TOKENS[0]).await;
    assert_eq!(browser.text("#trial .fault").await, "Notes <b>& more</b> refused this token (401).");
    walk.look("tried-and-refused").await;
    assert!(walk.used().await.iter().all(|said| said.contains("/notes/connect")), "nothing was saved");

    browser.fill("main input[type=password]", TOKENS[0]).await;
    browser.follow("main button[name=anyway]").await;
    assert!(browser.text(".news").await.contains("is connected"));
    let other_node = Client::modern(&walk.nodes[1], "notes", Some(ALICE)).call("whoami", json!({})).await;
    assert_eq!(other_node.expect("an answer").text(), sha256_hex(TOKENS[0].as_bytes()));

    browser.click("details:has([type=password]) summary").await;
    walk.send("details", TOKENS[1]).await;
    browser.until("document.querySelectorAll('.news code').length === 1").await;
    assert!(browser.text(".news code").await.contains("<b>Alice</b>"), "what came back is text");
    walk.look("tried-and-connected").await;
    walk.go("/notes/connect?saved").await;
    assert!(!browser.text("main").await.contains("Alice"), "it is shown once");
    walk.has_kept_to_the_policy().await;
}
