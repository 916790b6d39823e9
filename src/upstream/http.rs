//! A server that speaks MCP over HTTP: Streamable HTTP of every revision, and the HTTP+SSE of 2024-11-05. One
//! [`HttpServer`] is one fresh MCP client with a session of its own; all of it is driven by [`HttpServer::receive`].
//! Sources: MCP 2024-11-05, 2025-11-25 and 2026-07-28, basic/transports.
//!
//! Invariants: a URL, a header value and a body are never in an error or a log, since they may hold the user's token;
//! they go to the configured origin and nowhere else; what is kept between clients is connections, which know no user,
//! and which servers turned out to speak HTTP+SSE, which belongs to the configuration.

mod event_handling;
mod events;
mod exchange;
mod outgoing;
mod servers;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Client;
use sync_wrapper::SyncWrapper;
use tokio::time::Instant;
use url::Url;

use self::exchange::{ExchangeEvents, ExchangeRequest, Expects};
use self::outgoing::{MessageKind, Outgoing};
use super::UpstreamError;
use super::process::group::Graces;
use super::process::invalid_output::InvalidOutput;
use crate::mcp::headers::{PROTOCOL_VERSION, SESSION_ID};
use crate::memory::{PIECE, Share};

pub use servers::HttpServers;
use servers::SseMemory;

/// How long the rest of answers may take that have been read, so that their connections can be used again.
const DRAIN: Duration = Duration::from_millis(20);

/// How long a server may take to accept a cancellation: as long as a connection to it may take.
const CANCELLATION: Duration = Duration::from_secs(5);

/// How long a server may take to say whether it can be heard unasked, before it is asked something all the same.
const LISTEN_PATIENCE: Duration = Duration::from_secs(1);

/// How long an answer waits, at most, for what the server said before it on another connection. That connection ends with
/// the session, which may take a round trip to a server far away; but a server that sends small packets as TCP does by
/// itself may hold one back for 40 ms.
const BEFORE: Duration = Duration::from_millis(60);

/// How long a server may take to say where messages go, if it is only a guess that it speaks HTTP+SSE.
const ENDPOINT: Duration = Duration::from_secs(5);

/// A server elsewhere, in conversation with one client.
pub struct HttpServer {
    client: Client,
    /// Where the server is, or was redirected to. It may hold the user's token.
    url: Url,
    /// What the operator configured to be sent.
    headers: HeaderMap,
    /// What is sent with modern requests besides: `Mcp-Param-…`.
    extra: Vec<(HeaderName, HeaderValue)>,
    limit: usize,
    share: Share,
    transport: Transport,
    memory: SseMemory,
    /// The legacy session that is open.
    session: Option<HeaderValue>,
    /// The version that was negotiated, or that the last modern request named.
    version: Option<HeaderValue>,
    queue: VecDeque<Outgoing>,
    exchanges: Vec<Exchange>,
    /// Which exchange is listened to first, so that none drowns another.
    turn: usize,
    listens: bool,
    /// What was received while something else was waited for.
    early: VecDeque<Bytes>,
    /// An answer, and how long it waits for what was said before it.
    held: Option<(Bytes, Instant)>,
    invalid_output: InvalidOutput,
}

/// How the server is spoken to.
enum Transport {
    /// Streamable HTTP, or HTTP+SSE if it refuses the first message.
    Undecided,
    /// Streamable HTTP.
    Streamable,
    /// HTTP+SSE.
    Sse {
        /// Where messages go, once the server has said so.
        endpoint: Option<Url>,
        /// What is to be done if the server does not speak it.
        fallback: SseFallback,
    },
}

/// What is to be done if a server does not speak HTTP+SSE.
#[derive(Debug, Clone, Copy)]
enum SseFallback {
    /// Fail: it was configured.
    Fail,
    /// Forget that it ever did, and speak Streamable HTTP.
    SpeakStreamable,
    /// Say what it answered to the message over Streamable HTTP.
    Refused(StatusCode),
}

/// An HTTP exchange under way.
struct Exchange {
    purpose: Purpose,
    /// Only ever polled, never shared: so whoever has it can be borrowed by several threads.
    events: SyncWrapper<ExchangeEvents>,
    /// The newest message heard: at the end of a request's exchange, its answer.
    newest: Option<Bytes>,
}

/// What an exchange is for.
enum Purpose {
    /// To deliver a message; what there is to say of it is said in the same exchange if it is a request.
    Post(Outgoing),
    /// To deliver a message that is answered elsewhere.
    PostToEndpoint(Outgoing),
    /// To hear everything the server says over HTTP+SSE.
    Sse,
    /// To hear what the server says unasked over Streamable HTTP.
    Listen,
    /// The same beside something that is asked, which does not fail with it.
    ListenDuringCall {
        /// Whether the server offers it.
        open: bool,
    },
    /// To end the session.
    EndSession,
}

