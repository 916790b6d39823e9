//! One started server and everything it starts: a process group, ended as a whole.
//!
//! A server leads its own group, and may move to another one of our session. It is ended in steps (`Group::close`): its
//! stdin is closed, then SIGTERM to the group, then SIGKILL to its control group, its group and to itself wherever it is;
//! dropping a `Group` is the last step alone. What else has left the group is for `orphans`.
//!
//! No step waits without end: what is not gone [`LAST`] after SIGKILL, because it hangs in the kernel or there is too much
//! of it, is left to the sweep, and with it what it was confined to.
//!
//! A group is signalled only while its leader has not been reaped: until then the kernel gives its id to nobody else.

mod exit;
mod limits;
mod spawner;

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitIdOptions, kill_process_group, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::time::{self, timeout, timeout_at};

use super::SpawnError;
use super::confinement::ActiveConfinement;
use super::exec_as::ExecErrorPipe;
use super::orphans::{GroupId, ProcessKind, ProcessTracker};
use crate::descendants::{last_start_after, memory, processor_time};
use crate::sys;

use exit::exit_status;

pub use exit::Exit;
pub use spawner::{Pipes, Spawner};

/// How long after SIGKILL everything of a server is waited for.
const LAST: Duration = Duration::from_millis(600);

/// How long the client of a container engine that nobody waits for may take to end: as long as it makes a container, it
/// is not killed.
const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// How patiently a server is ended.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// From EOF to SIGTERM.
    pub eof: Duration,
    /// From SIGTERM to SIGKILL.
    pub term: Duration,
}

/// What a server and what is below it take at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Consumption {
    /// Processor time since it was started.
    pub processor: Duration,
    /// Memory, bytes.
    pub memory: u64,
    /// How long after its first process the last one was started.
    pub last_start: Duration,
}

/// A started server and its group. Dropping it kills them all, at once and without waiting; the client of an engine is
/// left to end by itself, for a while.
pub struct Group {
    leader: Pid,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    /// Known once the leader has been seen to have ended.
    exit: Option<Exit>,
    /// Reaped, or left to the sweep: its group is not to be signalled any more.
    reaped: bool,
    tracker: Arc<ProcessTracker>,
    tracked_as: GroupId,
    kind: ProcessKind,
    /// Until nothing is left of the group, or the sweep has it.
    confined: Option<ActiveConfinement>,
    /// Where a process that becomes another user says why it cannot run the program.
    exec_error: Option<ExecErrorPipe>,
}

