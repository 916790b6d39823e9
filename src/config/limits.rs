//! Sizes, times and counts, and their defaults.

use std::time::Duration;

use super::Rate;
use super::load::{Loader, Zero};
use super::written::file::{self, Time};
use super::written::path::Path;

/// Sizes, times and counts that hold for every request.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest request body, bytes.
    pub body: usize,
    /// The longest time to read a request's header, and a connection's first.
    pub header_timeout: Duration,
    /// Connections at once; as many as descriptors allow if the operator does not say.
    pub connections: Option<usize>,
    /// Connections at once of one address; a part of all if the operator does not say.
    pub connections_per_address: Option<usize>,
    /// How long a connection may do nothing between requests.
    pub connection_idle: Duration,
    /// The longest pause within a request body.
    pub body_idle: Duration,
    /// The longest time that a request body may take in all.
    pub body_timeout: Duration,
    /// What requests may hold together, bytes; `None` is a part of what there is.
    pub memory: Option<usize>,
    /// How long the status line may wait for something to forward.
    pub commit_delay: Duration,
    /// The pause after which a stream gets a comment.
    pub keep_alive: Duration,
    /// How long a client may take no byte before its stream is cut.
    pub write_stall: Duration,
    /// How long running requests may go on after the first stop signal.
    pub shutdown_grace: Duration,
    /// How long the bridge serves as ever after the first signal to stop, while it says that it is not ready.
    pub pre_stop_delay: Duration,
    /// How long a sealed session of a legacy client lasts.
    pub session_lifetime: Duration,
    /// Requests at once of one user.
    pub per_user: usize,
    /// Calls at once of one user whose server may come to wait for an answer.
    pub parked_per_user: usize,
    /// Long streams at once of one user.
    pub streams_per_user: usize,
    /// Long streams at once in all.
    pub streams_total: usize,
    /// Requests at once of one server.
    pub per_server: usize,
    /// Requests at once in all.
    pub total: usize,
    /// How long a request may wait for its turn.
    pub queue: Duration,
    /// How often each user may call, whichever servers.
    pub rate: Option<Rate>,
    /// Spares of all servers together.
    pub spares: usize,
}

/// Times and sizes of one server's processes.
#[derive(Debug, Clone)]
pub struct ProcessLimits {
    /// From the spawn to the answer of `initialize`.
    pub start_timeout: Duration,
    /// From the spawn to the response, whatever progress is made.
    pub request_timeout: Duration,
    /// How long a legacy call may go on when its client has gone.
    pub abandoned_grace: Duration,
    /// From closing stdin to SIGTERM.
    pub eof_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// How long a server that has asked its client something waits for the answer, when the client must call again.
    pub park_lease: Duration,
    /// How long a server is held for a task that it has begun.
    pub task_lease: Duration,
    /// The longest line on stdout, bytes.
    pub line: usize,
}

