//! One started server and everything it starts: a process group, ended as a whole.
//!
//! A server leads its own group. It is ended in steps (`Group::close`): its stdin is closed, then SIGTERM, then
//! SIGKILL to the group; dropping a `Group` is the last step alone. What has left the group is for `orphans`.
//!
//! A group is signalled only while its leader has not been reaped: until then the kernel gives its id to nobody else.

mod error;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr as StdStderr, ChildStdin as StdStdin, ChildStdout as StdStdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitIdStatus, getrlimit, kill_process_group,
    pidfd_open, prlimit, setrlimit, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::config::StdioLaunch;
use crate::lifecycle::Lifecycle;
use crate::privilege;
use crate::sys::{self, Program, Signals};
use crate::upstream::command_line::{self, CommandLine};
use crate::upstream::confine::{Cell, Confiner};
use crate::upstream::exec_as::{self, Change, Report};
use crate::upstream::orphans::{self, Counts, Family, Kin, Place, Strangers};
use crate::upstream::token_files::Cabinet;

pub use error::SpawnError;

/// How long the client of a container engine that nobody waits for may take to end: as long as it makes a container, it
/// is not killed.
const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// Starts servers. One per process; cloning it shares it.
#[derive(Clone)]
pub struct Spawner {
    family: Arc<Family>,
    /// Signals that this process ignores and its children must not.
    ignored: Signals,
    /// The limit on open files that children get back, if ours was raised.
    files: Option<Rlimit>,
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

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody saw: it hangs in the kernel, or the runtime is going away.
    Unseen,
}

impl Spawner {
    /// Makes this process the one that its descendants' orphans fall to, raises its limit on open files as far as it
    /// may, and starts the sweep in `lifecycle`, on whose soft stop it ends with the last group.
    ///
    /// # Errors
    /// If the system refuses to make it a subreaper.
    pub fn new(lifecycle: &Lifecycle, strangers: Strangers, confiner: Confiner) -> io::Result<Self> {
        let family = Arc::new(Family::new(strangers)?);
        lifecycle.spawn(orphans::sweep(Arc::clone(&family), lifecycle.clone()));
        let (ignored, files) = (Signals::ignored(), raise_file_limit());
        let token_files = Cabinet::new(confiner.tidier());
        Ok(Self { family, ignored, files, confiner: Arc::new(confiner), kin: Kin::Server, token_files })
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
            self.limit(leader, &cell);
        }
        match watch(leader) {
            Ok(pidfd) => {
                let (family, kin) = (Arc::clone(&self.family), self.kin);
                Ok(Group { leader, pidfd, exit: None, reaped: false, family, place, kin, cell, report })
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
        let change = Change::of(cell, mark, self.files, command_line::directory(launch, cell));
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
        let program = Program { path, args: &line.args, env: &line.env, cwd, files, defaults: &self.ignored };
        match &cell.leaf {
            Some(leaf) => sys::spawn_into(&program, leaf.directory()),
            None => sys::spawn(&program),
        }
    }

    /// Limits a process that runs already, but takes longer to its first instruction than we do to get here. (One that
    /// becomes another user limits itself.)
    fn limit(&self, leader: Pid, cell: &Cell) {
        let data = cell.by_process.data.map(|data| Rlimit { current: Some(data), maximum: Some(data) });
        for (resource, limit) in [(Resource::Nofile, self.files), (Resource::Data, data)] {
            if let Some(limit) = limit {
                let _ = prlimit(Some(leader), resource, limit);
            }
        }
    }

    /// Ends every process below this one, whoever started it, but those of container engines, and returns whether no other
    /// is left. Blocks for up to two seconds. For the very end: nothing can be started any more.
    #[must_use]
    pub fn kill_everything(&self) -> bool {
        self.family.end_everything()
    }

    /// How many groups and orphans there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.family.counts()
    }
}

fn raise_file_limit() -> Option<Rlimit> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    (raised != before && setrlimit(Resource::Nofile, raised).is_ok()).then_some(before)
}

fn watch(leader: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch(pidfd_open(leader, PidfdFlags::NONBLOCK)?)
}

/// A started server and its group. Dropping it kills them all, at once and without waiting; the client of an engine is
/// left to end by itself, for a while.
pub struct Group {
    leader: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// Known once the leader has been seen to have ended.
    exit: Option<Exit>,
    /// Reaped, or left to the sweep: its group is not to be signalled any more.
    reaped: bool,
    family: Arc<Family>,
    place: Place,
    kin: Kin,
    cell: Cell,
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
    /// group, then upon SIGKILL. What is left of the group then gets SIGKILL too. Resolves when nothing
    /// of it is left, however long that takes. Dropping the future is as dropping the group.
    pub async fn close(self, graces: Graces) -> Exit {
        if !self.ends_within(graces.eof).await {
            self.signal(Signal::TERM);
            if !self.ends_within(graces.term).await {
                self.kill().await;
            }
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
                () = last => self.kill().await,
            }
        }
        self.bury().await
    }

    async fn ends_within(&self, grace: Duration) -> bool {
        timeout(grace, self.ended()).await.is_ok()
    }

    /// As long as it hangs in the kernel it has not ended.
    async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    async fn bury(mut self) -> Exit {
        let exit = self.finish();
        self.cell.emptied().await;
        self.family.looked_after(self.place).await;
        exit
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

    /// Kills what is left of the group and reaps its leader, or leaves that to the sweep if it has not ended yet.
    fn finish(&mut self) -> Exit {
        self.cell.kill();
        self.signal(Signal::KILL);
        self.reaped = true;
        if let Ok(Some(exit)) = look(self.pidfd.get_ref(), WaitIdOptions::empty()) {
            self.family.leave(self.place);
            return exit;
        }
        self.family.abandon(self.place, self.leader, Instant::now());
        self.exit.unwrap_or(Exit::Unseen)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        match self.kin {
            _ if self.reaped => {}
            Kin::Server => drop(self.finish()),
            Kin::Client => self.family.abandon(self.place, self.leader, Instant::now() + CLIENT_GRACE),
        }
    }
}

/// Looks whether a child has ended, and reaps it unless told not to.
fn look(pidfd: &OwnedFd, how: WaitIdOptions) -> rustix::io::Result<Option<Exit>> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | how)?;
    Ok(status.as_ref().map(exit_of))
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unseen,
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
                let spawner = Spawner::new(&lifecycle, Strangers::Spare, confiner).unwrap();
                let before = sys::testing::descriptors();
                for _ in 0..3 {
                    assert_eq!(spawner.spawn(&launch).map(|_| ()), Err(SpawnError::OutOfMemory));
                }
                assert_eq!(sys::testing::descriptors(), before);
                assert_eq!(spawner.counts().groups, 0);
            });
        });
    }
}
