//! What a person sends to the pages and the API, good or not, is seen nowhere afterwards: in no answer, no line of the audit or the
//! log, not in the store, and not in what the kernel shows of the bridge.

use std::fs;
use std::net::SocketAddr;

use super::visit::{Person, Seen};
use super::*;

const PATH: &str = "/whoami/connect";

/// The bearer token of operators.
const OPERATOR: &str = "the-operators-key-0123456789";

/// All that came back, and a name for it.
struct Answers(Vec<(&'static str, Vec<u8>)>);

impl Answers {
    fn add(&mut self, what: &'static str, seen: &Seen) {
        self.0.push((what, format!("{:?}\n{}", seen.headers, seen.text).into_bytes()));
    }
}

/// What the kernel shows of the bridge's own processes to whoever may look.
fn shown_by_the_kernel(bridge: &Bridge) -> Vec<u8> {
    let own = [bridge.supervisor(), bridge.worker()];
    let files = own.iter().flat_map(|pid| ["cmdline", "environ", "comm"].map(|file| format!("/proc/{pid}/{file}")));
    files.flat_map(|file| fs::read(file).expect("it runs, and this is its user")).collect()
}

/// Signs in, and sends what is refused.
async fn sends_all_sorts(alice: &mut Person, user: &User, answers: &mut Answers) {
    answers.add("a sign-in that is refused", &alice.sign_in("whoami", &user.token).await);
    answers.add("a sign-in", &alice.sign_in("whoami", &user.bearer).await);
    let form = alice.get(PATH).await.form(PATH);
    for refused in [format!("Bearer {}", user.token), format!(" {}", user.token), format!("{}\n", user.token)] {
        let page = alice.post(PATH, &[("form", &form), ("field-token", &refused)]).await;
        assert_eq!(page.status, 422, "{}", page.text);
        answers.add("what is refused", &page);
    }
    for fields in [
        &[("form", "x"), ("field-token", &user.token)][..],
        &[("form", &form), ("field-token", &user.token), ("field-token", &user.token)],
        &[("form", &form), (&user.token, &user.token)],
        &[("form", &form), ("field-token", &user.token), ("expires", &user.token)],
        &[("form", &user.token), ("field-token", &user.bearer)],
    ] {
        answers.add("a form that is none", &alice.post(PATH, fields).await);
    }
}

/// Saves the token, uses it, and looks at all pages.
async fn saves_and_uses(alice: &mut Person, user: &User, bridge: &Bridge, answers: &mut Answers) {
    for saved in ["saved", "replaced"] {
        let answer = alice.paste("whoami", &user.token).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        answers.add(saved, &answer);
        let told = Client::modern(bridge, "whoami", Some(&user.bearer)).call("whoami", json!({})).await;
        assert_eq!(told.expect("an answer").text(), sha256_hex(user.token.as_bytes()));
        for page in ["/account", PATH, "/whoami/connect?saved", "/leaky/connect"] {
            answers.add("a page", &alice.get(page).await);
        }
    }
}

/// Does the same by the API, and asks operators' for all that it knows.
async fn asks_the_api(alice: &mut Person, user: &User, admin: SocketAddr, answers: &mut Answers) {
    const TOKEN: &str = "/api/v1/servers/whoami/token";
    let (caller, operator) = (format!("Bearer {}", user.bearer), format!("Bearer {OPERATOR}"));
    let good = json!({ "token": user.token }).to_string();
    let refused = json!({ "token": format!("Bearer {}", user.token), "expiresAt": user.token }).to_string();
    let any = ("If-Match", "*");
    for (method, path, over, body, status) in [
        ("PUT", TOKEN, any, refused.as_str(), 422),
        ("PUT", TOKEN, ("If-Match", &*user.canary), &good, 400),
        ("PUT", TOKEN, any, &good[..good.len() - 1], 400),
        ("PUT", TOKEN, any, &good, 204),
        ("GET", TOKEN, any, "", 200),
        ("GET", "/api/v1/servers", any, "", 200),
        ("POST", "/api/v1/servers/whoami/probe", any, &refused, 422),
        ("POST", "/api/v1/servers/whoami/probe", any, &good, 200),
    ] {
        let headers = [("Authorization", caller.as_str()), ("Content-Type", "application/json"), over];
        let answer = Person::at(alice.address).ask(method, path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answers.add("the API", &answer);
    }
    let mut operators = Person::at(admin);
    for path in ["connections", "audit", "users/alice/servers/whoami/token"] {
        let headers = [("Authorization", operator.as_str())];
        let answer = operators.ask("GET", &format!("/api/v1/admin/{path}"), &headers, b"").await;
        assert!(answer.status == 200 || path.starts_with("users"), "{path}: {}", answer.text);
        answers.add("the API of operators", &answer);
    }
}

#[tokio::test]
async fn what_a_person_sends_to_the_pages_and_the_api_is_seen_nowhere_afterwards() {
    let (home, redis, admin) = (Home::new(), Redis::start(), support::free_address());
    let user = User::new("alice");
    // Her bearer token is no less a secret; she types it into the page, too.
    let canaries = [user.clone(), User { canary: user.bearer.clone(), ..user.clone() }];
    let audit = home.path().join("audit.jsonl");
    let mut config = json!({
        "identity": bearer_identity(&[(user.name, &user.bearer)]), "admin": { "listen": admin, "token": { "$env": "OPERATOR" } },
        "tokenStore": home.in_redis(&redis), "audit": { "file": audit, "redis": {}, "required": true },
        "mcpServers": servers(&home),
    });
    config["mcpServers"]["whoami"]["probe"] = json!({ "tool": "whoami" });
    let mut bridge = home.serve_with(config, &[("TOLLBRIDGE_LOG", "trace"), ("OPERATOR", OPERATOR)]);
    let looker = Looker::start(&canaries);
    let mut alice = Person::at(bridge.address());
    let mut answers = Answers(Vec::new());
    sends_all_sorts(&mut alice, &user, &mut answers).await;
    saves_and_uses(&mut alice, &user, &bridge, &mut answers).await;
    asks_the_api(&mut alice, &user, admin, &mut answers).await;
    answers.add("metrics", &Person::at(admin).get("/metrics").await);
    answers.add("removed", &alice.remove("whoami").await);
    let form = alice.get("/account").await.form("/account/sign-out");
    answers.add("signed out", &alice.post("/account/sign-out", &[("form", &form)]).await);
    let cookies = format!("{:?}", alice.cookies).into_bytes();

    let mut seen = answers.0;
    seen.extend(looker.seen());
    seen.extend([
        ("the cookies", cookies),
        ("/proc", shown_by_the_kernel(&bridge)),
        ("the audit", fs::read(&audit).expect("it is written")),
        ("the store, with its audit", redis.stored_bytes()),
    ]);
    assert!(bridge.stop().success());
    seen.push(("the log", bridge.log_with("stopped").into_bytes()));
    let has = |place: &str, text: &str| {
        let found = seen.iter().find(|(name, _)| *name == place);
        found.is_some_and(|(_, bytes)| memchr::memmem::find(bytes, text.as_bytes()).is_some())
    };
    assert!(has("the audit", "token-replaced") && has("the store, with its audit", "token-replaced"), "{seen:?}");
    assert!(has("/proc", "serve") && has("the log", "removed on the page"), "what is looked at is there");
    assert_no_canary(&canaries, &seen);
}
