//! The mission sentence: each HTTP request looks up the user's token, fills a preparsed config with it, starts a fresh
//! MCP server, and streams it back.
//!
//! Invariants: nothing here is kept between requests; nothing is started for a request that will be refused; a server
//! that has been started belongs to exactly one task, which returns only when nothing of it is left, or waits, with nothing
//! of anybody in it, for its only request.

// what comes in: checks and reading, what is answered without a server, and how a call begins
mod incoming;

// one request and the server that works at it
mod exchange;

// the way back: events, the final message, errors
mod response;

// what stays open: listeners, subscriptions, HTTP+SSE
mod stream;

// what a user gets whose token is missing
mod connect;

// what is remembered of servers between requests
mod server_facts;

// what a person gives is tried
mod probe;

// what a server turns out to be
mod server_report;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Span, field};

use crate::audit::{Audit, Event, EventKind, Outcome};
use crate::auth::{AuthError, Authenticator, PeerAddr, check_origin};
use crate::clock::Clock;
use crate::config::{Config, Server};
use crate::keyring::Keyring;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::long_work::by_length;
use crate::mcp::message::{Fault, Kind, Malformed, Message};
use crate::mcp::modern;
use crate::mcp::session::Session;
use crate::memory::{Memory, Share};
use crate::metrics::Metrics;
use crate::rate_limit::LogRateLimit;
use crate::relay::{Mailbox, NotDelivered, Relay, longest_message};
use crate::respond::Body;
use crate::store::TokenStore;
use crate::telemetry::{LogThrottle, encode_for_log};
use crate::tokens::TokenSource;
use crate::upstream::Upstream;
use crate::upstream::http::HttpServers;
use crate::upstream::process::group::Graces;
use crate::upstream::spares::{Spares, Starter};
use crate::user::{Caller, UserId};

pub use connect::told::{ConnectionChanges, tell_of_change};
use exchange::conversation::until_forced;
use exchange::course::Course;
use incoming::read;
pub use probe::Probes;
pub use response::error;
use response::error::BridgeError;
use response::reason::reason_of;
pub use server_facts::ServerFacts;
pub use server_report::ServerReport;

/// What it takes to answer requests; shared by all of them, and immutable.
pub struct Bridge {
    /// The configuration.
    pub config: Arc<Config>,
    /// Says who is calling.
    pub authenticator: Arc<Authenticator>,
    /// Lets requests in.
    pub limits: Limits,
    /// Counts what requests hold.
    pub memory: Memory,
    /// Has the users' tokens.
    pub tokens: TokenSource,
    /// Remembers what sessions set.
    pub store: Arc<TokenStore>,
    /// Says that it fails, if not at each request.
    pub store_failure_log: LogThrottle,
    /// Seals sessions.
    pub keyring: Arc<Keyring>,
    /// Starts servers here.
    pub starter: Starter,
    /// Servers that were started before the request that they are for.
    pub spares: Spares,
    /// Finds the exchange that something is for, on whichever node it is.
    pub relay: Relay,
    /// What has been learned of servers.
    pub server_facts: ServerFacts,
    /// Which users try something at this moment.
    pub probes: Probes,
    /// Calls servers elsewhere.
    pub http: HttpServers,
    /// Writes down who did what with users' tokens.
    pub audit: Audit,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What the log says of requests that are refused.
    pub refusals: LogRateLimit,
    /// Says when to end.
    pub lifecycle: Lifecycle,
    /// Says what time it is.
    pub clock: Clock,
}

/// The connection a request came over.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: PeerAddr,
    /// Cancelled when the other end has closed it, seen even when nothing is being read or written.
    pub gone: CancellationToken,
}

/// What is known of a request when it is refused.
#[derive(Default)]
struct Known {
    /// Its id as written, if it wants an answer.
    id: Option<String>,
    /// Whether it is one of a legacy session.
    has_session: bool,
}

/// Who is asking what of which server.
struct IncomingMessage {
    caller: Caller,
    server: Arc<Server>,
    head: Parts,
    /// The legacy session that the request names.
    session: Option<Session>,
    message: Message,
    /// Whose turn it is to wait for a permit, among the messages of a batch.
    turn: Option<Arc<Mutex<()>>>,
    /// How it has gone so far.
    course: Course,
}

