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

    /// Types this into what has the focus, and sends the form as people do.
    async fn type_and_enter(&self, text: &str) {
        self.browser.press(&format!("{text}{ENTER}")).await;
    }
}

#[tokio::test]
async fn each_page_is_usable_by_keyboard_at_320_px() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    browser.show(320, "light").await;
    walk.go("/notes/connect").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Your bridge token"), "the first thing to do");
    walk.type_and_enter("not-a-token-of-this-bridge").await;
    browser.until("!!document.querySelector('.fault')").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Your bridge token"), "and again");
    walk.type_and_enter(ALICE).await;
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
    walk.type_and_enter("Bearer ntn_1").await;
    browser.until("!!document.querySelector('.fault')").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Token"), "the field that is wrong");
    let told = "const field = document.activeElement;
        return field.getAttribute('aria-describedby').split(' ').map(id => document.getElementById(id).innerText)[0]";
    assert_eq!(
        browser.run(told).await,
        json!("Paste only what comes after “Bearer”."),
        "what a screen reader says of it"
    );
    walk.type_and_enter(TOKENS[0]).await;
    browser.until("!!document.querySelector('.news')").await;

    walk.go("/notes/connect").await;
    let shut = ["← All accounts", "Replace the token", "Remove the token", "Add it to your application"];
    assert_eq!(walk.stops().await, [&around[..], &shut].concat(), "what is shut is passed over");
    walk.tab_to("Replace the token").await;
    walk.press(ENTER).await;
    walk.tab_to("Token").await;
    walk.type_and_enter(TOKENS[1]).await;
    browser.until("!!document.querySelector('.news')").await;
    walk.tab_to("Remove the token").await;
    walk.press(ENTER).await;
    walk.tab_to("Remove").await;
    walk.press(ENTER).await;
    browser.until("location.search === '?removed'").await;

    walk.go("/account").await;
    let cards = ["Connect Dated", "Connect Notes <b>& more</b>", "Add to an application open"];
    assert_eq!(walk.stops().await, [&around[..], &cards].concat());
    walk.tab_to("Connect Notes <b>& more</b>").await;
    walk.press(ENTER).await;
    browser.until("location.pathname === '/notes/connect'").await;
    walk.tab_to("Sign out").await;
    walk.press(ENTER).await;
    browser.until("location.pathname === '/account/sign-in'").await;
    assert_eq!(walk.focused().await.as_deref(), Some("Your bridge token"));
}
