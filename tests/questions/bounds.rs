//! Questions that nobody answers: few wait, each for its lease, and nothing is left.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::asker::{ALICE, BOB, Cluster, ask, call};

/// Questions that are never answered, of two users together; `TOLLBRIDGE_TEST_QUESTIONS` is another number.
const QUESTIONS: usize = 100;
/// Callers at once.
const CALLERS: usize = 10;
/// How many servers may wait for one user.
const MAX_PARKED: usize = 4;
/// How long a question is good for here.
const LEASE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_questions_that_are_never_answered_four_wait_for_each_user_and_none_after_the_lease() {
    let questions = super::support::number("TOLLBRIDGE_TEST_QUESTIONS", QUESTIONS);
    let nodes = Cluster::start(1, &json!({ "parkLease": format!("{}s", LEASE.as_secs()), "eofGrace": "1s" }));
    let arguments = json!({ "name": "n", "times": 1 });
    let first = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = nodes.modern(0, "park", [ALICE, BOB][caller % 2]);
        let arguments = arguments.clone();
        callers.spawn(async move {
            for _ in 0..questions / CALLERS {
                ask(&mut client, call(&arguments)).await;
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.expect("every call was asked");
    }
    let mut client = nodes.modern(0, "park", ALICE);
    let last = ask(&mut client, call(&arguments)).await;
    nodes.until_processes(2 * MAX_PARKED).await;
    let evicted = client.request("tools/call", first.answered(&arguments, "late")).await.unwrap();
    assert_eq!(evicted.error_code(), Some(-32602), "the longest wait gave way");
    let newest = client.request("tools/call", last.answered(&arguments, "in time")).await.unwrap();
    assert!(newest.text().ends_with(": in time"), "the newest found a place");
    assert_eq!(nodes.lines("effects").len(), questions / CALLERS * CALLERS + 2);
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
