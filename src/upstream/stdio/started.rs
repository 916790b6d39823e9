//! A program that has been started and is in no conversation yet: nobody has told it anything.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

use crate::config::StdioLaunch;
use crate::upstream::UpstreamError;
use crate::upstream::process::SpawnError;
use crate::upstream::process::group::{Exit, Graces, Group, Pipes, Spawner};
use crate::upstream::process::held;
use crate::upstream::process::stderr::ErrorLog;
use crate::upstream::process::token_files::{Reader, TokenFiles};

/// The most that a program may write before anybody asks it anything, bytes of stdout and stderr together.
const MOST_UNASKED: usize = 64 * 1024;

/// How much is read at once.
const CHUNK: usize = 4 * 1024;

/// How a program that waits is told what nobody knew before its request.
pub(super) enum Channel {
    /// Not at all: nothing is missing.
    Nothing,
    /// On its stdin, before all else: it waits before its program's first instruction.
    Stdin,
    /// On a socket of its own: its runtime waits.
    Gate(UnixStream),
}

/// A program that has been started. Dropping it kills it.
pub struct StartedProgram {
    pub(super) group: Group,
    pub(super) pipes: Pipes,
    pub(super) channel: Channel,
    /// Last, so that they are there as long as the program is.
    pub(super) files: TokenFiles,
}

/// What a program writes before anybody asks it anything. It belongs to nobody.
pub struct UnaskedOutput {
    /// Its stderr, which is logged as any server's, without a user.
    pub errors: ErrorLog,
    /// How many lines it has written to stdout, where nobody waits for them.
    pub lines: u64,
    bytes: usize,
}

impl Default for UnaskedOutput {
    fn default() -> Self {
        Self { errors: ErrorLog::new(None), lines: 0, bytes: 0 }
    }
}

impl UnaskedOutput {
    fn is_too_much(&self) -> bool {
        self.bytes > MOST_UNASKED
    }
}

impl StartedProgram {
    /// Starts the program.
    ///
    /// # Errors
    /// If the system does not start it.
    pub fn start(spawner: &Spawner, mut launch: StdioLaunch) -> Result<Self, UpstreamError> {
        let files = spawner.token_files().write(&mut launch, Reader::OurUser).map_err(SpawnError::from)?;
        let (group, pipes) = spawner.spawn(&launch)?;
        Ok(Self { group, pipes, channel: Channel::Nothing, files })
    }

    /// Starts it so that it waits before its first instruction.
    ///
    /// # Errors
    /// If the system does not start what waits in its place.
    pub fn start_held(spawner: &Spawner, mut launch: StdioLaunch) -> Result<Self, UpstreamError> {
        held::hold(&mut launch);
        Ok(Self::start(spawner, launch)?.held())
    }

    /// The same, which something else has made wait.
    #[must_use]
    pub fn held(self) -> Self {
        Self { channel: Channel::Stdin, ..self }
    }

    /// Starts it with a gate, which `launch` has its runtime load.
    ///
    /// # Errors
    /// If the system does not start it.
    pub fn start_gated(spawner: &Spawner, mut launch: StdioLaunch) -> Result<Self, UpstreamError> {
        let files = spawner.token_files().write(&mut launch, Reader::OurUser).map_err(SpawnError::from)?;
        let (group, pipes, socket) = spawner.spawn_gated(&launch)?;
        Ok(Self { group, pipes, channel: Channel::Gate(socket), files })
    }

    /// What its gate has said of how far it came, if it has one.
    #[must_use]
    pub fn said_by_gate(&self) -> Option<String> {
        let Channel::Gate(socket) = &self.channel else { return None };
        let mut said = [0; CHUNK];
        let length = socket.try_read(&mut said).unwrap_or_default();
        Some(String::from_utf8_lossy(&said[..length]).into_owned())
    }

    /// Says whether it is a spare, or serves a request.
    pub fn set_spare(&self, is_spare: bool) {
        self.group.set_spare(is_spare);
    }

    /// Whether it has ended, by a look at this moment.
    pub fn is_over(&mut self) -> bool {
        self.group.is_over()
    }

    /// The processor time that it and what is below it have used, in clock ticks.
    #[must_use]
    pub fn processor_time(&self) -> u64 {
        self.group.processor_time()
    }

    /// Takes in what it writes. Ready when it cannot be of use any more: it has ended, has closed its stdout or writes too
    /// much. One task is woken: the one that asked last.
    pub fn poll_useless(&mut self, task: &mut Context<'_>, output: &mut UnaskedOutput) -> Poll<()> {
        let mut chunk = [0; CHUNK];
        // Before its stdout, whose end may say that all is over: by then its last words have been read.
        while let Poll::Ready(read) = poll_read(&mut self.pipes.stderr, task, &mut chunk) {
            if read.is_empty() || output.is_too_much() {
                break;
            }
            output.bytes += read.len();
            output.errors.space().extend_from_slice(read);
            output.errors.note();
        }
        while let Poll::Ready(read) = poll_read(&mut self.pipes.stdout, task, &mut chunk) {
            if read.is_empty() || output.is_too_much() {
                return Poll::Ready(());
            }
            output.bytes += read.len();
            output.lines += memchr::memchr_iter(b'\n', read).count() as u64;
        }
        if output.is_too_much() { Poll::Ready(()) } else { self.group.poll_exited(task).map(|_| ()) }
    }

    /// Closes its stdin, then ends its group.
    pub async fn close(self, graces: Graces) -> Exit {
        let Self { group, pipes, channel: _, files: _files } = self;
        drop(pipes.stdin);
        group.close(graces).await
    }

    /// The same for the client of a container engine, whose container `last` removes: it may still be making it.
    pub async fn close_client(self, graces: Graces, last: impl Future<Output = ()>) -> Exit {
        let Self { group, pipes, channel: _, files: _files } = self;
        drop(pipes.stdin);
        group.close_client(graces, false, last).await
    }
}

/// What has been written to a pipe; nothing if it has ended.
fn poll_read<'a>(pipe: &mut (impl AsyncRead + Unpin), task: &mut Context<'_>, chunk: &'a mut [u8]) -> Poll<&'a [u8]> {
    let mut read = ReadBuf::new(chunk);
    // An error is an end, too.
    let polled = Pin::new(pipe).poll_read(task, &mut read).map(|_| ());
    let length = read.filled().len();
    polled.map(|()| &chunk[..length])
}
