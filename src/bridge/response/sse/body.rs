//! The bodies of answers: one message, or many as they come, each an event or an element of an array.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::{Guard, Item};
use crate::mcp::splice::Spliced;
use crate::memory::Held;

/// The longest event that is copied into one frame; a longer one goes out in pieces of this size.
pub(super) const PIECE: usize = 128 * 1024;

/// What is sent to a client that waits: nothing, said aloud.
pub(in crate::bridge) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// What tells messages apart in a body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    /// Each is an event.
    Events,
    /// Each is an element of a JSON array.
    Array {
        /// Whether there is one already.
        begun: bool,
    },
}

/// What stands before a message and behind it.
pub(super) type Around = [&'static [u8]; 2];

impl Framing {
    pub(super) fn around(&mut self, is_last: bool) -> Around {
        match self {
            Self::Events => [b"data: ", b"\n\n"],
            Self::Array { begun } => {
                [if std::mem::replace(begun, true) { b"," } else { b"[" }, if is_last { b"]" } else { b"" }]
            }
        }
    }

    /// What may stand between messages and says nothing.
    fn pause(self) -> Bytes {
        match self {
            Self::Events => COMMENT,
            Self::Array { .. } => Bytes::from_static(b"\n"),
        }
    }
}

/// One message in one frame.
pub(super) fn frame(text: Spliced, [before, behind]: Around) -> Bytes {
    let mut frame = BytesMut::with_capacity(before.len() + text.len() + behind.len());
    frame.put_slice(before);
    text.into_pieces().into_iter().map(one_line).for_each(|piece| frame.put_slice(&piece));
    frame.put_slice(behind);
    frame.freeze()
}

/// A piece of a message without line ends, so that the message is one event for every reader: they can only stand between
/// its tokens, where a space says the same.
fn one_line(piece: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &piece).is_none() {
        return piece;
    }
    let spaced = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    piece.iter().map(spaced).collect()
}

/// One message in as many frames as it needs, `held` until the last of them is gone.
pub(super) fn pieces(text: Spliced, held: Held, guard: &Guard, around: Around) -> VecDeque<Bytes> {
    if text.len() <= PIECE {
        return VecDeque::from([held.keep(frame(text, around), guard.permit.clone())]);
    }
    let text = text.into_pieces().into_iter().map(one_line).collect();
    let mut all = VecDeque::from([Bytes::from_static(around[0])]);
    for long in held.keep_all(text, guard.permit.clone()) {
        all.extend((0..long.len()).step_by(PIECE).map(|at| long.slice(at..long.len().min(at + PIECE))));
    }
    all.extend((!around[1].is_empty()).then(|| Bytes::from_static(around[1])));
    all
}

/// A body of one event.
pub(super) struct OneEvent(pub(super) Option<Bytes>);

impl http_body::Body for OneEvent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// A body of events, or of an array's elements, with comments in its pauses; it ends after the final message, and never
/// without one.
pub(super) struct Events {
    pub(super) items: mpsc::UnboundedReceiver<Item>,
    pub(super) framing: Framing,
    /// What is told if no final message comes; taken when the last event is queued.
    pub(super) lost: Option<Bytes>,
    pub(super) pieces: VecDeque<Bytes>,
    /// Whether what was handed on last is to be flushed before there is more: official clients lose an event that
    /// arrives in one chunk with the answer.
    pub(super) flush: bool,
    pub(super) keep_alive: Duration,
    pub(super) quiet: Pin<Box<Sleep>>,
    pub(super) guard: Guard,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                let again = Instant::now() + this.keep_alive;
                this.quiet.as_mut().reset(again);
                this.flush = this.pieces.is_empty();
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.lost.is_none() {
                return Poll::Ready(None);
            }
            if std::mem::take(&mut this.flush) {
                // What polls bodies flushes what it has when there is nothing more for now.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.items.poll_recv(cx) {
                Poll::Ready(Some(Item::Event(text, held, _room))) => {
                    this.pieces = pieces(text.into(), held, &this.guard, this.framing.around(false));
                }
                Poll::Ready(Some(Item::Final(last, held))) => {
                    this.lost = None;
                    this.pieces = pieces(last.text, held, &this.guard, this.framing.around(true));
                }
                Poll::Ready(Some(Item::Silent)) => this.lost = None,
                Poll::Ready(None) => {
                    let around = this.framing.around(true);
                    this.pieces.extend(this.lost.take().map(|lost| frame(lost.into(), around)));
                }
                Poll::Pending => {
                    ready!(this.quiet.as_mut().poll(cx));
                    this.pieces.push_back(this.framing.pause());
                }
            }
        }
    }
}
