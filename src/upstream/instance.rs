//! Which run of the bridge something belongs to, so that what a dead run left behind can be told from what a live one
//! uses.

use std::fmt;
use std::fs;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::descendants::Process;

/// One run of the bridge: which boot of the machine, which PID namespace, which process, started when. Its text is
/// these four with dots between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    boot: String,
    namespace: String,
    pid: i32,
    born: u64,
}

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is this one, or it goes on beside this one.
    Alive,
    /// It has ended.
    Dead,
    /// It was on another machine, or on this one before it was started anew.
    OfAnotherBoot,
    /// It cannot be told from here: it is in another PID namespace, or its process may not be looked at.
    Unseen,
}

impl Instance {
    /// This run.
    #[must_use]
    pub fn own() -> &'static Self {
        static OWN: OnceLock<Instance> = OnceLock::new();
        OWN.get_or_init(|| Self::of(getpid()))
    }

    /// The run that is the process `pid`, which lives.
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

    /// What has become of it.
    #[must_use]
    pub fn fate(&self) -> Fate {
        let own = Self::own();
        if self.boot != own.boot {
            return Fate::OfAnotherBoot;
        }
        if self.namespace != own.namespace {
            return Fate::Unseen;
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Fate::Dead };
        // Asked for first: it may end between the two questions.
        let is_there = is_there(pid);
        self.fate_of(Process::read(pid).as_ref(), is_there)
    }

    /// What has become of it, if this is what is seen of its process. What of another user's process can be read depends on
    /// how `/proc` is mounted; whether there is one does not.
    fn fate_of(&self, seen: Option<&Process>, is_there: bool) -> Fate {
        match seen {
            Some(process) if process.born == self.born && !process.ended => Fate::Alive,
            None if is_there => Fate::Unseen,
            Some(_) | None => Fate::Dead,
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
        assert_eq!(own.fate(), Fate::Alive);
        assert!(own.born > 0 && !own.boot.is_empty());
    }

    #[test]
    fn only_a_process_that_is_seen_to_be_gone_is_dead() {
        let own = Instance::own().clone();
        assert_eq!(Instance { born: own.born + 1, ..own.clone() }.fate(), Fate::Dead, "the pid means another process");
        assert_eq!(Instance { pid: i32::MAX, ..own.clone() }.fate(), Fate::Dead);
        assert_eq!(Instance { namespace: "1".into(), pid: i32::MAX, ..own.clone() }.fate(), Fate::Unseen);
        assert_eq!(Instance { boot: "x".into(), ..own }.fate(), Fate::OfAnotherBoot);
    }

    #[test]
    fn a_process_that_may_not_be_looked_at_is_not_taken_for_dead() {
        let own = Instance::own();
        let seen = Process::read(getpid()).unwrap();
        assert_eq!(own.fate_of(Some(&seen), true), Fate::Alive);
        assert_eq!(own.fate_of(Some(&Process { ended: true, ..seen }), true), Fate::Dead, "it waits to be reaped");
        assert_eq!(own.fate_of(None, true), Fate::Unseen);
        assert_eq!(own.fate_of(None, false), Fate::Dead);
        assert!(is_there(getpid()) && !is_there(Pid::from_raw(i32::MAX).unwrap()));
    }

    #[test]
    fn only_what_was_written_so_is_read() {
        for text in ["", "a", "a.b.c.d", "a.1.1", "a.1.1.1.1", ".1.1.1", "a..1.1", "a.1.1.-1"] {
            assert_eq!(Instance::parse(text), None, "{text:?}");
        }
    }
}
