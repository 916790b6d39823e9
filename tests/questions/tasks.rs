//! Calls that are answered with a task: whoever began it asks about it on any node, and reaches the process that has it,
//! or a fresh one of a server whose tasks outlive its processes; nobody else does, and its end frees everything.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::asker::{ALICE, BOB, Cluster};
use super::{SOON, support};
use support::http::Connection;
use support::mcp::{Answer, LEGACY};
use support::{Client, Home, procs};

const TASKS: &str = "io.modelcontextprotocol/tasks";
const LEASE: u64 = 1_800_000;

/// A modern client that takes tasks.
fn client(nodes: &Cluster, node: usize, server: &str, bearer: &str) -> Client {
    let mut client = Client::modern(&nodes.bridges[node], server, Some(bearer));
    client.capabilities = json!({ "extensions": { TASKS: {}, "com.example/other": { "x": 1 } } });
    client
}

fn nodes(count: usize, fields: &Value) -> Cluster {
    Cluster::of_tasks(Home::in_redis, count, fields, &json!({}))
}

/// Calls `work`, and gives the task that it is answered with.
async fn begin(client: &mut Client) -> Value {
    let answer = client.call("work", json!({})).await.expect("an answer");
    let result = answer.response()["result"].clone();
    assert_eq!(result["resultType"], "task", "HTTP {}: {}", answer.status, answer.response());
    result
}

async fn ask(client: &mut Client, method: &str, id: &Value) -> Answer {
    client.request(method, json!({ "taskId": id })).await.expect("an answer")
}

async fn update(client: &mut Client, id: &Value, key: &str) -> Answer {
    let params = json!({ "taskId": id, "inputResponses": { key: { "action": "accept" } } });
    client.request("tasks/update", params).await.expect("an answer")
}

/// What the error says to a person.
fn sentence(answer: &Answer) -> String {
    assert_eq!(answer.error_code(), Some(-32602), "HTTP {}: {}", answer.status, answer.response());
    answer.response()["error"]["message"].as_str().expect("a sentence").to_owned()
}

#[tokio::test]
async fn a_held_task_is_one_process_for_whoever_asks_on_whichever_node() {
    let nodes = nodes(2, &json!({}));
    let task = begin(&mut client(&nodes, 0, "hold", ALICE)).await;
    let id = &task["taskId"];
    assert!(id.as_str().is_some_and(|id| id.starts_with("tb1-")), "{task}");
    assert_eq!(task["ttlMs"], LEASE, "no promise to keep it for longer than its process is held");
    let begun = nodes.lines("begun");
    for node in [1, 0, 1] {
        let got = ask(&mut client(&nodes, node, "hold", ALICE), "tasks/get", id).await.response()["result"].clone();
        assert_eq!((&got["taskId"], &got["status"]), (id, &json!("working")));
        assert_eq!(got["statusMessage"], json!(begun[0]), "the process that began it");
    }
    let updated = update(&mut client(&nodes, 1, "hold", ALICE), id, "end").await;
    assert_eq!(updated.response()["result"], json!({ "resultType": "complete" }));
    let got = ask(&mut client(&nodes, 0, "hold", ALICE), "tasks/get", id).await.response()["result"].clone();
    assert_eq!((&got["status"], &got["result"]["content"][0]["text"]), (&json!("completed"), &json!("done")));
    assert!(got["ttlMs"].as_u64().is_some_and(|left| left < LEASE), "it is kept for a moment: {got}");
    assert_eq!((nodes.lines("begun"), nodes.processes().len()), (begun, 1), "nothing else was started");
}

#[tokio::test]
async fn a_held_task_ends_with_its_lease_and_frees_its_process_and_its_places() {
    let limits = json!({ "parkedPerUser": 1, "queue": "1s" });
    let nodes = Cluster::of_tasks(Home::in_redis, 2, &json!({ "taskLease": "4s" }), &limits);
    let mut alice = client(&nodes, 0, "hold", ALICE);
    let task = begin(&mut alice).await;
    assert_eq!(task["ttlMs"], 4000);
    let refused = alice.call("work", json!({})).await.expect("an answer");
    assert_eq!(refused.status, 429, "refused before it acts: {}", refused.response());
    assert_eq!(nodes.lines("begun").len(), 1);
    let asked = ask(&mut alice, "tasks/get", &task["taskId"]).await;
    assert_eq!(asked.response()["result"]["status"], "working", "who asks about it needs no place");
    nodes.until_processes(0).await;
    assert_eq!(nodes.lines("heard"), Vec::<String>::new(), "a task is not cancelled as a call is");
    for node in [0, 1] {
        let gone = ask(&mut client(&nodes, node, "hold", ALICE), "tasks/get", &task["taskId"]).await;
        assert!(sentence(&gone).contains("gone"), "{}", gone.response());
    }
    begin(&mut alice).await;
}

