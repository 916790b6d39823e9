//! What a long stream may cost, and for how long.

use super::*;
use crate::support::http::Connection;
use crate::support::procs;

async fn connect(bridge: &Bridge) -> Connection {
    Connection::open(bridge.address()).await.expect("it listens")
}

fn limited(servers: &Value, limits: &Value) -> Value {
    let mut config = config(servers);
    config["limits"] = limits.clone();
    config
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_past_the_request_timeout_and_ends_with_its_session() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let mut server = always(watched.server(&home, "legacy"));
    server["requestTimeout"] = json!("300ms");
    let limits = json!({ "sessionLifetime": "6s", "keepAlive": "50ms" });
    let bridge = home.serve(limited(&json!({ "one": server }), &limits));
    let client = Client::legacy(&bridge, "one", None).await;
    let mut connection = connect(&bridge).await;
    let mut stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it answers");
    assert_eq!(stream.status, 200);
    let began = std::time::Instant::now();
    assert_eq!(stream.event().await.expect("a clean end"), None);
    assert!(began.elapsed() > std::time::Duration::from_millis(600), "{:?}", began.elapsed());
    assert!(stream.comments() >= 10, "{}", stream.comments());
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:?}", procs::with_marker(home.marker()));
    let told = || (bridge.log().contains("stream ended") && bridge.log().contains("deadline_passed")).then_some(());
    procs::eventually(SOON, told).await.expect("the log says so");
}

#[tokio::test]
async fn a_stream_keeps_no_call_out_and_holds_its_own_permit_until_nothing_of_it_is_left() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let limits = json!({ "perServer": 1, "total": 1, "streamsPerUser": 1, "queue": "0s" });
    let bridge = home.serve(limited(&json!({ "one": always(watched.server(&home, "legacy")) }), &limits));
    let mut client = Client::legacy(&bridge, "one", None).await;
    for path in ["/one/sse", "/one/mcp"] {
        let deadline = std::time::Instant::now() + SOON;
        let mut connection = connect(&bridge).await;
        while connection.send("GET", path, &client.headers(b"{}"), b"").await.expect("it answers").status != 200 {
            // What was open before has a server that is still ending.
            assert!(std::time::Instant::now() < deadline, "the permit is not given back");
            connection = connect(&bridge).await;
        }
        // The call before has been answered, and its server is still ending.
        while client.call("act", json!({})).await.expect("an answer").status != 200 {
            assert!(std::time::Instant::now() < deadline, "a stream takes the permit of a call");
        }
        let refused = connect(&bridge).await.send("GET", "/one/sse", &[], b"").await.expect("an answer").status;
        assert_eq!(refused, 429, "{path}");
    }
}

#[tokio::test]
async fn streams_have_no_more_servers_than_their_user_may_have_calls_and_one_more_waits() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let limits = json!({ "perUser": 1 });
    let bridge = home.serve(limited(&json!({ "one": always(watched.server(&home, "legacy")) }), &limits));
    let [one, other] = [Client::legacy(&bridge, "one", None).await, Client::legacy(&bridge, "one", None).await];
    let served = || watched.everything().iter().filter(|heard| heard.contains("notifications/initialized")).count();
    let mut first = connect(&bridge).await;
    assert_eq!(first.send("GET", &one.path(), &one.headers(b"{}"), b"").await.expect("it answers").status, 200);
    procs::eventually(SOON, || (served() == 1).then_some(())).await.expect("its server is there");
    let mut second = connect(&bridge).await;
    assert_eq!(second.send("GET", &other.path(), &other.headers(b"{}"), b"").await.expect("it answers").status, 200);
    let waits = || bridge.log().contains("no room for another request of this user").then_some(());
    procs::eventually(SOON, waits).await.expect("the log says that it waits");
    assert_eq!(served(), 1);
    let wanted = json!({ "notifications": { "resourceSubscriptions": ["a://"] } });
    let refused =
        Client::modern(&bridge, "one", None).request("subscriptions/listen", wanted).await.expect("an answer");
    assert_eq!((refused.status, refused.error_code()), (429, Some(-32603)));
    drop(first);
    procs::eventually(SOON, || (served() == 2).then_some(())).await.expect("then there is room for the other's");
    drop(second);
}

