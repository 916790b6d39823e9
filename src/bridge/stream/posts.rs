//! HTTP+SSE as a session like any other: each message of its client gets what it would get by itself, a fresh server if
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

use super::{Stream, Work};
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::{Begun, Exchange};
use crate::bridge::questions::Note;
use crate::bridge::sse::{Guard, Outbox, Said, Stalled};
use crate::bridge::{Asked, Bridge, Connection};
use crate::limits::Permit;
use crate::mcp::headers;
use crate::mcp::message::{Kind, Message};
use crate::mcp::modern;
use crate::mcp::session::{Owner, Session};
use crate::user::Caller;

/// How far apart a notification and the answer after it go out: the official TypeScript client of this transport loses
/// progress that arrives in one chunk with the answer, however it was flushed.
pub(super) const APART: Duration = Duration::from_millis(10);

/// How long what is under way has to say that it ends with the stream.
const GOODBYE: Duration = Duration::from_secs(1);

/// The stream of a client that posts its messages.
pub(super) struct Posts {
    pub(super) stream: Stream,
    way: Arc<Way>,
    caller: Caller,
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
struct Way {
    outbox: Outbox,
    /// When the last event went out that was no answer.
    told: Mutex<Instant>,
    /// The session's id, once it has begun.
    session: OnceLock<HeaderValue>,
}

impl Posts {
    pub(super) fn new(
        stream: Stream,
        (caller, head): (Caller, &Parts),
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
        let way = Arc::new(Way { outbox: stream.outbox.clone(), told, session: OnceLock::new() });
        Self {
            stream,
            way,
            caller,
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
    pub(super) async fn run(&mut self) -> Result<(), BridgeError> {
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
        let (caller, head) = (self.caller.clone(), self.head.clone());
        let asked = Asked { caller, server, head, session, message, turn: None };
        let (way, connection, over) = (Arc::clone(&self.way), self.connection.clone(), self.over.clone());
        let answering = {
            let bridge = Arc::clone(bridge);
            async move {
                tokio::select! {
                    () = way.answer(&bridge, asked, id.as_deref(), &connection) => {}
                    () = over.cancelled() => if let Some(id) = &id {
                        way.last(BridgeError::Interrupted.document(Some(id))).await;
                    },
                }
            }
        };
        bridge.lifecycle.spawn(self.under_way.track_future(answering.in_current_span()));
    }

    /// Takes up the session that has begun, and listens for it.
    async fn begin_session(&mut self) {
        let Stream { bridge, user, server, .. } = &self.stream;
        if self.session.is_none() {
            let id = self.way.session.get().and_then(|id| id.to_str().ok());
            let owner = Owner { user, server: &server.name };
            self.session = id.and_then(|id| Session::open(&bridge.keyring, owner, id, bridge.clock.now()));
        }
        let Some(session) = self.session.clone().filter(|_| self.listener.is_none()) else { return };
        let (lifetime, outbox) = (bridge.remaining(&session), self.way.outbox.clone());
        match bridge.listener(user.clone(), Arc::clone(server), session, outbox).await {
            Ok(listener) => {
                let work = Work::Listener(Box::new(listener.beside_others()));
                let permit = Arc::clone(&self.permit);
                self.listener = Some(bridge.run_stream(work, permit, lifetime, &self.connection));
            }
            Err(error) => tracing::warn!(%error, "nobody listens for a session"),
        }
    }

    /// Every request that has no answer gets an error, then the stream ends.
    pub(super) async fn say_goodbye(&mut self) {
        self.listener = None;
        self.over.cancel();
        self.under_way.close();
        let _ = timeout(GOODBYE, self.under_way.wait()).await;
        self.stream.outbox.quiet();
    }
}

impl Way {
    /// Answers a message. Its id is known if it wants that.
    async fn answer(&self, bridge: &Arc<Bridge>, asked: Asked, id: Option<&str>, connection: &Connection) {
        let server = Arc::clone(&asked.server);
        let response = if modern::is_modern(&asked.head.headers, Some(&asked.message)) {
            Err(BridgeError::Version)
        } else {
            match bridge.begin(asked, connection).await {
                Ok(Begun::Underway(exchange)) if exchange.subscription.is_none() => return self.say_on(exchange).await,
                Ok(Begun::Underway(exchange)) => exchange.respond(bridge).await,
                Ok(Begun::Answered(response)) => Ok(response),
                Err(error) => Err(error),
            }
        };
        let response = response.unwrap_or_else(|error| bridge.refuse((server.name.as_str(), connection), &error, id));
        if id.is_some()
            && let Ok(document) = response.into_body().collect().await
        {
            self.last(document.to_bytes()).await;
        }
    }

    /// Says on the stream what is said about one request.
    async fn say_on(&self, exchange: Exchange) {
        // The guard is dropped at the end: then nobody waits any more.
        let Exchange { mut inbox, guard: _guard, .. } = exchange;
        loop {
            match inbox.next().await {
                Said::Event(text) => {
                    if self.event(text).await.is_err() {
                        return;
                    }
                }
                Said::Last(last) => {
                    if let Some(session) = last.session {
                        // A client that initializes again stays in the session that it has.
                        let _ = self.session.set(session);
                    }
                    return self.last(last.text).await;
                }
                Said::Nothing => return,
            }
        }
    }

    async fn event(&self, text: Bytes) -> Result<(), Stalled> {
        self.outbox.event(text).await?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }

    async fn last(&self, text: Bytes) {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        sleep_until(told + APART).await;
        // A client that takes nothing learns nothing.
        let _ = self.outbox.event(text).await;
    }
}
