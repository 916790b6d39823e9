//! What a person gives is tried before it is saved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tollbridge::audit::Audit;
use tollbridge::auth::{Authenticator, BadCredentials};
use tollbridge::bridge::{Bridge, Probes, ServerFacts};
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::config::{self, LoadOptions, Server};
use tollbridge::http_client;
use tollbridge::keyring::Keyring;
use tollbridge::lifecycle::Lifecycle;
use tollbridge::limits::Limits;
use tollbridge::memory::Memory;
use tollbridge::metrics::{Counter, Metrics};
use tollbridge::rate_limit::LogRateLimit;
use tollbridge::relay::Relay;
use tollbridge::store::TokenStore;
use tollbridge::telemetry::LogThrottle;
use tollbridge::tokens::{Entered, Probed, Prober, TokenSource};
use tollbridge::upstream::container::Containers;
use tollbridge::upstream::http::HttpServers;
use tollbridge::upstream::process::confinement::Confiner;
use tollbridge::upstream::process::group::Spawner;
use tollbridge::upstream::process::instance::resources::InstanceResources;
use tollbridge::upstream::process::orphans::UntaggedChildren;
use tollbridge::upstream::spares::{SpareStarts, Spares, Starter};
use tollbridge::user::{Caller, UserId};

use super::fixture::{Act, Fixture, Request, answer, polite};
use super::support::procs;

const TOKEN: &str = "ntn_5ecr3t-of-alice";

/// A bridge that listens nowhere, with one server.
fn bridge(server: &Value) -> (Arc<Bridge>, Arc<Server>) {
    let text = json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": { "s": server },
        "tokenStore": { "kind": "embedded", "path": "data", "keys": [{ "id": "k1", "file": "k1.key" }] } });
    let config = config::parse(&text.to_string(), Path::new("/etc/tollbridge.json"), &LoadOptions::default());
    let config = Arc::new(config.unwrap_or_else(|problems| panic!("{problems}")));
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::new(lifecycle.tasks.clone(), Counter::default()));
    let keyring = Arc::new(Keyring::ephemeral());
    let store = Arc::new(TokenStore::in_memory(Arc::clone(&keyring), Clock::System).unwrap());
    let none = || Err("not here".to_owned());
    let confiner = Confiner::new(&InstanceResources { directory: none(), cgroup: none() }, &lifecycle);
    let spawner = Spawner::new(&lifecycle, UntaggedChildren::Spare, confiner, metrics.processes.clone()).unwrap();
    let starter = Starter { containers: Containers::new(&config, &spawner, &lifecycle), spawner };
    let server = Arc::clone(&config.servers["s"]);
    let bridge = Bridge {
        authenticator: Arc::new(Authenticator::new(&config, BadCredentials::default())),
        limits: Limits::new(&config.limits, &metrics),
        memory: Memory::new(config.limits.memory, 1 << 26, metrics.memory.clone()),
        tokens: TokenSource::new(Arc::clone(&store), Clock::System, Audit::none()),
        store,
        store_failure_log: LogThrottle::default(),
        relay: Relay::start(None, Arc::clone(&keyring), &lifecycle, 1 << 26).unwrap(),
        keyring,
        spares: Spares::new(&config, &SpareStarts::new(&starter), &metrics.spares, &lifecycle, || false),
        starter,
        server_facts: ServerFacts::nothing(),
        probes: Probes::default(),
        http: HttpServers::new(http_client::build().unwrap()),
        audit: Audit::none(),
        metrics,
        refusals: LogRateLimit::default(),
        lifecycle,
        clock: Clock::System,
        config,
    };
    (Arc::new(bridge), server)
}

fn alice() -> Caller {
    UserId::local("alice").unwrap().into()
}

async fn probe(server: &Value) -> Probed {
    let (bridge, server) = bridge(server);
    let entered = Entered::parse(&server.token_setup, &[("token", TOKEN.as_bytes())], UnixTime(0)).unwrap();
    bridge.probe(&alice(), &server, &entered).await
}

/// A server elsewhere that gets the token, with this probe.
fn elsewhere(url: &str, probe: &Value) -> Value {
    json!({ "url": url, "protocol": "legacy", "probe": probe, "tokenSetup": { "displayName": "Notion" },
        "headers": { "Authorization": { "$userToken": "Bearer <<token>>" } } })
}

