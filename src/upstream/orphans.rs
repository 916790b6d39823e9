//! Processes that left the group of their request: seen, told whose they are, and ended when that request has.
//!
//! The worker is a subreaper: whatever a server leaves behind (by `setsid`, a double fork, an empty environment)
//! becomes a child of the worker when its parent ends, and here it is looked for after requests have ended. Whose it
//! is, is told by one of two things:
//!
//! - Its **mark**. Each server is given its own value as limit on file locks, which the kernel has not enforced since
//!   2003 but hands down to every descendant, and which only privilege can raise again. Marks go down: a process that
//!   lowers its own names a request that has not begun, or one that began after it, and is ended. No variable, file or
//!   namespace is needed. A server that becomes another user is marked before it does.
//! - Its **age**, if it has no mark of ours: it was forked before its server was marked (a moment after the start), or
//!   somebody raised the limit. It is ended once every request that was alive when it was born has ended.
//!
//! What still evades, without control groups: a process that goes on as a new child with the mark of a request which runs
//! at that moment, again and again. It lives as long as it finds such requests, and is ended in the first pause.
//!
//! Nothing here can hit the wrong process. A pid is pinned by a pidfd and shown to be our child before anything is
//! asked of it, and a process that is not reaped keeps its pid. A server that is being started cannot be taken for an
//! orphan: its request is on the list from before the fork, and of what is not older nothing is ended before that
//! request, nor reaped before its leader is known.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, prlimit, waitid,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use crate::descendants::{self, Process};
use crate::lifecycle::Lifecycle;
use crate::sys;

/// From the end of a request to the look for what it left behind: one look serves many ends.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often to look while requests run, so that orphans of theirs which have ended are reaped.
const ROUTINE: Duration = Duration::from_secs(5);
/// How long to wait for what was killed before looking again: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// The longest `end_everything` takes.
const LAST_EFFORT: Duration = Duration::from_secs(2);
/// More groups than a process can start in its life; a mark further off is not of this family.
const FAMILY: u64 = 1 << 48;

/// What to do with children of this process that bear no mark of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// End those that no running request can have started. For the worker, whose children are all ours.
    End,
    /// Leave them alone. For a process that has children of its own, such as a test.
    Spare,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Groups that have not ended.
    pub groups: usize,
    /// Orphans of running requests at the last look.
    pub orphans: usize,
    /// Orphans ended so far.
    pub orphans_ended: u64,
}

/// All running groups of this process.
pub(super) struct Family {
    table: Mutex<Table>,
    /// The n-th group is marked with this minus n. None if this process may not mark.
    first_mark: Option<u64>,
    strangers: Strangers,
    ticks_per_second: u64,
    group_ended: Notify,
    /// How many looks have begun; the last that is done, and the last that found nothing to do.
    begun: AtomicU64,
    done: watch::Sender<(u64, u64)>,
    /// The last look found something that had left its group.
    storm: AtomicBool,
    orphans: AtomicUsize,
    orphans_ended: AtomicU64,
}

#[derive(Default)]
struct Table {
    next: u64,
    groups: HashMap<u64, Member>,
    /// Leaders that were killed and not waited for; they are reaped with the orphans.
    abandoned: HashSet<Pid>,
    /// No group may be started any more.
    closed: bool,
}

struct Member {
    /// When its place was taken, in clock ticks since the system was started, as in `/proc/PID/stat`.
    born: u64,
    /// Known once it has been started.
    leader: Option<Pid>,
}

impl Member {
    /// Judges one that bears the mark of this group, and is young enough to.
    fn judge(&self, candidate: &Candidate) -> Verdict {
        // A leader that becomes another user is marked before it is known.
        if candidate.ended && self.leader.is_some() { Verdict::Reap } else { Verdict::Wait }
    }
}

/// A group's place in the family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(u64);