impl Loader<'_> {
    /// What `limits` says of every request.
    pub(super) fn limits(&mut self, file: &file::Limits) -> Limits {
        use Zero::{Allowed, Refused};
        let at = Path::root().key("limits");
        let secs = Duration::from_secs;
        Limits {
            body: self.size(&at.key("body"), file.body.as_ref(), 4 << 20),
            header_timeout: self.time(&at.key("headerTimeout"), file.header_timeout.as_ref(), secs(10), Refused),
            connections: file.connections.map(|count| self.count(&at.key("connections"), Some(count), count)),
            connections_per_address: file
                .connections_per_address
                .map(|count| self.count(&at.key("connectionsPerAddress"), Some(count), count)),
            connection_idle: self.time(&at.key("connectionIdle"), file.connection_idle.as_ref(), secs(90), Refused),
            body_idle: self.time(&at.key("bodyIdle"), file.body_idle.as_ref(), secs(30), Refused),
            body_timeout: self.time(
                &at.key("bodyTimeout"),
                file.body_timeout.as_ref(),
                Duration::from_mins(2),
                Refused,
            ),
            memory: file.memory.as_ref().and_then(|memory| self.all_memory(&at.key("memory"), memory)),
            commit_delay: self.time(&at.key("commitDelay"), file.commit_delay.as_ref(), secs(1), Allowed),
            keep_alive: self.time(&at.key("keepAlive"), file.keep_alive.as_ref(), secs(15), Refused),
            write_stall: self.time(&at.key("writeStall"), file.write_stall.as_ref(), secs(30), Refused),
            shutdown_grace: self.time(&at.key("shutdownGrace"), file.shutdown_grace.as_ref(), secs(25), Allowed),
            pre_stop_delay: self.time(&at.key("preStopDelay"), file.pre_stop_delay.as_ref(), Duration::ZERO, Allowed),
            session_lifetime: self.time(
                &at.key("sessionLifetime"),
                file.session_lifetime.as_ref(),
                Duration::from_hours(24),
                Refused,
            ),
            per_user: self.count(&at.key("perUser"), file.per_user, 32),
            parked_per_user: self.count(&at.key("parkedPerUser"), file.parked_per_user, 32),
            streams_per_user: self.count(&at.key("streamsPerUser"), file.streams_per_user, 256),
            streams_total: self.count(&at.key("streamsTotal"), file.streams_total, 2048),
            per_server: self.count(&at.key("perServer"), file.per_server, 256),
            total: self.count(&at.key("total"), file.total, 512),
            queue: self.time(&at.key("queue"), file.queue.as_ref(), secs(2), Allowed),
            rate: self.rate(&at, file.rate.as_ref(), file.burst),
            spares: file.spares.unwrap_or(16),
        }
    }

    /// What `limits` says of every server's processes.
    pub(super) fn process_limits(&mut self, file: &file::Limits) -> ProcessLimits {
        let defaults = ProcessLimits {
            start_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_mins(5),
            abandoned_grace: Duration::from_secs(30),
            eof_grace: Duration::from_secs(2),
            term_grace: Duration::from_secs(2),
            park_lease: Duration::from_mins(2),
            task_lease: Duration::from_mins(30),
            line: 16 << 20,
        };
        let written = file::Server {
            start_timeout: file.start_timeout.clone(),
            request_timeout: file.request_timeout.clone(),
            abandoned_grace: file.abandoned_grace.clone(),
            eof_grace: file.eof_grace.clone(),
            term_grace: file.term_grace.clone(),
            park_lease: file.park_lease.clone(),
            task_lease: file.task_lease.clone(),
            line: file.line.clone(),
            ..file::Server::default()
        };
        self.process(&Path::root().key("limits"), &written, &defaults)
    }

    /// Times and sizes of one server's processes, written in the object at `at`.
    pub(super) fn process(&mut self, at: &Path, file: &file::Server, defaults: &ProcessLimits) -> ProcessLimits {
        use Zero::{Allowed, Refused};
        let mut time =
            |name: &str, text: &Option<Time>, default, zero| self.time(&at.key(name), text.as_ref(), default, zero);
        ProcessLimits {
            start_timeout: time("startTimeout", &file.start_timeout, defaults.start_timeout, Refused),
            request_timeout: time("requestTimeout", &file.request_timeout, defaults.request_timeout, Refused),
            abandoned_grace: time("abandonedGrace", &file.abandoned_grace, defaults.abandoned_grace, Allowed),
            eof_grace: time("eofGrace", &file.eof_grace, defaults.eof_grace, Allowed),
            term_grace: time("termGrace", &file.term_grace, defaults.term_grace, Allowed),
            park_lease: time("parkLease", &file.park_lease, defaults.park_lease, Refused),
            task_lease: self.task_lease(&at.key("taskLease"), file.task_lease.as_ref(), defaults.task_lease),
            line: self.size(&at.key("line"), file.line.as_ref(), defaults.line),
        }
    }
}
