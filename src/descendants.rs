//! The processes below this one, read from `/proc`, and how to end all of them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::str::SplitAsciiWhitespace;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid};

/// One process, as `/proc/PID/stat` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent's id, 0 for none.
    pub parent: i32,
    /// The id of its session.
    pub session: i32,
    /// Whether it has ended and waits to be reaped.
    pub ended: bool,
    /// When it was started, in clock ticks since the system was.
    pub born: u64,
}

impl Process {
    /// Reads one process; `None` if it is gone.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        let mut fields = after_name(&stat)?;
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let threads: u32 = fields.nth(13)?.parse().ok()?;
        let born = fields.nth(1)?.parse().ok()?;
        // A process whose first thread has ended looks dead while its other threads go on.
        let ended = matches!(state, "Z" | "X") && threads <= 1;
        Some(Self { pid, parent, session, ended, born })
    }

    /// Sends it a signal, unless its id means another process by now.
    fn signal(&self, signal: Signal) {
        let Ok(pinned) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        if Self::read(self.pid).is_some_and(|now| now.born == self.born) {
            // It may have ended, or belong to somebody else: the next look tells.
            let _ = pidfd_send_signal(&pinned, signal);
        }
    }
}

/// The fields of `/proc/PID/stat` from the state on. The name in parentheses may hold anything, even parentheses; what
/// follows its last one is plain.
fn after_name(stat: &[u8]) -> Option<SplitAsciiWhitespace<'_>> {
    let after_name = memchr::memrchr(b')', stat)? + 1;
    Some(std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace())
}

/// The direct children of this process, whichever of its threads they belong to. A child may be missed if another
/// one ends at that moment.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn children() -> io::Result<Vec<Pid>> {
    if fs::exists("/proc/thread-self/children")? { children_of("self") } else { scan_for_children() }
}

/// The processes that have lost their parents and have fallen to this one, as far as that is seen at a glance: they fall
/// to its first thread, which starts none itself.
#[must_use]
pub fn orphans() -> Vec<Pid> {
    let first = getpid().as_raw_pid();
    let listed = fs::read_to_string(format!("/proc/self/task/{first}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(parse_pid).collect()
}

/// The direct children of a process as this kernel lists them.
fn children_of(process: &str) -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // The thread may have ended.
        let listed = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(listed.split_ascii_whitespace().filter_map(parse_pid));
    }
    Ok(children)
}

/// The same for kernels that do not list them.
fn scan_for_children() -> io::Result<Vec<Pid>> {
    let me = getpid().as_raw_pid();
    Ok(everything()?.filter(|process| process.parent == me).map(|process| process.pid).collect())
}

/// The processor time that a process and those below it have used, as far as they have not ended, in clock ticks.
#[must_use]
pub fn processor_time(of: Pid) -> u64 {
    tree(of).into_iter().filter_map(used_by).sum()
}

/// The memory of a process and those below it, bytes. What several processes share counts for each of them in part
/// (proportional set size); nothing of those that may not be looked into.
#[must_use]
pub fn memory(of: Pid) -> u64 {
    tree(of).into_iter().filter_map(proportional_set).sum()
}

/// How long after a process the last of those below it was started, in clock ticks: of a program that first looks for another
/// one and then starts it, what that took.
#[must_use]
pub fn last_start_after(of: Pid) -> u64 {
    let births: Vec<u64> = tree(of).into_iter().filter_map(Process::read).map(|process| process.born).collect();
    let first = births.first().copied().unwrap_or_default();
    births.into_iter().max().unwrap_or_default().saturating_sub(first)
}

/// A process and those below it, parents first.
fn tree(of: Pid) -> Vec<Pid> {
    let (mut tree, mut seen) = (vec![of], 0);
    while let Some(pid) = tree.get(seen) {
        let children = children_of(&pid.as_raw_pid().to_string()).unwrap_or_default();
        tree.extend(children);
        seen += 1;
    }
    tree
}

fn proportional_set(pid: Pid) -> Option<u64> {
    let told = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_pid())).ok()?;
    let pss = told.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(pss.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn used_by(pid: Pid) -> Option<u64> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let mut fields = after_name(&stat)?;
    let (user, system): (u64, u64) = (fields.nth(11)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Every process that can be seen.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn everything() -> io::Result<impl Iterator<Item = Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| Process::read(parse_pid(entry.file_name().to_str()?)?)))
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

