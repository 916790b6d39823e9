//! The hostile suite, run by `scripts/hostile`: requests by the thousand, clients and servers that misbehave in every way
//! there is, beside a steady stream of polite requests, and nothing is left; then the bridge is killed again and again.
//!
//! - [`misbehaving`]: servers of every bad kind, and floods on their stderr and stdout
//! - [`kills`]: the bridge is killed with many requests live
//! - [`flood`]: the cheapest requests, by the ten thousand
//! - [`memory`]: clients and servers that would have the bridge hold what they send
//! - [`shapes`]: JSON that is short and hard to read
//! - [`idle`]: clients that only listen, with the limits that there are by default
//! - [`mixed`]: users whose tokens make another server of one URL

#![expect(clippy::print_stdout, reason = "the figures are what the script is run for")]

#[path = "http_upstream/by_token.rs"]
mod by_token;
#[path = "containers/fixture.rs"]
#[expect(dead_code, reason = "the tests of Docker use all of it")]
mod containers;
#[path = "containers/engine.rs"]
mod engine;
#[path = "http_upstream/fixture.rs"]
#[expect(dead_code, reason = "one of its behaviours is enough")]
mod fixture;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/idle.rs"]
mod idle;
#[path = "hostile/kills.rs"]
mod kills;
#[path = "hostile/kinds.rs"]
mod kinds;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/misbehaving.rs"]
mod misbehaving;
#[path = "hostile/mixed.rs"]
mod mixed;
#[path = "hostile/polite.rs"]
mod polite;
#[path = "hostile/shapes.rs"]
mod shapes;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use support::procs;

/// How long to wait for what has no bound of its own.
const SETTLED: Duration = Duration::from_mins(1);
/// Descriptors of this program and the bridge: a connection has two ends, and a call some more.
const FILES: u64 = 16_384;

/// Whether only a first look is wanted, as the script says it.
fn is_quick() -> bool {
    std::env::vars_os().any(|(name, _)| name == "TOLLBRIDGE_HOSTILE_QUICK")
}

/// In how many rounds the machine may stand still: a first look runs where nobody sees to it that it does not.
fn stalls() -> usize {
    usize::from(is_quick())
}

/// Only root can hold a fork bomb without control groups.
fn can_bind() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives this program and every bridge that it starts descriptors for thousands of connections.
fn let_many_connect() {
    let files = Rlimit { current: Some(FILES), maximum: Some(FILES) };
    setrlimit(Resource::Nofile, files).expect("a machine that runs servers");
}

/// The directory in which that worker's requests have theirs.
fn run_directory(worker: u32) -> PathBuf {
    let arguments = procs::command_line(worker);
    let resources = arguments.iter().position(|argument| argument == "--resources").expect("the supervisor made them");
    PathBuf::from(&arguments[resources + 1])
}
