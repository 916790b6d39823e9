//! An instance is one run of the bridge. What is made outside of its processes (containers, directories, control groups)
//! says which instance it belongs to, so that what a dead one left behind can be told from what a live one uses.

pub mod directory;
pub mod resources;

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::descendants::Process;

/// The identity of an instance: which boot of the machine, which PID namespace, which process, started when. Its text is
/// these four with dots between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    boot: String,
    namespace: String,
    pid: i32,
    born: u64,
}

/// Whether an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It is this one, or it goes on beside this one.
    Alive,
    /// It has ended.
    Dead,
    /// It was on another machine, or on this one before it was started anew.
    OtherBoot,
    /// It cannot be told from here: it is in another PID namespace, or its process may not be looked at.
    Unknown,
}

impl Instance {
    /// This instance.
    #[must_use]
    pub fn own() -> &'static Self {
        static OWN: OnceLock<Instance> = OnceLock::new();
        OWN.get_or_init(|| Self::of(getpid()))
    }

    /// The instance that is the process `pid`, which lives.
    fn of(pid: Pid) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let namespace = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let born = Process::read(pid).map_or(0, |process| process.born);
        Self { boot: boot.trim().to_owned(), namespace, pid: pid.as_raw_pid(), born }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (boot, namespace) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (pid, born) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let is_whole = parts.next().is_none() && !boot.is_empty() && !namespace.is_empty();
        is_whole.then_some(Self { boot, namespace, pid, born })
    }

    /// Whether it lives.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let own = Self::own();
        if self.boot != own.boot {
            return Liveness::OtherBoot;
        }
        if self.namespace != own.namespace {
            return Liveness::Unknown;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Liveness::Dead };
        // Asked for first: it may end between the two questions.
        let is_there = is_there(pid);
        self.liveness_seen(Process::read(pid).as_ref(), is_there)
    }

    /// Whether it lives, if this is what is seen of its process. What of another user's process can be read depends on
    /// how `/proc` is mounted; whether there is one does not.
    fn liveness_seen(&self, seen: Option<&Process>, is_there: bool) -> Liveness {
        match seen {
            Some(process) if process.born == self.born && !process.ended => Liveness::Alive,
            None if is_there => Liveness::Unknown,
            Some(_) | None => Liveness::Dead,
        }
    }
}

/// Whether there is a process with this id, whoever's it is.
fn is_there(pid: Pid) -> bool {
    test_kill_process(pid) != Err(Errno::SRCH)
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.boot, self.namespace, self.pid, self.born)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_run_is_alive_and_reads_back() {
        let own = Instance::own();
        assert_eq!(Instance::parse(&own.to_string()).as_ref(), Some(own));
        assert_eq!(own.liveness(), Liveness::Alive);
        assert!(own.born > 0 && !own.boot.is_empty());
    }

    #[test]
    fn only_a_process_that_is_seen_to_be_gone_is_dead() {
        let own = Instance::own().clone();
        assert_eq!(
            Instance { born: own.born + 1, ..own.clone() }.liveness(),
            Liveness::Dead,
            "the pid means another process"
        );
        assert_eq!(Instance { pid: i32::MAX, ..own.clone() }.liveness(), Liveness::Dead);
        assert_eq!(Instance { namespace: "1".into(), pid: i32::MAX, ..own.clone() }.liveness(), Liveness::Unknown);
        assert_eq!(Instance { boot: "x".into(), ..own }.liveness(), Liveness::OtherBoot);
    }

    #[test]
    fn a_process_that_may_not_be_looked_at_is_not_taken_for_dead() {
        let own = Instance::own();
        let seen = Process::read(getpid()).unwrap();
        assert_eq!(own.liveness_seen(Some(&seen), true), Liveness::Alive);
        assert_eq!(
            own.liveness_seen(Some(&Process { ended: true, ..seen }), true),
            Liveness::Dead,
            "it waits to be reaped"
        );
        assert_eq!(own.liveness_seen(None, true), Liveness::Unknown);
        assert_eq!(own.liveness_seen(None, false), Liveness::Dead);
        assert!(is_there(getpid()) && !is_there(Pid::from_raw(i32::MAX).unwrap()));
    }

    #[test]
    fn only_what_was_written_so_is_read() {
        for text in ["", "a", "a.b.c.d", "a.1.1", "a.1.1.1.1", ".1.1.1", "a..1.1", "a.1.1.-1"] {
            assert_eq!(Instance::parse(text), None, "{text:?}");
        }
    }
}
