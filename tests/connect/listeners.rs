//! Whoever listens hears that there is a token now, on whichever node.

use super::*;

/// Opens the client's listening stream.
async fn listen<'a>(client: &Client, connection: &'a mut Connection) -> Reply<'a> {
    let stream = connection.send("GET", &client.path(), &client.headers(b"{}"), b"").await.unwrap();
    assert_eq!(stream.status, 200);
    stream
}

/// Opens the two streams of a user that say that tools have changed.
async fn listen_twice<'a>(
    bridge: &Bridge,
    client: &Client,
    [one, two]: [&'a mut Connection; 2],
) -> (Reply<'a>, Reply<'a>) {
    let session = listen(client, one).await;
    let mut modern = Client::modern(bridge, "one", None);
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let mut subscription = modern.start(two, "subscriptions/listen", wanted.clone()).await.unwrap();
    let acknowledged = next(&mut subscription).await;
    assert_eq!(acknowledged["params"]["notifications"], wanted["notifications"], "{acknowledged}");
    (session, subscription)
}

/// Less than it takes a stream to look by itself.
const TOLD: Duration = Duration::from_secs(10);

/// What is put into the store without a word, as a backup is, streams find by themselves, each half minute.
#[tokio::test]
async fn what_nobody_tells_of_is_heard_of_within_half_a_minute() {
    let home = Home::new();
    let bridge = serve(&home);
    let (mut client, _) = legacy(&bridge, LEGACY, json!({ "elicitation": { "url": {} } })).await;
    let error = client.call("whoami", json!({})).await.unwrap().response()["error"].clone();
    let mut connections = [open(&bridge).await, open(&bridge).await];
    let (mut session, mut subscription) = listen_twice(&bridge, &client, connections.each_mut()).await;
    // Also who has heard of a token looks again once it is gone.
    save_on(&bridge).await;
    for _ in 0..2 {
        next(&mut session).await;
    }
    assert_eq!(Person::at(bridge.address()).remove("one").await.status, 303);
    assert_eq!(next(&mut session).await["method"], "notifications/tools/list_changed");
    for _ in 0..2 {
        assert_eq!(next(&mut subscription).await["method"], "notifications/tools/list_changed");
    }
    let file = home.config();
    let file = file.to_string_lossy();
    let other = Home::new();
    let mut same = config(&other, &json!({ "one": whoami(&other) }));
    same["tokenStore"]["keys"] = home.embedded()["keys"].clone();
    let same = other.write(same);
    other.set_token("alice", "one", TOKEN);
    let backup = other.run(&["token", "export", "--config", &same.to_string_lossy()], b"");
    home.run(&["token", "restore", "--config", &file], backup.as_bytes());
    let (first, second) = (next(&mut session).await, next(&mut session).await);
    let (done, changed) =
        if first["method"] == "notifications/elicitation/complete" { (first, second) } else { (second, first) };
    assert_eq!(done["params"]["elicitationId"], error["data"]["elicitations"][0]["elicitationId"], "{done}");
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    let changed = next(&mut subscription).await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{changed}");
    is_served(&mut client).await;
}

#[tokio::test]
async fn what_the_command_line_saves_and_deletes_is_heard_of_at_once_on_every_node() {
    for shared in [true, false] {
        let (home, redis) = (Home::new(), Redis::start());
        let nodes = if shared { Vec::from(two_nodes(&home, &redis)) } else { vec![serve(&home)] };
        let (here, there) = (nodes.first().unwrap(), nodes.last().unwrap());
        let (client, _) = legacy(here, LEGACY, json!({})).await;
        let mut connections = [open(there).await, open(there).await];
        let (mut session, mut subscription) = listen_twice(there, &client, connections.each_mut()).await;
        for connects in [true, false, true] {
            if connects {
                home.set_token("alice", "one", TOKEN);
            } else {
                home.delete_token("alice", "one");
            }
            let began = tokio::time::Instant::now();
            for stream in [&mut session, &mut subscription] {
                assert_eq!(next(stream).await["method"], "notifications/tools/list_changed");
            }
            assert!(began.elapsed() < TOLD, "{shared}: {:?}", began.elapsed());
        }
    }
}

/// A client may be slow to listen.
#[tokio::test]
async fn what_was_saved_before_a_session_listens_is_heard_of_at_once() {
    let home = Home::new();
    let bridge = serve(&home);
    let (client, _) = legacy(&bridge, LEGACY, json!({})).await;
    home.set_token("alice", "one", TOKEN);
    let mut connection = open(&bridge).await;
    let mut stream = listen(&client, &mut connection).await;
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn saving_on_one_node_tells_listeners_on_the_other_within_a_second() {
    let (home, redis) = (Home::new(), Redis::start());
    let [here, there] = two_nodes(&home, &redis);
    let (client, _) = legacy(&here, LEGACY, json!({})).await;
    let [mut one, mut two, mut three] = [open(&there).await, open(&there).await, open(&there).await];
    let mut session = listen(&client, &mut one).await;
    let mut modern = Client::modern(&there, "one", None);
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let mut subscription = modern.start(&mut two, "subscriptions/listen", wanted).await.unwrap();
    next(&mut subscription).await;
    let accept = [("Accept".to_owned(), "text/event-stream".to_owned())];
    let mut sse = three.send("GET", "/one/sse", &accept, b"").await.unwrap();
    let endpoint = String::from_utf8(sse.event().await.unwrap().unwrap().data).unwrap();
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let json = [("Content-Type".to_owned(), "application/json".to_owned())];
    for message in [hello, initialized, json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })] {
        let mut poster = open(&here).await;
        assert_eq!(poster.send("POST", &endpoint, &json, message.to_string().as_bytes()).await.unwrap().status, 202);
        if !message["id"].is_null() {
            assert_eq!(next(&mut sse).await["id"], message["id"]);
        }
    }
    let mut person = Person::at(here.address());
    for connects in [true, false, true] {
        let began = tokio::time::Instant::now();
        let seen = if connects { person.paste("one", TOKEN).await } else { person.remove("one").await };
        assert_eq!(seen.status, 303, "{seen:?}");
        for stream in [&mut session, &mut subscription, &mut sse] {
            assert_eq!(next(stream).await["method"], "notifications/tools/list_changed");
        }
        assert!(began.elapsed() < TOLD, "{:?}", began.elapsed());
    }
}
