//! A `requestState` is good for one call of one user, once, for a while: anything else is refused and starts nothing.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::asker::{ALICE, Asked, BOB, Cluster, ask, call};
use super::{SOON, support};
use support::mcp::Answer;
use support::{Bridge, Client, procs};

/// The call is refused as one that must begin anew, and nothing was started for it.
async fn refused(client: &mut Client, params: Value) -> Answer {
    let answer = client.request("tools/call", params).await.expect("an answer");
    let response = answer.response();
    assert_eq!(answer.error_code(), Some(-32602), "HTTP {}: {response}", answer.status);
    let message = response["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("may have been carried out already"), "{message}");
    answer
}

/// Kills what serves, which can say nothing any more; its supervisor only clears up.
fn crash(node: &Bridge) {
    procs::kill(node.worker(), Signal::KILL);
}

/// Each way to change a state a little.
fn tampered(state: &str) -> Vec<String> {
    let flip = |at: usize| {
        let mut bytes = state.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let places = [4, 5, state.len() / 2, state.len() - 2];
    let mut all: Vec<_> = places.into_iter().map(flip).collect();
    all.extend([state[..state.len() - 1].to_owned(), format!("{state}A"), "tb1-".to_owned(), "tb1-AAAA".to_owned()]);
    all
}

#[tokio::test]
async fn a_state_that_is_tampered_with_foreign_or_of_another_call_is_refused_and_starts_nothing() {
    let nodes = Cluster::start(2, &json!({}));
    for server in ["park", "replay"] {
        let before = nodes.lines("effects").len();
        let arguments = json!({ "name": server, "times": 1 });
        let asked = ask(&mut nodes.modern(0, server, ALICE), call(&arguments)).await;
        let good = asked.answered(&arguments, "x");
        let mut client = nodes.modern(1, server, ALICE);
        for state in tampered(&asked.state) {
            let bad = Asked { state, ..asked.clone() };
            refused(&mut client, bad.answered(&arguments, "x")).await;
        }
        refused(&mut nodes.modern(1, server, BOB), good.clone()).await;
        let other_server = if server == "park" { "replay" } else { "park" };
        refused(&mut nodes.modern(1, other_server, ALICE), good.clone()).await;
        refused(&mut client, asked.answered(&json!({ "name": "else", "times": 1 }), "x")).await;
        let mut other_tool = good.clone();
        other_tool["name"] = json!("wait");
        refused(&mut client, other_tool).await;
        assert_eq!(nodes.lines("effects").len(), before + 1, "{server}: nothing ran for what was refused");

        let answer = client.request("tools/call", good).await.unwrap();
        assert!(answer.text().ends_with(": x"), "the good state is still good");
    }
}

#[tokio::test]
async fn a_state_that_was_used_is_stale_in_every_later_round_and_after_the_end() {
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 2 });
    let first = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut client = nodes.modern(1, "park", ALICE);
    let second = ask(&mut client, first.answered(&arguments, "one")).await;
    for node in [0, 1] {
        refused(&mut nodes.modern(node, "park", ALICE), first.answered(&arguments, "other")).await;
    }
    let answer = client.request("tools/call", second.answered(&arguments, "two")).await.unwrap();
    assert!(answer.text().ends_with(": one two"), "a stale answer changed nothing: {}", answer.text());
    nodes.until_processes(0).await;
    for asked in [&first, &second] {
        for node in [0, 1] {
            refused(&mut nodes.modern(node, "park", ALICE), asked.answered(&arguments, "late")).await;
        }
    }
    assert_eq!(nodes.lines("effects").len(), 1);
}

#[tokio::test]
async fn two_calls_with_the_same_state_at_once_are_one_resumption_and_one_refusal() {
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 1 });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let (mut here, mut there) = (nodes.modern(0, "park", ALICE), nodes.modern(1, "park", ALICE));
    let (one, two) = tokio::join!(
        here.request("tools/call", asked.answered(&arguments, "here")),
        there.request("tools/call", asked.answered(&arguments, "there")),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let codes = [one.error_code(), two.error_code()];
    assert!(codes.contains(&None) && codes.iter().any(Option::is_some), "{one:?} {two:?}");
    assert_eq!(nodes.lines("effects").len(), 1);
}

#[tokio::test]
async fn a_lease_that_ends_ends_the_process_and_the_state() {
    let nodes = Cluster::start(2, &json!({ "parkLease": "5s" }));
    let arguments = json!({ "name": "p", "times": 1 });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    assert_eq!(nodes.processes().len(), 1, "it waits");
    nodes.until_processes(0).await;
    for node in [0, 1] {
        refused(&mut nodes.modern(node, "park", ALICE), asked.answered(&arguments, "late")).await;
    }
    assert_eq!(nodes.lines("effects").len(), 1);
}

