//! A fresh MCP server, open for one request: send it messages, receive its own, close it. Whoever drops it instead
//! has killed it.

// the kinds of server
pub mod container;
pub mod http;
pub mod stdio;

// servers that are started before they are talked to, perhaps before the request
pub mod spares;
pub mod started;

// what programs and containers have in common
pub mod process;

use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;

use crate::config::ProcessLimits;
use crate::memory::Full;
use container::ContainerServer;
use http::HttpServer;
use process::SpawnError;
use process::group::{Consumption, Graces};
use stdio::StdioServer;

/// An open conversation with a fresh server.
pub enum Upstream {
    /// A child process.
    Stdio(Box<StdioServer>),
    /// A container, by the client of its engine.
    Container(Box<ContainerServer>),
    /// A server elsewhere, in a session of its own.
    Http(Box<HttpServer>),
}

/// Why a server cannot be talked to, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It could not be started.
    #[error("the server could not be started: {0}")]
    Spawn(#[from] SpawnError),
    /// It ended before it answered.
    #[error("the server ended before it answered")]
    Ended,
    /// A message of it is over the limit.
    #[error("the server sent a message over {0} bytes")]
    LineTooLong(usize),
    /// It put more into its private directory than this many bytes.
    #[error("the server put more than {0} bytes, or too many files, into its private directory")]
    DirectoryOverfilled(u64),
    /// It says too much that is no message.
    #[error("the server writes text that is no MCP message")]
    InvalidOutput,
    /// There is no memory for what it says.
    #[error("{}", no_room(*.0))]
    NoRoom(Full),
    /// Its answer to `initialize` was an error, or names no version that the bridge knows.
    #[error("the server refused the handshake")]
    Handshake,
    /// It now negotiates another version than when the session began.
    #[error("the server negotiated another protocol version than the session's")]
    VersionChanged,
    /// It did not answer `initialize` in time.
    #[error("the server did not start within its time")]
    StartTimeout,
    /// No connection to it.
    #[error("the server cannot be reached: {0}")]
    Unreachable(Unreachable),
    /// It refused the credential it was called with, by this HTTP status: 401 or 403.
    #[error("the server refused the credential that it was called with")]
    TokenRefused(u16),
    /// It demands these scopes, which the credential that it was called with does not have. Source: RFC 6750 section 3.1.
    #[error("the server demands more than its user has allowed")]
    ScopeMissing(Vec<String>),
    /// It has too much to do: 429 or 503.
    #[error("the server is busy; try again later")]
    Busy {
        /// When it says to try again.
        retry_after: Option<Duration>,
    },
    /// It answered with an HTTP status that is an error, and no message.
    #[error("the server answered with HTTP status {0}")]
    Status(u16),
    /// It redirects to another origin, in another way than a message can follow, or too often.
    #[error("the server answered with a redirect that is not followed")]
    Redirect,
    /// Its answer is neither JSON nor events, or its `endpoint` cannot be used.
    #[error("the server's answer is not MCP over HTTP")]
    NotMcp,
}

fn no_room(full: Full) -> &'static str {
    match full {
        Full::Exchange => "the server sends more than the bridge may hold for one call",
        Full::User => "this user's memory is full of what is not delivered yet; the request may have been carried out",
        Full::All => "the bridge's memory is full of what is not delivered yet; the request may have been carried out",
    }
}

/// Why there is no connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nobody listens there.
    #[error("it refused the connection")]
    Refused,
    /// The connection took too long.
    #[error("it did not accept the connection in time")]
    Timeout,
    /// TLS failed.
    #[error("its certificate is not trusted, or the TLS handshake failed")]
    Tls,
    /// Anything else: no such name, no route.
    #[error("there is no connection to it")]
    Other,
}

impl From<&ProcessLimits> for Graces {
    fn from(limits: &ProcessLimits) -> Self {
        Self { eof: limits.eof_grace, term: limits.term_grace }
    }
}

impl Upstream {
    /// Queues one message; it is written while [`Upstream::receive`] is awaited, so that neither side waits for the other.
    pub fn send(&mut self, message: &str) {
        match self {
            Self::Stdio(server) => server.send(message),
            Self::Container(server) => server.client.send(message),
            Self::Http(server) => server.send(message),
        }
    }

    /// The next thing the server says that may be a message, without line ends. Cancel safe.
    ///
    /// # Errors
    /// If the server ended or breaks the rules of the transport.
    pub async fn receive(&mut self) -> Result<Bytes, UpstreamError> {
        match self {
            Self::Stdio(server) => server.receive().await,
            Self::Container(server) => server.client.receive().await,
            Self::Http(server) => server.receive().await,
        }
    }

    /// From now on the server may be silent for as long as it likes: what it says of its own accord is waited for.
    pub fn allow_silence(&mut self) {
        match self {
            Self::Stdio(_) | Self::Container(_) => {}
            Self::Http(server) => server.allow_silence(),
        }
    }

    /// Listens to what the server says of its own accord, which a program says anyway.
    pub fn listen(&mut self) {
        match self {
            Self::Stdio(_) | Self::Container(_) => {}
            Self::Http(server) => server.listen(),
        }
    }

    /// Listens to what the server says of its own accord while it is asked something, which a program says anyway.
    ///
    /// # Errors
    /// If something fails that was sent before.
    pub async fn listen_during_call(&mut self) -> Result<(), UpstreamError> {
        match self {
            Self::Stdio(_) | Self::Container(_) => Ok(()),
            Self::Http(server) => server.listen_during_call().await,
        }
    }

    /// Counts a line that was no message against the server's budget.
    ///
    /// # Errors
    /// If the budget is used up.
    pub fn count_invalid(&mut self, line: &[u8]) -> Result<(), UpstreamError> {
        match self {
            Self::Stdio(server) => server.count_invalid(line),
            Self::Container(server) => server.client.count_invalid(line),
            Self::Http(server) => server.count_invalid(line),
        }
    }

    /// Adds headers to what is sent from now on; a program has no use for them.
    pub fn mirror(&mut self, headers: Vec<(HeaderName, HeaderValue)>) {
        match self {
            Self::Stdio(_) | Self::Container(_) => {}
            Self::Http(server) => server.mirror(headers),
        }
    }

    /// Puts into the log what the server last wrote to stderr: it failed. A server elsewhere has none.
    pub fn explain(&self) {
        match self {
            Self::Stdio(server) => server.explain(),
            Self::Container(server) => server.client.explain(),
            Self::Http(_) => {}
        }
    }

    /// What the server takes on this host: nothing of a container or a server elsewhere.
    #[must_use]
    pub fn consumption(&self) -> Option<Consumption> {
        match self {
            Self::Stdio(server) => Some(server.consumption()),
            Self::Container(_) | Self::Http(_) => None,
        }
    }

    /// Ends the server and waits until nothing of it is left.
    pub async fn close(self, graces: Graces) {
        match self {
            Self::Stdio(server) => drop(server.close(graces).await),
            // In a place of its own: it is large, and takes its time anyway.
            Self::Container(server) => Box::pin(server.close(graces)).await,
            Self::Http(server) => server.close(graces).await,
        }
    }
}