#[tokio::test]
async fn a_task_of_another_is_as_unknown_as_one_that_never_was() {
    let nodes = nodes(2, &json!({}));
    let mut alice = client(&nodes, 0, "hold", ALICE);
    let id = begin(&mut alice).await["taskId"].clone();
    let mut tampered = id.as_str().expect("an id").to_owned();
    let last = if tampered.ends_with('A') { "B" } else { "A" };
    tampered.replace_range(tampered.len() - 1.., last);
    let mut seen = Vec::new();
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        for (mut asker, id) in [
            (client(&nodes, 0, "hold", BOB), id.clone()),
            (client(&nodes, 1, "hold", BOB), id.clone()),
            (client(&nodes, 0, "hold", ALICE), json!(tampered)),
            (client(&nodes, 0, "hold", ALICE), json!("task-1")),
            (client(&nodes, 0, "hold", ALICE), json!("tb1-")),
            (client(&nodes, 0, "hold", ALICE), json!(7)),
        ] {
            seen.push(sentence(&ask(&mut asker, method, &id).await));
        }
    }
    seen.dedup();
    assert_eq!(seen, ["there is no such task"]);
    let status = ask(&mut alice, "tasks/get", &id).await.response()["result"]["status"].clone();
    assert_eq!((status, nodes.lines("begun").len()), (json!("working"), 1));
}

