//! The whole matrix, which `scripts/compatibility` runs: every client in front of every server, over both transports,
//! directly and through the bridge. What came of each cell is kept in `target/compatibility`; a cell that is there already
//! is not run again.

#![expect(clippy::print_stdout, reason = "who waits for an hour wants to see something")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::matrix::{CLIENTS, Cell, OPERATIONS, SERVERS, Seen, Transport, Way};
use super::support::number;
use super::table;

/// How long an operation may take, and something that is on its way, in seconds: less than where nothing fails.
const WAITS: (f64, f64) = (45.0, 10.0);

fn every_cell() -> impl Iterator<Item = Cell> {
    let pairs = SERVERS.iter().flat_map(|server| CLIENTS.iter().map(move |client| (client, server)));
    pairs.flat_map(|(client, server)| {
        [Transport::Stdio, Transport::Http].map(|transport| Cell { client, server, transport })
    })
}

fn name(cell: &Cell, way: Way) -> String {
    let transport = if cell.transport == Transport::Stdio { "stdio" } else { "HTTP" };
    let way = if way == Way::Direct { "directly" } else { "through the bridge" };
    format!("{} in front of {} on {transport} {way}", cell.client.name, cell.server.name)
}

/// What came of a cell, now or when it was run before. Without a way nothing did.
fn seen(cell: &Cell, way: Way, kept: &Path) -> Seen {
    let file = kept.join(format!("{}.json", name(cell, way)));
    if let Ok(seen) = fs::read(&file) {
        return serde_json::from_slice(&seen).expect("what was written before");
    }
    let mut seen = cell.run(way, &BTreeSet::from(OPERATIONS), WAITS).map(|(seen, _)| seen).unwrap_or_default();
    for operation in OPERATIONS {
        seen.entry(operation.to_owned()).or_insert_with(|| "no way".to_owned());
    }
    println!("{}: {}", name(cell, way), serde_json::json!(failures(&seen)));
    fs::write(file, serde_json::to_vec(&seen).expect("JSON")).expect("it can be written");
    seen
}

fn failures(seen: &Seen) -> BTreeMap<&str, &str> {
    seen.iter().filter(|(_, came)| *came != "ok").map(|(name, came)| (name.as_str(), came.as_str())).collect()
}

fn missing(seen: &Seen) -> BTreeSet<&'static str> {
    OPERATIONS.into_iter().filter(|operation| seen[*operation] != "ok").collect()
}

/// What came of every cell, as many at a time as there are cores.
fn run(kept: &Path) {
    let jobs: Vec<_> = every_cell().flat_map(|cell| [Way::Direct, Way::Bridge].map(|way| (cell, way))).collect();
    let next = AtomicUsize::new(0);
    let threads = number("COMPATIBILITY_JOBS", std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((cell, way)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    seen(cell, *way, kept);
                }
            });
        }
    });
}

#[test]
#[ignore = "takes an hour: scripts/compatibility"]
fn nothing_works_directly_that_does_not_work_through_the_bridge() {
    let kept = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/compatibility");
    fs::create_dir_all(&kept).expect("it can be made");
    run(&kept);
    let (mut table, mut worse, mut better) = (table::Table::new(), Vec::new(), BTreeMap::new());
    for cell in every_cell() {
        let [directly, mut bridged] = [Way::Direct, Way::Bridge].map(|way| missing(&seen(&cell, way, &kept)));
        let mut lost = &bridged - &directly;
        if !lost.is_empty() {
            // Once more: on a machine that is busy for a moment anything may fail.
            let (again, _) = cell.run(Way::Bridge, &lost, WAITS).expect("there is a way through the bridge");
            lost.retain(|operation| again.get(*operation).is_none_or(|came| came != "ok"));
            bridged = &(&bridged & &directly) | &lost;
        }
        worse.extend(lost.iter().map(|operation| format!("{}: {operation}", name(&cell, Way::Bridge))));
        for operation in &directly - &bridged {
            *better.entry(operation).or_insert(0) += 1;
        }
        table.insert((cell.transport, cell.client.name, cell.server.name), bridged);
    }
    println!("works through the bridge, but not directly, in so many cells: {better:?}");
    assert!(worse.is_empty(), "works directly, but not through the bridge:\n{}", worse.join("\n"));
    if number("COMPATIBILITY_WRITE", 0) == 1 {
        table::write(&table);
    }
    assert_eq!(table::of_the_documentation(), table, "the table of docs/protocol.md is of another run: --write");
}
