//! Processes that left the group of their request: found, assigned to their request, and ended when that request has.
//!
//! The worker is a subreaper: whatever a server leaves behind (by `setsid`, a double fork, an empty environment)
//! becomes a child of the worker when its parent ends, and here it is looked for after requests have ended. Which request
//! it belongs to is recognised by one of two things:
//!
//! - Its **tag**. Each server is given its own value as limit on file locks, which the kernel has not enforced since
//!   2003 but hands down to every descendant, and which only privilege can raise again. Tags count down: a process that
//!   lowers its own names a request that has not begun, or one that began after it, and is ended. No variable, file or
//!   namespace is needed. A server that becomes another user is tagged before it does.
//! - Its **age**, if it has no tag of ours: it was forked before its server was tagged (a moment after the start), or
//!   somebody raised the limit. It is ended once every request that was alive when it was started has ended; spares, which
//!   wait for long, count only for what was started before they were tagged.
//!
//! What the client of a container engine leaves behind in a session of its own is the engine's: it watches over a
//! container, or serves several. Clients have one tag for all, above those of requests, and such a process is spared:
//! it ends with its container, and that is removed through the engine.
//! What still evades, without control groups: a process that goes on as a new child with the tag of a request which runs
//! at that moment, again and again. It lives as long as it finds such requests, and is ended in the first pause.
//!
//! Nothing here can hit the wrong process. A pid is pinned by a pidfd and shown to be our child before anything is
//! done to it, and a process that is not reaped keeps its pid. A server that is being started cannot be taken for an
//! orphan: its request is registered before the fork, and of what is not older nothing is ended before that
//! request, nor reaped before its leader is known.

mod dead_instances;
mod pass;
mod tags;

pub use dead_instances::end_dead_instances;
pub use tags::{is_daemon_of_engine, is_of_engine, tag_client};

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
use pass::{Candidate, Pass, Verdict};
use tags::{first_tag, own_session, set_tag, tag_of};

/// From the end of a request to the pass that looks for what it left behind: one pass serves many ends.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often to make a pass while requests run, so that orphans of theirs which have ended are reaped.
const ROUTINE: Duration = Duration::from_secs(5);
/// How long to wait for what was killed before the next pass: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// The longest `end_everything` takes.
const LAST_EFFORT: Duration = Duration::from_secs(2);

/// What to do with children of this process that bear no tag of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntaggedChildren {
    /// End those that no running request can have started. For the worker, whose children are all ours.
    End,
    /// Leave them alone. For a process that has children of its own, such as a test.
    Spare,
}

/// What a group is, which decides what it may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessKind {
    /// A server, with which everything ends that it has started.
    Server,
    /// The client of a container engine.
    Client,
}

/// Tracks all running process groups of this process.
pub(super) struct ProcessTracker {
    table: Mutex<Table>,
    /// The n-th group, counted from 1, is tagged with this minus n, and clients with this itself. None if this process
    /// may not tag.
    first_tag: Option<u64>,
    untagged: UntaggedChildren,
    session: i32,
    ticks_per_second: u64,
    group_ended: Notify,
    /// How many passes have begun, and what is known of those that are done.
    begun: AtomicU64,
    done: watch::Sender<Done>,
    /// What groups were confined to of which something may still be there.
    held: Mutex<Vec<HeldResource>>,
    /// What the last pass killed, by id and start: what is still there at the next one hangs in the kernel.
    to_kill: Mutex<HashSet<(Pid, u64)>>,
    counts: ProcessCounts,
}

/// Something that is needed until nothing is left of a group: the user whom nobody else may be meanwhile, a directory.
struct HeldResource {
    group_id: GroupId,
    /// The first pass after the group's end.
    pass: u64,
    _what: Box<dyn Send>,
}

/// What is known of the passes that are done.
#[derive(Debug, Default)]
struct Done {
    /// The last one.
    last: u64,
    /// The last that found nothing to do.
    idle: u64,
    /// The groups of which the last one has found something that has not ended, though it was killed.
    survivors: HashSet<u64>,
}

