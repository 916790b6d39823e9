//! One pass over what has left the groups of requests: which request it belongs to, and its end.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid};

use super::tags::{TAGS_PER_TRACKER, tag_of};
use super::{ProcessTracker, UntaggedChildren};
use crate::descendants::{self, Process, ProcessSet};

/// What one pass found of requests that have ended.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Orphans killed.
    pub(super) killed: usize,
    /// Whatever had ended and was reaped.
    pub(super) reaped: usize,
    /// Whatever was killed, now or before, and could not be reaped yet.
    pub(super) dying: usize,
    /// The groups that this belongs to, as far as tags tell.
    pub(super) survivors: HashSet<u64>,
}

/// A child of ours that did not lead a running group when it was read.
pub(super) struct Candidate {
    pub(super) pid: Pid,
    pub(super) pinned: OwnedFd,
    /// It has ended and can be reaped.
    pub(super) ended: bool,
    pub(super) tag: Option<u64>,
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
        Some(Self { pid, pinned, ended, tag: tag_of(pid), session, born })
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
    EndLeader,
    /// An orphan that has ended by itself, of a request that runs.
    Reap,
    /// An orphan whose request runs, or may.
    Wait,
    /// The leader of a running group, what belongs to a container engine, or none of ours.
    Spare,
}

impl ProcessTracker {
    /// Reads the children of this process once, and ends what is left of requests that have ended.
    pub(super) fn pass(&self) -> io::Result<Pass> {
        let killed = self.kill()?;
        self.counts.orphans_killed.inc_by(killed as u64);
        let mut pass = Pass { killed, ..Pass::default() };
        for candidate in self.candidates()? {
            let verdict = self.judge(&candidate);
            match verdict {
                Verdict::End | Verdict::EndLeader => self.kill_and_reap(&candidate, &mut pass),
                Verdict::Reap => drop(candidate.reap()),
                Verdict::Wait | Verdict::Spare => {}
            }
        }
        Ok(pass)
    }

    /// Kills the orphans of requests that have ended, and leaders that should have ended, with everything below them;
    /// returns how many of them are orphans that the last pass had not killed already. All are stopped before any is killed:
    /// a fork bomb at its limit would start another for each one that is killed.
    fn kill(&self) -> io::Result<usize> {
        const FREEZING_ROUNDS: u32 = 20;
        let mut to_kill = ProcessSet::default();
        for _ in 0..FREEZING_ROUNDS {
            let is_to_be_killed = |child: &Candidate| matches!(self.judge(child), Verdict::End | Verdict::EndLeader);
            let left = self.candidates()?.filter(|child| !child.ended && is_to_be_killed(child));
            if to_kill.stop(left.map(|child| child.process())) == 0 {
                break;
            }
        }
        let to_kill = to_kill.kill();
        let mut before = self.to_kill.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let is_orphan = |(pid, _): &&(Pid, u64)| !table.abandoned.contains_key(pid);
        let killed = to_kill.difference(&before).filter(is_orphan).count();
        *before = to_kill;
        Ok(killed)
    }

    /// The children of this process that lead no running group.
    fn candidates(&self) -> io::Result<impl Iterator<Item = Candidate>> {
        let mut children = descendants::children()?;
        let leaders: HashSet<Pid> = self.table().groups.values().filter_map(|member| member.leader).collect();
        children.retain(|child| !leaders.contains(child));
        Ok(children.into_iter().filter_map(Candidate::pin))
    }

    /// The number of the group whose tag this is; 0 is that of all clients.
    pub(super) fn serial_of(&self, tag: Option<u64>) -> Option<u64> {
        let distance = self.first_tag.zip(tag).and_then(|(first, tag)| first.checked_sub(tag));
        distance.filter(|&serial| serial < TAGS_PER_TRACKER)
    }

    /// Judges a child whose tag was read before now.
    pub(super) fn judge(&self, candidate: &Candidate) -> Verdict {
        let table = self.table();
        if table.groups.values().any(|member| member.leader == Some(candidate.pid)) {
            return Verdict::Spare;
        }
        if let Some(leader) = table.abandoned.get(&candidate.pid) {
            return if candidate.ended || Instant::now() >= leader.by { Verdict::EndLeader } else { Verdict::Wait };
        }
        match self.serial_of(candidate.tag) {
            Some(0) if candidate.ended => Verdict::Reap,
            Some(0) if candidate.session != self.session => Verdict::Spare,
            Some(serial @ 1..) => match table.groups.get(&serial) {
                // What is older than the request that it names has lowered its tag.
                Some(member) if candidate.born >= member.born => member.judge(candidate),
                _ => Verdict::End,
            },
            None if self.untagged == UntaggedChildren::Spare => Verdict::Spare,
            Some(0) | None if !table.groups.values().any(|member| member.may_have_started(candidate)) => Verdict::End,
            // No group is just being started, whose leader it could be.
            Some(0) | None if candidate.ended && table.groups.values().all(|member| member.leader.is_some()) => {
                Verdict::Reap
            }
            Some(0) | None => Verdict::Wait,
        }
    }

    /// Kills it if that has not been done, and reaps it if it has ended.
    pub(super) fn kill_and_reap(&self, candidate: &Candidate, pass: &mut Pass) {
        let _ = pidfd_send_signal(&candidate.pinned, Signal::KILL);
        if candidate.reap() {
            pass.reaped += 1;
            self.table().abandoned.remove(&candidate.pid);
        } else {
            pass.dying += 1;
            pass.survivors.extend(self.serial_of(candidate.tag));
        }
    }
}
