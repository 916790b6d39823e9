//! Starting servers, each as the leader of its own group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::{ChildStderr as StdStderr, ChildStdin as StdStdin, ChildStdout as StdStdout};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::Group;
use super::limits::Limits;
use crate::config::StdioLaunch;
use crate::lifecycle::Lifecycle;
use crate::metrics::ProcessCounts;
use crate::privilege;
use crate::sys::{self, Program, Signals};
use crate::upstream::process::SpawnError;
use crate::upstream::process::command_line::{self, CommandLine};
use crate::upstream::process::confinement::{ActiveConfinement, Confiner};
use crate::upstream::process::exec_as::{self, ExecErrorPipe, ExecSetup};
use crate::upstream::process::gate::Gates;
use crate::upstream::process::orphans::{self, GroupId, ProcessKind, ProcessTracker, UntaggedChildren};
use crate::upstream::process::token_files::TokenFileWriter;

/// Starts servers. One per process; cloning it shares it.
#[derive(Clone)]
pub struct Spawner {
    tracker: Arc<ProcessTracker>,
    /// Signals that this process ignores and its children must not.
    ignored: Signals,
    limits: Limits,
    /// What its children are confined to.
    confiner: Arc<Confiner>,
    kind: ProcessKind,
    token_files: TokenFileWriter,
    gates: Arc<Gates>,
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

/// What a server finds open: its stdin, stdout and stderr, and the channel of its gate.
struct Files {
    stdio: [OwnedFd; 3],
    gate: Option<OwnedFd>,
}

impl Spawner {
    /// Makes this process the one that its descendants' orphans fall to, raises its limit on open files as far as it
    /// may, and starts the sweep in `lifecycle`, on whose soft stop it ends with the last group.
    ///
    /// # Errors
    /// If the system refuses to make it a subreaper.
    pub fn new(
        lifecycle: &Lifecycle,
        untagged: UntaggedChildren,
        confiner: Confiner,
        counts: ProcessCounts,
    ) -> io::Result<Self> {
        let tracker = Arc::new(ProcessTracker::new(untagged, counts)?);
        lifecycle.spawn(orphans::sweep(Arc::clone(&tracker), lifecycle.clone()));
        let (ignored, limits) = (Signals::ignored(), Limits::raise());
        let token_files = TokenFileWriter::new(confiner.cleanup());
        let (gates, confiner) = (Arc::new(Gates::new(confiner.instance_directory())), Arc::new(confiner));
        Ok(Self { tracker, ignored, limits, confiner, kind: ProcessKind::Server, token_files, gates })
    }

    /// The same, for clients of container engines: what they leave behind in a session of its own is the engine's, and
    /// none is killed by being dropped.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        Self { kind: ProcessKind::Client, ..self.clone() }
    }

    /// Where the token files of what is started are made.
    #[must_use]
    pub fn token_files(&self) -> &TokenFileWriter {
        &self.token_files
    }

    /// What has the runtimes of programs wait.
    #[must_use]
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// The directory of this instance, which goes with it. Others may pass through it.
    #[must_use]
    pub fn instance_directory(&self) -> Option<&Path> {
        self.confiner.instance_directory()
    }

    /// Starts a server as the leader of its own group. Blocks for the time of an `exec`, and needs the runtime.
    ///
    /// # Errors
    /// Whatever keeps it from running. Nothing is left behind then.
    pub fn spawn(&self, launch: &StdioLaunch) -> Result<(Group, Pipes), SpawnError> {
        self.spawn_with(launch, None)
    }