impl Family {
    /// Makes this process the one that orphans fall to.
    pub(super) fn new(strangers: Strangers) -> io::Result<Self> {
        /// Far below "no limit", and far above any limit that somebody would set.
        const HIGHEST: u64 = 1 << 62;
        static FAMILIES: AtomicU64 = AtomicU64::new(1);

        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // A bridge that is itself the server of another one has a mark, and marks below the range that it is in.
        let highest = rustix::process::getrlimit(Resource::Locks).maximum.map_or(HIGHEST, |own| own.min(HIGHEST));
        let first_mark = highest.checked_sub(FAMILY * FAMILIES.fetch_add(1, Relaxed)).filter(|&mark| mark > FAMILY);
        Ok(Self {
            table: Mutex::default(),
            first_mark,
            strangers,
            ticks_per_second: sys::ticks_per_second(),
            group_ended: Notify::new(),
            begun: AtomicU64::new(0),
            done: watch::Sender::default(),
            storm: AtomicBool::new(false),
            orphans: AtomicUsize::new(0),
            orphans_ended: AtomicU64::new(0),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, which must be before the fork; there is none once everything is being ended.
    pub(super) fn join(&self) -> Option<Place> {
        let born = self.now();
        let mut table = self.table();
        if table.closed {
            return None;
        }
        let serial = table.next;
        table.next += 1;
        table.groups.insert(serial, Member { born, leader: None });
        Some(Place(serial))
    }

    /// What a group's processes are marked with.
    pub(super) fn mark(&self, place: Place) -> Option<u64> {
        self.first_mark.map(|first| first - place.0)
    }

    /// Says who leads the group, and marks it.
    pub(super) fn lead(&self, place: Place, leader: Pid) {
        if let Some(member) = self.table().groups.get_mut(&place.0) {
            member.leader = Some(leader);
        }
        if let Some(mark) = self.mark(place) {
            // If it is refused, or the leader has ended already, age tells whose its orphans are.
            let _ = prlimit(Some(leader), Resource::Locks, Rlimit { current: Some(mark), maximum: Some(mark) });
        }
    }

    /// Gives a place back: the leader has been reaped, or was never started.
    pub(super) fn leave(&self, place: Place) {
        self.table().groups.remove(&place.0);
        self.group_ended.notify_one();
    }

    /// Gives a place back when the leader has been killed but could not be reaped yet.
    pub(super) fn abandon(&self, place: Place, leader: Pid) {
        let mut table = self.table();
        table.groups.remove(&place.0);
        table.abandoned.insert(leader);
        drop(table);
        self.group_ended.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            groups: self.table().groups.len(),
            orphans: self.orphans.load(Relaxed),
            orphans_ended: self.orphans_ended.load(Relaxed),
        }
    }

    /// Waits, if there are orphans, until it has been looked for those of a group that has just ended: so whoever starts
    /// many is held up by the ending of them.
    pub(super) async fn looked_after(&self) {
        if !self.storm.load(Relaxed) && !descendants::has_orphans() {
            return;
        }
        // One that is going on has begun too early.
        let next = self.begun.load(Relaxed) + 1;
        let mut done = self.done.subscribe();
        // It kills, the one after that reaps, and then what the dead have left is killed and reaped.
        let enough = done.wait_for(|&(last, idle)| idle >= next || last >= next + 3);
        let _ = tokio::time::timeout(PATIENCE.1, enough).await;
    }

    /// Ends every process below this one and returns whether none is left. No group can be started any more.
    pub(super) fn end_everything(&self) -> bool {
        self.table().closed = true;
        descendants::end_all(Instant::now() + LAST_EFFORT, || ())
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        seconds * self.ticks_per_second + nanoseconds * self.ticks_per_second / 1_000_000_000
    }
}

/// Looks for orphans whenever a group has ended, until the process is to stop and no group is left.
pub(super) async fn sweep(family: Arc<Family>, lifecycle: Lifecycle) {
    let mut patience = PATIENCE.0;
    let mut restless = false;
    loop {
        let running = family.counts().groups > 0;
        let pause = if restless { patience } else { ROUTINE };
        tokio::select! {
            () = family.group_ended.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(pause), if restless || running => {}
            () = lifecycle.soft.cancelled(), if !lifecycle.soft.is_cancelled() => {}
        }
        let begun = family.begun.fetch_add(1, Relaxed) + 1;
        let look = family.look().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for processes that left their request's group");
            Look::default()
        });
        family.storm.store(look.killed > 0, Relaxed);
        if look.killed > 0 {
            tracing::info!(count = look.killed, "ended processes that had left their request's group");
        }
        // What has ended may have left orphans itself.
        restless = look.killed + look.buried + look.dying > 0;
        family.done.send_modify(|(last, idle)| {
            *last = begun;
            *idle = if restless { *idle } else { begun };
        });
        let progress = look.killed + look.buried > 0;
        patience = if restless && !progress { (patience * 2).min(PATIENCE.1) } else { PATIENCE.0 };
        let given_up = !restless || patience == PATIENCE.1;
        if lifecycle.soft.is_cancelled() && family.counts().groups == 0 && given_up {
            return;
        }
    }
}

