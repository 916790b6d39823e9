//! Questions that nobody answers: as many wait as may, each for its lease, and nothing that has acted is lost.

use serde_json::json;
use tokio::task::JoinSet;

use super::asker::{ALICE, BOB, Cluster, ask, call};

#[tokio::test]
async fn a_call_that_finds_no_place_to_wait_is_refused_before_it_acts_and_none_that_acted_is_lost() {
    let limits = json!({ "parkedPerUser": 2, "queue": "100ms" });
    let nodes = Cluster::limited(1, &json!({ "parkLease": "10s", "eofGrace": "1s" }), &limits);
    let arguments = json!({ "name": "n", "times": 1 });
    let mut client = nodes.modern(0, "park", ALICE);
    let first = ask(&mut client, call(&arguments)).await;
    let second = ask(&mut client, call(&arguments)).await;

    let refused = client.request("tools/call", call(&arguments)).await.unwrap();
    assert_eq!(refused.status, 429, "{refused:?}");
    let sentence = refused.response()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(sentence.contains("answer what is asked"), "{sentence}");
    assert_eq!(nodes.lines("effects").len(), 2, "what was refused was not begun");

    ask(&mut nodes.modern(0, "park", BOB), call(&arguments)).await;
    let mut never_asked = nodes.modern(0, "park", ALICE);
    never_asked.capabilities = json!({});
    let told = never_asked.request("tools/call", call(&arguments)).await.unwrap();
    assert_eq!(told.error_code(), Some(-32021), "who cannot be asked needs no place to wait: {told:?}");

    for (asked, answer) in [(first, "one"), (second, "two")] {
        let done = client.request("tools/call", asked.answered(&arguments, answer)).await.unwrap();
        assert!(done.text().ends_with(&format!(": {answer}")), "{done:?}");
        ask(&mut client, call(&arguments)).await;
    }
    // Those that nobody answers end with their leases.
    nodes.until_processes(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_questions_of_one_user_at_once_on_two_nodes_are_each_answered_once_and_done_once() {
    const AT_ONCE: usize = 50;
    let nodes = Cluster::limited(2, &json!({}), &json!({ "parkedPerUser": 64 }));
    let arguments = |number: usize| json!({ "name": format!("n{number}"), "times": 1 });
    let mut asking = JoinSet::new();
    for number in 0..AT_ONCE {
        let (mut client, params) = (nodes.modern(number % 2, "park", ALICE), call(&arguments(number)));
        asking.spawn(async move { (number, ask(&mut client, params).await) });
    }
    let asked = asking.join_all().await;
    assert_eq!(nodes.processes().len(), AT_ONCE, "every one of them waits");

    let mut answering = JoinSet::new();
    for (number, asked) in asked {
        // On the node that does not hold it.
        let mut client = nodes.modern((number + 1) % 2, "park", ALICE);
        let params = asked.answered(&arguments(number), &format!("answer{number}"));
        answering.spawn(async move {
            let done = client.request("tools/call", params.clone()).await.unwrap();
            assert!(done.text().ends_with(&format!(": answer{number}")), "{done:?}");
            let again = client.request("tools/call", params).await.unwrap();
            assert!(again.error_code().is_some(), "answered once: {again:?}");
        });
    }
    answering.join_all().await;
    let mut effects: Vec<_> =
        nodes.lines("effects").iter().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
    effects.sort();
    effects.dedup();
    assert_eq!((effects.len(), nodes.lines("effects").len()), (AT_ONCE, AT_ONCE));
    nodes.until_processes(0).await;
}

#[tokio::test]
async fn a_server_that_asks_without_end_is_stopped() {
    let nodes = Cluster::start(1, &json!({}));
    for server in ["park", "replay"] {
        let arguments = json!({ "name": "endless", "times": 1000 });
        let mut client = nodes.modern(0, server, ALICE);
        let mut params = call(&arguments);
        let mut rounds = 0;
        loop {
            let answer = client.request("tools/call", params).await.unwrap();
            if answer.error_code().is_some() {
                assert_eq!(answer.error_code(), Some(-32603), "{answer:?}");
                break;
            }
            rounds += 1;
            assert!(rounds <= 64, "it goes on for ever");
            params = super::asker::Asked::of(&answer).answered(&arguments, "x");
        }
        assert!(rounds >= 8, "{rounds} rounds are few");
    }
    nodes.until_processes(0).await;
}
