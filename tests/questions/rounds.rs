//! Modern clients in front of a legacy server: asked by the result of the call, answering by calling again.

use serde_json::json;

use super::asker::{ALICE, Cluster, ask, call};

/// What the tool answered: the process that it ran in, and the answers that it got.
fn parts(text: &str) -> (String, Vec<String>) {
    let (process, answers) = text.split_once(": ").expect("a process and answers");
    (process.to_owned(), answers.split(' ').map(str::to_owned).collect())
}

#[tokio::test]
async fn three_rounds_on_three_nodes_reach_one_parked_process_and_its_effect_happens_once() {
    let nodes = Cluster::start(3, &json!({}));
    let arguments = json!({ "name": "p", "times": 2 });
    let first = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    assert_eq!(first.message, "p 1");
    let second = ask(&mut nodes.modern(1, "park", ALICE), first.answered(&arguments, "one")).await;
    assert_eq!(second.message, "p 2");
    let mut third = nodes.modern(2, "park", ALICE);
    let answer = third.request("tools/call", second.answered(&arguments, "two")).await.unwrap();
    let (process, answers) = parts(&answer.text());
    assert_eq!(answers, ["one", "two"]);
    assert_eq!(answer.response()["result"]["resultType"], "complete");
    assert_eq!(nodes.lines("effects"), [format!("p {process}")], "done once, by the process that answered");
    nodes.until_processes(0).await;
}

#[tokio::test]
async fn a_parked_call_that_is_asked_for_without_its_answers_is_asked_again_and_still_waits() {
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 1 });
    let mut asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    for node in [1, 0, 1] {
        let mut params = call(&arguments);
        params["requestState"] = json!(asked.state);
        let again = ask(&mut nodes.modern(node, "park", ALICE), params).await;
        assert_eq!((&again.message, &again.key), (&asked.message, &asked.key));
        asked = again;
    }
    let answer = nodes.modern(1, "park", ALICE).request("tools/call", asked.answered(&arguments, "now")).await.unwrap();
    assert_eq!(parts(&answer.text()).1, ["now"]);
    assert_eq!(nodes.lines("effects").len(), 1);
}

#[tokio::test]
async fn progress_and_the_answer_of_a_resumed_call_bear_the_id_of_the_call_that_resumed_it() {
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 1 });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut other = nodes.modern(1, "park", ALICE);
    for _ in 0..5 {
        other.request("tools/list", json!({})).await.unwrap();
    }
    let answer = other.request("tools/call", asked.answered(&arguments, "x")).await.unwrap();
    assert_eq!(answer.response()["id"], json!(6));
}

#[tokio::test]
async fn an_answer_as_long_as_a_line_may_be_crosses_nodes_whatever_it_holds() {
    const QUOTES: usize = 8_000_000;
    let nodes = Cluster::start(2, &json!({}));
    let arguments = json!({ "name": "p", "times": 1, "quotes": QUOTES });
    let asked = ask(&mut nodes.modern(0, "park", ALICE), call(&arguments)).await;
    let mut other = nodes.modern(1, "park", ALICE);
    let answer = other.request("tools/call", asked.answered(&arguments, "x")).await.unwrap();
    let text = answer.text();
    assert!(text.contains(": x\"\"") && text.ends_with('"'), "{}", &text[..text.len().min(200)]);
    assert!(text.len() > QUOTES);
    assert_eq!(nodes.lines("effects").len(), 1);
}

#[tokio::test]
async fn under_replay_three_nodes_run_it_three_times_and_the_answers_converge() {
    let nodes = Cluster::start(3, &json!({}));
    let arguments = json!({ "name": "r", "times": 2 });
    let first = ask(&mut nodes.modern(0, "replay", ALICE), call(&arguments)).await;
    nodes.until_processes(0).await;
    let second = ask(&mut nodes.modern(1, "replay", ALICE), first.answered(&arguments, "one")).await;
    assert_eq!((first.message.as_str(), second.message.as_str()), ("r 1", "r 2"));
    nodes.until_processes(0).await;
    let mut third = nodes.modern(2, "replay", ALICE);
    let answer = third.request("tools/call", second.answered(&arguments, "two")).await.unwrap();
    let (process, answers) = parts(&answer.text());
    assert_eq!(answers, ["one", "two"]);
    let effects = nodes.lines("effects");
    assert_eq!(effects.len(), 3, "replay is running again: {effects:?}");
    assert_eq!(effects[2], format!("r {process}"));
    assert_ne!(effects[0], effects[1]);
}