/// What one look found of requests that have ended.
#[derive(Debug, Default)]
struct Look {
    /// Orphans killed.
    killed: usize,
    /// Whatever had ended and was reaped.
    buried: usize,
    /// Whatever was killed, now or before, and could not be reaped yet.
    dying: usize,
}

/// A child of ours that did not lead a running group when looked at.
struct Candidate {
    pid: Pid,
    pinned: OwnedFd,
    /// It has ended and can be reaped.
    ended: bool,
    mark: Option<u64>,
    born: u64,
}

impl Candidate {
    /// Makes sure that the pid means a child of ours, and goes on meaning it.
    fn pin(pid: Pid) -> Option<Self> {
        let pinned = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::PidFd(pinned.as_fd()), only_look).ok()?.is_some();
        let born = Process::read(pid)?.born;
        Some(Self { pid, pinned, ended, mark: mark_of(pid), born })
    }

    /// Reaps it if it has ended, and returns whether it is gone.
    fn reap(&self) -> bool {
        let reaped = waitid(WaitId::PidFd(self.pinned.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        !matches!(reaped, Ok(None))
    }
}

/// The limit of a process on file locks. Of one that runs as another user the system tells it only in a file.
fn mark_of(pid: Pid) -> Option<u64> {
    sys::lock_limit(pid).ok().or_else(|| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_pid())).ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    })
}

#[derive(PartialEq, Eq)]
enum Verdict {
    /// An orphan whose request has ended.
    End,
    /// A leader that was killed before.
    Bury,
    /// An orphan that has ended by itself, of a request that runs.
    Reap,
    /// An orphan whose request runs, or may.
    Wait,
    /// The leader of a running group, or none of ours.
    Spare,
}

impl Family {
    fn look(&self) -> io::Result<Look> {
        let mut children = descendants::children()?;
        let leaders: HashSet<Pid> = self.table().groups.values().filter_map(|member| member.leader).collect();
        children.retain(|child| !leaders.contains(child));

        let mut look = Look::default();
        let mut waiting = 0;
        for candidate in children.into_iter().filter_map(Candidate::pin) {
            let verdict = self.judge(&candidate);
            match verdict {
                Verdict::End | Verdict::Bury => self.end(&candidate, &verdict, &mut look),
                Verdict::Reap => drop(candidate.reap()),
                Verdict::Wait => waiting += 1,
                Verdict::Spare => {}
            }
        }
        self.orphans.store(waiting, Relaxed);
        Ok(look)
    }

    /// Judges a child whose mark was read before now.
    fn judge(&self, candidate: &Candidate) -> Verdict {
        let table = self.table();
        if table.groups.values().any(|member| member.leader == Some(candidate.pid)) {
            return Verdict::Spare;
        }
        if table.abandoned.contains(&candidate.pid) {
            return Verdict::Bury;
        }
        let distance = self.first_mark.zip(candidate.mark).and_then(|(first, mark)| first.checked_sub(mark));
        match distance.filter(|&serial| serial < FAMILY) {
            Some(serial) => match table.groups.get(&serial) {
                // What is older than the request that it names has lowered its mark.
                Some(member) if candidate.born >= member.born => member.judge(candidate),
                _ => Verdict::End,
            },
            None if self.strangers == Strangers::Spare => Verdict::Spare,
            None => match table.groups.values().map(|member| member.born).min() {
                Some(oldest) if candidate.born >= oldest => Verdict::Wait,
                _ => Verdict::End,
            },
        }
    }

    fn end(&self, candidate: &Candidate, verdict: &Verdict, look: &mut Look) {
        let killed = !candidate.ended && pidfd_send_signal(&candidate.pinned, Signal::KILL).is_ok();
        if killed && *verdict == Verdict::End {
            look.killed += 1;
            self.orphans_ended.fetch_add(1, Relaxed);
        }
        if candidate.reap() {
            look.buried += 1;
            self.table().abandoned.remove(&candidate.pid);
        } else {
            look.dying += 1;
        }
    }
}

#[cfg(test)]
mod tests;