/// Every process below this one that has not ended, except those that `spare` names and what is below them: found from
/// parent to child, which may miss some but costs no look at the whole system, and then, if none was found and there may
/// be some, surely.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn alive(spare: impl Fn(&Process) -> bool) -> io::Result<Vec<Process>> {
    let read = |pid| Process::read(pid).filter(|process| !spare(process));
    let mut found: Vec<_> = children()?.into_iter().filter_map(read).collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children_of(&process.pid.as_raw_pid().to_string()).unwrap_or_default();
        found.extend(below.into_iter().filter_map(read));
        next += 1;
    }
    found.retain(|process| !process.ended);
    if found.is_empty() && has_children() { scan_for_alive(spare) } else { Ok(found) }
}

fn has_children() -> bool {
    let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, only_look), Err(Errno::CHILD))
}

fn scan_for_alive(spare: impl Fn(&Process) -> bool) -> io::Result<Vec<Process>> {
    let mut by_parent: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in everything()? {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut below = |parent: i32| {
        let children = by_parent.remove(&parent).unwrap_or_default();
        children.into_iter().filter(|process| !spare(process)).collect::<Vec<_>>()
    };
    let mut found = below(getpid().as_raw_pid());
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let children = below(process.pid.as_raw_pid());
        found.extend(children);
        next += 1;
    }
    found.retain(|process| !process.ended);
    Ok(found)
}

/// Processes that are stopped before they are killed: what is stopped can neither fork nor start a replacement for what
/// was killed.
#[derive(Debug, Default)]
pub struct ProcessSet(HashMap<(Pid, u64), Process>);

impl ProcessSet {
    /// Stops these and everything below them, and returns how many of them are new: none once nothing more can fork.
    /// Each is stopped before its children are listed, so that no pid changes its meaning meanwhile.
    pub fn stop(&mut self, roots: impl IntoIterator<Item = Process>) -> usize {
        let before = self.0.len();
        let mut next: Vec<_> = roots.into_iter().collect();
        while let Some(process) = next.pop() {
            if self.0.insert((process.pid, process.born), process).is_none() {
                process.signal(Signal::STOP);
            }
            let own = process.pid.as_raw_pid();
            let below = children_of(&own.to_string()).unwrap_or_default().into_iter().filter_map(Process::read);
            next.extend(below.filter(|child| child.parent == own && !child.ended));
        }
        self.0.len() - before
    }

    /// Kills all of them, and returns which they are, by their ids and when they were started.
    #[must_use]
    pub fn kill(self) -> HashSet<(Pid, u64)> {
        for process in self.0.values() {
            process.signal(Signal::KILL);
        }
        self.0.into_keys().collect()
    }
}

/// Ends every process below this one, except those that `spare` names and what is below them, and returns whether no
/// other is left; gives up at the deadline, but not before it has killed a few times: time that we ourselves did not get
/// is no reason to leave what is stopped.
///
/// All are stopped before any is killed, again and again until nothing new is seen: what is stopped can neither fork
/// nor start a replacement for what was killed. Nothing is reaped here; `between` is called after each look, for
/// those who want to. Only a subreaper finds what has lost its parents.
pub fn end_all(deadline: Instant, spare: impl Fn(&Process) -> bool, mut between: impl FnMut()) -> bool {
    const FREEZING_ROUNDS: u32 = 20;
    const LEAST_KILLS: u32 = 3;
    let mut pause = Duration::from_micros(500);
    let mut stopped = HashSet::new();
    let mut kills = 0;
    for round in 0.. {
        between();
        let Ok(alive) = alive(&spare) else { return false };
        if alive.is_empty() {
            return true;
        }
        let is_late = Instant::now() >= deadline;
        if is_late && kills >= LEAST_KILLS {
            return false;
        }
        let fresh: Vec<_> = alive.iter().filter(|process| stopped.insert((process.pid, process.born))).collect();
        if fresh.is_empty() || round >= FREEZING_ROUNDS || is_late {
            kills += 1;
            for process in &alive {
                process.signal(Signal::KILL);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        } else {
            for process in fresh {
                process.signal(Signal::STOP);
            }
        }
    }
    false
}