#[tokio::test]
async fn a_thousand_clients_that_only_listen_cost_no_process_and_little_memory() {
    const CLIENTS: usize = 1000;
    let files = rustix::process::Rlimit { current: Some(16_384), maximum: Some(16_384) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).expect("a machine that runs servers");
    let (home, watched) = (Home::without_key(), Watched::new());
    let users =
        ["alice", "bob", "carol", "dora", "erin"].map(|user| (user, format!("a-bearer-token-of-{user}-that-is-long")));
    let mut config = config(&json!({ "one": watched.server(&home, "legacy") }));
    config["identity"] = bearer_identity(&users.each_ref().map(|(user, bearer)| (*user, bearer.as_str())));
    let bridge = home.serve(config);
    let resident = || procs::resident(bridge.worker()) + procs::resident(bridge.supervisor());
    let (mut before, mut idle) = (0, Vec::with_capacity(CLIENTS));
    while idle.len() < CLIENTS {
        let begin = async |number: usize| {
            let bearer = &users[number % users.len()].1;
            let client = Client::legacy(&bridge, "one", Some(bearer)).await.twin();
            let mut connection = connect(&bridge).await;
            let stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it answers");
            assert_eq!(stream.status, 200);
            (client, connection)
        };
        idle.extend(futures_util::future::join_all((0..20).map(begin)).await);
        if before == 0 {
            // What the first of them need of the program is there for all.
            before = resident();
        }
    }
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:?}", procs::with_marker(home.marker()));
    // An idle bridge, built as it is meant to run, takes 12 of 64 MiB.
    let grown = resident().saturating_sub(before);
    assert!(grown <= 52 << 10, "{grown} KiB for {CLIENTS} clients");
    for (client, _) in idle.iter().step_by(CLIENTS / 10) {
        assert_eq!(client.twin().call("act", json!({})).await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home
        .serve(limited(&json!({ "one": always(watched.server(&home, "legacy")) }), &json!({ "writeStall": "300ms" })));
    let client = Client::legacy(&bridge, "one", None).await;
    let mut connection = connect(&bridge).await;
    connection.request("GET", &client.path(), &client.headers(b"{}"), b"").await.expect("it is accepted");
    watched.until_heard("notifications/initialized").await;
    let long = "x".repeat(100 << 10);
    let event = format!(r#"say {{"jsonrpc":"2.0","method":"notifications/x","params":{{"long":"{long}"}}}}"#);
    for _ in 0..200 {
        watched.happens(&event);
    }
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "the client still holds its server: {:?}", procs::with_marker(home.marker()));
    drop(connection);
}

#[tokio::test]
async fn a_server_that_cannot_be_met_ends_the_stream() {
    let home = Home::without_key();
    let mut silent = hostile(&home, &["silent"]);
    silent["startTimeout"] = json!("300ms");
    silent["protocol"] = json!("legacy");
    let servers = json!({ "good": hostile(&home, &["polite"]), "silent": always(silent) });
    let bridge = home.serve(limited(&servers, &json!({ "commitDelay": "1m" })));
    let mut client = Client::modern(&bridge, "silent", None);
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let answer = client.request("subscriptions/listen", params).await.expect("an answer");
    assert_eq!((answer.status, answer.error_code()), (504, Some(-32603)));
    let mut connection = connect(&bridge).await;
    let absent = connection.send("GET", "/absent/sse", &[], b"").await.expect("an answer").status;
    assert_eq!(absent, 404);
    let mut connection = connect(&bridge).await;
    let reply = connection.send("POST", "/good/sse", &[], b"").await.expect("an answer");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
}
