//! Legacy clients: the question goes out on the stream of the call, the answer comes by whatever node.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::asker::{ALICE, BOB, Cluster};
use super::{SOON, support};
use support::http::{Connection, Reply};
use support::{Client, procs};

/// Calls that wait for an answer at the same time.
const AT_ONCE: usize = 200;
/// Sessions that they belong to; each counts its ids from one, so that equal ids meet.
const SESSIONS: usize = 10;

async fn next(stream: &mut Reply<'_>) -> Value {
    let event = stream.event().await.expect("the stream goes on").expect("an event");
    serde_json::from_slice(&event.data).expect("a message")
}

fn answer(question: &Value, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "accept", "content": { "answer": text } } })
}

/// Calls, is asked, waits until all have been asked, answers through another node, and reads the result.
async fn call_and_answer(mut client: Client, mut elsewhere: Client, name: String, all_asked: Arc<Barrier>) {
    let mut connection = Connection::open(client.address()).await.expect("it listens");
    let params = json!({ "name": "ask", "arguments": { "name": name } });
    let mut stream = client.start(&mut connection, "tools/call", params).await.expect("an answer");
    let question = next(&mut stream).await;
    assert_eq!(question["params"]["message"], json!(format!("{name} 1")), "{question}");
    all_asked.wait().await;
    let (mut good, deadline) = (&[202][..], Instant::now() + SOON);
    let status = loop {
        match elsewhere.tell(&answer(&question, &name)).await.expect("a status") {
            // Redis was slow to say whether it arrived. If it did, the call may be over by now.
            503 if Instant::now() < deadline => good = &[202, 404],
            status => break status,
        }
    };
    assert!(good.contains(&status), "{status}");
    let result = next(&mut stream).await;
    let text = result.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(text.split_once(": ").map(|(_, answer)| answer), Some(name.as_str()), "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_answers_through_the_other_node_each_reach_the_process_that_asked() {
    let nodes = Cluster::start(2, &json!({}));
    let (all_asked, mut calls) = (Arc::new(Barrier::new(AT_ONCE)), JoinSet::new());
    for session in 0..SESSIONS {
        let (here, there) = (session % 2, (session + 1) % 2);
        let client = nodes.legacy(here, [ALICE, BOB][session / 2 % 2]).await;
        let mut counting = client.twin();
        for number in 0..AT_ONCE / SESSIONS {
            let elsewhere = client.on(nodes.bridges[there].address());
            let name = format!("s{session}c{number}");
            calls.spawn(call_and_answer(counting.fork(), elsewhere, name, Arc::clone(&all_asked)));
        }
    }
    while let Some(done) = calls.join_next().await {
        done.expect("every answer was its own");
    }
    assert_eq!(nodes.lines("effects").len(), AT_ONCE, "each was done once");
    nodes.until_processes(0).await;
}

#[tokio::test]
async fn an_answer_is_taken_from_the_session_that_was_asked_only() {
    let nodes = Cluster::start(2, &json!({}));
    let mut client = nodes.legacy(0, ALICE).await;
    let mut connection = Connection::open(client.address()).await.expect("it listens");
    let params = json!({ "name": "ask", "arguments": { "name": "mine" } });
    let mut stream = client.start(&mut connection, "tools/call", params).await.expect("an answer");
    let question = next(&mut stream).await;
    for (node, bearer) in [(0, ALICE), (1, ALICE), (1, BOB)] {
        let mut stranger = nodes.legacy(node, bearer).await;
        let status = stranger.tell(&answer(&question, "foreign")).await.expect("a status");
        assert!([202, 404].contains(&status), "{status}");
    }
    let mut elsewhere = client.on(nodes.bridges[1].address());
    assert_eq!(elsewhere.tell(&answer(&question, "own")).await.expect("a status"), 202);
    let result = next(&mut stream).await;
    let text = result.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default();
    assert!(text.ends_with(": own"), "{result}");
    let deadline = Instant::now() + SOON;
    // The call ends a moment after its answer has been sent.
    while elsewhere.tell(&answer(&question, "again")).await.expect("a status") != 404 {
        assert!(Instant::now() < deadline, "nobody asks any more");
    }
}

#[tokio::test]
async fn a_cancellation_through_the_other_node_reaches_its_own_call_among_equal_ids() {
    let nodes = Cluster::start(2, &json!({}));
    let sessions = [("a", ALICE), ("b", ALICE), ("c", BOB)];
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for (name, bearer) in sessions {
        let mut client = nodes.legacy(0, bearer).await;
        let wait = json!({ "name": "wait", "arguments": { "name": name } });
        // Every client has sent as many requests before, so this one has the same id in each session.
        connections.push(client.post("tools/call", wait).await.expect("it is accepted"));
        clients.push(client);
    }
    nodes.until_lines("waits", sessions.len()).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } });
    for (at, (name, _)) in [(1, sessions[1]), (2, sessions[2]), (0, sessions[0])] {
        let before = nodes.lines("cancelled").len();
        let mut elsewhere = clients[at].on(nodes.bridges[1].address());
        assert_eq!(elsewhere.tell(&cancel).await.expect("a status"), 202);
        let cancelled = nodes.until_lines("cancelled", before + 1).await;
        // Of the id that the server was asked under.
        assert_eq!(cancelled[before..], [format!("{name} 1")]);
        let left = sessions.len() - before - 1;
        nodes.until_processes(left).await;
        assert_eq!(nodes.processes().len(), left, "the others still wait");
    }
    let log = || nodes.bridges[0].log().matches("client_left").count();
    assert!(procs::eventually(SOON, || (log() >= 3).then_some(())).await.is_some(), "{}", nodes.bridges[0].log());
}
