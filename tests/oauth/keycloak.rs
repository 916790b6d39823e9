//! People sign in at a real Keycloak, which `scripts/keycloak` starts with the realm of tests/keycloak/realm.json: an issuer
//! with a path, that ignores `resource`, and takes back all that it gave when what renews a token comes twice.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::burst::quick_server;
use crate::faults::PATIENCE;
use crate::one_click::{click, leads_to, parameter};
use crate::relay::{Passed, Relay};
use crate::service::{Browser, attribute};
use crate::support::http::Connection;
use crate::support::{Bridge, Client, Home, Redis, bearer_identity, number, procs};
use crate::visit::{Person, encoded};
use crate::{ALICE, PUBLIC_URL};

/// What tests/keycloak/realm.json says.
const REALM: &str = "/realms/there";
const CLIENT: (&str, &str) = ("bridge", "the-bridge-is-known-by-this");
const USER: (&str, &str) = ("alice-there", "what-alice-types-there");

/// Two nodes, and a relay in front of Keycloak, which goes by the host that it is asked for.
struct Stage {
    relay: Relay,
    nodes: Vec<Bridge>,
    _home: Home,
    _redis: Redis,
}

impl Stage {
    fn new() -> Self {
        let port = u16::try_from(number("TOLLBRIDGE_TEST_KEYCLOAK_PORT", 0)).expect("a port");
        assert_ne!(port, 0, "scripts/keycloak says where it is");
        let (relay, home, redis) = (Relay::start(), Home::new(), Redis::start());
        relay.lead_to((Ipv4Addr::LOCALHOST, port).into());
        let (runtime, address) = (Handle::current(), relay.address());
        let server = quick_server(move |bearer| runtime.block_on(user_of(address, bearer)));
        let config = json!({
            "publicUrl": PUBLIC_URL,
            "allowedHosts": ["127.0.0.1"],
            "identity": bearer_identity(&[("alice", ALICE)]),
            "tokenStore": home.in_redis(&redis),
            "mcpServers": { "guarded": {
                "url": format!("http://{server}/mcp"),
                "protocol": "modern",
                "oauth": {
                    "issuer": format!("http://{address}{REALM}"),
                    "clientId": CLIENT.0,
                    "clientSecret": { "$env": "A_SECRET" },
                    "scopes": ["openid", "offline_access"],
                    "resource": false,
                    "allowHosts": ["127.0.0.1"],
                },
                "tokenSetup": { "displayName": "Guarded" },
            } },
        });
        let nodes = (0..2).map(|_| home.serve_with(config.clone(), &[("A_SECRET", CLIENT.1)])).collect();
        Self { relay, nodes, _home: home, _redis: redis }
    }

    /// Alice signs in at Keycloak; answers her browser, and where the bridge had led it.
    async fn connected(&self) -> (Person, String) {
        let mut alice = Person::at(self.nodes[0].address());
        assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
        let url = leads_to(&click(&mut alice).await);
        let mut there = Browser::default();
        let page = there.ask("GET", &url, "").await;
        let (_, form) = page.text.split_once("id=\"kc-form-login\"").expect("a form to sign in with");
        let action = attribute(form, "action=\"", "").replace("&amp;", "&");
        let fields = [("username", USER.0), ("password", USER.1), ("credentialId", "")];
        let back = there.ask("POST", &action, &encoded(&fields)).await.location.expect("it leads back");
        assert_eq!(parameter(&back, "iss"), Some(format!("http://{}{REALM}", self.relay.address())));
        let done = alice.get(back.strip_prefix(PUBLIC_URL).expect("it leads to the bridge")).await;
        assert_eq!(done.status, 200, "{}", done.text);
        (alice, url)
    }

    async fn said(&self, node: usize) -> String {
        let mut client = Client::modern(&self.nodes[node], "guarded", Some(ALICE));
        client.call("whoami", json!({})).await.expect("an answer").text()
    }

    /// Until Keycloak has given other tokens so often; every call before works.
    async fn renewed(&self, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.renewals().0 < times {
            assert!(Instant::now() < deadline, "it is not renewed");
            assert_eq!([self.said(0).await, self.said(1).await], [USER.0; 2]);
            tokio::time::sleep(procs::LOOK).await;
        }
    }

    /// What was asked at the token endpoint, and what came of it.
    fn granted(&self) -> Vec<Passed> {
        self.relay.passed(&format!("POST {REALM}/protocol/openid-connect/token "))
    }

