//! One started server and everything it starts: a process group, ended as a whole.
//!
//! A server leads its own group, in a session of its own, so that it can move to no other group. It is ended in steps
//! (`Group::close`): its stdin is closed, then SIGTERM to the group, then SIGKILL to its control group, its group and to
//! itself; dropping a `Group` is the last step alone. What has left the group is for `orphans`.
//!
//! No step waits without end: what is not gone [`LAST`] after SIGKILL, because it hangs in the kernel or there is too much
//! of it, is left to the sweep, and with it what it was confined to.
//!
//! A group is signalled only while its leader has not been reaped: until then the kernel gives its id to nobody else.

mod error;
mod exit;
mod limits;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr as StdStderr, ChildStdin as StdStdin, ChildStdout as StdStdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{self, timeout, timeout_at};

use crate::config::StdioLaunch;
use crate::lifecycle::Lifecycle;
use crate::metrics::ProcessCounts;
use crate::privilege;
use crate::sys::{self, Leads, Program, Signals};
use crate::upstream::command_line::{self, CommandLine};
use crate::upstream::confine::{Cell, Confiner};
use crate::upstream::exec_as::{self, Change, Report};
use crate::upstream::orphans::{self, Family, Kin, Place, Strangers};
use crate::upstream::token_files::Cabinet;

use exit::look;
use limits::Limits;

pub use error::SpawnError;
pub use exit::Exit;

/// How long after SIGKILL everything of a server is waited for.
const LAST: Duration = Duration::from_millis(600);

/// How long the client of a container engine that nobody waits for may take to end: as long as it makes a container, it
/// is not killed.
const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// Starts servers. One per process; cloning it shares it.
#[derive(Clone)]
pub struct Spawner {
    family: Arc<Family>,
    /// Signals that this process ignores and its children must not.
    ignored: Signals,
    limits: Limits,
    /// What its children are confined to.
    confiner: Arc<Confiner>,
    kin: Kin,
    token_files: Cabinet,
}

/// Our ends of a server's stdin, stdout and stderr.
#[derive(Debug)]
pub struct Pipes {
    /// To its stdin; dropping it is EOF.
    pub stdin: ChildStdin,
    /// From its stdout.
    pub stdout: ChildStdout,
    /// From its stderr; to be read always, or the server will block.
    pub stderr: ChildStderr,
}

/// How patiently a server is ended.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// From EOF to SIGTERM.
    pub eof: Duration,
    /// From SIGTERM to SIGKILL.
    pub term: Duration,
}

impl Spawner {
    /// Makes this process the one that its descendants' orphans fall to, raises its limit on open files as far as it
    /// may, and starts the sweep in `lifecycle`, on whose soft stop it ends with the last group.
    ///
    /// # Errors
    /// If the system refuses to make it a subreaper.
    pub fn new(
        lifecycle: &Lifecycle,
        strangers: Strangers,
        confiner: Confiner,
        counts: ProcessCounts,
    ) -> io::Result<Self> {
        let family = Arc::new(Family::new(strangers, counts)?);
        lifecycle.spawn(orphans::sweep(Arc::clone(&family), lifecycle.clone()));
        let (ignored, limits) = (Signals::ignored(), Limits::raise());
        let token_files = Cabinet::new(confiner.tidier());
        Ok(Self { family, ignored, limits, confiner: Arc::new(confiner), kin: Kin::Server, token_files })
    }

    /// The same, for clients of container engines: what they leave behind in a session of its own is the engine's, and
    /// none is killed by being dropped.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        Self { kin: Kin::Client, ..self.clone() }
    }

    /// Where the token files of what is started are made.
    #[must_use]
    pub fn token_files(&self) -> &Cabinet {
        &self.token_files
    }

    /// Starts a server as the leader of its own group. Blocks for the time of an `exec`, and needs the runtime.
    ///
    /// # Errors
    /// Whatever keeps it from running. Nothing is left behind then.
    pub fn spawn(&self, launch: &StdioLaunch) -> Result<(Group, Pipes), SpawnError> {
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let group = self.start(launch, &[their_stdin, their_stdout, their_stderr])?;
        let pipes = Pipes {
            stdin: ChildStdin::from_std(StdStdin::from(stdin))?,
            stdout: ChildStdout::from_std(StdStdout::from(stdout))?,
            stderr: ChildStderr::from_std(StdStderr::from(stderr))?,
        };
        Ok((group, pipes))
    }

    fn start(&self, launch: &StdioLaunch, stdio: &[OwnedFd; 3]) -> Result<Group, SpawnError> {
        let cell = self.confiner.cell(&launch.confinement, self.kin)?;
        let place = self.family.join().ok_or(SpawnError::Stopping)?;
        let (leader, report) = self.run(launch, stdio, &cell, place).inspect_err(|_| self.family.leave(place))?;
        self.family.lead(place, leader, self.kin);
        if cell.user.is_none() {
            self.limits.put_on(leader, &cell, &launch.confinement);
        }
        match watch(leader) {
            Ok(pidfd) => {
                let (family, kin, pidfd) = (Arc::clone(&self.family), self.kin, Arc::new(pidfd));
                if kin == Kin::Server {
                    self.confiner.watch(&cell, &pidfd);
                }
                Ok(Group { leader, pidfd, exit: None, reaped: false, family, place, kin, cell: Some(cell), report })
            }
            Err(error) => {
                let _ = kill_process_group(leader, Signal::KILL);
                self.family.abandon(place, leader, Instant::now());
                Err(error.into())
            }
        }
    }

    fn run(
        &self,
        launch: &StdioLaunch,
        stdio: &[OwnedFd; 3],
        cell: &Cell,
        place: Place,
    ) -> Result<(Pid, Option<Report>), SpawnError> {
        let mark = self.family.mark(place);
        let oom_score_adj = self.limits.oom_score_adj(&launch.confinement);
        let change = Change::of(cell, mark, self.limits.files, (oom_score_adj, command_line::directory(launch, cell)));
        let line = CommandLine::new(launch, cell, change.as_ref())?;
        let mut files: Vec<_> = stdio.iter().map(AsFd::as_fd).collect();
        let Some(user) = &cell.user else { return Ok((self.spawn_in(cell, &line, &files)?, None)) };
        exec_as::give(stdio, (user.uid, user.gid))?;
        let (report, theirs) = Report::open()?;
        files.push(theirs.as_fd());
        let start = || self.spawn_in(cell, &line, &files);
        Ok((privilege::handing_on(privilege::TO_BECOME_ANOTHER, start)?, Some(report)))
    }

    fn spawn_in(&self, cell: &Cell, line: &CommandLine, files: &[BorrowedFd<'_>]) -> Result<Pid, Errno> {
        let (path, cwd) = (line.path.as_c_str(), line.cwd.as_deref());
        let leads = match self.kin {
            Kin::Server => Leads::Session,
            // What has another session than ours is then the engine's own.
            Kin::Client => Leads::Group,
        };
        let program = Program { path, args: &line.args, env: &line.env, cwd, files, defaults: &self.ignored, leads };
        match &cell.leaf {
            Some(leaf) => sys::spawn_into(&program, leaf.directory()),
            None => sys::spawn(&program),
        }
    }

    /// Ends every process below this one, whoever started it, but those of container engines, and returns whether no other
    /// is left. Blocks for up to two seconds. For the very end: nothing can be started any more.
    #[must_use]
    pub fn kill_everything(&self) -> bool {
        self.family.end_everything()
    }
}

