//! A body that leaves before a time or not at all, and tells whether it has left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Bytes that are asked for once a connection is there, which is the last moment at which they can be held back.
#[derive(Debug)]
pub(super) struct DatedBody {
    bytes: Option<Bytes>,
    leaves_by: Option<Instant>,
    has_left: Arc<AtomicBool>,
}

/// It is too late.
#[derive(Debug, thiserror::Error)]
#[error("it is too late to send this")]
pub(super) struct TooLate;

impl DatedBody {
    /// A body that leaves before this time, if there is one, and what says whether it has.
    pub(super) fn new(bytes: Vec<u8>, leaves_by: Option<Instant>) -> (Self, Arc<AtomicBool>) {
        let (has_left, bytes) = (Arc::new(AtomicBool::new(false)), Some(Bytes::from(bytes)));
        (Self { bytes: bytes.filter(|bytes| !bytes.is_empty()), leaves_by, has_left: Arc::clone(&has_left) }, has_left)
    }
}

impl Body for DatedBody {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if self.leaves_by.is_some_and(|latest| Instant::now() > latest) {
            return Poll::Ready(Some(Err(TooLate)));
        }
        self.has_left.store(true, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