    /// How many renewals were good, and how many were not.
    fn renewals(&self) -> (usize, usize) {
        let all = self.granted();
        let renewals = all.iter().filter(|passed| passed.request.contains("grant_type=refresh_token"));
        let (good, bad): (Vec<_>, Vec<_>) = renewals.partition(|passed| passed.answer.starts_with("HTTP/1.1 200 "));
        (good.len(), bad.len())
    }

    /// What Keycloak says to who brings what renews a token.
    async fn spend(&self, refresh_token: &str) -> (u16, String) {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", CLIENT.0),
            ("client_secret", CLIENT.1),
        ];
        let headers = [("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        let path = format!("{REALM}/protocol/openid-connect/token");
        ask(self.relay.address(), "POST", &path, &headers, &encoded(&fields)).await
    }
}

/// Whose token it is, if Keycloak takes it.
async fn user_of(keycloak: SocketAddr, bearer: &str) -> Option<String> {
    let headers = [("Authorization".to_owned(), format!("Bearer {bearer}"))];
    let path = format!("{REALM}/protocol/openid-connect/userinfo");
    let (status, said) = ask(keycloak, "GET", &path, &headers, "").await;
    let user: Value = (status == 200).then(|| serde_json::from_str(&said).expect("JSON"))?;
    Some(user["preferred_username"].as_str()?.to_owned())
}

async fn ask(at: SocketAddr, method: &str, path: &str, headers: &[(String, String)], body: &str) -> (u16, String) {
    let mut connection = Connection::open(at).await.expect("it listens");
    let mut reply = connection.send(method, path, headers, body.as_bytes()).await.expect("an answer");
    let said = String::from_utf8(reply.body().await.expect("a whole body")).expect("text");
    (reply.status, said)
}

/// What the last of these answers has under this name.
fn last(granted: &[Passed], name: &str) -> String {
    granted.last().and_then(|passed| passed.answered(name)).expect("it was given")
}

#[tokio::test]
#[ignore = "needs a Keycloak: scripts/keycloak"]
async fn a_sign_in_at_keycloak_is_used_renewed_and_given_back() {
    let stage = Stage::new();
    let (mut alice, url) = stage.connected().await;
    assert!(url.starts_with(&format!("http://{}{REALM}/", stage.relay.address())), "{url}");
    assert_eq!(parameter(&url, "code_challenge_method").as_deref(), Some("S256"));
    stage.renewed(2).await;
    assert_eq!(stage.renewals().1, 0, "each is for both nodes");

    let granted = stage.granted();
    assert_eq!(parameter(&url, "resource"), None);
    assert!(granted.iter().all(|passed| !passed.request.contains("resource=")), "it is not told what for");
    let (access, refresh) = (last(&granted, "access_token"), last(&granted, "refresh_token"));
    assert_eq!(user_of(stage.relay.address(), &access).await.as_deref(), Some(USER.0));

    let removed = alice.remove("guarded").await;
    assert!(removed.text.contains("has confirmed that it took it back"), "{}", removed.text);
    assert_eq!(user_of(stage.relay.address(), &access).await, None);
    let (status, said) = stage.spend(&refresh).await;
    assert!(status == 400 && said.contains("invalid_grant"), "{status} {said}");
    assert!(stage.said(1).await.contains("sign in at"));
}

#[tokio::test]
#[ignore = "needs a Keycloak: scripts/keycloak"]
async fn what_renews_a_token_ends_all_at_keycloak_when_it_comes_twice_and_its_user_is_told() {
    let stage = Stage::new();
    let (mut alice, _) = stage.connected().await;
    let first = last(&stage.granted(), "refresh_token");
    stage.renewed(1).await;
    let (renewed, _) = stage.renewals();
    let (status, said) = stage.spend(&first).await;
    assert!(status == 400 && said.contains("reuse exceeded"), "{status} {said}");

    for node in [0, 1, 0] {
        let said = stage.said(node).await;
        assert!(said.contains("because Guarded withdrew it. Connect again: "), "{said}");
    }
    assert_eq!(stage.renewals(), (renewed, 2), "the bridge asks once, with what was good until then");
    let page = alice.get("/guarded/connect").await;
    assert!(page.text.contains("Needs sign-in"), "{}", page.text);

    stage.connected().await;
    assert_eq!([stage.said(0).await, stage.said(1).await], [USER.0; 2]);
}
