//! Two services: what one says is never taken for what the other said, and what one gave is never sent to the other.

use serde_json::{Value, json};

use crate::one_click::{click_on, leads_to, parameter};
use crate::service::Service;
use crate::support::{Bridge, Client, Home, Redis};
use crate::visit::Person;
use crate::{ALICE, config, found};

/// The two servers, each of a service of its own.
const SERVERS: [&str; 2] = ["guarded", "other"];

/// What somebody brings back of a sign-in that was begun at a server.
struct Back {
    code: String,
    state: String,
    issuer: String,
}

struct Pair {
    services: [Service; 2],
    nodes: [Bridge; 2],
    _home: Home,
    _redis: Redis,
}

impl Pair {
    fn new() -> Self {
        let services = [(); 2].map(|()| Service::start(&json!({})));
        let (home, redis) = (Home::new(), Redis::start());
        let mut config = config(&home, &redis, &services[0], &found());
        config["mcpServers"]["other"] = json!({ "url": services[1].url(), "oauth": found() });
        let nodes = [(); 2].map(|()| home.serve(config.clone()));
        Self { services, nodes, _home: home, _redis: redis }
    }

    /// Alice signs in at the service of each server, as `names` there; nothing of it has come back yet.
    async fn begin(&self, alice: &mut Person) -> [Back; 2] {
        let mut backs = Vec::new();
        for (server, service) in SERVERS.iter().zip(&self.services) {
            let url = leads_to(&click_on(alice, server).await);
            let back = format!("http://x{}", service.sign_in(&url, &format!("alice-{server}")).await);
            let of = |name: &str| parameter(&back, name).expect("it is there");
            backs.push(Back { code: of("code"), state: of("state"), issuer: of("iss") });
        }
        backs.try_into().ok().expect("there are two")
    }

    /// How often a code, or what renews a token, was brought to each service, and was good.
    async fn asked(&self, grant: &str) -> [(u64, u64); 2] {
        let [one, other] = &self.services;
        let of = async |service: &Service| {
            let (good, bad) = (format!("token {grant} 200"), format!("token {grant} 400"));
            (service.count(&good).await, service.count(&bad).await)
        };
        [of(one).await, of(other).await]
    }
}

async fn bring(alice: &mut Person, server: &str, code: &Back, state: &Back, issuer: &Back) -> (u16, String) {
    let (code, state, issuer) = (&code.code, &state.state, &issuer.issuer);
    let seen = alice.get(&format!("/oauth/callback/{server}?code={code}&state={state}&iss={issuer}")).await;
    (seen.status, seen.text)
}

async fn said(node: &Bridge, server: &str) -> String {
    Client::modern(node, server, Some(ALICE)).call("whoami", json!({})).await.expect("an answer").text()
}

#[tokio::test]
async fn an_answer_of_one_service_is_never_taken_for_one_of_another() {
    let pair = Pair::new();
    let mut alice = Person::at(pair.nodes[0].address());
    assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
    let [one, other] = pair.begin(&mut alice).await;
    for (server, back) in [("other", &one), ("guarded", &other)] {
        let (status, text) = bring(&mut alice, server, back, back, back).await;
        assert!(status == 400 && text.contains("This sign-in has ended"), "the address of another: {status} {text}");
    }
    // What a service that is evil has somebody bring who has begun at one that is not.
    for (server, began, brought) in [("guarded", &one, &other), ("other", &other, &one)] {
        let (status, text) = bring(&mut alice, server, brought, began, brought).await;
        assert!(status == 400 && text.contains("came from somebody else"), "another issuer: {status} {text}");
    }
    assert_eq!(pair.asked("authorization_code").await, [(0, 0); 2], "no code has left");

    let [one, other] = pair.begin(&mut alice).await;
    // Whoever lies about where a code comes from has it sent where it is no good, by who has begun there.
    let (status, text) = bring(&mut alice, "guarded", &other, &one, &one).await;
    assert_eq!((status, pair.asked("authorization_code").await), (502, [(0, 1), (0, 0)]), "{text}");

    let [one, other] = pair.begin(&mut alice).await;
    for (server, back) in [("guarded", &one), ("other", &other)] {
        assert_eq!(bring(&mut alice, server, back, back, back).await.0, 200, "{server}");
    }
    for (server, node) in SERVERS.iter().zip(&pair.nodes) {
        assert_eq!(said(node, server).await, format!("alice-{server} read"));
    }
    // Each server refuses a token once, which is then renewed where it is from.
    for (n, server) in SERVERS.iter().enumerate() {
        pair.services[n].set(&json!({ "refuses": 1 })).await;
        assert_eq!(said(&pair.nodes[n], server).await, format!("alice-{server} read"));
    }
    assert_eq!(pair.asked("refresh_token").await, [(1, 0); 2]);
}

#[tokio::test]
async fn what_one_service_gave_is_not_sent_to_another_that_takes_its_place() {
    let [old, new] = [(); 2].map(|()| Service::start(&json!({})));
    old.set(&json!({ "says": 1 })).await;
    let (home, redis) = (Home::new(), Redis::start());
    let serve = |service: &Service, oauth: &Value| [(); 2].map(|()| home.serve(config(&home, &redis, service, oauth)));
    let connect = async |node: &Bridge, service: &Service, name: &str| {
        let mut alice = Person::at(node.address());
        assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
        let back = service.sign_in(&leads_to(&click_on(&mut alice, "guarded").await), name).await;
        assert_eq!(alice.get(&back).await.status, 200);
        alice
    };
    let nodes = serve(&old, &found());
    connect(&nodes[0], &old, "alice-before").await;
    drop(nodes);

    // The client is another one from now on: what was granted to the other is renewed by that.
    let mut by_hand = found();
    by_hand["clientId"] = json!("by-hand");
    let nodes = serve(&old, &by_hand);
    crate::faults::has_passed(std::time::Duration::from_secs(1)).await;
    old.set(&json!({ "says": 3600 })).await;
    assert_eq!(said(&nodes[1], "guarded").await, "alice-before read");
    assert_eq!((old.count("token refresh_token 200").await, old.count("/reg 201").await), (1, 1));
    drop(nodes);

    let nodes = serve(&new, &found());
    for node in &nodes {
        let said = said(node, "guarded").await;
        assert!(said.contains("Connect again") && said.contains("has changed where you sign in"), "{said}");
    }
    let mut alice = connect(&nodes[0], &new, "alice-after").await;
    for node in &nodes {
        assert_eq!(said(node, "guarded").await, "alice-after read");
    }
    assert_eq!(old.count("token refresh_token 200").await + old.count("token refresh_token 400").await, 1);
    assert!(alice.remove("guarded").await.text.contains("has confirmed that it took it back"));
    let taken_back = [old.count("/token/revocation 200").await, new.count("/token/revocation 200").await];
    assert_eq!(taken_back, [0, 1], "each at who gave it");
}
