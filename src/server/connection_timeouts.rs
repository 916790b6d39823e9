//! A connection that cannot be held open for nothing: a request head must come in time, an idle connection is closed,
//! a peer that takes no bytes is cut, and bytes that two readers could take for different requests reach nobody. How
//! long each may take is in `config::limits`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::Framing;
use super::http2_stalls::PIECE;
use crate::config::Limits;

/// How patient a connection is.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the first byte of a request's head to its last, and from the start of a connection to its first request.
    pub head: Duration,
    /// How long a connection may do nothing between requests.
    pub idle: Duration,
    /// How long the peer may take no byte that is waiting for it.
    pub stall: Duration,
}

impl From<&Limits> for Times {
    fn from(limits: &Limits) -> Self {
        Self { head: limits.header_timeout, idle: limits.connection_idle, stall: limits.write_stall }
    }
}

/// What a connection is doing, shared between its bytes and its requests.
#[derive(Debug, Default)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    /// Of these, those whose response has begun.
    answering: AtomicUsize,
    /// What is read need not be the beginning of a request: HTTP/2 has pings and settings.
    multiplexed: AtomicBool,
    /// The peer does not take what is written.
    stalled: AtomicBool,
}

/// One request in flight; it ends with its response.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    is_answering: bool,
}

impl Activity {
    /// A request has been read.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.multiplexed.store(version >= Version::HTTP_2, Ordering::Relaxed);
        InFlight { activity: Arc::clone(self), is_answering: false }
    }

    fn is_waiting(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Whether a response has begun whose end the peer would take if it were there. What HTTP/2 keeps back for a peer cannot
    /// be told from what is not there.
    pub(super) fn is_late(&self) -> bool {
        let is_answering = self.answering.load(Ordering::Relaxed) > 0;
        is_answering && !self.is_multiplexed() && !self.stalled.load(Ordering::Relaxed)
    }

    fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }
}

impl InFlight {
    /// Its response begins.
    pub(super) fn answering(mut self) -> Self {
        self.activity.answering.fetch_add(1, Ordering::Relaxed);
        self.is_answering = true;
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity.answering.fetch_sub(usize::from(self.is_answering), Ordering::Relaxed);
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream with its patience.
pub(super) struct TimedConnection<S> {
    stream: S,
    framing: Framing,
    activity: Arc<Activity>,
    times: Times,
    /// When a wait for a head or for a next request ends; armed only while one is awaited.
    head: Pin<Box<Sleep>>,
    awaiting: Awaiting,
    /// When a wait for the peer to take bytes ends.
    stall: Pin<Box<Sleep>>,
    /// How many it has taken since that wait began.
    taken: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    /// A request is being served.
    Nothing,
    /// The rest of a head, or the first one of the connection.
    Head,
    /// A next request, of which no byte has come.
    Next,
}

impl<S> TimedConnection<S> {
    /// Guards a new connection.
    pub(super) fn new(stream: S, activity: Arc<Activity>, times: Times) -> Self {
        Self {
            stream,
            framing: Framing::new(),
            activity,
            times,
            head: Box::pin(tokio::time::sleep(times.head)),
            awaiting: Awaiting::Head,
            stall: Box::pin(tokio::time::sleep(times.stall)),
            taken: 0,
        }
    }

    /// Arms or disarms the wait for a head, before a read and after one that brought bytes.
    fn note(&mut self, read: bool) {
        let waiting = self.activity.is_waiting();
        let now = match (waiting, read, self.awaiting) {
            (false, ..) => Awaiting::Nothing,
            (true, _, Awaiting::Next | Awaiting::Nothing) if self.activity.is_multiplexed() => Awaiting::Next,
            (true, true, Awaiting::Next | Awaiting::Nothing) | (true, _, Awaiting::Head) => Awaiting::Head,
            (true, false, Awaiting::Nothing) => Awaiting::Next,
            (true, false, Awaiting::Next) => return,
        };
        if now != self.awaiting {
            let patience = if now == Awaiting::Next { self.times.idle } else { self.times.head };
            self.head.as_mut().reset(Instant::now() + patience);
            self.awaiting = now;
        }
    }

    /// Fails once the peer has taken next to nothing for too long. A byte now and then is nothing: what waits for it is
    /// held meanwhile.
    fn check_stall(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.taken += *written.as_ref().unwrap_or(&0);
            if self.taken >= PIECE {
                self.activity.stalled.store(false, Ordering::Relaxed);
            }
            return Poll::Ready(written);
        }
        if !self.activity.stalled.swap(true, Ordering::Relaxed) {
            self.taken = 0;
            self.stall.as_mut().reset(Instant::now() + self.times.stall);
        }
        ready!(self.stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedConnection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.framing.refuse(buf) {
            return Poll::Ready(Ok(()));
        }
        this.note(false);
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(done) => {
                if buf.filled().len() > before {
                    this.note(true);
                    this.framing.follow(buf, before);
                }
                Poll::Ready(done)
            }
            Poll::Pending if this.awaiting == Awaiting::Nothing => Poll::Pending,
            Poll::Pending => {
                ready!(this.head.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedConnection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.check_stall(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.check_stall(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // All that there was has been taken.
        this.activity.stalled.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const TIMES: Times =
        Times { head: Duration::from_secs(10), idle: Duration::from_secs(90), stall: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_next_to_nothing_is_cut_and_a_slow_one_is_not() {
        let takes = async |bytes: usize| {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let mut connection = TimedConnection::new(ours, Arc::default(), TIMES);
            let taking = async {
                for _ in 0..TIMES.stall.as_secs() * 10 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    theirs.read_exact(&mut vec![0; bytes]).await.unwrap();
                }
            };
            let answer = vec![0; 16 << 20];
            tokio::select! {
                written = connection.write_all(&answer) => written,
                () = taking => Ok(()),
            }
        };
        let second = PIECE / usize::try_from(TIMES.stall.as_secs()).unwrap();
        assert!(takes(second * 2).await.is_ok());
        assert_eq!(takes(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_http_2_connection_ends_however_often_it_is_pinged() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let activity = Arc::new(Activity::default());
        let mut connection = TimedConnection::new(ours, Arc::clone(&activity), TIMES);
        theirs.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(connection.read(&mut read).await.unwrap(), 16);
        let request = activity.begin(Version::HTTP_2);
        tokio::select! {
            _ = connection.read(&mut read) => panic!("a request may take its time"),
            () = tokio::time::sleep(Duration::from_hours(1)) => {}
        }
        drop(request);
        let idle_since = Instant::now();
        let pings = async {
            loop {
                theirs.write_all(b"ping").await.unwrap();
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = connection.read(&mut read).await {
                    return error;
                }
            }
        };
        let ended = tokio::select! {
            () = pings => unreachable!("it pings for ever"),
            ended = reading => ended,
        };
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(idle_since.elapsed().as_secs(), TIMES.idle.as_secs());
    }
}
