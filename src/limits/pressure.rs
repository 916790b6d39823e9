//! Whether the host is near its end: of memory, of file descriptors, of processes. New work is turned away then, so that
//! what runs can finish and connections can still be accepted.
//!
//! It is looked at in the background, and only while requests come: on their path it is one atomic read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

use crate::cgroup_paths::own_cgroups;

/// How often to look at most.
const PAUSE: Duration = Duration::from_millis(100);

/// The part of something that may be in use, in percent, before new work is turned away.
const FULL: u64 = 95;

/// What the host is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Shortage {
    /// Memory, of the machine or of the control group that the bridge is in.
    Memory = 1,
    /// File descriptors, of this process or of the machine.
    Files = 2,
    /// Processes, of the machine or of the control group.
    Processes = 3,
}

impl Shortage {
    /// In a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Files => "file descriptors",
            Self::Processes => "processes",
        }
    }
}

/// The answer of the last look. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// 0, or a `Shortage`.
    short: AtomicU8,
    asked: Notify,
}

impl Pressure {
    /// What the host is short of, as of the last look. Asks for another.
    #[must_use]
    pub fn short(&self) -> Option<Shortage> {
        self.0.asked.notify_one();
        match self.0.short.load(Relaxed) {
            1 => Some(Shortage::Memory),
            2 => Some(Shortage::Files),
            3 => Some(Shortage::Processes),
            _ => None,
        }
    }

    /// Looks whenever somebody asks, and until the host is short of nothing.
    pub async fn watch(self) {
        let own = OwnGroups::find();
        let mut before = None;
        loop {
            let now = look(&own);
            self.0.short.store(now.map_or(0, |short| short as u8), Relaxed);
            if now != before {
                if let Some(short) = now {
                    tracing::warn!("short of {}: new requests are turned away", short.as_str());
                } else {
                    tracing::info!("no longer short of anything: new requests are let in");
                }
                before = now;
            }
            tokio::time::sleep(PAUSE).await;
            if now.is_none() {
                self.0.asked.notified().await;
            }
        }
    }
}

/// The control groups that the bridge is in and those above them, version 1 or 2: files of what is used and of the
/// most that may be.
#[derive(Debug, Default)]
struct OwnGroups {
    memory: Vec<[PathBuf; 2]>,
    processes: Vec<[PathBuf; 2]>,
}

impl OwnGroups {
    fn find() -> Self {
        let with = |controller, used: &str, most: &str| {
            let pairs = own_cgroups(controller).into_iter().map(|group| [group.join(used), group.join(most)]);
            // The root of all has neither; and where nothing is handed down there is none.
            pairs.filter(|pair| pair.iter().all(|file| number(file).is_some())).collect::<Vec<_>>()
        };
        let memory = [
            with("", "memory.current", "memory.max"),
            with("memory", "memory.usage_in_bytes", "memory.limit_in_bytes"),
        ];
        let processes = [with("", "pids.current", "pids.max"), with("pids", "pids.current", "pids.max")];
        Self { memory: memory.concat(), processes: processes.concat() }
    }
}

/// What a file of one number says; "max" is the highest.
fn number(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
}

fn is_full(used: u64, most: u64) -> bool {
    u128::from(used) * 100 >= u128::from(most) * u128::from(FULL)
}

fn any_full(pairs: &[[PathBuf; 2]]) -> bool {
    pairs.iter().any(|[used, most]| number(used).zip(number(most)).is_some_and(|(used, most)| is_full(used, most)))
}

fn look(own: &OwnGroups) -> Option<Shortage> {
    if files() {
        Some(Shortage::Files)
    } else if machine_memory().is_some_and(|(used, most)| is_full(used, most)) || group_memory(own) {
        Some(Shortage::Memory)
    } else if machine_processes().is_some_and(|(used, most)| is_full(used, most)) || any_full(&own.processes) {
        Some(Shortage::Processes)
    } else {
        None
    }
}

/// What a group uses counts the cache, which is given back when it is needed; without it, it is near its end.
fn group_memory(own: &OwnGroups) -> bool {
    own.memory.iter().any(|[file, most]| {
        let Some((used, most)) = number(file).zip(number(most)) else { return false };
        is_full(used, most) && is_full(used.saturating_sub(cache(file).unwrap_or(0)), most)
    })
}

/// The part of what a group uses, as that file says, that is cache.
fn cache(used: &Path) -> Option<u64> {
    let stat = fs::read_to_string(used.with_file_name("memory.stat")).ok()?;
    let of = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
    let version_1 = || Some(of("total_inactive_file")? + of("total_active_file")?);
    version_1().or_else(|| Some(of("inactive_file")? + of("active_file")?))
}

/// Used and most, KiB.
fn machine_memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let most = of("MemTotal:")?;
    Some((most.saturating_sub(of("MemAvailable:")?), most))
}

fn files() -> bool {
    let own = getrlimit(Resource::Nofile).current;
    let machine = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    let mut machine = machine.split_ascii_whitespace().map(|field| field.parse::<u64>().unwrap_or(u64::MAX));
    let machine = machine.next().zip(machine.nth(1));
    own.is_some_and(|most| is_full(open_files(), most)) || machine.is_some_and(|(used, most)| is_full(used, most))
}

/// How many this process has open. Newer kernels tell at once; on older ones they have to be counted.
fn open_files() -> u64 {
    let told = fs::metadata("/proc/self/fd").map_or(0, |meta| std::os::unix::fs::MetadataExt::size(&meta));
    let count = || fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    if told > 0 { told } else { count() }
}

/// Used and most.
fn machine_processes() -> Option<(u64, u64)> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let used = load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((used, number(Path::new("/proc/sys/kernel/threads-max"))?.min(number(Path::new("/proc/sys/kernel/pid_max"))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_twentieth_is_kept_free() {
        assert!(!is_full(94, 100) && is_full(95, 100));
        assert!(!is_full(u64::MAX / 2, u64::MAX), "no limit is none");
    }

    #[test]
    fn everything_that_is_looked_at_is_there() {
        assert!(machine_memory().is_some_and(|(used, most)| used > 0 && used < most));
        assert!(machine_processes().is_some_and(|(used, most)| used > 0 && used < most));
        assert!((3..10_000).contains(&open_files()));
        assert_eq!(look(&OwnGroups::find()), None, "this machine has room for a test");
    }
}
