//! HTTP/2 streams whose clients take nothing. A connection tells by its bytes whether its peer takes any; a stream's client
//! may close its window and go on answering pings. So each stream's response is watched: one of which no byte is taken for
//! as long as a connection may stall is reset, and what it held is given back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep};

use crate::respond::Body;

/// The longest piece of a response that is handed to a stream at once: that much is taken within the time, or nothing.
pub(super) const PIECE: usize = 64 * 1024;

/// In how many parts of the time it is looked at.
const LOOKS: u32 = 4;

tokio::task_local! {
    static OWN: Progress;
}

/// Runs each stream of a connection, and ends it when its client takes nothing for so long.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    /// So long.
    pub(super) stall: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (stall, progress) = (self.stall, Progress::default());
        let watched = progress.clone();
        // Dropping a stream that has not ended resets it.
        let run = async move {
            tokio::select! {
                _ = stream => {}
                () = watched.until_stalled(stall) => tracing::debug!("a stream was reset: its client takes nothing"),
            }
        };
        TokioExecutor::new().execute(OWN.scope(progress, run));
    }
}

/// How far a response has been taken.
#[derive(Debug, Clone, Default)]
struct Progress(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    /// Pieces that were handed on and have not been sent.
    handed: usize,
    /// Whether there was nothing more to hand on when it was last asked for.
    idle: bool,
    /// Since when nothing has been taken of what could be.
    since: Option<Instant>,
    /// Who waits for everything to have been sent.
    waker: Option<Waker>,
}

impl Progress {
    async fn until_stalled(&self, stall: Duration) {
        loop {
            sleep(stall / LOOKS).await;
            if self.taken().since.is_some_and(|since| since.elapsed() >= stall) {
                return;
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn moved(&mut self) {
        self.since = (self.handed > 0 || !self.idle).then(Instant::now);
    }
}

/// A piece that was handed on.
struct Handed(Bytes, Progress);

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let mut taken = self.1.taken();
        taken.handed -= 1;
        taken.moved();
        if taken.handed == 0
            && let Some(waker) = taken.waker.take()
        {
            waker.wake();
        }
    }
}

/// The body of a response. That of an HTTP/2 stream is watched, and ends when all of it has been sent.
pub(super) struct Watched {
    body: Body,
    /// What is left of a frame that was too long to be handed on at once.
    rest: Bytes,
    progress: Option<Progress>,
}

impl Watched {
    /// Watches the body that is to be sent on the stream that this task runs, if it runs one.
    pub(super) fn new(body: Body) -> Self {
        let progress = OWN.try_with(Progress::clone).ok();
        if let Some(progress) = &progress {
            progress.taken().moved();
        }
        Self { body, rest: Bytes::new(), progress }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let sent = self.progress.as_ref().is_none_or(|progress| progress.taken().handed == 0);
        sent && self.rest.is_empty() && self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(progress) = &self.progress else { return Pin::new(&mut self.body).poll_frame(cx) };
        if self.rest.is_empty() {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let mut taken = progress.taken();
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Poll::Ready(None) if taken.handed == 0 => return Poll::Ready(None),
                Poll::Ready(None) => {
                    taken.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Pending => {
                    taken.idle = true;
                    taken.moved();
                    return Poll::Pending;
                }
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        let mut taken = progress.taken();
        (taken.handed, taken.idle) = (taken.handed + 1, false);
        taken.moved();
        drop(taken);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Handed(piece, progress.clone()))))))
    }
}