impl Done {
    /// There are no more passes.
    fn for_ever() -> Self {
        Self { last: u64::MAX, idle: u64::MAX, survivors: HashSet::new() }
    }

    /// Whether nothing is left of a group that ended before the pass with this number: a pass kills, the one after that
    /// reaps, and then what the dead have left is killed and reaped.
    fn is_over(&self, next: u64, group_id: GroupId) -> bool {
        self.idle >= next || (self.last >= next.saturating_add(3) && !self.survivors.contains(&group_id.serial))
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
    /// When it was registered, in clock ticks since the system was started, as in `/proc/PID/stat`.
    born: u64,
    /// Known once it has been started.
    leader: Option<Pid>,
    /// When its leader bore its tag, if it took it: what that starts later has a tag, too.
    tagged: Option<u64>,
    /// Whether it is a spare: it may wait for so long that what has no tag cannot wait for its end.
    is_spare: bool,
    counted: Counted,
}

struct Abandoned {
    /// From when on it is killed.
    by: Instant,
    /// It has not been reaped. None if it had been unregistered.
    _counted: Option<Counted>,
}

impl Member {
    /// Judges one that bears the tag of this group, and is young enough to.
    fn judge(&self, candidate: &Candidate) -> Verdict {
        // A leader that becomes another user is tagged before it is known.
        if candidate.ended && self.leader.is_some() { Verdict::Reap } else { Verdict::Wait }
    }

    /// Whether one without a tag may have been started by this group.
    fn may_have_started(&self, candidate: &Candidate) -> bool {
        let was_tagged = self.tagged.is_some_and(|tagged| candidate.born > tagged);
        candidate.born >= self.born && !(self.is_spare && was_tagged)
    }
}

/// A group, as the tracker knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupId {
    serial: u64,
    /// When it was registered, as in [`Member`].
    born: u64,
}

