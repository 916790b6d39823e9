//! What is saved ends, and so does a session: the pages say so.

use tollbridge::clock::UnixTime;
use tollbridge::config::{self, LoadOptions, ServerName};
use tollbridge::secret::Secret;
use tollbridge::store::{Over, Record, SavedBy, TokenStore};
use tollbridge::user::UserId;

use crate::{ALICE, TOKENS, Walk};

impl Walk {
    /// Saves a token of hers that has expired since.
    async fn save_expired(&self, server: &str) {
        let config = config::load(&self.home.config(), &LoadOptions::default()).expect("it was served");
        let store = TokenStore::from_config(config.token_store.as_ref().expect("a store")).expect("it opens");
        let token = Record::token(UnixTime(1), SavedBy::Page, Secret::new("ntn_old".to_owned()));
        let record = Record { expires_at: Some(UnixTime(2)), ..token };
        let (alice, server) = (UserId::local("alice").expect("a name"), ServerName::parse(server).expect("a name"));
        store.save(&alice, &server, &record, Over::Anything).await.expect("it is saved");
    }
}

#[tokio::test]
async fn a_person_sees_that_a_token_ends_and_gives_another() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    walk.sign_in().await;
    walk.save_expired("dated").await;
    walk.go("/dated/connect").await;
    assert_eq!(browser.text(".standing").await, "Needs another");
    walk.look("expired").await;
    walk.send("details", TOKENS[0]).await;
    assert!(browser.text(".news").await.contains("is connected"));
    assert_eq!(browser.text(".standing").await, "Expires soon");
    walk.look("expires-soon").await;
}

#[tokio::test]
async fn a_tab_that_is_open_while_the_session_ends_in_another_saves_nothing_and_leads_back() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    walk.sign_in().await;
    let before = browser.open_tab().await;
    walk.go("/account").await;
    browser.follow("header button").await;
    assert_eq!(browser.text("h1").await, "Sign in");
    walk.look("signed-out").await;
    walk.go("/account").await;
    assert_eq!(browser.text("h1").await, "Sign in", "there is no way back");
    browser.turn_to(&before).await;
    walk.send("main", TOKENS[0]).await;
    assert_eq!(browser.text("h1").await, "Nothing was changed");
    walk.look("session-ended").await;
    browser.follow("main .button").await;
    assert_eq!(browser.text("h1").await, "Sign in");
    walk.send("main", ALICE).await;
    assert_eq!(browser.text(".standing").await, "Not connected", "and back at the page");
    walk.has_kept_to_the_policy().await;
}
