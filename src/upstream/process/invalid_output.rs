//! How much output a server may write that is no message before it is given up.

use crate::upstream::UpstreamError;

/// How many such lines or events, per request.
const PIECES: usize = 100;

/// How many bytes of them.
const BYTES: usize = 1024 * 1024;

/// What has been used up of that.
#[derive(Default)]
pub(in crate::upstream) struct InvalidOutput {
    pieces: usize,
    bytes: usize,
}

impl InvalidOutput {
    /// Counts a piece that was no message.
    pub(in crate::upstream) fn count(&mut self, piece: &[u8]) -> Result<(), UpstreamError> {
        self.pieces += 1;
        self.bytes += piece.len();
        if self.pieces > PIECES || self.bytes > BYTES { Err(UpstreamError::InvalidOutput) } else { Ok(()) }
    }
}
