//! Pages of other sites in the browser of somebody who is signed in: in a frame, by a form, by a link, by a script.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::{TOKENS, Walk, json};

/// A site of somebody else, which has but this page.
async fn site(page: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(show(stream, answer.clone()));
        }
    });
    address
}

/// Answers a request, whatever it asks for.
async fn show(stream: TcpStream, answer: String) {
    let (mut stream, mut line) = (BufReader::new(stream), String::new());
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        line.clear();
    }
    // A browser that goes elsewhere meanwhile reads no more.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// The site as a neighbour of ours, of which the browser thinks as of the same site, and as a stranger.
fn origins(site: SocketAddr) -> [String; 2] {
    ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{}/", site.port()))
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
    for origin in origins(frame) {
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
        for origin in origins(sender) {
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