impl HttpServer {
    /// Queues one message.
    pub fn send(&mut self, message: &str) {
        let mut message = Outgoing::new(message);
        message.mirrored.clone_from(&self.extra);
        message.text = self.share.queued(message.text);
        if message.opens_session() {
            self.begin_anew();
        }
        match &message.about {
            // In the modern era to stop listening is to cancel.
            MessageKind::Cancellation(id) if self.is_asked_in_modern_era(id) => {
                self.exchanges.retain(|exchange| exchange.request_id() != Some(id));
            }
            _ => self.queue.push_back(message),
        }
    }

    /// Whoever opens a session has given up what was asked before.
    fn begin_anew(&mut self) {
        self.queue.clear();
        match self.transport {
            Transport::Sse { endpoint: None, fallback: SseFallback::Refused(_) } => {
                self.transport = Transport::Undecided;
                self.exchanges.clear();
            }
            Transport::Sse { .. } => self.exchanges.retain(|exchange| matches!(exchange.purpose, Purpose::Sse)),
            Transport::Undecided | Transport::Streamable => self.exchanges.clear(),
        }
    }

    fn is_asked_in_modern_era(&self, id: &str) -> bool {
        let asks = |exchange: &Exchange| match &exchange.purpose {
            Purpose::Post(message) => message.id() == Some(id) && message.modern_version.is_some(),
            _ => false,
        };
        self.exchanges.iter().any(asks)
    }

    /// Waits for more also when everything has been answered.
    pub fn allow_silence(&mut self) {
        self.listens = true;
    }

    /// Listens to what the server says unasked, besides its answers: the GET stream of a legacy session, which a server
    /// need not offer. Over HTTP+SSE everything is heard anyway. Once this has been called the server may be silent for
    /// as long as it likes.
    pub fn listen(&mut self) {
        self.listens = true;
        if matches!(self.transport, Transport::Sse { .. }) {
            return;
        }
        let request = self.request(Method::GET, self.url.clone(), None, Expects::Stream);
        self.begin(Purpose::Listen, request);
    }

