//! Thousands of requests to servers that misbehave leave nothing and disturb nobody.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::kinds::{BOUND, KINDS, Right, bridge};
use super::polite::{LATE, POLITE, PoliteStream, at};
use super::support::mcp::Answer;
use super::support::{self, Bridge, Client, Home, procs, server};
use super::{SETTLED, can_bind, is_quick, run_directory};

/// Clients of hostile servers at once.
const CLIENTS: usize = 16;
/// One client in so many leaves at a random moment.
const LEAVER: usize = 20;
/// The latest random moment.
const PATIENCE: Duration = Duration::from_millis(40);
/// What the bridge may hold more after thousands of requests than after hundreds, KiB.
const FLAT: u64 = 24 << 10;
/// What has been seen so far.
#[derive(Default)]
struct Seen {
    answered: usize,
    left: usize,
    wrong: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn thousands_of_requests_to_hostile_servers_leave_nothing_and_disturb_nobody() {
    let requests = if is_quick() { 1500 } else { 10_000 };
    let (home, admin) = (Home::without_key(), support::free_address());
    let bridge = bridge(&home, Some(admin), "2s");
    let seen = Arc::default();
    run(&bridge, 300, &seen).await;
    let run_directory = run_directory(bridge.worker());
    let before = settled(&bridge, &home, &run_directory, usize::MAX).await.expect("nothing is left after a few");
    let polite = PoliteStream::start(&Client::modern(&bridge, "tiny", None));

    run(&bridge, requests, &seen).await;

    let latencies = polite.stop();
    let after = settled(&bridge, &home, &run_directory, before.descriptors).await;
    let seen = seen.lock().expect("no panic holds it");
    println!(
        "{} answered, {} clients left early, {} wrong answers; beside them {} polite requests, 50 a second, all answered: p50 {:?}, p99 {:?}, \
         slowest {:?}",
        seen.answered,
        seen.left,
        seen.wrong.len(),
        latencies.len(),
        at(&latencies, 50),
        at(&latencies, 99),
        at(&latencies, 100)
    );
    let after = after.unwrap_or_else(|left| panic!("left after {SETTLED:?}: {left}"));
    println!(
        "0 processes, 0 directories, {} descriptors (were {}), {} KiB resident (were {})",
        after.descriptors, before.descriptors, after.resident, before.resident
    );
    assert!(seen.wrong.is_empty(), "{:#?}", &seen.wrong[..seen.wrong.len().min(10)]);
    let late = latencies.iter().filter(|latency| **latency > POLITE).count();
    assert!(late <= LATE, "the polite stream stood still");
    assert!(after.resident <= before.resident + FLAT, "the bridge's memory grows");
    assert!(seen.left * LEAVER * 2 > requests, "clients do leave");
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/hostile runs it"]
async fn a_gibibyte_on_stderr_or_without_a_newline_on_stdout_takes_no_memory() {
    let home = Home::without_key();
    let one = |arguments: &[&str]| {
        let marker = format!("marker={}", home.marker());
        let arguments = [arguments, &[marker.as_str()]].concat();
        json!({ "command": server("hostile"), "args": arguments, "line": "4MiB",
            "abandonedGrace": "0s", "eofGrace": "50ms", "termGrace": "50ms" })
    };
    let bridge = home.serve(json!({ "identity": [{ "kind": "local", "user": "alice" }], "mcpServers": {
        "polite": one(&["polite"]),
        "lines": one(&["flood", "mib=1024"]),
        "one-line": one(&["flood", "mib=1024", "newline=no"]),
        "endless": one(&["endless"]),
    } }));
    let call = async |name| Client::modern(&bridge, name, None).call("act", json!({})).await.expect("an answer");
    assert_eq!(call("polite").await.text(), "done");
    let before = procs::resident(bridge.worker());
    for name in ["lines", "one-line", "endless"] {
        procs::reset_peak(bridge.worker());
        let answer = call(name).await;
        match name {
            "endless" => assert!(answer.error_code().is_some(), "{answer:?}"),
            _ => assert_eq!(answer.text(), "done"),
        }
        let peak = procs::peak_resident(bridge.worker());
        println!("{name}: at most {peak} KiB resident (were {before})");
        assert!(peak <= before + FLAT, "{name}: {peak} KiB");
    }
}
struct Rest {
    descriptors: usize,
    resident: u64,
}

/// Waits until nothing of any request is there; says what is if it stays.
async fn settled(bridge: &Bridge, home: &Home, run_directory: &Path, descriptors: usize) -> Result<Rest, String> {
    let worker = bridge.worker();
    let look = || {
        let (processes, below) = (procs::with_marker(home.marker()).len(), bridge.children().len());
        let directories = std::fs::read_dir(run_directory).map_or(0, Iterator::count);
        let open = procs::descriptors(worker);
        let clear = processes + below + directories == 0 && open <= descriptors;
        let all = format!("{processes} processes, {below} below, {directories} directories, {open} descriptors");
        (clear, all, open)
    };
    procs::eventually(SETTLED, || look().0.then_some(())).await.ok_or_else(|| look().1)?;
    // Connections that clients have just closed may still be open: the fewest within a moment.
    let mut open = usize::MAX;
    procs::eventually(Duration::from_millis(500), || {
        open = open.min(procs::descriptors(worker));
        None::<()>
    })
    .await;
    Ok(Rest { descriptors: open, resident: procs::resident(worker) })
}

/// Makes that many requests, each kind as often as its weight.
async fn run(bridge: &Bridge, requests: usize, seen: &Arc<Mutex<Seen>>) {
    let kinds = KINDS.iter().filter(|(name, ..)| can_bind() || !BOUND.contains(name));
    let turns: Vec<_> = kinds.flat_map(|kind| std::iter::repeat_n(kind, kind.3)).collect();
    let mut clients = JoinSet::new();
    for number in 0..requests {
        if clients.len() == CLIENTS {
            clients.join_next().await.expect("some are running").expect("no client panics");
        }
        // A step that has no divisor in common with the number of turns spreads the kinds.
        let &&(name, _, right, _) = &turns[number * 23 % turns.len()];
        let (mut client, seen) = (Client::modern(bridge, name, None), Arc::clone(seen));
        let leaves = number % LEAVER == 7;
        clients.spawn(async move {
            let params = json!({ "name": "act", "arguments": {} });
            if leaves {
                let connection = client.post("tools/call", params).await.expect("it is accepted");
                tokio::time::sleep(random(PATIENCE)).await;
                drop(connection);
                seen.lock().expect("no panic holds it").left += 1;
            } else {
                let answer = client.request("tools/call", params).await;
                let mut seen = seen.lock().expect("no panic holds it");
                seen.answered += 1;
                match answer {
                    Ok(answer) if is_right(&answer, right) => {}
                    other => seen.wrong.push(format!("{name}: {other:?}")),
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("no client panics");
    }
}

fn is_right(answer: &Answer, right: Right) -> bool {
    let Some(last) = answer.raw.last().and_then(|raw| serde_json::from_slice::<Value>(raw).ok()) else { return false };
    let text = last.pointer("/result/content/0/text").and_then(Value::as_str);
    match right {
        Right::Text(right) => text == Some(right),
        Right::Error => text.is_none() && last.get("error").is_some(),
        Right::Any => text.is_some() || last.get("error").is_some(),
    }
}
fn random(below: Duration) -> Duration {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).expect("the system has randomness");
    below * u32::from(byte[0]) / 256
}