/// A request to the service itself.
fn me(fixture: &Fixture) -> Value {
    let headers = json!({ "Authorization": { "$userToken": "Bearer <<token>>" } });
    json!({ "url": fixture.url("/me"), "headers": headers })
}

/// A service that says what it was sent, with a status.
fn echo(request: &Request, status: u16) -> Vec<Act> {
    if request.target != "/me" {
        return polite(request);
    }
    let body = format!("you sent {}\n{}", request.header("authorization").unwrap(), "x".repeat(1000));
    answer(status, &[("Content-Type", "text/plain")], body)
}

#[tokio::test]
async fn a_probe_shows_what_the_service_says_with_the_token_masked() {
    let fixture = Fixture::start(|request| echo(request, 200)).await;
    let Probed::Good { shown } = probe(&elsewhere(&fixture.url("/mcp"), &me(&fixture))).await else {
        panic!("the service took it")
    };
    assert!(shown.starts_with("you sent Bearer [token] xxx"), "{shown}");
    assert_eq!(shown.chars().count(), 300);

    // What the server needs of a client's request is not needed to ask the service itself.
    let mut needing = elsewhere(&fixture.url("/mcp"), &me(&fixture));
    needing["headers"]["X-Project"] = json!({ "$header": { "name": "X-Project", "format": "^[a-z]+$" } });
    assert!(matches!(probe(&needing).await, Probed::Good { .. }));

    let listed = probe(&elsewhere(&fixture.url("/mcp"), &json!("tools/list"))).await;
    assert_eq!(listed, Probed::Good { shown: "It has no tools".to_owned() });
    let tool = json!({ "tool": "x", "arguments": { "a": 1 } });
    let called = probe(&elsewhere(&fixture.url("/mcp"), &tool)).await;
    assert_eq!(called, Probed::Good { shown: "done".to_owned() });
    let call = fixture.until("tools/call").await;
    assert_eq!(call.message["params"], json!({ "name": "x", "arguments": { "a": 1 } }));
    assert_eq!(call.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn a_token_that_the_service_refuses_is_told_from_a_service_that_is_down() {
    for status in [401, 403] {
        let fixture = Fixture::start(move |request| echo(request, status)).await;
        let refused = probe(&elsewhere(&fixture.url("/mcp"), &me(&fixture))).await;
        assert_eq!(refused, Probed::Refused { sentence: format!("Notion refused this token ({status})") });
        let fixture = Fixture::start(move |_| answer(status, &[], "")).await;
        let refused = probe(&elsewhere(&fixture.url("/mcp"), &json!("tools/list"))).await;
        assert_eq!(refused, Probed::Refused { sentence: format!("Notion refused this token ({status})") });
    }
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::FOUND, StatusCode::NOT_FOUND] {
        let fixture = Fixture::start(move |request| echo(request, status.as_u16())).await;
        let unknown = probe(&elsewhere(&fixture.url("/mcp"), &me(&fixture))).await;
        assert!(matches!(&unknown, Probed::Unknown { sentence } if sentence.contains(status.as_str())), "{unknown:?}");
    }
    let nobody = format!("http://{}/mcp", super::support::free_address());
    let unknown = probe(&elsewhere(&nobody, &json!("tools/list"))).await;
    assert!(
        matches!(&unknown, Probed::Unknown { sentence } if sentence.contains("refused the connection")),
        "{unknown:?}"
    );
}

/// What the tool of a server answers, tried.
async fn called(result: Value) -> Probed {
    let fixture = Fixture::start(move |request| match request.asks() {
        "tools/call" => {
            let answered = json!({ "jsonrpc": "2.0", "id": request.message["id"], "result": result });
            answer(200, &[("Content-Type", "application/json")], answered.to_string())
        }
        _ => polite(request),
    });
    probe(&elsewhere(&fixture.await.url("/mcp"), &json!({ "tool": "x" }))).await
}

#[tokio::test]
async fn a_tool_has_done_only_if_it_says_so() {
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    let structured = json!({ "content": [], "structuredContent": { "user": TOKEN, "n": 1 } });
    assert_eq!(called(structured).await, Probed::Good { shown: r#"{"n":1,"user":"[token]"}"#.to_owned() });
    let unknown = |why: &str| Probed::Unknown { sentence: format!("This could not be tried with Notion: it {why}") };
    let failed = called(json!({ "content": text(&format!("{TOKEN} is no token.")), "isError": true })).await;
    assert_eq!(failed, unknown("answered with an error: [token] is no token"));
    let failed = called(json!({ "content": [], "isError": true })).await;
    assert_eq!(failed, unknown("answered with an error"));
    let asks = called(json!({ "resultType": "input_required", "inputRequests": {}, "requestState": "s" })).await;
    assert!(matches!(&asks, Probed::Unknown { sentence } if sentence.contains("has a question")), "{asks:?}");
}

#[tokio::test]
async fn a_token_that_does_not_fit_where_it_goes_is_not_good() {
    let (bridge, server) = bridge(&elsewhere("http://127.0.0.1:1/mcp", &json!("tools/list")));
    let entered = Entered::parse(&server.token_setup, &[("token", "caf\u{e9}".as_bytes())], UnixTime(0)).unwrap();
    let refused = bridge.probe(&alice(), &server, &entered).await;
    let Probed::Refused { sentence } = &refused else { panic!("{refused:?}") };
    assert!(sentence.starts_with("This cannot be used with Notion: ") && !sentence.contains("caf"), "{sentence}");
}

/// A program that never answers, and can be found by this number of seconds.
fn hanging(seconds: &str, start_timeout: &str) -> Value {
    json!({ "command": "sleep", "args": [seconds], "probe": "tools/list", "startTimeout": start_timeout,
        "env": { "T": { "$userToken": "<<token>>" } } })
}

fn is_running(seconds: &str) -> bool {
    procs::children(std::process::id()).iter().any(|child| procs::command_line(child.pid).contains(&seconds.to_owned()))
}

#[tokio::test]
async fn nothing_is_left_of_a_probe_that_hangs() {
    let unknown = probe(&hanging("98761.5", "1s")).await;
    assert!(matches!(&unknown, Probed::Unknown { sentence } if sentence.contains("did not start")), "{unknown:?}");
    let ended = procs::eventually(Duration::from_mins(1), || (!is_running("98761.5")).then_some(()));
    ended.await.expect("it is ended");

    // Whoever asked leaves.
    let (bridge, server) = bridge(&hanging("98762.5", "2s"));
    let entered = Entered::parse(&server.token_setup, &[("token", TOKEN.as_bytes())], UnixTime(0)).unwrap();
    let caller = alice();
    let asked = Arc::clone(&bridge).probe(&caller, &server, &entered);
    let started = procs::eventually(Duration::from_mins(1), || is_running("98762.5").then_some(()));
    tokio::select! {
        _ = asked => panic!("it never answers"),
        started = started => started.expect("it is started"),
    }
    let ended = procs::eventually(Duration::from_mins(1), || (!is_running("98762.5")).then_some(()));
    ended.await.expect("it is ended");
}

#[tokio::test]
async fn a_third_probe_of_a_user_is_busy() {
    // Each request waits for a word of its own.
    let go: [Arc<Notify>; 4] = Default::default();
    let (words, asked) = (go.clone(), AtomicUsize::new(0));
    let fixture = Fixture::start(move |request| {
        let wait = Act::Wait(Arc::clone(&words[asked.fetch_add(1, Ordering::Relaxed)]));
        [vec![wait], echo(request, 200)].concat()
    });
    let fixture = fixture.await;
    let (bridge, server) = bridge(&elsewhere(&fixture.url("/mcp"), &me(&fixture)));
    let entered = Entered::parse(&server.token_setup, &[("token", TOKEN.as_bytes())], UnixTime(0)).unwrap();
    let (caller, other) = (alice(), UserId::local("bob").unwrap().into());
    let run = |caller| Arc::clone(&bridge).probe(caller, &server, &entered);
    let third = async {
        fixture.until_again("GET", 2).await;
        assert_eq!(run(&caller).await, Probed::Busy);
        let release = async {
            fixture.until_again("GET", 3).await;
            go[..3].iter().for_each(|word| word.notify_one());
        };
        tokio::join!(run(&other), release).0
    };
    let (one, two, of_other) = tokio::join!(run(&caller), run(&caller), third);
    for probed in [one, two, of_other] {
        assert!(matches!(probed, Probed::Good { .. }), "{probed:?}");
    }
    go[3].notify_one();
    assert!(matches!(run(&caller).await, Probed::Good { .. }), "there is room again");
}
