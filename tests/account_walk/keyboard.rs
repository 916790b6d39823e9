//! The whole visit on 320 pixels without a mouse: where Tab leads, that one sees it, and what Enter does there.

use crate::support::browser::{ENTER, TAB};
use crate::{ALICE, TOKENS, Walk, json};

/// The most stops of a page.
const STOPS: usize = 40;

impl Walk {
    async fn press(&self, key: char) {
        self.browser.press(&key.to_string()).await;
    }

    /// What has the focus, by its words; it must be seen that it has.
    async fn focused(&self) -> Option<String> {
        let about = "const focused = document.activeElement;
            if (focused === document.body) return null;
            const { outlineStyle, outlineWidth } = getComputedStyle(focused);
            const { left, right, top, bottom } = focused.getBoundingClientRect();
            const seen = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2
                && left >= 0 && right <= innerWidth && bottom > 0 && top < innerHeight;
            const words = focused.labels && focused.labels.length ? focused.labels[0] : focused;
            return [words.innerText.trim().replace(/\\s+/g, ' '), seen]";
        let about = self.browser.run(about).await;
        let words = about[0].as_str()?.to_owned();
        assert_eq!(about[1], true, "nobody sees that {words:?} has the focus");
        Some(words)
    }

    /// Goes through the page by Tab; what it stops at.
    async fn stops(&self) -> Vec<String> {
        let mut stops: Vec<String> = Vec::new();
        for _ in 0..STOPS {
            self.press(TAB).await;
            match self.focused().await {
                // A date has several parts.
                Some(stop) if stops.last() != Some(&stop) => stops.push(stop),
                Some(_) => (),
                None => return stops,
            }
        }
        panic!("there is no end to them: {stops:?}");
    }

    /// Goes on by Tab until what has these words has the focus.
    async fn tab_to(&self, words: &str) {
        for _ in 0..STOPS {
            self.press(TAB).await;
            if self.focused().await.as_deref() == Some(words) {
                return;
            }
        }
        panic!("Tab does not lead to {words:?}");
    }

    /// Types this into what has the focus, and sends it as people do; what has the focus on the page that comes.
    async fn enter_and_focus(&self, text: &str) -> Option<String> {
        self.browser.enter(text).await;
        self.browser.until("document.activeElement !== document.body").await;
        self.focused().await
    }
}

#[tokio::test]
async fn each_page_is_usable_by_keyboard_at_320_px() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    browser.show(320, "light").await;
    walk.go("/notes/connect").await;
    browser.until("document.activeElement !== document.body").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Your bridge token"), "the first thing to do");
    let again = walk.enter_and_focus("not-a-token-of-this-bridge").await;
    browser.until("!!document.querySelector('.fault')").await;
    assert_eq!(again.as_deref(), Some("Your bridge token"), "and again");
    browser.enter(ALICE).await;
    browser.until("location.pathname === '/notes/connect'").await;

    let around = ["Skip to the content", "Tollbridge", "Sign out"];
    let form = ["Token", "Last day (optional)"];
    let expected =
        [&around[..], &["← All accounts", "Where to find it"], &form, &["Connect", "Add it to your application"]];
    assert_eq!(walk.stops().await, expected.concat(), "in the order in which they are read");
    walk.press(TAB).await;
    assert_eq!(walk.focused().await.as_deref(), Some("Skip to the content"));
    walk.press(ENTER).await;
    walk.press(TAB).await;
    assert_eq!(walk.focused().await.as_deref(), Some("← All accounts"), "what is on every page is left out");

    walk.tab_to("Token").await;
    let wrong = walk.enter_and_focus("Bearer ntn_1").await;
    browser.until("!!document.querySelector('.fault')").await;
    assert_eq!(wrong.as_deref(), Some("Token"), "the field that is wrong");
    let told = "const field = document.activeElement;
        return field.getAttribute('aria-describedby').split(' ').map(id => document.getElementById(id).innerText)[0]";
    assert_eq!(
        browser.run(told).await,
        json!("Paste only what comes after “Bearer”."),
        "what a screen reader says of it"
    );
    browser.enter(TOKENS[0]).await;
    browser.until("!!document.querySelector('.news')").await;

    walk.go("/notes/connect").await;
    let shut = ["← All accounts", "Replace the token", "Remove the token", "Add it to your application"];
    assert_eq!(walk.stops().await, [&around[..], &shut].concat(), "what is shut is passed over");
    walk.tab_to("Replace the token").await;
    walk.press(ENTER).await;
    walk.tab_to("Token").await;
    browser.enter(TOKENS[1]).await;
    browser.until("!!document.querySelector('.news')").await;
    walk.tab_to("Remove the token").await;
    walk.press(ENTER).await;
    walk.tab_to("Remove").await;
    browser.enter("").await;
    browser.until("location.search === '?removed'").await;

    walk.go("/account").await;
    let cards = ["Connect Dated", "Connect Notes <b>& more</b>", "Add to an application open"];
    assert_eq!(walk.stops().await, [&around[..], &cards].concat());
    walk.tab_to("Connect Notes <b>& more</b>").await;
    browser.enter("").await;
    browser.until("location.pathname === '/notes/connect'").await;
    walk.tab_to("Sign out").await;
    browser.enter("").await;
    browser.until("location.pathname === '/account/sign-in' && document.activeElement !== document.body").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Your bridge token"));
}