    /// Listens to what the server says unasked while it is asked something, if it offers that. Returns when that is
    /// known: what it says to nobody is lost.
    ///
    /// # Errors
    /// If something fails that was sent before.
    pub async fn listen_during_call(&mut self) -> Result<(), UpstreamError> {
        if matches!(self.transport, Transport::Sse { .. }) {
            return Ok(());
        }
        // As official clients do: the handshake is over before anything else is asked.
        while !self.queue.is_empty() || self.exchanges.iter().any(Exchange::notifies) {
            self.receive_early().await?;
        }
        let request = self.request(Method::GET, self.url.clone(), None, Expects::Stream);
        self.begin(Purpose::ListenDuringCall { open: false }, request);
        let until = Instant::now() + LISTEN_PATIENCE;
        while self
            .exchanges
            .iter()
            .any(|exchange| matches!(exchange.purpose, Purpose::ListenDuringCall { open: false }))
        {
            match tokio::time::timeout_at(until, self.receive_early()).await {
                Ok(received) => received?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Keeps what is received next for later. Cancel safe.
    async fn receive_early(&mut self) -> Result<(), UpstreamError> {
        self.begin_what_can_begin();
        let (at, event) = self.next_event().await;
        if let Some(message) = self.handle(at, event)? {
            let held = self.share.take(message.len() + PIECE).map_err(UpstreamError::NoRoom)?;
            self.early.push_back(held.keep(message, ()));
        }
        Ok(())
    }

    /// Adds headers to the modern requests that are queued from now on, besides what is configured.
    pub fn mirror(&mut self, headers: Vec<(HeaderName, HeaderValue)>) {
        self.extra = headers;
    }

    /// The next thing that the server says, without line ends. Cancel safe.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses a message, breaks off, or has nothing more to say. After a refusal of
    /// one message another may be sent.
    pub async fn receive(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            if let Some(message) = self.early.pop_front() {
                return Ok(message);
            }
            self.begin_what_can_begin();
            if let Some((_, until)) = self.held {
                if !self.listens_during_call() {
                    self.early.extend(self.held.take().map(|(answer, _)| answer));
                    continue;
                }
                let message = match tokio::time::timeout_at(until, self.next_event()).await {
                    // With the answer there, nothing else can fail.
                    Ok((at, event)) => self.handle(at, event).ok().flatten(),
                    Err(_) => self.held.take().map(|(answer, _)| answer),
                };
                self.early.extend(message);
                continue;
            }
            if self.exchanges.is_empty() {
                if self.listens {
                    return std::future::pending().await;
                }
                return Err(UpstreamError::Ended);
            }
            let (at, event) = self.next_event().await;
            let Some(message) = self.handle(at, event)? else { continue };
            if !self.is_answer_overtaking(at) {
                return Ok(message);
            }
            self.held = Some((message, Instant::now() + BEFORE));
            self.end_session();
        }
    }

    /// Begins to send what is queued, in order: what has no answer is accepted before the next is sent.
    fn begin_what_can_begin(&mut self) {
        if matches!(self.transport, Transport::Sse { endpoint: None, .. }) {
            if !self.queue.is_empty() && self.exchanges.is_empty() {
                let mut request = self.request(Method::GET, self.url.clone(), None, Expects::Stream);
                if !matches!(self.transport, Transport::Sse { fallback: SseFallback::Fail, .. }) {
                    request.first_event_by = Some(Instant::now() + ENDPOINT);
                }
                self.begin(Purpose::Sse, request);
            }
            return;
        }
        while !self.queue.is_empty() && !self.is_held_back() {
            let Some(message) = self.queue.pop_front() else { return };
            if let Transport::Sse { endpoint: Some(endpoint), .. } = &self.transport {
                let request = self.request(Method::POST, endpoint.clone(), Some(&message), Expects::Nothing);
                self.begin(Purpose::PostToEndpoint(message), request);
            } else {
                let expects = if message.id().is_some() { Expects::Messages } else { Expects::Nothing };
                if let Some(version) = &message.modern_version {
                    self.version = HeaderValue::from_str(version).ok();
                }
                let request = self.request(Method::POST, self.url.clone(), Some(&message), expects);
                self.begin(Purpose::Post(message), request);
            }
        }
    }

    fn is_held_back(&self) -> bool {
        let is_undecided = matches!(self.transport, Transport::Undecided);
        self.exchanges.iter().any(|exchange| match &exchange.purpose {
            Purpose::Post(message) => message.id().is_none() || is_undecided,
            Purpose::PostToEndpoint(_) => true,
            Purpose::Sse | Purpose::Listen | Purpose::ListenDuringCall { .. } | Purpose::EndSession => false,
        })
    }

    fn begin(&mut self, purpose: Purpose, request: ExchangeRequest) {
        self.exchanges.push(Exchange { purpose, events: SyncWrapper::new(request.begin()), newest: None });
    }

    fn request(&self, method: Method, url: Url, message: Option<&Outgoing>, expects: Expects) -> ExchangeRequest {
        let mut headers = self.headers.clone();
        let accept = match expects {
            Expects::Stream => "text/event-stream",
            Expects::Nothing | Expects::Messages => "application/json, text/event-stream",
        };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if message.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if !message.is_some_and(Outgoing::opens_session) {
            self.introduce_into(&mut headers);
        }
        if let Some(message) = message.filter(|message| message.modern_version.is_some()) {
            message.mirror_into(&mut headers);
            headers.extend(message.mirrored.iter().cloned());
        }
        let repeatable = message.is_none_or(Outgoing::only_reads);
        let body = message.map(|message| message.text.clone());
        let (client, limit, share) = (self.client.clone(), self.limit, self.share.clone());
        ExchangeRequest { client, method, url, headers, body, expects, repeatable, first_event_by: None, limit, share }
    }

    /// Adds the headers that say which session this is, and in which version.
    fn introduce_into(&self, headers: &mut HeaderMap) {
        if matches!(self.transport, Transport::Sse { .. }) {
            return;
        }
        if let Some(session) = &self.session {
            headers.insert(HeaderName::from_static(SESSION_ID), session.clone());
        }
        if let Some(version) = &self.version {
            headers.insert(HeaderName::from_static(PROTOCOL_VERSION), version.clone());
        }
    }

    /// Counts something that was no message.
    ///
    /// # Errors
    /// If there was too much of it.
    pub fn count_invalid(&mut self, piece: &[u8]) -> Result<(), UpstreamError> {
        self.invalid_output.count(piece)
    }

    /// Stops listening, lets a cancellation that is on its way arrive, and ends the session, if there is one; the server
    /// has as long for that as a program for its end.
    pub async fn close(mut self, graces: Graces) {
        self.queue.clear();
        self.listens = false;
        self.exchanges.retain(|exchange| exchange.is_answered() || exchange.cancels() || exchange.ends_session());
        let patience = if self.exchanges.iter().any(Exchange::cancels) {
            CANCELLATION
        } else if self.exchanges.iter().any(Exchange::ends_session) {
            graces.eof
        } else {
            DRAIN
        };
        let until_read = async { while !self.exchanges.is_empty() && self.receive().await.is_ok() {} };
        let _ = tokio::time::timeout(patience, until_read).await;
        self.exchanges.clear();
        if self.session.is_none() || matches!(self.transport, Transport::Sse { .. }) {
            return;
        }
        let mut request = self.request(Method::DELETE, self.url.clone(), None, Expects::Nothing);
        request.repeatable = false;
        match tokio::time::timeout(graces.eof, request.send()).await {
            // 404: it had ended already; 405: the server ends sessions by itself.
            Ok(Ok((response, _)))
                if response.status().is_success() || matches!(response.status().as_u16(), 404 | 405) => {}
            Ok(Ok((response, _))) => {
                tracing::debug!(status = response.status().as_u16(), "the server does not end the session");
            }
            Ok(Err(error)) => tracing::debug!(%error, "the session was not ended"),
            Err(_) => tracing::debug!("the server did not end the session in time"),
        }
    }
}
