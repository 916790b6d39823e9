//! HTTP+SSE: a stream, and what its client says to it by POSTs to any node. Source: MCP 2024-11-05, basic/transports,
//! "HTTP with SSE".

mod pending_requests;
pub(super) mod per_request;
pub(super) mod per_session;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{Stream, Work};
use crate::bridge::connect::told::hear_of_changes;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::notes::Note;
use crate::bridge::exchange::questions::Owner;
use crate::bridge::incoming::read;
use crate::bridge::response::sse::response_channel;
use crate::bridge::{Bridge, Connection};
use crate::config::SseServers;
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::message::Message;
use crate::relay::{Address, NotDelivered};
use crate::respond::{self, Body};
use crate::user::Caller;

use per_request::PerRequest;
use per_session::PerSession;

/// How long a message waits for room at a stream whose server is slow to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// The parameter of the endpoint that says which stream a message is for.
const SESSION: &str = "sessionId";

/// Which stream a message is for, sealed to its user and server.
#[derive(Serialize, Deserialize)]
struct StreamId {
    address: String,
    expires: u64,
}

impl Bridge {
    /// Answers a request to `/{server}/sse`. `server` is the path's segment.
    pub async fn answer_sse(
        self: &Arc<Self>,
        server: &str,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Body> {
        let opened = self.open_sse(server, &request.into_parts().0, connection).await;
        opened.unwrap_or_else(|error| self.refuse((server, connection), &error, None))
    }

    /// Answers a request to `/{server}/message`. `server` is the path's segment.
    pub async fn answer_message(
        &self,
        server: &str,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Body> {
        let mut id = None;
        let delivered = self.post_message(server, request, connection, &mut id).await;
        delivered.unwrap_or_else(|error| self.refuse((server, connection), &error, id.as_deref()))
    }

    /// Opens a stream.
    async fn open_sse(
        self: &Arc<Self>,
        server: &str,
        head: &Parts,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        let (caller, server) = self.identify(head, server, connection)?;
        let user = &caller.user;
        if head.method != Method::GET {
            return Err(BridgeError::Method("GET"));
        }
        let permit = Arc::new(self.limits.admit_stream(user).await?);
        let mut mailbox = self.mailbox(user, &server);
        let mut child = None;
        if server.sse == SseServers::Session {
            let values = server.request_values(&head.headers)?;
            // Before the token is read, so that no change of it is missed.
            hear_of_changes(&mut mailbox, (user, &server));
            child = match self.start_stream_server(&caller, &server, values).await? {
                Ok(child) => Some(child),
                // Served as a session like any other, in which the bridge answers.
                Err(_) if server.leads_to_connecting() => None,
                Err(lack) => {
                    let error = self.lead_stream_to_page((user, &server), &lack)(None) + "\n";
                    return Ok(respond::json(StatusCode::FORBIDDEN, error));
                }
            };
        }
        let lifetime = self.config.limits.session_lifetime;
        let expires = self.clock.now().0 + lifetime.as_secs();
        let owner = Owner { user, server: &server.name };
        let id = seal(&self.keyring, owner, &StreamId { address: mailbox.address().to_string(), expires });
        let prefix = self.config.base_path();
        let endpoint = format!("event: endpoint\ndata: {prefix}/{}/message?{SESSION}={id}\n\n", server.name);
        let share = self.share(user, &server);
        let (outbox, inbox) = response_channel(self.config.limits.write_stall, Bytes::new(), share);
        let stream = Stream { bridge: Arc::clone(self), caller, server, outbox, mailbox };
        let work = match child {
            Some(child) => Work::PerSession(Box::new(PerSession::new(stream, child))),
            None => Work::PerRequest(Box::new(PerRequest::new(stream, head, connection, Arc::clone(&permit)))),
        };
        let guard = self.run_stream(work, permit, lifetime, connection);
        Ok(inbox.stream_at_once(endpoint.into(), self.config.limits.keep_alive, guard))
    }

    /// Leads a message to the stream it is for, on whichever node that is.
    async fn post_message(
        &self,
        server: &str,
        request: Request<Incoming>,
        connection: &Connection,
        id: &mut Option<String>,
    ) -> Result<Response<Body>, BridgeError> {
        let (head, body) = request.into_parts();
        let (Caller { user, .. }, server) = self.identify(&head, server, connection)?;
        if head.method != Method::POST {
            return Err(BridgeError::Method("POST"));
        }
        let owner = Owner { user: &user, server: &server.name };
        let stream = self.stream_of(&head, owner).ok_or(BridgeError::NoStream)?;
        let body = read::body(&head, body, &self.config.limits, &self.memory.share(&user, usize::MAX)).await?;
        self.limits.admit_message(&user, body.len()).await?;
        let message = Message::parse(body).map_err(BridgeError::Malformed)?;
        *id = message.id().map(str::to_owned);
        let note = Note::Tell(message.text().to_owned()).write();
        match self.relay.deliver_within(PATIENCE, &stream, note).await {
            Ok(()) => Ok(respond::text(StatusCode::ACCEPTED, "Accepted")),
            Err(NotDelivered::Gone) => Err(BridgeError::NoStream),
            Err(NotDelivered::TooLarge) => Err(BridgeError::TooLarge),
            Err(NotDelivered::Full | NotDelivered::Failed) => Err(BridgeError::Relay),
        }
    }

    /// The stream that a message is for, if it is one of this user's on this server and has not ended by itself.
    fn stream_of(&self, head: &Parts, owner: Owner<'_>) -> Option<Address> {
        let query = head.uri.query()?;
        let mut named = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == SESSION);
        let (_, sealed) = named.next().filter(|_| named.next().is_none())?;
        let plain = self.keyring.open_text(place(&parts(owner)), &sealed).ok()?;
        let id: StreamId = serde_json::from_slice(&plain).ok()?;
        (self.clock.now().0 < id.expires).then(|| id.address.parse().ok()).flatten()
    }
}

fn parts(owner: Owner<'_>) -> [&str; 4] {
    ["sse", owner.user.issuer(), owner.user.subject(), owner.server.as_str()]
}

fn place<'a>(parts: &'a [&'a str; 4]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}

fn seal(keyring: &Keyring, owner: Owner<'_>, id: &StreamId) -> String {
    let plain = serde_json::to_vec(id).expect("plain fields serialize");
    keyring.seal_text(place(&parts(owner)), &plain)
}
