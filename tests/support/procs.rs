//! What the kernel says is there: processes, zombies, descriptors, memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The pause between two looks of a wait.
pub const LOOK: Duration = Duration::from_millis(5);

/// A process as it was seen; its start time tells it from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub state: char,
    pub started: u64,
    pub name: String,
}

impl Process {
    /// The process with this number, if there is one.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let fields: Vec<_> = stat.get(close + 2..)?.split(' ').collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            started: fields.get(19)?.parse().ok()?,
            name: stat.get(open + 1..close)?.to_owned(),
        })
    }

    /// Whether it has ended but nobody has waited for it.
    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    /// Whether this very process is still running; a zombie is not.
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started && !now.is_zombie())
    }
}

/// Every process there is.
pub fn all() -> Vec<Process> {
    pids().filter_map(Process::read).collect()
}

/// The children of a process, zombies included.
pub fn children(pid: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == pid).collect()
}

/// Everything below a process, zombies included. What has been adopted by somebody else is not below it any more: count
/// by marker for that.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// The processes that have ended but that their parent below `pid` has not waited for.
pub fn zombies(pid: u32) -> Vec<Process> {
    descendants(pid).into_iter().filter(Process::is_zombie).collect()
}

/// Running processes with `marker` within one of their arguments. (A zombie has no arguments.)
pub fn with_marker(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    pids().filter(|&pid| pid != own && command_line(pid).iter().any(|argument| argument.contains(marker))).collect()
}

/// A process's arguments; none when it has ended.
pub fn command_line(pid: u32) -> Vec<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// How many descriptors a process has open. A bridge hides them from everybody but root.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process, looked at by root").count()
}

/// What a process's descriptors are, for the message of a failed test.
pub fn descriptor_targets(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

/// A process's threads.
pub fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// A process's resident memory now, in KiB.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// How much of files a process has mapped and in memory, its program first of all, in KiB.
pub fn resident_of_files(pid: u32) -> u64 {
    status(pid, "RssFile:")
}

/// How much a process has mapped, in KiB.
pub fn virtual_size(pid: u32) -> u64 {
    status(pid, "VmSize:")
}

/// The most resident memory a process ever had, in KiB.
pub fn peak_resident(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Lets the peak start anew from what is resident now.
pub fn reset_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Sends a signal; a process that has ended does not mind.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Writes a program, or copies one, by another process: to a child that is started meanwhile, ours would hand on the file
/// as it is written, and what is open to be written cannot be run.
pub fn write_program(path: &Path, text: &str) {
    let mut write = Command::new("sh");
    write.args(["-c", r#"printf %s "$1" >"$2" && chmod 755 "$2""#, "sh", text]).arg(path);
    assert!(write.status().is_ok_and(|status| status.success()), "{} can be written", path.display());
}

/// See [`write_program`].
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} can be written", to.display());
}

/// Looks again and again until there is something, or the time is up.
pub fn wait_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        // A look that begins too late is the last one: time may pass between a look and the clock.
        let is_late = Instant::now() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if is_late {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// As [`wait_for`], for tests whose tasks have to go on meanwhile.
pub async fn eventually<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        // A look that begins too late is the last one: time may pass between a look and the clock.
        let is_late = Instant::now() >= deadline;
        if let Some(found) = look() {
            return Some(found);
        }
        if is_late {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// For a bound that is required: one of three attempts keeps it, each of which says how long it took. What is too slow
/// breaks it each time; a machine that stands still for a moment does not.
pub async fn in_time(limit: Duration, mut attempt: impl AsyncFnMut() -> Duration) {
    let mut took = Vec::new();
    while took.last().is_none_or(|&last| last >= limit) {
        assert!(took.len() < 3, "longer than {limit:?} each time: {took:?}");
        took.push(attempt().await);
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
