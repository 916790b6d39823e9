//! A process that stays for a stream is gone once the token that it was started with is removed or replaced.

use super::*;

/// The token that takes its place.
const OTHER: &str = "alices-other-token";

/// A server that stays for as long as somebody listens.
fn staying(home: &Home) -> Value {
    let mut server = whoami(home);
    (server["listen"], server["sse"], server["protocol"]) = (json!("always"), json!("session"), json!("legacy"));
    // The promise is kept whatever becomes of requests without a token.
    server["withoutToken"] = json!("error");
    server
}

/// A bridge of this server, whose user has a token, and that user's page. The token was saved before, so that no stream
/// hears of that.
fn serve_connected(home: &Home, server: &Value) -> (Bridge, Person) {
    let config = config(home, &json!({ "one": server }));
    home.write(config.clone());
    home.set_token("alice", "one", TOKEN);
    let bridge = home.serve(config);
    let person = Person::at(bridge.address());
    (bridge, person)
}

/// Waits until processes with this token are there, or until none is.
async fn until_used(home: &Home, token: &str, used: bool) {
    let entry = format!("WHOAMI_TOKEN={token}\0");
    let has = |pid| {
        let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&variables).contains(&entry)
    };
    let is_used = || procs::with_marker(home.marker()).into_iter().any(has);
    let so = procs::eventually(SOON, || (is_used() == used).then_some(())).await;
    so.unwrap_or_else(|| panic!("{token} in use is not {used}"));
}

async fn removes(person: &mut Person) {
    let seen = person.remove("one").await;
    assert_eq!(seen.status, 303, "{seen:?}");
}

async fn replaces(person: &mut Person) {
    let seen = person.paste("one", OTHER).await;
    assert_eq!(seen.status, 303, "{seen:?}");
}

#[tokio::test]
async fn a_token_that_the_command_line_deletes_is_used_by_no_process_any_more() {
    let home = Home::new();
    let (bridge, _) = serve_connected(&home, &staying(&home));
    let accept = [("Accept".to_owned(), "text/event-stream".to_owned())];
    let mut connection = open(&bridge).await;
    let mut stream = connection.send("GET", "/one/sse", &accept, b"").await.unwrap();
    stream.event().await.unwrap().expect("the endpoint");
    until_used(&home, TOKEN, true).await;
    home.delete_token("alice", "one");
    assert_eq!(stream.event().await.expect("a clean end"), None);
    until_used(&home, TOKEN, false).await;
}

#[tokio::test]
async fn a_stream_with_a_server_for_its_session_ends() {
    let home = Home::new();
    let (bridge, mut person) = serve_connected(&home, &staying(&home));
    let accept = [("Accept".to_owned(), "text/event-stream".to_owned())];
    let (mut one, mut two) = (open(&bridge).await, open(&bridge).await);
    let mut stream = one.send("GET", "/one/sse", &accept, b"").await.unwrap();
    stream.event().await.unwrap().expect("the endpoint");
    until_used(&home, TOKEN, true).await;
    replaces(&mut person).await;
    assert_eq!(stream.event().await.expect("a clean end"), None);
    until_used(&home, TOKEN, false).await;

    let mut stream = two.send("GET", "/one/sse", &accept, b"").await.unwrap();
    stream.event().await.unwrap().expect("the endpoint");
    until_used(&home, OTHER, true).await;
    removes(&mut person).await;
    assert_eq!(stream.event().await.expect("a clean end"), None);
    until_used(&home, OTHER, false).await;
}

#[tokio::test]
async fn a_session_that_listens_goes_on_with_a_server_of_the_token_that_is_there_now() {
    let (home, watched) = (Home::new(), Watched::new());
    let mut server = watched.server(&home, "legacy");
    server["env"] = whoami(&home)["env"].clone();
    let (bridge, mut person) = serve_connected(&home, &server);
    let (mut client, _) = legacy(&bridge, LEGACY, json!({})).await;
    client.request("resources/subscribe", json!({ "uri": "a://" })).await.unwrap();
    let mut connection = open(&bridge).await;
    let mut stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.unwrap();
    watched.until_heard("tollbridge:subscribe").await;
    until_used(&home, TOKEN, true).await;
    replaces(&mut person).await;
    let told = [next(&mut stream).await, next(&mut stream).await];
    // Another account has other resources.
    for method in ["notifications/tools/list_changed", "notifications/resources/updated"] {
        assert!(told.iter().any(|message| message["method"] == method), "{told:?}");
    }
    until_used(&home, OTHER, true).await;
    until_used(&home, TOKEN, false).await;
    removes(&mut person).await;
    until_used(&home, OTHER, false).await;
    save_on(&bridge).await;
    until_used(&home, TOKEN, true).await;
}

#[tokio::test]
async fn a_subscription_ends_with_its_result() {
    let home = Home::new();
    let (bridge, mut person) = serve_connected(&home, &staying(&home));
    let mut modern = Client::modern(&bridge, "one", None);
    for (id, token) in [(1, TOKEN), (2, OTHER)] {
        let mut connection = open(&bridge).await;
        let wanted = json!({ "notifications": { "toolsListChanged": true } });
        let mut stream = modern.start(&mut connection, "subscriptions/listen", wanted.clone()).await.unwrap();
        assert_eq!(next(&mut stream).await["params"]["notifications"], wanted["notifications"]);
        until_used(&home, token, true).await;
        match token {
            TOKEN => replaces(&mut person).await,
            _ => removes(&mut person).await,
        }
        assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
        let last = next(&mut stream).await;
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(id), &json!("complete")), "{last}");
        assert_eq!(stream.event().await.expect("a clean end"), None);
        until_used(&home, token, false).await;
    }
}
