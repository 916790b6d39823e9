//! Users whose tokens make another server of one URL, all at once: what is remembered for one is nothing to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use super::by_token::{USERS, by_token, has_its_own_headers};
use super::fixture::Fixture;
use super::is_quick;
use super::support::{Client, Home, bearer_identity};

/// Calls in all, at a first look and else.
const CALLS: [usize; 2] = [200, 2000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn calls_of_users_whose_tokens_make_other_servers_of_it_never_mix() {
    let server = Fixture::start(by_token).await;
    let home = Home::new();
    let bridge = home.serve(json!({
        "identity": bearer_identity(&USERS.map(|(user, bearer, ..)| (user, bearer))),
        "tokenStore": home.embedded(),
        "mcpServers": { "elsewhere": { "url": server.url("/mcp"), "headers": { "x-token": { "$userToken": "<<token>>" } } } },
    }));
    let (all, done) = (CALLS[usize::from(!is_quick())], Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for (user, bearer, _, mirrors) in USERS {
        home.set_token(user, "elsewhere", user);
        let mut clients = vec![Client::legacy(&bridge, "elsewhere", Some(bearer)).await];
        // A modern client of a tool that wants a header has to send one, which is not the matter here.
        clients.extend((!mirrors).then(|| Client::modern(&bridge, "elsewhere", Some(bearer))));
        for mut client in clients {
            let done = Arc::clone(&done);
            callers.spawn(async move {
                while done.fetch_add(1, Ordering::Relaxed) < all {
                    let answer = client.call("x", json!({ "password": user })).await.expect("an answer");
                    assert_eq!(answer.text(), "done", "{user}");
                }
            });
        }
    }
    callers.join_all().await;
    let calls: Vec<_> = server.seen().into_iter().filter(|request| request.asks() == "tools/call").collect();
    assert!(calls.len() >= all, "{}", calls.len());
    calls.iter().for_each(has_its_own_headers);
    println!("{all} calls of {} users, each with its own headers and in its own era", USERS.len());
}
