//! The final message of an exchange: the answer to the client's request.

use http::{HeaderValue, StatusCode};

use crate::mcp::splice::Spliced;

/// The final message of an exchange.
#[derive(Debug)]
pub(in crate::bridge) struct FinalMessage {
    /// The status, if nothing has been sent yet.
    pub(in crate::bridge) status: StatusCode,
    /// The message.
    pub(in crate::bridge) text: Spliced,
    /// The session that begins with it.
    pub(in crate::bridge) session: Option<HeaderValue>,
    /// After how many seconds to try again.
    pub(in crate::bridge) retry_after: Option<u64>,
}

impl FinalMessage {
    /// A message that is no failure.
    pub(in crate::bridge) fn ok(text: impl Into<Spliced>) -> Self {
        Self { status: StatusCode::OK, text: text.into(), session: None, retry_after: None }
    }
}
