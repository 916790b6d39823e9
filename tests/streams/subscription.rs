//! `subscriptions/listen` of a modern client.

use super::*;
use crate::support::http::{Connection, Reply};
use crate::support::procs;

const ID: &str = "/params/_meta/io.modelcontextprotocol~1subscriptionId";

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

fn wanted(notifications: &Value) -> Value {
    json!({ "notifications": notifications })
}

async fn connect(bridge: &Bridge) -> Connection {
    Connection::open(bridge.address()).await.expect("it listens")
}

#[tokio::test]
async fn a_legacy_server_is_acknowledged_first_and_only_for_what_it_delivers() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let (mut client, mut connection) = (Client::modern(&bridge, "one", None), connect(&bridge).await);
    let all = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourceSubscriptions": ["a://", "no:"] });
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted(&all)).await.unwrap();
    let acknowledged = next(&mut stream).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    let honoured = json!({ "toolsListChanged": true, "resourceSubscriptions": ["a://"] });
    assert_eq!(acknowledged["params"]["notifications"], honoured);
    assert_eq!(acknowledged.pointer(ID), Some(&json!(1)));

    for event in ["list prompts", "list resources", "updated b://", "log error", "updated a://", "list tools"] {
        watched.happens(event);
    }
    let updated = next(&mut stream).await;
    assert_eq!(
        (&updated["method"], &updated["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("a://"))
    );
    assert_eq!(updated.pointer(ID), Some(&json!(1)));
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
    drop(connection);
    let gone = procs::eventually(SOON, || procs::with_marker(home.marker()).is_empty().then_some(())).await;
    assert!(gone.is_some(), "{:?}", procs::with_marker(home.marker()));
}

/// Its `listChanged` is the default of an SDK, `always` is the word of its operator.
#[tokio::test]
async fn a_legacy_server_that_always_listens_is_heard_of_lists_that_it_does_not_promise_to_announce() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": always(watched.server(&home, "legacy")) })));
    let (mut client, mut connection) = (Client::modern(&bridge, "one", None), connect(&bridge).await);
    let prompts = json!({ "promptsListChanged": true });
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted(&prompts)).await.unwrap();
    assert_eq!(next(&mut stream).await["params"]["notifications"], prompts);
    watched.happens("list tools");
    watched.happens("list prompts");
    assert_eq!(next(&mut stream).await["method"], "notifications/prompts/list_changed");
}

#[tokio::test]
async fn a_modern_server_s_own_stream_is_filtered_and_cancelled_when_the_client_leaves() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": always(watched.server(&home, "modern")) })));
    let (mut client, mut connection) = (Client::modern(&bridge, "one", None), connect(&bridge).await);
    let some = json!({ "toolsListChanged": true });
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted(&some)).await.unwrap();
    assert_eq!(next(&mut stream).await["method"], "notifications/subscriptions/acknowledged");
    for event in ["list prompts", "updated a://", "log error", "list tools"] {
        watched.happens(event);
    }
    let changed = next(&mut stream).await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed.pointer(ID), Some(&json!(1)));
    drop(connection);
    let heard = watched.until_heard("notifications/cancelled").await;
    assert_eq!(heard.last().expect("it heard that")["params"]["requestId"], json!(1));
}

#[tokio::test]
async fn a_bridge_that_stops_ends_subscriptions_with_their_result() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let servers =
        json!({ "one": always(watched.server(&home, "legacy")), "two": always(watched.server(&home, "modern")) });
    let mut config = config(&servers);
    config["limits"] = json!({ "shutdownGrace": "10m" });
    let mut bridge = home.serve(config);
    let (mut first, mut second) = (connect(&bridge).await, connect(&bridge).await);
    let (mut one, mut two) = (Client::modern(&bridge, "one", None), Client::modern(&bridge, "two", None));
    let params = wanted(&json!({ "toolsListChanged": true }));
    let mut one = one.start(&mut first, "subscriptions/listen", params.clone()).await.unwrap();
    let mut two = two.start(&mut second, "subscriptions/listen", params).await.unwrap();
    for stream in [&mut one, &mut two] {
        assert_eq!(next(stream).await["method"], "notifications/subscriptions/acknowledged");
    }
    bridge.signal(rustix::process::Signal::TERM);
    for stream in [&mut one, &mut two] {
        let last = next(stream).await;
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(1), &json!("complete")));
        assert_eq!(last.pointer(&ID.replace("/params", "/result")), Some(&json!(1)));
        assert_eq!(stream.event().await.expect("a clean end"), None);
    }
    assert!(bridge.ended(SOON).is_some_and(|status| status.success()), "it waits for a stream");
}

#[tokio::test]
async fn a_server_that_ends_ends_the_subscription_with_an_error() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": always(watched.server(&home, "legacy")) })));
    let (mut client, mut connection) = (Client::modern(&bridge, "one", None), connect(&bridge).await);
    let params = wanted(&json!({ "toolsListChanged": true }));
    let mut stream = client.start(&mut connection, "subscriptions/listen", params).await.unwrap();
    next(&mut stream).await;
    watched.happens("exit");
    let last = next(&mut stream).await;
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-32603)));
    assert_eq!(stream.event().await.expect("a clean end"), None);
}

#[tokio::test]
async fn a_server_runs_for_resources_only_and_nothing_is_promised_that_nobody_would_say() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": watched.server(&home, "legacy") })));
    let (mut client, mut connection) = (Client::modern(&bridge, "one", None), connect(&bridge).await);
    let discovered = client.request("server/discover", json!({})).await.unwrap().response();
    let promised = json!({ "logging": {}, "tools": {}, "prompts": {}, "resources": { "subscribe": true } });
    assert_eq!(discovered["result"]["capabilities"], promised);
    let lists = json!({ "toolsListChanged": true, "resourcesListChanged": true });
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted(&lists)).await.unwrap();
    let acknowledged = next(&mut stream).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    assert_eq!((&acknowledged["params"]["notifications"], acknowledged.pointer(ID)), (&json!({}), Some(&json!(2))));
    assert_eq!(watched.everything().len(), 1, "the process that was asked to discover");
    drop(connection);

    let mut connection = connect(&bridge).await;
    let some = json!({ "toolsListChanged": true, "resourceSubscriptions": ["a://"] });
    let mut stream = client.start(&mut connection, "subscriptions/listen", wanted(&some)).await.unwrap();
    assert_eq!(next(&mut stream).await["params"]["notifications"], some);
    watched.happens("updated a://");
    assert_eq!(next(&mut stream).await["params"]["uri"], "a://");
}

#[tokio::test]
async fn a_malformed_filter_starts_no_process() {
    let (home, watched) = (Home::without_key(), Watched::new());
    let bridge = home.serve(config(&json!({ "one": always(watched.server(&home, "legacy")) })));
    let mut client = Client::modern(&bridge, "one", None);
    let uris: Vec<String> = (0..101).map(|n| format!("{n}://")).collect();
    for params in
        [json!({}), wanted(&json!({ "toolsListChanged": 1 })), wanted(&json!({ "resourceSubscriptions": uris }))]
    {
        let answer = client.request("subscriptions/listen", params).await.unwrap();
        assert_eq!((answer.status, answer.error_code()), (400, Some(-32602)));
    }
    assert!(watched.everything().is_empty());
}
