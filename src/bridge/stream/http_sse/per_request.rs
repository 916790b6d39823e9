//! HTTP+SSE with `sse: request`, as a session like any other: each message of its client gets what it would get by itself, a fresh server if
//! it asks for one, and what there is to say goes out on the one stream. A server stays only while the session is
//! subscribed to something.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::bridge::error::BridgeError;
use crate::bridge::exchange::course::Course;
use crate::bridge::exchange::notes::Note;
use crate::bridge::response::pending::{Outcome, PendingResponse};
use crate::bridge::response::sse::{Guard, Outbox, ResponsePart, Stalled};
use crate::bridge::stream::{Stream, Work};
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::limits::Permit;
use crate::mcp::headers;
use crate::mcp::message::{Kind, Message};
use crate::mcp::modern;
use crate::mcp::session::{Owner, Session};

/// How far apart a notification and the answer after it go out: the official TypeScript client of this transport loses
/// progress that arrives in one chunk with the answer, however it was flushed.
pub(super) const APART: Duration = Duration::from_millis(10);

/// How long what is under way has to say that it ends with the stream.
const GOODBYE: Duration = Duration::from_secs(1);

/// The stream of a client that posts its messages.
pub(in crate::bridge::stream) struct PerRequest {
    pub(in crate::bridge::stream) stream: Stream,
    replies: Arc<StreamReplies>,
    /// Stands for the head of each message.
    head: Parts,
    /// Gone when the stream is.
    connection: Connection,
    _gone: DropGuard,
    permit: Arc<Permit>,
    /// What was agreed on, once anything was.
    session: Option<Session>,
    /// Ends the session's listener.
    listener: Option<Guard>,
    /// What has been asked and not answered.
    under_way: TaskTracker,
    /// Cancelled when what is under way ends with the stream.
    over: CancellationToken,
}

/// The one way back of everything that is asked on a stream.
struct StreamReplies {
    outbox: Outbox,
    /// When the last event went out that was no answer.
    told: Mutex<Instant>,
    /// The session's id, once it has begun.
    session: OnceLock<HeaderValue>,
}

impl PerRequest {
    pub(in crate::bridge::stream) fn new(
        stream: Stream,
        head: &Parts,
        connection: &Connection,
        permit: Arc<Permit>,
    ) -> Self {
        let mut head = head.clone();
        for name in [headers::PROTOCOL_VERSION, headers::SESSION_ID] {
            head.headers.remove(name);
        }
        head.headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let gone = connection.gone.child_token();
        let connection = Connection { peer: connection.peer, gone: gone.clone() };
        let told = Mutex::new(Instant::now());
        let replies = Arc::new(StreamReplies { outbox: stream.outbox.clone(), told, session: OnceLock::new() });
        Self {
            stream,
            replies,
            head,
            connection,
            _gone: gone.drop_guard(),
            permit,
            session: None,
            listener: None,
            under_way: TaskTracker::new(),
            over: CancellationToken::new(),
        }
    }

