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
//! What the client of a container engine leaves behind in a session of its own is the engine's: it watches over a
//! container, or serves several. Clients have one mark for all, above those of requests, and such a process is spared:
//! it ends with its container, and that is removed through the engine.
//! What still evades, without control groups: a process that goes on as a new child with the mark of a request which runs
//! at that moment, again and again. It lives as long as it finds such requests, and is ended in the first pause.
//!
//! Nothing here can hit the wrong process. A pid is pinned by a pidfd and shown to be our child before anything is
//! asked of it, and a process that is not reaped keeps its pid. A server that is being started cannot be taken for an
//! orphan: its request is on the list from before the fork, and of what is not older nothing is ended before that
//! request, nor reaped before its leader is known.

mod dead_runs;
mod look;
mod marks;

pub use dead_runs::end_dead_runs;
pub use marks::{is_daemon_of_engine, is_of_engine, mark_client};

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use crate::descendants::{self, Process};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Counted, ProcessCounts};
use crate::sys;
use look::{Candidate, Look, Verdict};
use marks::{first_mark, mark_of, mark_with, own_session};

/// From the end of a request to the look for what it left behind: one look serves many ends.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often to look while requests run, so that orphans of theirs which have ended are reaped.
const ROUTINE: Duration = Duration::from_secs(5);
/// How long to wait for what was killed before looking again: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// The longest `end_everything` takes.
const LAST_EFFORT: Duration = Duration::from_secs(2);

/// What to do with children of this process that bear no mark of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// End those that no running request can have started. For the worker, whose children are all ours.
    End,
    /// Leave them alone. For a process that has children of its own, such as a test.
    Spare,
}

/// What a group is, which decides what it may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kin {
    /// A server, with which everything ends that it has started.
    Server,
    /// The client of a container engine.
    Client,
}

/// All running groups of this process.
pub(super) struct Family {
    table: Mutex<Table>,
    /// The n-th group, counted from 1, is marked with this minus n, and clients with this itself. None if this process
    /// may not mark.
    first_mark: Option<u64>,
    strangers: Strangers,
    session: i32,
    ticks_per_second: u64,
    group_ended: Notify,
    /// How many looks have begun, and what is known of those that are done.
    begun: AtomicU64,
    done: watch::Sender<Done>,
    /// What groups were confined to of which something may still be there.
    kept: Mutex<Vec<Kept>>,
    /// What the last look killed, by id and start: what is still there at the next one hangs in the kernel.
    doomed: Mutex<HashSet<(Pid, u64)>>,
    counts: ProcessCounts,
}

/// Something that is needed until nothing is left of a group: the user whom nobody else may be meanwhile, a directory.
struct Kept {
    place: Place,
    /// The first look after the group's end.
    look: u64,
    _what: Box<dyn Send>,
}

/// What is known of the looks that are done.
#[derive(Debug, Default)]
struct Done {
    /// The last one.
    last: u64,
    /// The last that found nothing to do.
    idle: u64,
    /// The groups of which the last one has found something that has not ended, though it was killed.
    haunted: HashSet<u64>,
}

impl Done {
    /// Nobody looks any more.
    fn for_ever() -> Self {
        Self { last: u64::MAX, idle: u64::MAX, haunted: HashSet::new() }
    }

    /// Whether nothing is left of a group that ended before the look with this number: a look kills, the one after that
    /// reaps, and then what the dead have left is killed and reaped.
    fn is_over(&self, next: u64, place: Place) -> bool {
        self.idle >= next || (self.last >= next.saturating_add(3) && !self.haunted.contains(&place.serial))
    }
}

#[derive(Default)]
struct Table {
    next: u64,
    groups: HashMap<u64, Member>,
    /// Leaders that are not waited for; they are reaped with the orphans.
    abandoned: HashMap<Pid, Abandoned>,
    /// No group may be started any more.
    closed: bool,
}

struct Member {
    /// When its place was taken, in clock ticks since the system was started, as in `/proc/PID/stat`.
    born: u64,
    /// Known once it has been started.
    leader: Option<Pid>,
    counted: Counted,
}

