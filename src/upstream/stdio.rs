//! A server that speaks MCP on its stdin and stdout. One future drives all of it: stdin is written beside the reading
//! of stdout, stderr is always drained, and an exit is noticed even while a grandchild holds stdout open.
//! Source: MCP 2025-11-25, basic/transports, "stdio".

pub mod started;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, timeout_at};

use super::UpstreamError;
use super::process::group::{Consumption, Exit, Graces, Group, Pipes};
use super::process::held;
use super::process::invalid_output::InvalidOutput;
use super::process::lines::{LineTooLong, Lines};
use super::process::stderr::ErrorLog;
use super::process::token_files::TokenFiles;
use crate::config::{Late, ProcessLimits};
use crate::long_work::by_length;
use crate::mcp::message;
use crate::memory::{Full, Share};
use started::{Channel, StartedProgram};

/// How long what an exited child had written may take to come out of the pipe, whatever others go on writing to it.
const DRAIN: Duration = Duration::from_millis(50);

/// How long a child waits for memory that it needs for what it says while nobody gives any back.
const STARVED: Duration = Duration::from_secs(5);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(50);

/// How much a child that is being ended may still write to stdout: nobody hears it. With more, its stdout is closed.
const LAST_OUTPUT: usize = 256 << 10;

/// A child process in conversation.
pub struct StdioServer {
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    outgoing: VecDeque<Bytes>,
    /// What a program whose runtime waits is told, until it has been written.
    gate: Option<Gate>,
    lines: Lines,
    share: Share,
    /// Whether there is no memory for what it says.
    starved: Option<Starved>,
    line_limit: usize,
    errors: ErrorLog,
    invalid_output: InvalidOutput,
    /// Whether it has written anything to stdout.
    spoke: bool,
    /// Until when to read on, once the child has exited.
    drained: Option<Instant>,
    /// Last, so that they are there as long as the child is.
    files: TokenFiles,
}

/// The channel of a program's gate, and what of the record is not yet in it. Closing it takes nothing out of it.
struct Gate {
    socket: UnixStream,
    rest: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Starved {
    /// Since when nobody has given any back.
    since: Instant,
    given_back: usize,
}

enum Event {
    NoRoom(Full),
    Stdout(std::io::Result<usize>),
    Stderr(std::io::Result<usize>),
    Stdin(std::io::Result<usize>),
    Gate(std::io::Result<usize>),
    Exited,
    Drained,
}

impl StdioServer {
    /// Talks to a program that has been started. What is secret in `late` must not be seen in its log lines; what is read
    /// and queued is a part of `share`.
    pub(super) fn of(started: StartedProgram, limits: &ProcessLimits, late: Late, share: &Share) -> Self {
        let StartedProgram { group, pipes: Pipes { stdin, stdout, stderr }, channel, files } = started;
        let record = || share.queued(held::record(&late.env));
        let (first, gate) = match channel {
            Channel::Nothing => (None, None),
            // Before whatever it is asked.
            Channel::Stdin => (Some(record()), None),
            Channel::Gate(socket) => (None, Some(Gate { socket, rest: record() })),
        };
        Self {
            group,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            outgoing: first.into_iter().collect(),
            gate,
            lines: Lines::new(limits.line, share),
            share: share.clone(),
            starved: None,
            line_limit: limits.line,
            errors: ErrorLog::new(late.credential),
            invalid_output: InvalidOutput::default(),
            spoke: false,
            drained: None,
            files,
        }
    }

    /// Queues one message as a line.
    pub fn send(&mut self, message: &str) {
        let line = by_length(message.len(), || message::line(message));
        self.outgoing.push_back(self.share.queued(line.into()));
    }

