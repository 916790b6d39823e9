//! A fresh MCP server, open for one request: send it messages, receive its own, close it. Whoever drops it instead
//! has killed it.

pub mod group;
pub mod lines;
pub mod orphans;
pub mod stderr;
pub mod stdio;

use bytes::Bytes;

use crate::config::ProcessLimits;
use group::{Graces, SpawnError};
use stdio::StdioServer;

/// An open conversation with a fresh server.
pub enum Upstream {
    /// A child process.
    Stdio(Box<StdioServer>),
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
    /// A line of its stdout is over the limit.
    #[error("the server sent a line over {0} bytes")]
    LineTooLong(usize),
    /// Its stdout holds too much that is no message.
    #[error("the server writes text that is no MCP message to its stdout")]
    Junk,
    /// Its answer to `initialize` was an error, or names no version that the bridge knows.
    #[error("the server refused the handshake")]
    Handshake,
    /// It now negotiates another version than when the session began.
    #[error("the server negotiated another protocol version than the session's")]
    VersionChanged,
    /// It did not answer `initialize` in time.
    #[error("the server did not start within its time")]
    StartTimeout,
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
        }
    }

    /// The next line of the server that may be a message. Cancel safe.
    ///
    /// # Errors
    /// If the server ended or breaks the rules of the transport.
    pub async fn receive(&mut self) -> Result<Bytes, UpstreamError> {
        match self {
            Self::Stdio(server) => server.receive().await,
        }
    }

    /// Counts a line that was no message against the server's budget.
    ///
    /// # Errors
    /// If the budget is used up.
    pub fn junk(&mut self, line: &[u8]) -> Result<(), UpstreamError> {
        match self {
            Self::Stdio(server) => server.junk(line),
        }
    }

    /// Puts into the log what the server last wrote to stderr: it failed.
    pub fn explain(&self) {
        match self {
            Self::Stdio(server) => server.explain(),
        }
    }

    /// Ends the server and waits until nothing of it is left.
    pub async fn close(self, graces: Graces) {
        match self {
            Self::Stdio(server) => server.close(graces).await,
        }
    }
}
