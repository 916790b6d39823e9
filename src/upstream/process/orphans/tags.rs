//! Tags tell which request a process belongs to: the bridge sets a value of its own as the limit on file locks of each
//! server, and every descendant inherits it.

use rustix::process::{Pid, Resource, Rlimit, getpid, getrlimit, prlimit};

use crate::descendants::Process;
use crate::sys;

/// More groups than a process can start in its life; a tag further off is not of this tracker.
pub(super) const TAGS_PER_TRACKER: u64 = 1 << 48;

/// The tag above those of all groups of a tracker, by the number of the tracker in this process.
pub(super) fn first_tag(tracker: u64) -> Option<u64> {
    /// Far below "no limit", and far above any limit that somebody would set.
    const HIGHEST: u64 = 1 << 62;
    // A bridge that is itself the server of another one has a tag, and tags below the range that it is in.
    let highest = getrlimit(Resource::Locks).maximum.map_or(HIGHEST, |own| own.min(HIGHEST));
    highest.checked_sub(TAGS_PER_TRACKER * tracker).filter(|&tag| tag > TAGS_PER_TRACKER)
}

/// Whether it was done. If it is refused, or the process has ended already, age tells whose its orphans are.
pub(super) fn set_tag(tag: Option<u64>, process: Pid) -> bool {
    tag.is_some() && prlimit(Some(process), Resource::Locks, Rlimit { current: tag, maximum: tag }).is_ok()
}

/// As `/proc` tells it: 0 if it belongs to a process outside of this namespace, which `getsid` of rustix cannot say.
pub(super) fn own_session() -> i32 {
    Process::read(getpid()).map_or(0, |own| own.session)
}

/// Tags a process as the client of a container engine, for who starts one outside of any tracker: the supervisor.
pub fn tag_client(process: Pid) {
    set_tag(first_tag(1), process);
}

/// Whether a process is the client of a container engine, or was started by one: also as the supervisor sees those of
/// its worker.
#[must_use]
pub fn is_of_engine(process: &Process) -> bool {
    tag_of(process.pid).is_some_and(|tag| first_tag(1) == Some(tag))
}

/// Whether it is what a client leaves behind on purpose.
#[must_use]
pub fn is_daemon_of_engine(process: &Process) -> bool {
    process.session != own_session() && is_of_engine(process)
}

/// The limit of a process on file locks. Of one that runs as another user the system tells it only in a file.
pub(super) fn tag_of(pid: Pid) -> Option<u64> {
    sys::lock_limit(pid).ok().or_else(|| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_pid())).ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    })
}