impl Bridge {
    /// Answers a request to `/{server}/mcp`. `server` is the path's segment.
    pub async fn answer(
        self: &Arc<Self>,
        server: &str,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Body> {
        let mut known = Known::default();
        match self.handle(server, request, connection, &mut known).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = self.refuse((server, connection), &error, known.id.as_deref());
                if known.id.is_some() && known.has_session {
                    *response.status_mut() = error.status_in_session();
                }
                response
            }
        }
    }

    /// The response to a request to a path that leads nowhere.
    #[must_use]
    pub fn not_found(&self, connection: &Connection) -> Response<Body> {
        self.refuse(("", connection), &BridgeError::NotFound, None)
    }

    /// The response to a request that goes no further.
    fn refuse(
        &self,
        (server, connection): (&str, &Connection),
        error: &BridgeError,
        id: Option<&str>,
    ) -> Response<Body> {
        let status = error.verdict().0;
        self.metrics.refused(status);
        self.metrics.refused_because(reason_of(error));
        self.write_down_refusal(error);
        if let Some(left_out) = self.refusals.next((connection.peer.source(), status)) {
            let left_out = Some(left_out).filter(|&lines| lines > 0);
            // Any other text of a path is its client's, perhaps a secret.
            let server = self.config.servers.get(server).map(|server| field::display(&server.name));
            tracing::info!(server, status = status.as_u16(), left_out, why = %reason(error), "request refused");
        }
        error.respond(id)
    }

    /// Writes down a credential that is none. There are not many from one source: after those it gets another error.
    fn write_down_refusal(&self, error: &BridgeError) {
        if let BridgeError::Auth(AuthError::Bearer(_) | AuthError::TrustedHeader(_)) = error {
            self.audit.note(&Event { outcome: Outcome::Refused, ..Event::of(EventKind::Refused) });
        }
    }

    /// Who is asking what of which server: a message, for which `begin` finds the token and starts the server.
    async fn handle(
        self: &Arc<Self>,
        server: &str,
        request: Request<Incoming>,
        connection: &Connection,
        known: &mut Known,
    ) -> Result<Response<Body>, BridgeError> {
        let (head, body) = request.into_parts();
        let (caller, server) = self.identify(&head, server, connection)?;
        match head.method {
            Method::POST => {}
            Method::DELETE => return self.end_session(&head, &caller.user, &server).await,
            Method::GET => return self.listen(&head, caller, server, connection).await,
            _ => return Err(BridgeError::Method("GET, POST, DELETE")),
        }
        let body = read::body(&head, body, &self.config.limits, &self.memory.share(&caller.user, usize::MAX)).await?;
        let message = match by_length(body.len(), || Message::parse(body.clone())) {
            Ok(message) => message,
            Err(Malformed { fault: Fault::Batch, .. }) => {
                return self.batch(head, (caller, server), &body, connection).await;
            }
            Err(malformed) => return Err(BridgeError::Malformed(malformed)),
        };
        drop(body);
        known.id = message.id().filter(|_| message.kind() == Kind::Request).map(str::to_owned);
        let has_session = !modern::is_modern(&head.headers, Some(&message)) && message.method() != "initialize";
        let session = if has_session { self.session(&head, &caller.user, &server)? } else { None };
        known.has_session = session.is_some();
        let course = Course::begin(connection, &message);
        self.serve(IncomingMessage { caller, server, head, session, message, turn: None, course }, connection).await
    }

    /// Who is asking for which server.
    fn identify(
        &self,
        head: &Parts,
        server: &str,
        connection: &Connection,
    ) -> Result<(Caller, Arc<Server>), BridgeError> {
        check_origin(head, &self.config)?;
        let caller = self.authenticator.authenticate(&connection.peer, &head.headers)?;
        Span::current().record("user", field::display(&caller.user));
        // What one may not use does not exist.
        let server = self.config.servers.get(server).filter(|server| server.allows(&caller));
        let server = Arc::clone(server.ok_or(BridgeError::NotFound)?);
        Ok((caller, server))
    }

    /// What one conversation with a server may hold: a long message in either direction, and what is queued.
    fn share(&self, user: &UserId, server: &Server) -> Share {
        self.memory.share(user, longest_message(server.process.line.max(self.config.limits.body)))
    }

    /// Where notes arrive for an exchange of `user` with a server.
    fn mailbox(&self, user: &UserId, server: &Server) -> Mailbox {
        self.relay.open(self.share(user, server))
    }

    /// Ends a server that its call no longer needs; `closing` knows when that is done.
    fn close_in_background(&self, upstream: Upstream, server: &Server, closing: &TaskTracker) {
        let (graces, hard) = (Graces::from(&server.process), self.lifecycle.hard.clone());
        let closed = closing.token();
        self.lifecycle.spawn(async move {
            let _closed = closed;
            tokio::select! {
                () = upstream.close(graces) => {}
                () = until_forced(&hard) => {}
            }
        });
    }

    /// Lets what ends something elsewhere be told while nobody waits for it: whoever does not hear it runs on for
    /// nobody.
    fn notify_of_end(&self, telling: impl Future<Output = Result<(), NotDelivered>> + Send + 'static) {
        let hard = self.lifecycle.hard.clone();
        self.lifecycle.spawn(async move {
            tokio::select! {
                told = telling => match told {
                    // Nobody there is nobody to tell.
                    Ok(()) | Err(NotDelivered::Gone) => {}
                    Err(error) => tracing::warn!(%error, "the other side could not be told that a call or a session has ended"),
                },
                () = until_forced(&hard) => {}
            }
        });
    }

    fn store_failed(&self, error: &crate::store::StoreError) -> BridgeError {
        self.metrics.store_failed(error.kind());
        if let Some(unsaid) = self.store_failure_log.turn(error.kind()) {
            tracing::error!(%error, unsaid, "the token store failed");
        }
        BridgeError::Store
    }
}

/// What the log says of a refusal: more than the client is told, and no secret either.
fn reason(error: &BridgeError) -> String {
    match error {
        BridgeError::Auth(why) => why.to_string(),
        other => encode_for_log(&other.to_string()).into_owned(),
    }
}