fn watch(leader: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch(pidfd_open(leader, PidfdFlags::NONBLOCK)?)
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
    family: Arc<Family>,
    place: Place,
    kin: Kin,
    /// Until nothing is left of the group, or the sweep has it.
    cell: Option<Cell>,
    /// Where a process that becomes another user says why it cannot run the program.
    report: Option<Report>,
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
        self.report.as_ref().and_then(Report::read)
    }

    /// What its private directory may hold, bytes, if it was killed for putting more there.
    #[must_use]
    pub fn overfilled(&self) -> Option<u64> {
        self.cell.as_ref().and_then(Cell::overfilled)
    }

    /// How the server itself ended, if that has been seen.
    #[must_use]
    pub fn has_exited(&self) -> Option<Exit> {
        self.exit
    }

    /// Waits until the server itself has ended; others of its group may go on. The future may be dropped, and the
    /// question asked again.
    pub async fn exited(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else { return Exit::Unseen };
            match look(self.pidfd.get_ref(), WaitIdOptions::NOWAIT) {
                Ok(Some(exit)) => return *self.exit.insert(exit),
                Ok(None) => ready.clear_ready(),
                Err(_) => return Exit::Unseen,
            }
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
        self.bury().await
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
        self.bury().await
    }

    async fn ends_within(&self, grace: Duration) -> bool {
        timeout(grace, self.ended()).await.is_ok()
    }

    /// Kills what is left and waits, for a while, until it is gone.
    async fn bury(mut self) -> Exit {
        let until = time::Instant::now() + LAST;
        self.kill();
        let _ = timeout_at(until, self.ended()).await;
        let reaped = self.reap();
        let gone = timeout_at(until, async {
            if let Some(cell) = &mut self.cell {
                cell.emptied().await;
            }
            self.family.looked_after(self.place).await;
        });
        if gone.await.is_ok() && reaped.is_some() {
            self.cell = None;
        } else {
            tracing::warn!(
                pid = self.id(),
                "something of a server has not ended though it was killed: the sweep goes on"
            );
            self.family.count_overdue();
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
        // It may have ended by itself.
        let _ = kill_process_group(self.leader, signal);
    }

    /// Kills everything that can be named: the control group, the group, and the leader wherever it is.
    fn kill(&self) {
        self.cell.iter().for_each(Cell::kill);
        self.signal(Signal::KILL);
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Reaps the leader, which was killed, or leaves that to the sweep if it has not ended yet.
    fn reap(&mut self) -> Option<Exit> {
        self.reaped = true;
        let exit = look(self.pidfd.get_ref(), WaitIdOptions::empty()).ok().flatten();
        match exit {
            Some(_) => self.family.leave(self.place),
            None => self.family.abandon(self.place, self.leader, Instant::now()),
        }
        exit
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        match self.kin {
            _ if self.reaped => {}
            Kin::Server => {
                self.kill();
                self.reap();
            }
            Kin::Client => self.family.abandon(self.place, self.leader, Instant::now() + CLIENT_GRACE),
        }
        if let Some(cell) = self.cell.take() {
            self.family.keep(self.place, cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Confinement;

    #[test]
    fn a_kernel_without_memory_leaves_nothing_half_made() {
        let launch = StdioLaunch {
            program: "/bin/true".into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            token_files: Vec::new(),
            confinement: Confinement::default(),
        };
        sys::testing::where_nothing_can_be_started(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (lifecycle, confiner) = (Lifecycle::default(), Confiner::default());
                let counts = ProcessCounts::default();
                let spawner = Spawner::new(&lifecycle, Strangers::Spare, confiner, counts.clone()).unwrap();
                let before = sys::testing::descriptors();
                for _ in 0..3 {
                    assert_eq!(spawner.spawn(&launch).map(|_| ()), Err(SpawnError::OutOfMemory));
                }
                assert_eq!(sys::testing::descriptors(), before);
                assert_eq!(counts.live.get(), 0);
            });
        });
    }
}
