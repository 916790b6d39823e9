//! What only a restart changes stays as it was at the start, whatever files are served meanwhile, and what depends on it is
//! judged by it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::reload::{ALICE, command, config, status};
use crate::support::http::Connection;
use crate::support::{Client, Home, Redis, free_address, procs};

/// The status of a call that says for which host it is, and not who calls.
async fn anonymous(address: SocketAddr, host: &str) -> u16 {
    let mut connection = Connection::open(address).await.unwrap();
    let head = format!("POST /whoami/mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}");
    connection.write(head.as_bytes()).await.unwrap();
    connection.reply().await.unwrap().status
}

#[tokio::test]
async fn who_may_call_and_under_which_name_is_judged_by_the_address_that_is_bound() {
    let home = Home::without_key();
    let mut open = config(&home, free_address(), &[("alice", ALICE)]);
    open["listen"] = json!("0.0.0.0:0");
    open["publicUrl"] = json!("http://mcp.example.com");
    let bridge = home.serve(open.clone());
    let port = bridge.address().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let seen = async || (anonymous(address, "mcp.example.com").await, anonymous(address, "localhost").await);
    let at_start = seen().await;
    assert_eq!(at_start, (401, 403));

    let mut local = open.clone();
    local["listen"] = json!("127.0.0.1:8080");
    local["identity"] = json!([{ "kind": "local", "user": "alice" }]);
    let mut nobody = local.clone();
    nobody.as_object_mut().unwrap().remove("identity");
    for unsafe_there in [local, nobody] {
        home.write(unsafe_there);
        let (code, said) = command(&home, &["reload"]);
        assert!(code == 2 && said.contains("others can reach 0.0.0.0:0, where this process listens"), "{code} {said}");
        assert_eq!(seen().await, at_start);
    }
    // This one is safe, and its names are those of the address that is bound.
    let mut good = open.clone();
    good["listen"] = json!("127.0.0.1:8080");
    home.write(good.clone());
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 0 && said.contains("listen: changed; only a restart changes it"), "{said}");
    assert_eq!(seen().await, at_start);
    // Whatever was served last.
    good["identity"] = json!([{ "kind": "local", "user": "alice" }]);
    home.write(good);
    assert_eq!(command(&home, &["reload"]).0, 2);
    assert_eq!(seen().await, at_start);
}

#[tokio::test]
async fn a_file_that_no_bridge_could_start_with_is_refused_though_this_one_could_serve_it() {
    let home = Home::without_key();
    let mut config = config(&home, free_address(), &[("alice", ALICE)]);
    let _bridge = home.serve(config.clone());
    config["listen"] = json!("0.0.0.0:0");
    home.write(config);
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("0.0.0.0 is no address that clients can use"), "{code} {said}");
}

#[tokio::test]
async fn a_section_that_was_left_out_for_a_while_is_taken_back() {
    let (home, admin) = (Home::new(), free_address());
    let mut with_all = config(&home, admin, &[("alice", ALICE)]);
    with_all["tokenStore"] = home.embedded();
    let without = |parts: &[&str]| {
        let mut config = with_all.clone();
        for part in parts {
            config.as_object_mut().unwrap().remove(*part);
        }
        config
    };
    let bridge = home.serve(with_all.clone());
    let reload = |config: Value| {
        home.write(config);
        command(&home, &["reload"])
    };
    let removed =
        ["admin: removed; only a restart changes `admin.listen`", "tokenStore: removed; only a restart changes it"];
    for changed in ["1 thing", "nothing"] {
        let (code, said) = reload(without(&["admin", "tokenStore"]));
        assert!(code == 0 && said.contains(&format!("reloaded: {changed} changed\n")), "{said}");
        assert!(removed.iter().all(|line| said.contains(line)), "for as long as it is so: {said}");
    }
    let mut another = with_all.clone();
    another["tokenStore"]["path"] = json!(home.path().join("elsewhere"));
    let (code, said) = reload(another);
    assert!(code == 0 && said.contains("tokenStore.path: changed; only a restart changes it"), "{said}");
    let (code, said) = reload(with_all.clone());
    assert!(code == 0 && !said.contains("restart") && !said.contains("tokenStore"), "as at the start: {said}");
    assert_eq!(status(&mut Client::modern(&bridge, "whoami", Some(ALICE))).await, 200);
    drop(bridge);

    let _bridge = home.serve(without(&["admin", "tokenStore"]));
    let (code, said) = reload(without(&["tokenStore"]));
    assert!(code == 0 && said.contains("admin: added; only a restart changes `admin.listen`"), "{said}");
    let (code, said) = reload(with_all.clone());
    assert!(code == 2 && said.contains("restart to use it"), "{said}");
}

#[tokio::test]
async fn other_keys_wait_until_the_store_can_be_asked_and_all_else_does_not() {
    let (home, mut redis) = (Home::new(), Redis::start());
    let other = home.path().join("k2.key");
    home.run(&["keygen", "--out", &other.to_string_lossy()], b"");
    let mut config = config(&home, free_address(), &[("alice", ALICE)]);
    config["tokenStore"] = home.in_failing_redis(&redis);
    let _bridge = home.serve(config.clone());
    redis.crash();
    config["limits"] = json!({ "perUser": 7 });
    home.write(config.clone());
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 0 && said.contains("limits: added"), "{said}");
    config["tokenStore"]["keys"] = json!([config["tokenStore"]["keys"][0], { "id": "k2", "file": other }]);
    home.write(config);
    let (code, said) = command(&home, &["reload"]);
    assert!(code == 2 && said.contains("`tokenStore.keys`: whether these keys open"), "{said}");
    redis.restart();
    let known =
        procs::wait_for(std::time::Duration::from_mins(1), || (command(&home, &["reload"]).0 == 0).then_some(()));
    assert!(known.is_some(), "the store can be asked again");
}
