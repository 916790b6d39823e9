//! Connections: an accept loop that survives, HTTP/1.1 and HTTP/2 with every limit set, and a graceful end.

mod connection_limits;
mod connection_timeouts;
mod disconnects;
mod framing;
mod http2_stalls;
mod listener;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::auth::PeerAddr;
use crate::bridge::Connection;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::rate_limit::LogRateLimit;
use crate::routes::Routes;
use crate::swap::Swap;
pub use connection_limits::ConnectionLimits;
use connection_limits::{ConnectionSlot, Full};
pub use connection_timeouts::Times;
use connection_timeouts::{Activity, InFlight, TimedConnection};
pub use disconnects::DisconnectWatcher;
use http2_stalls::{Streams, Watched};
pub use listener::Listener;
use listener::Stream;

/// The longest request head, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// The most header fields of a request.
const MAX_FIELDS: usize = 100;

/// The most streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 100;

/// How often a silent HTTP/2 peer is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open connections are served as ever after the first signal to stop: a proxy that has had an answer on each by
/// then has been told to use them no more.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a connection is read before it is told to end, so that a request that has come is answered.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// How long the accept loop rests after an error, so that a lack of file descriptors does not make it spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What a client is told for which there is no room, if it hears it: whoever has a choice of nodes takes another.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Serves connections until it is told to stop.
pub struct Server {
    /// Where requests lead.
    pub routes: Swap<Routes>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says when to end.
    pub lifecycle: Lifecycle,
    /// How patient connections are.
    pub times: Swap<Times>,
    /// How many there may be.
    pub connections: Arc<ConnectionLimits>,
    /// Sees peers leave.
    pub disconnects: Arc<DisconnectWatcher>,
    /// What the log says of connections that are refused.
    pub refusals: LogRateLimit,
}

impl Server {
    /// Accepts until the first signal to stop, drains, then waits until every connection has finished or the hard stop has
    /// come.
    pub async fn run(self: Arc<Self>, mut listener: Listener) {
        let stall = || self.times.load().stall;
        let open = &self.lifecycle.connections;
        let disconnects = Arc::clone(&self.disconnects);
        self.lifecycle.accompany(async move { disconnects.tell().await });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept(stall) => accepted,
                () = self.lifecycle.drain.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) => {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        // What the system has let in already would be lost with the listener.
        while let Some(Ok((stream, peer))) = listener.accept(stall).now_or_never() {
            self.take(stream, peer);
        }
        drop(listener);
        open.close();
        // A proxy may just be sending on a connection that seems to be idle.
        tokio::select! {
            () = open.wait() => {}
            () = tokio::time::sleep(DRAIN) => {}
            () = self.lifecycle.soft.cancelled() => {}
        }
        self.lifecycle.soft.cancel();
        tokio::select! {
            () = open.wait() => {}
            () = self.lifecycle.hard.cancelled() => {}
        }
    }

    fn take(self: &Arc<Self>, stream: Stream, peer: PeerAddr) {
        match self.connections.admit(peer) {
            Ok(room) => self.serve(stream, peer, room),
            Err(full) => self.turn_away(&stream, peer, full),
        }
    }

    fn turn_away(&self, stream: &Stream, peer: PeerAddr, full: Full) {
        self.metrics.connections_refused.inc();
        if let Some(left_out) = self.refusals.next(peer.source()) {
            tracing::warn!(%peer, why = %full, left_out, "connection refused");
        }
        stream.try_write(NO_ROOM);
    }

    fn serve(self: &Arc<Self>, stream: Stream, peer: PeerAddr, room: ConnectionSlot) {
        let gone = CancellationToken::new();
        let watch = match self.disconnects.watch(&stream, gone.clone()) {
            Ok(watch) => watch,
            Err(error) => return tracing::error!(%error, "a connection could not be watched"),
        };
        let activity = Arc::new(Activity::default());
        let connection = Connection { peer, gone: gone.clone() };
        let (server, in_flight) = (Arc::clone(self), Arc::clone(&activity));
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, connection) = (Arc::clone(&server), connection.clone());
            let in_flight = in_flight.begin(request.version());
            let is_reused = request.version() < Version::HTTP_2;
            async move {
                let mut response = server.routes.load().answer(request, &connection).await;
                if is_reused && server.lifecycle.drain.is_cancelled() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(
                    response.map(|body| Tracked { body: Watched::new(body), _in_flight: in_flight.answering() }),
                )
            }
        });
        let times = *self.times.load();
        let io = TokioIo::new(TimedConnection::new(stream, Arc::clone(&activity), times));
        let exchange = builder(times.stall).serve_connection(io, service).into_owned();
        // In a place of its own: it is large, and whoever waits for it twice would hold it twice.
        let mut exchange = Box::pin(exchange);
        let (soft, hard, open) =
            (self.lifecycle.soft.clone(), self.lifecycle.hard.clone(), self.lifecycle.connections.token());
        self.lifecycle.spawn(async move {
            let _held = (room, watch, open);
            let _gone = gone.drop_guard();
            let stops = async {
                soft.cancelled().await;
                tokio::time::sleep(LAST_LOOK).await;
            };
            // A connection that breaks is its client's affair; its requests learn of it by the guard.
            tokio::select! {
                biased;
                _ = &mut exchange => return,
                () = stops => {}
            }
            exchange.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut exchange => return,
                () = hard.cancelled() => {}
            }
            // The last events of the requests that were ended are on their way; a client that does not take them now
            // never will. What is not there yet is late by a machine that is slow.
            for _ in 0..ROUNDS {
                if timeout(LAST_WORDS, &mut exchange).await.is_ok() || !activity.is_late() {
                    break;
                }
            }
        });
    }
}

/// How long a client may take to take what its requests said when they were ended by the hard stop.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How many times that it may be late.
const ROUNDS: u32 = 12;

fn builder(stall: Duration) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams { stall });
    builder.http1().timer(TokioTimer::new()).max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS).header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("32 KiB fit"))
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A response body that keeps its request in flight until it has been sent.
struct Tracked {
    body: Watched,
    _in_flight: InFlight,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