struct Abandoned {
    /// From when on it is killed.
    by: Instant,
    /// It has not been reaped. None if its place had been given back.
    _counted: Option<Counted>,
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
pub(super) struct Place {
    serial: u64,
    /// When it was taken, as in [`Member`].
    born: u64,
}

impl Family {
    /// Makes this process the one that orphans fall to.
    pub(super) fn new(strangers: Strangers, counts: ProcessCounts) -> io::Result<Self> {
        static FAMILIES: AtomicU64 = AtomicU64::new(1);

        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self {
            table: Mutex::default(),
            first_mark: first_mark(FAMILIES.fetch_add(1, Relaxed)),
            strangers,
            session: own_session(),
            ticks_per_second: sys::ticks_per_second(),
            group_ended: Notify::new(),
            begun: AtomicU64::new(0),
            done: watch::Sender::default(),
            kept: Mutex::default(),
            doomed: Mutex::default(),
            counts,
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
        table.next += 1;
        let serial = table.next;
        table.groups.insert(serial, Member { born, leader: None, counted: Counted::new(&self.counts.live) });
        Some(Place { serial, born })
    }

    /// What a group's processes are marked with.
    pub(super) fn mark(&self, place: Place) -> Option<u64> {
        self.first_mark.map(|first| first - place.serial)
    }

    /// Says who leads the group, and marks it.
    pub(super) fn lead(&self, place: Place, leader: Pid, kin: Kin) {
        if let Some(member) = self.table().groups.get_mut(&place.serial) {
            member.leader = Some(leader);
        }
        let mark = match kin {
            Kin::Server => self.mark(place),
            Kin::Client => self.first_mark,
        };
        mark_with(mark, leader);
    }

    /// Gives a place back: the leader has been reaped, or was never started.
    pub(super) fn leave(&self, place: Place) {
        self.table().groups.remove(&place.serial);
        self.group_ended.notify_one();
    }

    /// Gives a place back when the leader could not be reaped yet: it is, and killed if it has not ended by then.
    pub(super) fn abandon(&self, place: Place, leader: Pid, by: Instant) {
        let mut table = self.table();
        let counted = table.groups.remove(&place.serial).map(|member| member.counted);
        table.abandoned.insert(leader, Abandoned { by, _counted: counted });
        drop(table);
        self.group_ended.notify_one();
    }

    /// Waits, if a group that has just ended has left orphans, until they are gone: so whoever starts many is held up by the
    /// ending of them, and nobody else is. Whoever calls it says for how long.
    pub(super) async fn looked_after(&self, place: Place) {
        if !self.has_left(place) {
            return;
        }
        let next = self.next_look();
        let mut done = self.done.subscribe();
        // An error says that the family is gone.
        let _ = done.wait_for(|done| done.is_over(next, place)).await;
    }

    /// Whether an orphan may be of this group, as far as that is seen at a glance.
    fn has_left(&self, place: Place) -> bool {
        let born = |pid| Process::read(pid).map(|process| process.born);
        descendants::orphans().into_iter().any(|pid| self.may_be_of(place, mark_of(pid), || born(pid)))
    }

    /// Whether a process with this mark, started then, may be of this group: whose mark another group's is not.
    fn may_be_of(&self, place: Place, mark: Option<u64>, born: impl FnOnce() -> Option<u64>) -> bool {
        match self.serial_of(mark) {
            Some(serial) => serial == place.serial,
            None => born().is_some_and(|born| born >= place.born),
        }
    }

    /// The next look to begin: one that is going on may have begun too early.
    fn next_look(&self) -> u64 {
        self.begun.load(Relaxed) + 1
    }

    /// Keeps this until nothing is left of a group that has ended, as far as looks tell.
    pub(super) fn keep(&self, place: Place, what: impl Send + 'static) {
        let kept = Kept { place, look: self.next_look(), _what: Box::new(what) };
        self.kept().push(kept);
        self.release();
    }

    /// Drops what is not needed any more.
    fn release(&self) {
        let done = self.done.borrow();
        let over: Vec<_> = self.kept().extract_if(.., |kept| done.is_over(kept.look, kept.place)).collect();
        drop(done);
        drop(over);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a group of which something has not ended in time.
    pub(super) fn count_overdue(&self) {
        self.counts.overdue.inc();
    }

    /// Ends every process below this one but those of container engines, and returns whether no other is left. No group
    /// can be started any more.
    pub(super) fn end_everything(&self) -> bool {
        self.table().closed = true;
        descendants::end_all(Instant::now() + LAST_EFFORT, is_of_engine, || ())
    }

    /// Whether there is something to look after.
    fn is_busy(&self) -> bool {
        let table = self.table();
        !table.groups.is_empty() || !table.abandoned.is_empty()
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
        let running = family.is_busy();
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
        if look.killed > 0 {
            tracing::info!(count = look.killed, "ended processes that had left their request's group");
        }
        // What has ended may have left orphans itself.
        restless = look.killed + look.buried + look.dying > 0;
        family.done.send_modify(|done| {
            let idle = if restless { done.idle } else { begun };
            *done = Done { last: begun, idle, haunted: look.haunted };
        });
        family.release();
        let progress = look.killed + look.buried > 0;
        patience = if restless && !progress { (patience * 2).min(PATIENCE.1) } else { PATIENCE.0 };
        let given_up = !restless || patience == PATIENCE.1;
        if lifecycle.soft.is_cancelled() && family.table().groups.is_empty() && given_up {
            family.done.send_replace(Done::for_ever());
            family.release();
            return;
        }
    }
}

#[cfg(test)]
mod tests;