impl Group {
    /// The server's process id, for logs.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.leader.as_raw_pid().unsigned_abs()
    }

    /// Why the program was never run, if that is known only now: once the server's stdout has ended.
    #[must_use]
    pub fn refusal(&self) -> Option<SpawnError> {
        self.exec_error.as_ref().and_then(ExecErrorPipe::read)
    }

    /// What its private directory may hold, bytes, if it was killed for putting more there.
    #[must_use]
    pub fn overfilled(&self) -> Option<u64> {
        self.confined.as_ref().and_then(ActiveConfinement::overfilled)
    }

    /// How the server itself ended, if that has been seen.
    #[must_use]
    pub fn has_exited(&self) -> Option<Exit> {
        self.exit
    }

    /// Whether the server itself has ended, by a look at this moment.
    pub fn is_over(&mut self) -> bool {
        if self.exit.is_none() {
            self.exit = exit_status(self.pidfd.get_ref(), WaitIdOptions::NOWAIT).ok().flatten();
        }
        self.exit.is_some()
    }

    /// Waits until the server itself has ended; others of its group may go on. The future may be dropped, and the
    /// question asked again.
    pub async fn exited(&mut self) -> Exit {
        poll_fn(|task| self.poll_exited(task)).await
    }

    /// The same, for whoever waits for more than this. One task is woken: the one that asked last.
    pub fn poll_exited(&mut self, task: &mut Context<'_>) -> Poll<Exit> {
        if let Some(exit) = self.exit {
            return Poll::Ready(exit);
        }
        loop {
            let Ok(mut ready) = ready!(self.pidfd.poll_read_ready(task)) else { return Poll::Ready(Exit::Unseen) };
            match exit_status(self.pidfd.get_ref(), WaitIdOptions::NOWAIT) {
                Ok(Some(exit)) => return Poll::Ready(*self.exit.insert(exit)),
                Ok(None) => ready.clear_ready(),
                Err(_) => return Poll::Ready(Exit::Unseen),
            }
        }
    }

    /// Says whether the server is a spare, or serves a request.
    pub fn set_spare(&self, is_spare: bool) {
        self.tracker.set_spare(self.tracked_as, is_spare);
    }

    /// The processor time that the server and what is below it have used, in clock ticks.
    #[must_use]
    pub fn processor_time(&self) -> u64 {
        processor_time(self.leader)
    }

    /// What the server and what is below it take at this moment.
    #[must_use]
    pub fn consumption(&self) -> Consumption {
        let ticks =
            |ticks: u64| Duration::from_secs(ticks) / u32::try_from(sys::ticks_per_second()).unwrap_or(100).max(1);
        Consumption {
            processor: ticks(processor_time(self.leader)),
            memory: memory(self.leader),
            last_start: ticks(last_start_after(self.leader)),
        }
    }

    /// Ends the group: the caller has closed stdin, and here the server may end by itself, then upon SIGTERM to its
    /// group, then upon SIGKILL. What is left of the group then gets SIGKILL too. Resolves when nothing of it is left, or
    /// [`LAST`] after SIGKILL. Dropping the future is as dropping the group.
    pub async fn close(self, graces: Graces) -> Exit {
        if !self.ends_within(graces.eof).await {
            self.signal(Signal::TERM);
            self.ends_within(graces.term).await;
        }
        self.kill_and_reap().await
    }

    /// Ends the client of a container engine. One that is killed while it makes a container leaves half of it behind, of
    /// which the engine itself may know nothing. So it gets SIGTERM, to be handed on, only if its container `runs`, and
    /// SIGKILL only after `last`, which is to remove the container: that ends the client too.
    pub async fn close_client(self, graces: Graces, runs: bool, last: impl Future<Output = ()>) -> Exit {
        let mut has_ended = self.ends_within(graces.eof).await;
        if !has_ended && runs {
            self.signal(Signal::TERM);
            has_ended = self.ends_within(graces.term).await;
        }
        if !has_ended {
            tokio::select! {
                () = self.ended() => {}
                () = last => {}
            }
        }
        self.kill_and_reap().await
    }

    async fn ends_within(&self, grace: Duration) -> bool {
        timeout(grace, self.ended()).await.is_ok()
    }

    /// Kills what is left and waits, for a while, until it is gone.
    async fn kill_and_reap(mut self) -> Exit {
        let until = time::Instant::now() + LAST;
        self.kill();
        let _ = timeout_at(until, self.ended()).await;
        let reaped = self.reap();
        let gone = timeout_at(until, async {
            if let Some(confined) = &mut self.confined {
                confined.emptied().await;
            }
            self.tracker.orphans_gone(self.tracked_as).await;
        });
        if gone.await.is_ok() && reaped.is_some() {
            self.confined = None;
        } else {
            tracing::warn!(
                pid = self.id(),
                "processes of a server have not ended though they were killed: the bridge goes on trying"
            );
            self.tracker.count_overdue();
        }
        reaped.or(self.exit).unwrap_or(Exit::Unseen)
    }

    /// Waits until the leader can be reaped.
    async fn ended(&self) {
        if self.exit.is_none() {
            // An error says that the runtime is going away: there is nothing more to wait for.
            let _ = self.pidfd.readable().await;
        }
    }

    fn signal(&self, signal: Signal) {
        // All may have ended by themselves, or the leader have moved to another group.
        if kill_process_group(self.leader, signal).is_err() {
            let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
        }
    }

    /// Kills everything that can be named: the control group, the group, and the leader wherever it is.
    fn kill(&self) {
        self.confined.iter().for_each(ActiveConfinement::kill);
        self.signal(Signal::KILL);
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Reaps the leader, which was killed, or leaves that to the sweep if it has not ended yet.
    fn reap(&mut self) -> Option<Exit> {
        self.reaped = true;
        let exit = exit_status(self.pidfd.get_ref(), WaitIdOptions::empty()).ok().flatten();
        match exit {
            Some(_) => self.tracker.unregister(self.tracked_as),
            None => self.tracker.abandon(self.tracked_as, self.leader, Instant::now()),
        }
        exit
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        match self.kind {
            _ if self.reaped => {}
            ProcessKind::Server => {
                self.kill();
                self.reap();
            }
            ProcessKind::Client => self.tracker.abandon(self.tracked_as, self.leader, Instant::now() + CLIENT_GRACE),
        }
        if let Some(confined) = self.confined.take() {
            self.tracker.hold_until_gone(self.tracked_as, confined);
        }
    }
}
