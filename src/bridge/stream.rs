//! Long streams: a listener of a legacy session, HTTP+SSE, `subscriptions/listen`. Each has a server only if it needs
//! one, and one task that owns both; what the server says of its own accord goes out there and nowhere else. A stream
//! ends at a soft stop, because nothing would ever finish it.

mod http_sse;
mod listener;
mod on_demand_server;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field};

use super::connect::link::Lack;
use super::error::BridgeError;
use super::exchange::conversation::until_forced;
use super::exchange::questions::Owner;
use super::response::sse::{Guard, Outbox, Stalled};
use super::{Bridge, Connection};
use crate::auth::PeerAddr;
use crate::config::{Inputs, RequestValues, Server};
use crate::limits::Permit;
use crate::metrics::{Counted, End, STREAM, era_label};
use crate::relay::Mailbox;
use crate::request_id::RequestId;
use crate::telemetry::{millis, shorten_for_log};
use crate::upstream::UpstreamError;
use crate::user::Caller;

use super::exchange::child::Child;
use http_sse::per_request::PerRequest;
use http_sse::per_session::PerSession;
use listener::Listener;
use subscription::Subscription;

pub(super) use subscription::LISTEN;

/// A client, and who it is.
pub(super) struct Stream {
    bridge: Arc<Bridge>,
    caller: Caller,
    server: Arc<Server>,
    outbox: Outbox,
    /// Where other requests leave what is for the stream.
    mailbox: Mailbox,
}

impl Stream {
    async fn event(&self, text: Bytes) -> Result<(), BridgeError> {
        self.outbox.event(text).await.map_err(|Stalled| BridgeError::Stalled)
    }

    fn owner(&self) -> Owner<'_> {
        Owner { user: &self.caller.user, server: &self.server.name }
    }
}

/// What a stream is for.
enum Work {
    Listener(Box<Listener>),
    PerRequest(Box<PerRequest>),
    PerSession(Box<PerSession>),
    Subscription(Box<Subscription>),
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Listener(_) => "listener",
            Self::PerRequest(_) | Self::PerSession(_) => "sse",
            Self::Subscription(_) => "subscription",
        }
    }

    fn stream(&self) -> &Stream {
        match self {
            Self::Listener(listener) => &listener.stream,
            Self::PerRequest(requests) => &requests.stream,
            Self::PerSession(session) => &session.stream,
            Self::Subscription(subscription) => &subscription.stream,
        }
    }

    /// Works until there is nothing more to do.
    async fn run(&mut self) -> Result<(), BridgeError> {
        match self {
            Self::Listener(listener) => listener.run().await,
            Self::PerRequest(requests) => requests.run().await,
            // Each in a place of its own: they are large, and most streams are idle listeners.
            Self::PerSession(session) => Box::pin(session.run()).await,
            Self::Subscription(subscription) => Box::pin(subscription.run()).await,
        }
    }

    /// Tells the client that the stream is over, as it knows such an end.
    async fn finish(&mut self, error: Option<&BridgeError>) {
        match self {
            Self::Listener(listener) => listener.finish(),
            Self::PerRequest(requests) => requests.finish().await,
            Self::PerSession(session) => session.finish(error).await,
            Self::Subscription(subscription) => subscription.finish(error).await,
        }
    }

    /// What is left to be ended once the client has been told.
    async fn into_child(self, end: End) -> Option<Child> {
        match self {
            Self::Listener(listener) => listener.into_child(),
            Self::PerRequest(_) => None,
            Self::PerSession(session) => Some(session.child),
            Self::Subscription(subscription) => subscription.into_child(end).await,
        }
    }
}

/// A stream that is let in, with everything it must give back.
struct Running {
    work: Work,
    began: Instant,
    peer: PeerAddr,
    /// When it ends in any case.
    until: Instant,
    /// Cancelled when the client has left.
    gone: CancellationToken,
    permit: Arc<Permit>,
}