    /// Takes messages until the bridge stops and everything has been answered.
    pub(in crate::bridge::stream) async fn run(&mut self) -> Result<(), BridgeError> {
        let (soft, under_way) = (self.stream.bridge.lifecycle.soft.clone(), self.under_way.clone());
        let stopped = async {
            soft.cancelled().await;
            under_way.close();
            under_way.wait().await;
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                // First, so that what was accepted before the stop is asked.
                biased;
                note = self.stream.mailbox.receive() => if let Some(Note::Tell(text)) = Note::read(&note) {
                    self.take(text).await;
                },
                () = &mut stopped => return Err(BridgeError::Stopped),
            }
        }
    }

    /// Lets a message be answered, however long that takes.
    async fn take(&mut self, text: String) {
        let Ok(message) = Message::parse(text.into()) else { return };
        self.begin_session().await;
        let id = message.id().filter(|_| message.kind() == Kind::Request).map(str::to_owned);
        let session = self.session.clone().filter(|_| message.method() != "initialize");
        let (bridge, server) = (&self.stream.bridge, Arc::clone(&self.stream.server));
        // Also while it waits for a permit, like the body of any other request.
        let message = message.counted(&bridge.memory.share(&self.stream.caller.user, usize::MAX));
        let (caller, head) = (self.stream.caller.clone(), self.head.clone());
        let course = Course::begin(&self.connection, &message);
        let incoming = IncomingMessage { caller, server, head, session, message, turn: None, course };
        let (replies, connection, over) = (Arc::clone(&self.replies), self.connection.clone(), self.over.clone());
        let answering = {
            let bridge = Arc::clone(bridge);
            async move {
                tokio::select! {
                    () = replies.answer(&bridge, incoming, id.as_deref(), &connection) => {}
                    () = over.cancelled() => if let Some(id) = &id {
                        replies.finish(BridgeError::Interrupted.document(Some(id))).await;
                    },
                }
            }
        };
        bridge.lifecycle.spawn(self.under_way.track_future(answering.in_current_span()));
    }

    /// Takes up the session that has begun, and listens for it.
    async fn begin_session(&mut self) {
        let Stream { bridge, caller, server, .. } = &self.stream;
        if self.session.is_none() {
            let id = self.replies.session.get().and_then(|id| id.to_str().ok());
            let owner = Owner { user: &caller.user, server: &server.name };
            self.session = id.and_then(|id| Session::open(&bridge.keyring, owner, id, bridge.clock.now()));
        }
        let Some(session) = self.session.clone().filter(|_| self.listener.is_none()) else { return };
        let (lifetime, outbox) = (bridge.remaining(&session), self.replies.outbox.clone());
        match bridge.listener((caller.clone(), &self.head), Arc::clone(server), session, outbox).await {
            Ok(listener) => {
                let work = Work::Listener(Box::new(listener.on_shared_stream()));
                let permit = Arc::clone(&self.permit);
                self.listener = Some(bridge.run_stream(work, permit, lifetime, &self.connection));
            }
            Err(error) => tracing::warn!(%error, "the listener of a session could not be opened"),
        }
    }

    /// Every request that has no answer gets an error, then the stream ends.
    pub(in crate::bridge::stream) async fn finish(&mut self) {
        self.listener = None;
        self.over.cancel();
        self.under_way.close();
        let _ = timeout(GOODBYE, self.under_way.wait()).await;
        self.stream.outbox.finish_silently();
    }
}

impl StreamReplies {
    /// Answers a message. Its id is known if it wants that.
    async fn answer(&self, bridge: &Arc<Bridge>, incoming: IncomingMessage, id: Option<&str>, connection: &Connection) {
        let server = Arc::clone(&incoming.server);
        let response = if modern::is_modern(&incoming.head.headers, Some(&incoming.message)) {
            Err(BridgeError::Version)
        } else {
            match bridge.begin(incoming, connection).await {
                Ok(Outcome::Pending(pending)) if pending.subscription.is_none() => return self.forward(pending).await,
                Ok(Outcome::Pending(pending)) => pending.respond(bridge).await,
                Ok(Outcome::Answered(response)) => Ok(response),
                Err(error) => Err(error),
            }
        };
        let response = response.unwrap_or_else(|error| bridge.refuse((server.name.as_str(), connection), &error, id));
        if id.is_some()
            && let Ok(document) = response.into_body().collect().await
        {
            self.finish(document.to_bytes()).await;
        }
    }

    /// Says on the stream what is said about one request.
    async fn forward(&self, exchange: PendingResponse) {
        // The guard is dropped at the end: then nobody waits any more.
        let PendingResponse { mut inbox, guard: _guard, .. } = exchange;
        loop {
            match inbox.next().await {
                ResponsePart::Event(text) => {
                    if self.event(text).await.is_err() {
                        return;
                    }
                }
                ResponsePart::Final(message) => {
                    if let Some(session) = message.session {
                        // A client that initializes again stays in the session that it has.
                        let _ = self.session.set(session);
                    }
                    return self.finish(message.text.into_bytes()).await;
                }
                ResponsePart::Nothing => return,
            }
        }
    }

    async fn event(&self, text: Bytes) -> Result<(), Stalled> {
        self.outbox.event(text).await?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }

    async fn finish(&self, text: Bytes) {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        sleep_until(told + APART).await;
        // A client that takes nothing learns nothing.
        let _ = self.outbox.event(text).await;
    }
}