impl ProcessTracker {
    /// Makes this process the one that orphans fall to.
    pub(super) fn new(untagged: UntaggedChildren, counts: ProcessCounts) -> io::Result<Self> {
        static TRACKERS: AtomicU64 = AtomicU64::new(1);

        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self {
            table: Mutex::default(),
            first_tag: first_tag(TRACKERS.fetch_add(1, Relaxed)),
            untagged,
            session: own_session(),
            ticks_per_second: sys::ticks_per_second(),
            group_ended: Notify::new(),
            begun: AtomicU64::new(0),
            done: watch::Sender::default(),
            held: Mutex::default(),
            to_kill: Mutex::default(),
            counts,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a group, which must be done before the fork; `None` once everything is being ended.
    pub(super) fn register(&self) -> Option<GroupId> {
        let born = self.now();
        let mut table = self.table();
        if table.closed {
            return None;
        }
        table.next += 1;
        let (serial, counted) = (table.next, Counted::new(&self.counts.live));
        table.groups.insert(serial, Member { born, leader: None, tagged: None, is_spare: false, counted });
        Some(GroupId { serial, born })
    }

    /// What a group's processes are tagged with.
    pub(super) fn tag(&self, group_id: GroupId) -> Option<u64> {
        self.first_tag.map(|first| first - group_id.serial)
    }

    /// Records who leads the group, and tags it.
    pub(super) fn set_leader(&self, group_id: GroupId, leader: Pid, kind: ProcessKind) {
        if let Some(member) = self.table().groups.get_mut(&group_id.serial) {
            member.leader = Some(leader);
        }
        let tag = match kind {
            ProcessKind::Server => self.tag(group_id),
            ProcessKind::Client => self.first_tag,
        };
        if set_tag(tag, leader) {
            let now = self.now();
            self.table().groups.entry(group_id.serial).and_modify(|member| member.tagged = Some(now));
        }
    }

    /// Says whether the group is a spare, or serves a request.
    pub(super) fn set_spare(&self, group_id: GroupId, is_spare: bool) {
        self.table().groups.entry(group_id.serial).and_modify(|member| member.is_spare = is_spare);
    }

    /// Removes a group: the leader has been reaped, or was never started.
    pub(super) fn unregister(&self, group_id: GroupId) {
        self.table().groups.remove(&group_id.serial);
        self.group_ended.notify_one();
    }

    /// Removes a group whose leader could not be reaped yet: it is reaped by a pass, and killed if it has not ended by then.
    pub(super) fn abandon(&self, group_id: GroupId, leader: Pid, by: Instant) {
        let mut table = self.table();
        let counted = table.groups.remove(&group_id.serial).map(|member| member.counted);
        table.abandoned.insert(leader, Abandoned { by, _counted: counted });
        drop(table);
        self.group_ended.notify_one();
    }

    /// Waits, if a group that has just ended has left orphans, until they are gone: so whoever starts many is held up by the
    /// ending of them, and nobody else is. Whoever calls it says for how long.
    pub(super) async fn orphans_gone(&self, group_id: GroupId) {
        if !self.has_left(group_id) {
            return;
        }
        let next = self.next_pass();
        let mut done = self.done.subscribe();
        // An error says that the tracker is gone.
        let _ = done.wait_for(|done| done.is_over(next, group_id)).await;
    }

    /// Whether an orphan may be of this group, as far as that is seen at a glance.
    fn has_left(&self, group_id: GroupId) -> bool {
        let born = |pid| Process::read(pid).map(|process| process.born);
        descendants::orphans().into_iter().any(|pid| self.may_be_of(group_id, tag_of(pid), || born(pid)))
    }

    /// Whether a process with this tag, started then, may be of this group: whose tag another group's is not.
    fn may_be_of(&self, group_id: GroupId, tag: Option<u64>, born: impl FnOnce() -> Option<u64>) -> bool {
        match self.serial_of(tag) {
            Some(serial) => serial == group_id.serial,
            None => born().is_some_and(|born| born >= group_id.born),
        }
    }

    /// The next pass to begin: one that is going on may have begun too early.
    fn next_pass(&self) -> u64 {
        self.begun.load(Relaxed) + 1
    }

    /// Keeps this until nothing is left of a group that has ended, as far as passes tell.
    pub(super) fn hold_until_gone(&self, group_id: GroupId, what: impl Send + 'static) {
        let held = HeldResource { group_id, pass: self.next_pass(), _what: Box::new(what) };
        self.held().push(held);
        self.release();
    }

    /// Drops what is not needed any more.
    fn release(&self) {
        let done = self.done.borrow();
        let over: Vec<_> = self.held().extract_if(.., |held| done.is_over(held.pass, held.group_id)).collect();
        drop(done);
        drop(over);
    }

    fn held(&self) -> MutexGuard<'_, Vec<HeldResource>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) async fn sweep(tracker: Arc<ProcessTracker>, lifecycle: Lifecycle) {
    let mut patience = PATIENCE.0;
    let mut restless = false;
    loop {
        let running = tracker.is_busy();
        let pause = if restless { patience } else { ROUTINE };
        tokio::select! {
            () = tracker.group_ended.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(pause), if restless || running => {}
            () = lifecycle.soft.cancelled(), if !lifecycle.soft.is_cancelled() => {}
        }
        let begun = tracker.begun.fetch_add(1, Relaxed) + 1;
        let pass = tracker.pass().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for processes that left their request's group");
            Pass::default()
        });
        if pass.killed > 0 {
            tracing::info!(count = pass.killed, "ended processes that had left their request's group");
        }
        // What has ended may have left orphans itself.
        restless = pass.killed + pass.reaped + pass.dying > 0;
        tracker.done.send_modify(|done| {
            let idle = if restless { done.idle } else { begun };
            *done = Done { last: begun, idle, survivors: pass.survivors };
        });
        tracker.release();
        let progress = pass.killed + pass.reaped > 0;
        patience = if restless && !progress { (patience * 2).min(PATIENCE.1) } else { PATIENCE.0 };
        let given_up = !restless || patience == PATIENCE.1;
        if lifecycle.soft.is_cancelled() && tracker.table().groups.is_empty() && given_up {
            tracker.done.send_replace(Done::for_ever());
            tracker.release();
            return;
        }
    }
}

#[cfg(test)]
mod tests;
