//! One look at what has left the groups of requests: whose it is, and its end.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid};

use super::marks::{FAMILY, mark_of};
use super::{Family, Strangers};
use crate::descendants::{self, Herd, Process};

/// What one look found of requests that have ended.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Orphans killed.
    pub(super) killed: usize,
    /// Whatever had ended and was reaped.
    pub(super) buried: usize,
    /// Whatever was killed, now or before, and could not be reaped yet.
    pub(super) dying: usize,
    /// The groups that this belongs to, as far as marks tell.
    pub(super) haunted: HashSet<u64>,
}

/// A child of ours that did not lead a running group when looked at.
pub(super) struct Candidate {
    pub(super) pid: Pid,
    pub(super) pinned: OwnedFd,
    /// It has ended and can be reaped.
    pub(super) ended: bool,
    pub(super) mark: Option<u64>,
    pub(super) session: i32,
    pub(super) born: u64,
}

impl Candidate {
    /// Makes sure that the pid means a child of ours, and goes on meaning it.
    fn pin(pid: Pid) -> Option<Self> {
        let pinned = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::PidFd(pinned.as_fd()), only_look).ok()?.is_some();
        let Process { session, born, .. } = Process::read(pid)?;
        Some(Self { pid, pinned, ended, mark: mark_of(pid), session, born })
    }

    fn process(&self) -> Process {
        Process {
            pid: self.pid,
            parent: getpid().as_raw_pid(),
            session: self.session,
            ended: self.ended,
            born: self.born,
        }
    }

    /// Reaps it if it has ended, and returns whether it is gone.
    fn reap(&self) -> bool {
        let reaped = waitid(WaitId::PidFd(self.pinned.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        !matches!(reaped, Ok(None))
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum Verdict {
    /// An orphan whose request has ended.
    End,
    /// A leader that was killed before, or should have ended by now.
    Bury,
    /// An orphan that has ended by itself, of a request that runs.
    Reap,
    /// An orphan whose request runs, or may.
    Wait,
    /// The leader of a running group, what belongs to a container engine, or none of ours.
    Spare,
}

impl Family {
    /// Looks at the children of this process once, and ends what is left of requests that have ended.
    pub(super) fn look(&self) -> io::Result<Look> {
        let killed = self.kill()?;
        self.counts.orphans_killed.inc_by(killed as u64);
        let mut look = Look { killed, ..Look::default() };
        for candidate in self.candidates()? {
            let verdict = self.judge(&candidate);
            match verdict {
                Verdict::End | Verdict::Bury => self.bury(&candidate, &mut look),
                Verdict::Reap => drop(candidate.reap()),
                Verdict::Wait | Verdict::Spare => {}
            }
        }
        Ok(look)
    }

    /// Kills the orphans of requests that have ended, and leaders that should have ended, with everything below them;
    /// returns how many orphans that were which the last look had not killed already. All are stopped before any is killed: a fork bomb at its limit would start another for
    /// each one that is killed.
    fn kill(&self) -> io::Result<usize> {
        const FREEZING_ROUNDS: u32 = 20;
        let mut doomed = Herd::default();
        for _ in 0..FREEZING_ROUNDS {
            let is_doomed = |child: &Candidate| matches!(self.judge(child), Verdict::End | Verdict::Bury);
            let left = self.candidates()?.filter(|child| !child.ended && is_doomed(child));
            if doomed.stop(left.map(|child| child.process())) == 0 {
                break;
            }
        }
        let doomed = doomed.kill();
        let mut before = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let is_orphan = |(pid, _): &&(Pid, u64)| !table.abandoned.contains_key(pid);
        let killed = doomed.difference(&before).filter(is_orphan).count();
        *before = doomed;
        Ok(killed)
    }

    /// The children of this process that lead no running group.
    fn candidates(&self) -> io::Result<impl Iterator<Item = Candidate>> {
        let mut children = descendants::children()?;
        let leaders: HashSet<Pid> = self.table().groups.values().filter_map(|member| member.leader).collect();
        children.retain(|child| !leaders.contains(child));
        Ok(children.into_iter().filter_map(Candidate::pin))
    }

    /// The number of the group whose mark this is; 0 is that of all clients.
    pub(super) fn serial_of(&self, mark: Option<u64>) -> Option<u64> {
        let distance = self.first_mark.zip(mark).and_then(|(first, mark)| first.checked_sub(mark));
        distance.filter(|&serial| serial < FAMILY)
    }

    /// Judges a child whose mark was read before now.
    pub(super) fn judge(&self, candidate: &Candidate) -> Verdict {
        let table = self.table();
        if table.groups.values().any(|member| member.leader == Some(candidate.pid)) {
            return Verdict::Spare;
        }
        if let Some(leader) = table.abandoned.get(&candidate.pid) {
            return if candidate.ended || Instant::now() >= leader.by { Verdict::Bury } else { Verdict::Wait };
        }
        match self.serial_of(candidate.mark) {
            Some(0) if candidate.ended => Verdict::Reap,
            Some(0) if candidate.session != self.session => Verdict::Spare,
            Some(serial @ 1..) => match table.groups.get(&serial) {
                // What is older than the request that it names has lowered its mark.
                Some(member) if candidate.born >= member.born => member.judge(candidate),
                _ => Verdict::End,
            },
            None if self.strangers == Strangers::Spare => Verdict::Spare,
            Some(0) | None => match table.groups.values().map(|member| member.born).min() {
                Some(oldest) if candidate.born >= oldest => Verdict::Wait,
                _ => Verdict::End,
            },
        }
    }

    /// Kills it if that has not been done, and reaps it if it has ended.
    pub(super) fn bury(&self, candidate: &Candidate, look: &mut Look) {
        let _ = pidfd_send_signal(&candidate.pinned, Signal::KILL);
        if candidate.reap() {
            look.buried += 1;
            self.table().abandoned.remove(&candidate.pid);
        } else {
            look.dying += 1;
            look.haunted.extend(self.serial_of(candidate.mark));
        }
    }
}
