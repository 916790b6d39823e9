//! What operators and people write, as a real browser reads the pages that show it.

use crate::corpus::MARKUP;
use crate::{ALICE, TOKENS, Value, Walk, bearer_identity, json};

/// What no page of ours has, and no script that ran.
const STRANGE: &str = "return [window.was_hit, document.querySelectorAll('script, style, img, iframe, object, embed, base, \
                       meta[http-equiv], math, b, a[href^=javascript], a[href^=data]').length, \
                       [...document.querySelectorAll('*')].flatMap(one => [...one.attributes]) \
                       .filter(one => one.name.startsWith('on') || one.name === 'style').length, \
                       new Set([...document.forms].map(form => new URL(form.action).origin)).size]";

fn with_markup(config: &mut Value) {
    // Of all that there is, what fits.
    config["name"] = json!(MARKUP[..2].concat());
    let mut user = MARKUP.concat();
    user.truncate(user.char_indices().map(|(at, _)| at).take_while(|&at| at <= 256).last().unwrap_or(0));
    config["identity"] = bearer_identity(&[(&user, ALICE)]);
    let all = MARKUP.join(" ");
    let field = json!({ "label": all, "help": all });
    config["mcpServers"]["notes"]["env"] = json!({ "WHOAMI_TOKEN": { "$userToken": "<<one>><<two>>" } });
    config["mcpServers"]["notes"]["tokenSetup"] = json!({
        "displayName": all, "instructions": all, "helpUrl": format!("https://notes.example/{all}?{all}#{all}"),
        "fields": { "one": field, "two": field },
    });
}

#[tokio::test]
async fn what_operators_and_people_write_is_no_markup_to_a_browser() {
    let walk = Walk::start_with(with_markup).await;
    let browser = &walk.browser;
    let text = async |selector: &str| browser.text(selector).await.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_ours = async |what: &str| {
        let found = browser.run(STRANGE).await;
        assert_eq!((&found[0], &found[1], &found[2]), (&json!(null), &json!(0), &json!(0)), "{what}: {found}");
        assert!(found[3].as_u64().is_some_and(|origins| origins <= 1), "{what}: a form leads elsewhere");
    };
    let all = MARKUP.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let escaped: String = url::form_urlencoded::byte_serialize(MARKUP.join(" ").as_bytes()).collect();
    for path in [format!("/account/sign-in?to={escaped}"), format!("/{escaped}/connect")] {
        walk.go(&path).await;
        is_ours(&path).await;
    }
    walk.sign_in().await;
    for selector in ["h1", ".instructions", "label", "#help-one"] {
        assert_eq!(text(selector).await, all, "{selector} is shown as it is written");
    }
    assert!(text(".who strong").await.starts_with(MARKUP[0]) && text(".brand").await.starts_with(MARKUP[0]));
    is_ours("a page").await;
    for path in ["/account", &format!("/notes/connect?{escaped}"), &format!("/notes/connect?saved&{escaped}")] {
        walk.go(path).await;
        is_ours(path).await;
    }
    // What is refused is not shown.
    browser.fill("#field-one", &format!("Bearer {}", MARKUP[0])).await;
    browser.fill("#field-two", TOKENS[0]).await;
    browser.follow("main form button").await;
    assert!(browser.text(".fault").await.contains("Bearer"));
    is_ours("a refusal").await;
    browser.fill("#field-one", MARKUP[0]).await;
    browser.fill("#field-two", TOKENS[0]).await;
    browser.follow("main form button").await;
    assert!(text(".news").await.starts_with(MARKUP[0]));
    is_ours("saved").await;
    walk.has_kept_to_the_policy().await;
}
