//! Notes: what one exchange says to another, on whichever node it is, through the relay.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::mcp::lists::List;

/// What one exchange says to another, on whichever node it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::bridge) enum Note {
    /// The client's answer to the question with this id: `"result":…` or `"error":…`, as written.
    Answer {
        /// The id as its asker wrote it.
        id: String,
        /// Whether it is an error.
        failed: bool,
        /// The result or the error as written.
        text: String,
    },
    /// A message for the server, as written.
    Tell(String),
    /// The server of a call says that this list has changed.
    Changed(List),
    /// The client no longer wants its answer; the notification that says so, as written.
    Cancelled(String),
    /// The client has called again, with answers.
    Retry(Retry),
    /// The client that called again has left.
    Left,
    /// The token of the listener's user has changed.
    Connection,
    /// Somebody asks about the task that the server is held for.
    Task(TaskRequest),
}

/// A request about a task.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::bridge) struct TaskRequest {
    /// Where its answer goes.
    pub(in crate::bridge) reply_to: String,
    /// The whole message as written.
    pub(in crate::bridge) text: String,
}

/// A call that continues one that was parked.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::bridge) struct Retry {
    /// Where its answer goes.
    pub(super) reply_to: String,
    /// Its id as written.
    pub(in crate::bridge) id: String,
    /// Its progress token as written.
    pub(in crate::bridge) progress: Option<String>,
    /// The answers by key, as written.
    pub(in crate::bridge) answers: Vec<(String, String)>,
    /// Which round of questions it answers.
    pub(in crate::bridge) round: u32,
}

impl Note {
    pub(in crate::bridge) fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("notes hold only text").into()
    }

    pub(in crate::bridge) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
