//! People sign in at a service with one click, and the next call of their client has its token: with a real service and a
//! real server that takes its tokens alone.

#[path = "oauth/attacks.rs"]
mod attacks;
#[path = "oauth/bad_input.rs"]
mod bad_input;
#[path = "oauth/burst.rs"]
mod burst;
#[path = "oauth/by_api.rs"]
mod by_api;
#[path = "oauth/canaries.rs"]
mod canaries;
#[path = "oauth/chance.rs"]
mod chance;
#[path = "oauth/cost.rs"]
mod cost;
#[path = "oauth/device.rs"]
mod device;
#[path = "oauth/document.rs"]
mod document;
#[path = "oauth/ends.rs"]
mod ends;
#[path = "oauth/faults.rs"]
mod faults;
#[path = "oauth/forged_addresses.rs"]
mod forged_addresses;
#[path = "oauth/gate.rs"]
mod gate;
#[path = "oauth/hostile.rs"]
mod hostile;
#[path = "oauth/in_chromium.rs"]
mod in_chromium;
#[path = "oauth/keycloak.rs"]
mod keycloak;
#[path = "oauth/left.rs"]
mod left;
#[path = "oauth/one_click.rs"]
mod one_click;
#[path = "oauth/outage.rs"]
mod outage;
#[path = "oauth/paste.rs"]
mod paste;
#[path = "oauth/pictures.rs"]
mod pictures;
#[path = "oauth/refused.rs"]
mod refused;
#[path = "oauth/relay.rs"]
mod relay;
#[path = "oauth/renewal.rs"]
mod renewal;
#[path = "oauth/service.rs"]
mod service;
#[path = "oauth/streams.rs"]
mod streams;
mod support;
#[path = "oauth/terminal.rs"]
mod terminal;
#[path = "oauth/two_services.rs"]
mod two_services;
#[expect(dead_code, reason = "what people do who paste tokens is for other tests")]
#[path = "account/visit.rs"]
mod visit;

use std::time::Duration;

use serde_json::{Value, json};
use service::Service;
use support::{Bridge, Client, Home, Redis, bearer_identity, procs};
use visit::Person;

/// What a proxy says to prove itself, where there is one.
const PROOF: &str = "a-secret-that-only-the-proxy-knows";

/// The bearer tokens of alice and bob.
const ALICE: &str = "alices-key-0123456789abcdef";
const BOB: &str = "bobs-key-0123456789abcdef01";

/// Nodes that share a store, and the server of a service.
struct Setting {
    service: Service,
    nodes: Vec<Bridge>,
    home: Home,
    redis: Redis,
}

impl Setting {
    /// The server `guarded`, whose users sign in as `oauth` says.
    fn with(service: Service, oauth: &Value) -> Self {
        Self::with_environment(service, oauth, &[])
    }

    /// The same, with these variables.
    fn with_environment(service: Service, oauth: &Value, environment: &[(&str, &str)]) -> Self {
        let (home, redis) = (Home::new(), Redis::start());
        let config = config(&home, &redis, &service, oauth);
        // People and the service know one address; any node may answer there.
        let nodes = (0..2).map(|_| home.serve_with(config.clone(), environment)).collect();
        Self { service, nodes, home, redis }
    }

    /// Somebody who has signed in to the pages, whose browser is led to this node.
    async fn person(&self, node: usize, token: &str) -> Person {
        let mut person = Person::at(self.nodes[node].address());
        assert_eq!(person.sign_in("guarded", token).await.status, 303);
        person
    }

    /// The same browser on the other node.
    fn elsewhere(&self, person: &Person) -> Person {
        let other = self.nodes.iter().find(|node| node.address() != person.address).expect("there are two");
        person.on(other.address())
    }

    /// Alice has signed in at the service.
    async fn connected(&self) -> Person {
        self.connected_as(ALICE, "alice-there").await
    }

    /// Somebody has signed in at the service, where they are known as `there`.
    async fn connected_as(&self, token: &str, there: &str) -> Person {
        let mut person = self.person(0, token).await;
        let mut led = one_click::click(&mut person).await;
        // In many rounds somebody begins oftener than people may.
        while led.status == 429 {
            tokio::time::sleep(Duration::from_secs(led.header("retry-after").parse().expect("it says when"))).await;
            led = one_click::click(&mut person).await;
        }
        let url = one_click::leads_to(&led);
        let done = person.get(&self.service.sign_in(&url, there).await).await;
        assert_eq!(done.status, 200, "{}", done.text);
        person
    }

    /// What the server says to a call of this user's client on this node.
    async fn said(&self, node: usize, token: &str) -> String {
        let mut client = Client::modern(&self.nodes[node], "guarded", Some(token));
        client.call("whoami", json!({})).await.expect("an answer").text()
    }

    /// What has been written down of events of this kind, once there are that many.
    fn audited(&self, kind: &str, most: usize) -> Vec<Value> {
        let read = || {
            let lines = std::fs::read_to_string(self.home.path().join("audit.jsonl")).unwrap_or_default();
            let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| event["event"] == kind).collect::<Vec<_>>()
        };
        procs::wait_for(Duration::from_mins(1), || (read().len() >= most).then_some(()));
        read()
    }
}

fn config(home: &Home, redis: &Redis, service: &Service, oauth: &Value) -> Value {
    json!({
        "publicUrl": PUBLIC_URL,
        "allowedHosts": ["127.0.0.1"],
        "identity": bearer_identity(&[("alice", ALICE), ("bob", BOB)]),
        "tokenStore": home.in_redis(redis),
        "audit": { "file": home.path().join("audit.jsonl") },
        "mcpServers": {
            "guarded": { "url": service.url(), "oauth": oauth, "tokenSetup": { "displayName": "Guarded & Co" } },
        },
    })
}

/// Where people find the bridge, as they and the service know it.
const PUBLIC_URL: &str = "http://127.0.0.1:7777";

/// What lets a service on this machine be called.
fn found() -> Value {
    json!({ "allowHosts": ["127.0.0.1"] })
}