    /// The next line of stdout. Cancel safe.
    ///
    /// # Errors
    /// If the child is gone or a line is too long.
    pub async fn receive(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => return Ok(line),
                Ok(None) => {}
                Err(LineTooLong) => return Err(UpstreamError::LineTooLong(self.line_limit)),
            }
            match self.event().await {
                Event::Stdout(Ok(n)) if n > 0 => (self.spoke, self.starved) = (true, None),
                Event::Stdout(_) | Event::Drained => {
                    if let Some(rest) = self.lines.rest() {
                        return Ok(rest);
                    }
                    self.last_words().await;
                    return Err(self.ended());
                }
                Event::Stderr(Ok(n)) if n > 0 => self.errors.note(),
                Event::Stderr(_) => self.stderr = None,
                Event::Stdin(Ok(n)) if n > 0 => self.written(n),
                // The child no longer reads; what it has to say may still come.
                Event::Stdin(_) => self.close_stdin(),
                Event::Gate(Ok(n)) if n > 0 => self.told(n),
                // The program has closed it, and will not ask.
                Event::Gate(_) => self.gate = None,
                Event::NoRoom(full) => self.starve(full)?,
                Event::Exited => self.drained = Some(Instant::now() + DRAIN),
            }
        }
    }

    /// Reads what the child has said of its end, which it may have said before it closed stdout. Cancel safe.
    async fn last_words(&mut self) {
        let until = *self.drained.get_or_insert_with(|| Instant::now() + DRAIN);
        while self.stderr.is_some() {
            match timeout_at(until, read(&mut self.stderr, self.errors.space())).await {
                Ok(Ok(n)) if n > 0 => self.errors.note(),
                Ok(_) => self.stderr = None,
                Err(_) => return,
            }
            if Instant::now() > until {
                return;
            }
        }
        let _ = timeout_at(until, self.group.exited()).await;
    }

    /// Why nothing more comes.
    fn ended(&self) -> UpstreamError {
        let overfilled = self.group.overfilled().map(UpstreamError::DirectoryOverfilled);
        overfilled.or_else(|| self.group.refusal().map(UpstreamError::Spawn)).unwrap_or(UpstreamError::Ended)
    }

    /// There is no memory for what the child says. Others may give some back; the child itself cannot, if nothing of it
    /// is waited for.
    fn starve(&mut self, full: Full) -> Result<(), UpstreamError> {
        let given_back = self.share.given_back(full);
        let starved = self.starved.filter(|starved| starved.given_back == given_back);
        let Starved { since, .. } = starved.unwrap_or_else(|| Starved { since: Instant::now(), given_back });
        self.starved = Some(Starved { since, given_back });
        if full == Full::Exchange || since.elapsed() >= STARVED { Err(UpstreamError::NoRoom(full)) } else { Ok(()) }
    }

    async fn event(&mut self) -> Event {
        let Self { group, stdin, stdout, stderr, outgoing, gate, lines, share, starved, errors, drained, .. } = self;
        let (exited, drained) = (drained.is_some(), drained.unwrap_or_else(Instant::now));
        // A child that does not take what it is owed is not listened to.
        let owed = stdin.is_some() && !outgoing.is_empty();
        let room = if owed && share.is_full() { Err(Full::Exchange) } else { lines.make_room() };
        let (has_room, full) = (room.is_ok(), room.err().unwrap_or(Full::Exchange));
        let look = if starved.is_some() { LOOK } else { Duration::ZERO };
        let mut space = lines.space();
        tokio::select! {
            n = stdout.read_buf(&mut space), if has_room => Event::Stdout(n),
            () = tokio::time::sleep(look), if !has_room && !owed => Event::NoRoom(full),
            n = write(stdin, outgoing), if stdin.is_some() && !outgoing.is_empty() => Event::Stdin(n),
            n = tell(gate), if gate.is_some() => Event::Gate(n),
            n = read(stderr, errors.space()), if stderr.is_some() => Event::Stderr(n),
            _ = group.exited(), if !exited => Event::Exited,
            () = tokio::time::sleep_until(drained), if exited => Event::Drained,
        }
    }

    fn written(&mut self, n: usize) {
        if let Some(first) = self.outgoing.front_mut() {
            first.advance(n);
            if first.is_empty() {
                self.outgoing.pop_front();
            }
        }
    }

    fn told(&mut self, n: usize) {
        if let Some(gate) = &mut self.gate {
            gate.rest.advance(n);
        }
        self.gate.take_if(|gate| gate.rest.is_empty());
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
        self.outgoing.clear();
    }

    /// Counts a line that was no message.
    ///
    /// # Errors
    /// If there were too many.
    pub fn count_invalid(&mut self, line: &[u8]) -> Result<(), UpstreamError> {
        self.invalid_output.count(line)
    }

    /// What the child and what is below it take.
    #[must_use]
    pub fn consumption(&self) -> Consumption {
        self.group.consumption()
    }

    /// Puts into the log how the child ended, if it has, and what it last wrote to stderr: it did not do what it should.
    pub fn explain(&self) {
        if let Some(size) = self.group.overfilled() {
            tracing::warn!(size, "the server was killed: it put more into its private directory than fits");
        } else if let Some(exit) = self.group.has_exited() {
            tracing::warn!(%exit, "the server ended by itself");
        }
        self.errors.explain();
    }

    /// Closes stdin, then ends the group; what it still writes is drained meanwhile, so that it can end in its own way, unless
    /// it is much.
    pub async fn close(self, graces: Graces) -> Exit {
        self.end(|group| group.close(graces)).await
    }

    /// The same for the client of a container engine, whose container `last` removes.
    pub async fn close_client(self, graces: Graces, last: impl Future<Output = ()>) -> Exit {
        let runs = self.spoke;
        self.end(|group| group.close_client(graces, runs, last)).await
    }

    async fn end<F: Future<Output = Exit>>(mut self, close: impl FnOnce(Group) -> F) -> Exit {
        self.close_stdin();
        let Self { group, stdout, mut stderr, mut errors, files: _files, .. } = self;
        let (mut stdout, mut ignored) = (Some(stdout), BytesMut::with_capacity(8 * 1024));
        let mut closing = std::pin::pin!(close(group));
        let mut left = LAST_OUTPUT;
        loop {
            tokio::select! {
                exit = &mut closing => return exit,
                n = read(&mut stdout, &mut ignored), if stdout.is_some() => match n {
                    Ok(n) if (1..=left).contains(&n) => {
                        left -= n;
                        ignored.clear();
                    }
                    _ => stdout = None,
                },
                n = read(&mut stderr, errors.space()), if stderr.is_some() => match n {
                    Ok(n) if n > 0 => errors.note(),
                    _ => stderr = None,
                },
            }
        }
    }
}

async fn write(stdin: &mut Option<ChildStdin>, outgoing: &VecDeque<Bytes>) -> std::io::Result<usize> {
    match (stdin, outgoing.front()) {
        (Some(stdin), Some(line)) => stdin.write(line).await,
        _ => std::future::pending().await,
    }
}

async fn tell(gate: &mut Option<Gate>) -> std::io::Result<usize> {
    match gate {
        Some(gate) => gate.socket.write(&gate.rest).await,
        None => std::future::pending().await,
    }
}

async fn read<R: AsyncRead + Unpin>(pipe: &mut Option<R>, space: &mut BytesMut) -> std::io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read_buf(space).await,
        None => std::future::pending().await,
    }
}
