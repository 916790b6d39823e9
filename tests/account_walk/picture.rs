//! The picture of the README, which is `docs/account.png`: what bob sees before he connects.

use crate::{ALICE, Walk, bearer_identity, fs, json};

/// The most that it may be, bytes.
const LONGEST: u64 = 60 << 10;

#[tokio::test]
async fn the_picture_of_the_readme_is_what_bob_sees() {
    let walk = Walk::start_with(|config| {
        config["identity"] = bearer_identity(&[("bob", ALICE)]);
        config["mcpServers"]["notes"]["tokenSetup"] = json!({
            "displayName": "Notion", "helpUrl": "https://www.notion.so/profile/integrations",
            "instructions": "Make an internal integration, connect it to your pages and copy its secret.",
        });
    });
    let walk = walk.await;
    walk.browser.show(720, "light").await;
    walk.sign_in().await;
    assert_eq!(walk.browser.text(".who strong").await, "bob");
    assert_eq!(walk.browser.text(".standing").await, "Not connected");
    // Nobody points at anything.
    walk.browser.run("document.activeElement.blur()").await;
    let picture = walk.pictures.join("readme.png");
    walk.browser.picture(&picture).await;
    for picture in [picture, "docs/account.png".into()] {
        let length = fs::metadata(&picture).expect("it is there").len();
        assert!((1..=LONGEST).contains(&length), "{}: {length} bytes", picture.display());
    }
}
