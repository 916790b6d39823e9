//! The picture of the README, `docs/account.png`: what its configuration shows to bob before he connects.

use crate::{ALICE, Value, Walk, bearer_identity, fs, json};

/// The most that it may be, bytes.
const LONGEST: usize = 60 << 10;

/// The first configuration of the README.
fn shown() -> Value {
    let sample = include_str!("../../README.md").split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
    serde_json::from_str(sample.expect("a sample")).expect("JSON")
}

#[tokio::test]
async fn the_picture_of_the_readme_is_what_bob_sees() {
    let walk = Walk::start_with(|config| {
        config["identity"] = bearer_identity(&[("bob", ALICE)]);
        config["mcpServers"]["notes"]["tokenSetup"] = shown()["mcpServers"]["notion"]["tokenSetup"].clone();
    });
    let walk = walk.await;
    walk.browser.show(640, "light").await;
    walk.sign_in().await;
    assert_eq!(walk.browser.text(".who strong").await, "bob");
    assert_eq!(walk.browser.text(".standing").await, "Not connected");
    // Nobody points at anything.
    walk.browser.run("document.activeElement.blur()").await;
    walk.browser.picture(&walk.pictures.join("readme.png")).await;
    // One that is taken here replaces it by hand: letters differ from machine to machine.
    let kept = fs::read("docs/account.png").expect("it is there");
    assert!(kept.starts_with(b"\x89PNG") && kept.len() <= LONGEST, "{} bytes", kept.len());
    assert_eq!(shown()["identity"][0]["tokens"][1]["user"], json!("bob"));
}