#[tokio::test]
async fn a_node_killed_with_a_parked_process_is_a_clear_error_and_no_second_run() {
    let nodes = Cluster::mortal(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 1 });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    crash(&nodes.bridges[0]);
    nodes.until_processes(0).await;
    let began = std::time::Instant::now();
    refused(&mut nodes.modern(1, "park", ALICE), asked.answered(&arguments, "x")).await;
    assert!(began.elapsed() < SOON / 4, "{:?}", began.elapsed());
    assert_eq!(nodes.lines("effects").len(), 1, "no second run");
    let again = ask(&mut nodes.modern(1, "park", ALICE), call(&arguments)).await;
    let answer =
        nodes.modern(1, "park", ALICE).request("tools/call", again.answered(&arguments, "anew")).await.unwrap();
    assert!(answer.text().ends_with(": anew"), "calling again without the state begins anew");
    nodes.until_processes(0).await;
}

/// What a client is answered if something happens to the node whose server works for it.
async fn answer_if(nodes: &Cluster, happens: impl FnOnce(&Bridge)) -> Answer {
    let arguments = json!({ "name": "h", "times": 1, "then": "hang" });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut client = nodes.modern(1, "park", ALICE);
    let answer = tokio::time::timeout(SOON, client.request("tools/call", asked.answered(&arguments, "x")));
    let (answer, ()) = tokio::join!(answer, async {
        nodes.until_lines("hangs", 1).await;
        happens(&nodes.bridges[0]);
    });
    answer.expect("an answer in time").expect("an answer, and not a connection that breaks")
}

#[tokio::test]
async fn a_node_killed_while_it_works_for_a_client_of_another_is_a_clear_error_and_no_second_run() {
    let nodes = Cluster::mortal(2, &json!({}));
    let answer = answer_if(&nodes, crash).await;
    assert_eq!(answer.error_code(), Some(-32603), "{answer:?}");
    assert_eq!(answer.response()["id"], json!(1));
    assert_eq!(nodes.lines("effects").len(), 1, "no second run");
    nodes.until_processes(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_resumed_call_ends_its_process_on_the_other_node() {
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "h", "times": 1, "then": "hang" });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut client = nodes.modern(1, "park", ALICE);
    let connection = client.post("tools/call", asked.answered(&arguments, "x")).await.expect("it is accepted");
    nodes.until_lines("hangs", 1).await;
    assert_eq!(nodes.processes().len(), 1);
    drop(connection);
    nodes.until_processes(0).await;
    let ended = procs::eventually(SOON, || nodes.bridges[0].log().contains("client_left").then_some(())).await;
    assert!(ended.is_some(), "{}", nodes.bridges[0].log());
}

#[tokio::test]
async fn a_node_that_hangs_while_it_works_for_a_client_of_another_is_not_waited_for_without_end() {
    let nodes = Cluster::mortal(2, &json!({ "requestTimeout": "2s" }));
    let answer = answer_if(&nodes, |node| procs::kill(node.worker(), Signal::STOP)).await;
    procs::kill(nodes.bridges[0].worker(), Signal::CONT);
    let response = answer.response();
    assert_eq!((answer.error_code(), &response["id"]), (Some(-32603), &json!(1)), "{response}");
    assert!(response["error"]["message"].as_str().is_some_and(|why| why.contains("may have been")), "{response}");
    nodes.until_processes(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_led_to_a_server_that_is_gone_are_not_without_limit() {
    let nodes = Cluster::start(1, &json!({}));
    let arguments = json!({ "name": "p", "times": 1 });
    let mut client = nodes.modern(0, "park", ALICE);
    let asked = ask(&mut client, call(&arguments)).await;
    client.request("tools/call", asked.answered(&arguments, "x")).await.expect("an answer");
    nodes.until_processes(0).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut client, params) = (nodes.modern(0, "park", ALICE), asked.answered(&arguments, "late"));
        let long = json!({ "_meta": { "long": "x".repeat(128 << 10) } });
        asking.spawn(async move {
            let mut refused = 0;
            for _ in 0..10 {
                // They count together with what costs less to send, and what is long for several.
                for _ in 0..4 {
                    client.request("ping", long.clone()).await.expect("an answer");
                }
                let answer = client.request("tools/call", params.clone()).await.expect("an answer");
                refused += usize::from(answer.status == 429);
            }
            refused
        });
    }
    assert!(asking.join_all().await.into_iter().sum::<usize>() > 0, "nobody was refused");
}