impl Running {
    /// Runs the stream to its end and returns when nothing of its server is left.
    async fn run(mut self) {
        let live = Counted::new(&self.work.stream().bridge.metrics.live_requests);
        let (end, error) = self.until_an_end().await;
        if let Some(error) = &error {
            tracing::debug!(%error, "a stream failed");
        }
        self.work.finish(error.as_ref()).await;
        self.report(end, error.is_some());
        let bridge = Arc::clone(&self.work.stream().bridge);
        drop(live);
        let close = Box::pin(async {
            let Some(child) = self.work.into_child(end).await else { return };
            if end == End::UpstreamLeft {
                child.upstream.explain();
            }
            child.close().await;
        });
        tokio::select! {
            () = close => {}
            // Dropping a server is killing it.
            () = until_forced(&bridge.lifecycle.hard) => {}
        }
        drop(self.permit);
    }

    /// What the metrics count of it, and its one line in the log.
    fn report(&self, end: End, has_failed: bool) {
        let stream = self.work.stream();
        let (is_modern, bytes_out) = (matches!(self.work, Work::Subscription(_)), stream.outbox.sent());
        if let Some(counts) = stream.bridge.metrics.servers.of(stream.server.name.as_str()) {
            counts.ended(STREAM, is_modern, end);
            counts.sent.inc_by(bytes_out);
        }
        let request = RequestId::current();
        // A subscription that has failed may not have had its status line yet.
        let status = (!is_modern || !has_failed).then_some(StatusCode::OK.as_u16());
        tracing::info!(
            stream = self.work.name(),
            client = request.as_ref().and_then(RequestId::client).map(shorten_for_log),
            era = era_label(is_modern),
            peer = %self.peer,
            status,
            end = end.as_str(),
            ms = millis(self.began.elapsed()),
            bytes_out,
            "stream ended"
        );
    }

    /// The one place where everything that can end a stream is waited for.
    async fn until_an_end(&mut self) -> (End, Option<BridgeError>) {
        let lifecycle = self.work.stream().bridge.lifecycle.clone();
        // HTTP+SSE ends softly by itself, when nothing is asked on it.
        let soft = if matches!(self.work, Work::PerRequest(_) | Work::PerSession(_)) {
            CancellationToken::new()
        } else {
            lifecycle.soft
        };
        tokio::select! {
            biased;
            done = self.work.run() => match done {
                Ok(()) => (End::Answered, None),
                Err(BridgeError::Stopped) => (End::Stopped, None),
                Err(BridgeError::Stalled) => (End::ClientLeft, None),
                Err(error @ BridgeError::Upstream(UpstreamError::StartTimeout)) => (End::DeadlinePassed, Some(error)),
                Err(error) => (End::UpstreamLeft, Some(error)),
            },
            () = self.gone.cancelled() => (End::ClientLeft, None),
            () = tokio::time::sleep_until(self.until) => (End::DeadlinePassed, None),
            () = soft.cancelled() => (End::Stopped, None),
            () = lifecycle.hard.cancelled() => (End::Stopped, Some(BridgeError::Stopped)),
        }
    }
}

impl Bridge {
    /// The server of a stream that stays for as long as the stream; or why the user's token does not do.
    async fn start_stream_server(
        self: &Arc<Self>,
        caller: &Caller,
        server: &Arc<Server>,
        values: RequestValues,
    ) -> Result<Result<Child, Lack>, BridgeError> {
        match self.tokens.access_token(&caller.user, server).await {
            Ok(credential) => {
                let inputs = Inputs::of(caller, credential, values);
                Ok(Ok(Child::staying(self, server, inputs).await?))
            }
            Err(error) => self.lack(server, &error).map(Err),
        }
    }

    /// Starts the task that owns a stream; it knows by the guard when the client has left.
    fn run_stream(&self, work: Work, permit: Arc<Permit>, lifetime: Duration, connection: &Connection) -> Guard {
        let gone = connection.gone.child_token();
        let guard = Guard::new(&gone, &permit);
        let stream = work.stream();
        let (request, user, server) =
            (RequestId::current().map(field::display), &stream.caller.user, &stream.server.name);
        let method = if let Work::Subscription(_) = work { LISTEN } else { Method::GET.as_str() };
        let span = tracing::info_span!(parent: None, "stream", request, %user, %server, method);
        let began = Instant::now();
        let running = Running { work, began, peer: connection.peer, until: began + lifetime, gone, permit };
        // In a place of its own, since whoever hands it on moves it.
        let running = Box::pin(running.run());
        self.lifecycle.spawn(RequestId::handed_on(running).instrument(span));
        guard
    }
}
