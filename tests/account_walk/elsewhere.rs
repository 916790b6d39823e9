//! Pages of other sites in the browser of somebody who is signed in: in a frame, by a form, by a link, by a script.

use crate::service::Service;
use crate::{TOKENS, Walk, json};

/// A site of somebody else, which has but this page, at two origins: a neighbour of ours, of which the browser thinks as of
/// the same site, and a stranger.
async fn site(page: &str) -> [String; 2] {
    let page = page.to_owned();
    let site = Service::start(move |_, _| Some((200, "Content-Type: text/html\r\n".to_owned(), page.clone())));
    let neighbour = site.await.url("/");
    let stranger = neighbour.replace("127.0.0.1", "localhost");
    [neighbour, stranger]
}

#[tokio::test]
async fn another_site_neither_frames_a_page_nor_reads_it_nor_changes_anything() {
    let walk = Walk::start().await;
    let browser = &walk.browser;
    walk.sign_in().await;
    walk.send("main", TOKENS[0]).await;
    assert!(browser.text(".news").await.contains("is connected"));
    let saved = walk.used().await;
    walk.has_kept_to_the_policy().await;

    let page = walk.url("/notes/connect");
    let frame = site(&format!("<!doctype html><iframe src='{page}'></iframe>")).await;
    for origin in frame {
        browser.go(&origin).await;
        let shown = browser.run_in_frame("iframe", "return document.body.innerText").await;
        assert!(!shown.as_str().expect("text").contains("Notes"), "a page of ours is in a frame: {shown}");
        let complaints = browser.complaints().await;
        assert!(complaints.iter().any(|line| line.contains("frame-ancestors 'none'")), "{complaints:?}");
        let read = format!(
            "fetch('{page}', {{ credentials: 'include' }}).then(page => page.text()).then(done, () => done('refused'))"
        );
        assert_eq!(browser.run_to_the_end(&read).await, json!("refused"));
    }

    let forms = ["/notes/connect", "/notes/connect/remove", "/account/sign-out", "/account/sign-in"];
    for form in forms {
        let fields = "<input name=form value=x><input name=field-token value=ntn_bad><input name=token value=ntn_bad>";
        let form = format!("<form method=post action='{}'>{fields}</form>", walk.url(form));
        let sender = site(&format!("<!doctype html>{form}<script>document.forms[0].submit()</script>")).await;
        for origin in sender {
            browser.go(&origin).await;
            assert_eq!(browser.text("h1").await, "Nothing was changed", "{form} from {origin}");
        }
    }
    for query in ["?form=x&field-token=ntn_bad", "?removed", "?saved=ntn_bad"] {
        browser.go(&format!("{page}{query}")).await;
        assert_eq!(browser.text(".standing").await, "Connected", "{query}");
        assert!(!browser.run("return document.body.innerText.includes('ntn_bad')").await.as_bool().expect("a flag"));
    }
    assert_eq!(walk.used().await, saved);
}