    /// The same, and our end of a socket whose other end is its descriptor 3.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub fn spawn_gated(&self, launch: &StdioLaunch) -> Result<(Group, Pipes, UnixStream), SpawnError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (group, pipes) = self.spawn_with(launch, Some(theirs.into()))?;
        Ok((group, pipes, UnixStream::from_std(ours)?))
    }

    fn spawn_with(&self, launch: &StdioLaunch, gate: Option<OwnedFd>) -> Result<(Group, Pipes), SpawnError> {
        let (their_stdin, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let group = self.start(launch, &Files { stdio: [their_stdin, their_stdout, their_stderr], gate })?;
        let pipes = Pipes {
            stdin: ChildStdin::from_std(StdStdin::from(stdin))?,
            stdout: ChildStdout::from_std(StdStdout::from(stdout))?,
            stderr: ChildStderr::from_std(StdStderr::from(stderr))?,
        };
        Ok((group, pipes))
    }

    fn start(&self, launch: &StdioLaunch, files: &Files) -> Result<Group, SpawnError> {
        let confined = self.confiner.confine(&launch.confinement, self.kind)?;
        let group_id = self.tracker.register().ok_or(SpawnError::Stopping)?;
        let (leader, exec_error) =
            self.run(launch, files, &confined, group_id).inspect_err(|_| self.tracker.unregister(group_id))?;
        self.tracker.set_leader(group_id, leader, self.kind);
        if confined.user.is_none() {
            self.limits.put_on(leader, &confined, &launch.confinement);
        }
        match watch(leader) {
            Ok(pidfd) => {
                let (tracker, kind, pidfd) = (Arc::clone(&self.tracker), self.kind, Arc::new(pidfd));
                if kind == ProcessKind::Server {
                    self.confiner.watch(&confined, &pidfd);
                }
                Ok(Group {
                    leader,
                    pidfd,
                    exit: None,
                    reaped: false,
                    tracker,
                    tracked_as: group_id,
                    kind,
                    confined: Some(confined),
                    exec_error,
                })
            }
            Err(error) => {
                let _ = kill_process_group(leader, Signal::KILL);
                self.tracker.abandon(group_id, leader, Instant::now());
                Err(error.into())
            }
        }
    }

    fn run(
        &self,
        launch: &StdioLaunch,
        files: &Files,
        confined: &ActiveConfinement,
        group_id: GroupId,
    ) -> Result<(Pid, Option<ExecErrorPipe>), SpawnError> {
        let tag = self.tracker.tag(group_id);
        let (oom_score_adj, nice) =
            (self.limits.oom_score_adj(&launch.confinement), self.limits.nice(&launch.confinement));
        let directory = command_line::directory(launch, confined);
        let setup = ExecSetup::of(confined, tag, self.limits.files, (oom_score_adj, nice, directory));
        let setup = setup.map(|setup| setup.with_gate(files.gate.is_some()));
        let line = CommandLine::new(launch, confined, setup.as_ref())?;
        let mut open: Vec<_> = files.stdio.iter().map(AsFd::as_fd).collect();
        let gate = files.gate.as_ref().map(AsFd::as_fd);
        let Some(user) = &confined.user else {
            open.extend(gate);
            return Ok((self.spawn_in(confined, &line, &open)?, None));
        };
        exec_as::chown_pipes(&files.stdio, (user.uid, user.gid))?;
        let (exec_error, theirs) = ExecErrorPipe::open()?;
        open.push(theirs.as_fd());
        open.extend(gate);
        let start = || self.spawn_in(confined, &line, &open);
        Ok((privilege::handing_on(privilege::TO_BECOME_ANOTHER, start)?, Some(exec_error)))
    }

    fn spawn_in(
        &self,
        confined: &ActiveConfinement,
        line: &CommandLine,
        files: &[BorrowedFd<'_>],
    ) -> Result<Pid, Errno> {
        let (path, cwd) = (line.path.as_c_str(), line.cwd.as_deref());
        let program = Program { path, args: &line.args, env: &line.env, cwd, files, defaults: &self.ignored };
        sys::spawn(&program, confined.cgroup.as_ref().map(|cgroup| cgroup.directory()))
    }

    /// Ends every process below this one, whoever started it, but those of container engines, and returns whether no other
    /// is left. Blocks for up to two seconds. For the very end: nothing can be started any more.
    #[must_use]
    pub fn kill_everything(&self) -> bool {
        self.tracker.end_everything()
    }
}

fn watch(leader: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch(pidfd_open(leader, PidfdFlags::NONBLOCK)?)
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
                let spawner = Spawner::new(&lifecycle, UntaggedChildren::Spare, confiner, counts.clone()).unwrap();
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