#[tokio::test]
async fn forty_requests_about_a_task_at_once_are_each_answered_by_their_own_id() {
    let nodes = nodes(2, &json!({}));
    let id = begin(&mut client(&nodes, 0, "hold", ALICE)).await["taskId"].clone();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (mut asker, id) = (client(&nodes, number % 2, "hold", ALICE), id.clone());
        asking.spawn(async move {
            let mut request: Value =
                serde_json::from_str(&asker.message("tasks/get", json!({ "taskId": id }))).unwrap();
            request["id"] = json!(format!("asked-{number}"));
            // A mailbox takes so many at once; who finds it full is told to come again.
            loop {
                let answer = asker.exchange(request.to_string().as_bytes()).await.expect("an answer");
                if answer.status != 503 {
                    return (number, answer.response());
                }
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        let (number, response) = asked.expect("no panic");
        assert_eq!(response["id"], json!(format!("asked-{number}")));
        assert_eq!((&response["result"]["status"], &response["result"]["taskId"]), (&json!("working"), &id));
    }
}

#[tokio::test]
async fn a_task_is_cancelled_by_a_request_on_any_node() {
    let nodes = nodes(2, &json!({ "taskLease": "8s" }));
    let id = begin(&mut client(&nodes, 0, "hold", ALICE)).await["taskId"].clone();
    let mut elsewhere = client(&nodes, 1, "hold", ALICE);
    assert_eq!(
        ask(&mut elsewhere, "tasks/cancel", &id).await.response()["result"],
        json!({ "resultType": "complete" })
    );
    let got = ask(&mut elsewhere, "tasks/get", &id).await.response()["result"].clone();
    assert_eq!(got["status"], "cancelled");
    nodes.until_processes(0).await;
    assert_eq!(nodes.lines("heard"), Vec::<String>::new());
}

#[tokio::test]
async fn a_server_that_does_not_answer_about_its_task_is_given_up_and_the_task_goes_on() {
    let nodes = nodes(1, &json!({ "requestTimeout": "3s" }));
    let mut alice = client(&nodes, 0, "hold", ALICE);
    let id = begin(&mut alice).await["taskId"].clone();
    let hung = update(&mut alice.twin(), &id, "hang").await;
    let why = &hung.response()["error"];
    assert_eq!((why["code"].as_i64(), hung.response()["id"].as_u64()), (Some(-32603), Some(1)), "{why}");
    assert!(why["message"].as_str().is_some_and(|why| why.contains("within its time")), "{why}");
    assert_eq!(ask(&mut alice, "tasks/get", &id).await.response()["result"]["status"], "working");
}

#[tokio::test]
async fn a_task_whose_process_or_node_is_gone_is_an_error_that_says_so() {
    let nodes = Cluster::of_tasks(Home::in_failing_redis, 2, &json!({}), &json!({}));
    let id = begin(&mut client(&nodes, 0, "hold", ALICE)).await["taskId"].clone();
    let crashed = update(&mut client(&nodes, 1, "hold", ALICE), &id, "crash").await;
    assert_eq!((crashed.status, crashed.error_code()), (502, Some(-32603)), "{}", crashed.response());
    let gone = ask(&mut client(&nodes, 1, "hold", ALICE), "tasks/get", &id).await;
    assert!(sentence(&gone).contains("gone"));

    let id = begin(&mut client(&nodes, 0, "hold", ALICE)).await["taskId"].clone();
    procs::kill(nodes.bridges[0].worker(), Signal::KILL);
    nodes.until_processes(0).await;
    let began = std::time::Instant::now();
    let gone = ask(&mut client(&nodes, 1, "hold", ALICE), "tasks/get", &id).await;
    assert!(sentence(&gone).contains("gone"));
    assert!(began.elapsed() < SOON / 4, "{:?}", began.elapsed());
    assert_eq!(nodes.lines("begun").len(), 2, "no second run");
}

#[tokio::test]
async fn a_durable_task_is_asked_about_in_a_fresh_process_under_its_own_id() {
    let nodes = nodes(2, &json!({}));
    let task = begin(&mut client(&nodes, 0, "durable", ALICE)).await;
    assert_eq!((&task["taskId"], &task["ttlMs"]), (&json!("task-1"), &Value::Null), "as the server wrote it");
    nodes.until_processes(0).await;
    let mut elsewhere = client(&nodes, 1, "durable", ALICE);
    let got = ask(&mut elsewhere, "tasks/get", &task["taskId"]).await.response()["result"].clone();
    assert_eq!(got["status"], "working");
    assert_ne!(got["statusMessage"], task["statusMessage"], "another process");
    update(&mut elsewhere, &task["taskId"], "end").await;
    let got = ask(&mut client(&nodes, 0, "durable", ALICE), "tasks/get", &task["taskId"]).await;
    assert_eq!(got.response()["result"]["status"], "completed");
    assert_eq!(sentence(&ask(&mut elsewhere, "tasks/get", &json!("task-9")).await), "Task not found");
}

#[tokio::test]
async fn tasks_are_offered_and_declared_where_they_are_kept_and_nowhere_else() {
    let nodes = nodes(1, &json!({}));
    for (server, kept) in [("hold", true), ("durable", true), ("off", false)] {
        let mut taker = client(&nodes, 0, server, ALICE);
        let discovered = taker.request("server/discover", json!({})).await.expect("an answer").response();
        let offered = &discovered["result"]["capabilities"]["extensions"];
        assert_eq!(offered.get(TASKS).is_some(), kept, "{server}: {discovered}");
        assert_eq!(offered["com.example/other"], json!({ "kept": 1.0 }));
        let declared: Value = serde_json::from_str(&taker.call("declared", json!({})).await.unwrap().text()).unwrap();
        assert_eq!(declared["extensions"].get(TASKS).is_some(), kept, "{server}: {declared}");
        assert_eq!(declared["extensions"]["com.example/other"], json!({ "x": 1 }));

        let mut other = client(&nodes, 0, server, ALICE);
        other.capabilities = json!({});
        let refused = ask(&mut other, "tasks/get", &json!("task-1")).await;
        let expected = if kept { (400, Some(-32021)) } else { (404, Some(-32601)) };
        assert_eq!((refused.status, refused.error_code()), expected, "{server}: {}", refused.response());
        if kept {
            let required = &refused.response()["error"]["data"]["requiredCapabilities"];
            assert_eq!(*required, json!({ "extensions": { TASKS: {} } }));
        }
        let removed = taker.request("tasks/list", json!({})).await.expect("an answer");
        assert_eq!((removed.status, removed.error_code()), (404, Some(-32601)), "{server}");
    }
}

#[tokio::test]
async fn a_task_named_otherwise_in_its_header_is_refused() {
    let nodes = nodes(1, &json!({}));
    let mut alice = client(&nodes, 0, "durable", ALICE);
    let (right, wrong) = ["task-1", "task-2"].map(|id| alice.message("tasks/get", json!({ "taskId": id }))).into();
    let refused = alice.exchange_as(right.as_bytes(), wrong.as_bytes()).await.expect("an answer");
    assert_eq!((refused.status, refused.error_code()), (400, Some(-32020)), "{}", refused.response());
}

#[tokio::test]
async fn the_tasks_of_older_servers_pass_to_older_clients_where_they_outlive_their_processes() {
    let nodes = nodes(1, &json!({}));
    for (server, kept) in [("durable", true), ("hold", false), ("off", false)] {
        let mut legacy = Client::without_session(&nodes.bridges[0], server, Some(ALICE));
        let capabilities = json!({ "tasks": { "cancel": {} }, "extensions": { TASKS: {} } });
        let offered = legacy.initialize(LEGACY, capabilities).await.expect("an answer").response();
        assert_eq!(offered["result"]["capabilities"].get("tasks").is_some(), kept, "{server}: {offered}");
        let declared: Value = serde_json::from_str(&legacy.call("declared", json!({})).await.unwrap().text()).unwrap();
        assert_eq!(declared.get("tasks"), None, "a client keeps no task for a process that has ended");
        assert_eq!(declared["extensions"].get(TASKS).is_some(), kept, "{server}: {declared}");
        let params = json!({ "name": "work", "arguments": {}, "task": { "ttl": 60000 } });
        let result = legacy.request("tools/call", params).await.expect("an answer").response()["result"].clone();
        assert_eq!(result.get("task").is_some(), kept, "{server}: {result}");
        if kept {
            let got = ask(&mut legacy, "tasks/get", &result["task"]["taskId"]).await;
            assert_eq!(got.response()["result"]["status"], "working");
            let list = legacy.request("tasks/list", json!({})).await.expect("an answer");
            assert_eq!(list.response()["result"]["tasks"], json!([]));
        }
    }
}

/// What a client is told that listens, up to and with the last of so many notifications.
async fn listen(client: &mut Client, wanted: Value, count: usize) -> Vec<Value> {
    let mut connection = Connection::open(client.address()).await.expect("it listens");
    let mut stream = client
        .start(&mut connection, "subscriptions/listen", json!({ "notifications": wanted }))
        .await
        .expect("a stream");
    assert!(stream.is_stream(), "HTTP {}", stream.status);
    let mut told = Vec::new();
    for _ in 0..count {
        let event = stream.event().await.expect("the stream goes on").expect("an event");
        told.push(serde_json::from_slice(&event.data).expect("a message"));
    }
    told
}

#[tokio::test]
async fn a_client_that_listens_is_told_of_its_own_durable_tasks_and_of_what_an_extension_adds() {
    let nodes = nodes(1, &json!({}));
    let wanted = json!({ "taskIds": ["task-2", "task-3"], "com.example/other": true });
    let told = listen(&mut client(&nodes, 0, "durable", ALICE), wanted.clone(), 3).await;
    assert_eq!(told[0]["params"]["notifications"], wanted, "agreed by the server");
    assert_eq!((&told[1]["method"], &told[1]["params"]["taskId"]), (&json!("notifications/tasks"), &json!("task-2")));
    assert_eq!(told[1]["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], json!(1));
    assert_eq!(told[2]["method"], "notifications/com.example/happened");

    for server in ["hold", "off"] {
        let told = listen(&mut client(&nodes, 0, server, ALICE), wanted.clone(), 2).await;
        assert_eq!(told[0]["params"]["notifications"], json!({ "com.example/other": true }), "{server}");
        assert_eq!(told[1]["method"], "notifications/com.example/happened", "{server}");
    }
    let mut other = client(&nodes, 0, "durable", ALICE);
    other.capabilities = json!({});
    let refused = other.request("subscriptions/listen", json!({ "notifications": wanted })).await.expect("an answer");
    assert_eq!((refused.status, refused.error_code()), (400, Some(-32021)), "{}", refused.response());
}

#[tokio::test]
async fn a_task_ends_with_its_lease_though_nobody_who_waits_for_it_can_be_told() {
    let fields = json!({ "taskLease": "4s", "eofGrace": "50ms" });
    let nodes = Cluster::of_tasks(Home::in_failing_redis, 2, &fields, &json!({}));
    let id = begin(&mut client(&nodes, 0, "hold", ALICE)).await["taskId"].clone();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let params = json!({ "taskId": id, "inputResponses": { "hang": { "action": "accept" } } });
        waiting.push(client(&nodes, 1, "hold", ALICE).post("tasks/update", params).await.expect("accepted"));
    }
    nodes.until_lines("hung", 8).await;
    nodes.redis.freeze();
    nodes.until_processes(0).await;
    nodes.redis.thaw();
}
