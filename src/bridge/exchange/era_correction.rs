//! A server that was remembered as modern, and is not: it is recognised by how it refuses the request, which is then sent
//! again after the legacy handshake.

use super::Exchange;
use super::handshake::{FirstMessage, Handshake};
use crate::bridge::error::BridgeError;
use crate::config::Protocol;
use crate::mcp::message::Answer;
use crate::mcp::modern::HEADER_MISMATCH;
use crate::mcp::translate;
use crate::upstream::{Upstream, UpstreamError};

impl Exchange {
    /// A server elsewhere may refuse by a status alone. One that ended instead is not asked again within this request: it
    /// may have done what it was asked.
    pub(super) async fn mend_after(&mut self, error: BridgeError) -> Result<(), BridgeError> {
        let BridgeError::Upstream(failure) = &error else { return Err(error) };
        let refuses = matches!(failure, UpstreamError::Status(400..=499) | UpstreamError::NotMcp);
        if self.is_only_remembered() && matches!(failure, UpstreamError::Ended) {
            self.child.forget();
        }
        if refuses && self.mends().await? { Ok(()) } else { Err(error) }
    }

    /// Whether the request was sent anew, because the server, of which it was only remembered that it is modern, refused
    /// it as one does that wants the handshake first.
    pub(super) async fn mends(&mut self) -> Result<bool, BridgeError> {
        if !self.is_only_remembered() || self.server.protocol == Protocol::Modern {
            return Ok(false);
        }
        self.child.forget();
        match self.child.perform_handshake(&self.call.introduction, FirstMessage::Discover).await {
            Ok(Ok(handshake @ Handshake::Legacy(_))) => self.handshake = Some(handshake),
            Ok(Ok(handshake @ Handshake::Modern(_))) => {
                self.handshake = Some(handshake);
                return Ok(false);
            }
            Ok(Err(_)) | Err(_) => return Ok(false),
        }
        self.request().await?;
        Ok(true)
    }

    /// Whether the server says by this answer that it has not begun to work: the request is malformed to it, of no method
    /// that it has, or, elsewhere, of no session.
    pub(super) fn refuses_before_work(&self, answer: Answer<'_>) -> bool {
        let Answer::Error(error) = answer else { return false };
        match translate::error_code(error) {
            Some(-32602..=-32600) => true,
            Some(-32000) => matches!(self.child.upstream, Upstream::Http(_)),
            _ => false,
        }
    }

    /// A server elsewhere that misses a header wants others than are remembered of it.
    pub(super) fn doubt_mirrors(&self, answer: Answer<'_>) {
        if matches!(answer, Answer::Error(error) if translate::error_code(error) == Some(HEADER_MISMATCH)) {
            self.child.forget();
        }
    }

    fn is_only_remembered(&self) -> bool {
        matches!(self.handshake, Some(Handshake::Modern(None)))
    }
}
