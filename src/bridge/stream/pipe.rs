//! HTTP+SSE: one server for the life of the stream, and what its client says to it by POSTs to any node. Source: MCP
//! 2024-11-05, basic/transports, "HTTP with SSE".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::asked::Asked;
use super::translator::{Said, Translator};
use super::{Child, Stream, Work};
use crate::bridge::error::BridgeError;
use crate::bridge::questions::{Note, Owner};
use crate::bridge::sse::way_back;
use crate::bridge::talk::text;
use crate::bridge::{Bridge, Connection, read, tools};
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::era::Version;
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::message::{FromServer, Kind, Message};
use crate::mcp::mirror::Tools;
use crate::mcp::session;
use crate::mcp::tools::LIST;
use crate::relay::{Address, NotDelivered};
use crate::respond::{self, Body};
use crate::upstream::Upstream;
use crate::user::Caller;

/// How long a message waits for room at a stream whose server is slow to read.
const PATIENCE: Duration = Duration::from_secs(5);

const INTERNAL_ERROR: i64 = -32603;

/// How far apart a notification and the answer after it go out: the official TypeScript client of this transport loses
/// progress that arrives in one chunk with the answer, however it was flushed.
const APART: Duration = Duration::from_millis(10);

/// The parameter of the endpoint that says which stream a message is for.
const SESSION: &str = "sessionId";

/// A client's stream.
pub(super) struct Pipe {
    pub(super) stream: Stream,
    /// Who opened it, and so may use what is permitted to them.
    caller: Caller,
    pub(super) child: Child,
    asked: Asked,
    /// When the last notification went out.
    notified: Instant,
    /// What a modern server needs; a legacy one speaks for itself.
    translator: Option<Translator>,
    /// The tools of a modern server elsewhere, which wants headers that mirror their parameters.
    tools: Arc<Tools>,
}

/// What is heard next.
enum Heard {
    /// The server wrote a line.
    Line(Bytes),
    /// Another request left a note.
    Note(Note),
}

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
        let user = caller.user.clone();
        if head.method != Method::GET {
            return Err(BridgeError::Method("GET"));
        }
        let permit = self.limits.admit_stream(&user).await?;
        let Some(child) = self.open_to_stay(&user, &server).await? else {
            return Ok(self.stream_without_token(&server));
        };
        let (mailbox, lifetime) = (self.relay.open(), self.config.limits.session_lifetime);
        let expires = self.clock.now().0 + lifetime.as_secs();
        let owner = Owner { user: &user, server: &server.name };
        let id = seal(&self.keyring, owner, &StreamId { address: mailbox.address().to_string(), expires });
        let prefix = self.config.public_url.path().trim_end_matches('/');
        let endpoint = format!("event: endpoint\ndata: {prefix}/{}/message?{SESSION}={id}\n\n", server.name);
        let (outbox, inbox) = way_back(self.config.limits.write_stall, Bytes::new(), child.share.clone());
        let stream = Stream { bridge: Arc::clone(self), user, server, outbox, mailbox };
        let (asked, tools) = (Asked::default(), Arc::default());
        let pipe = Pipe { stream, child, caller, asked, notified: Instant::now(), translator: None, tools };
        let guard = self.run_stream(Work::Pipe(Box::new(pipe)), permit, lifetime, connection);
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
        self.limits.pace(&user, body.len()).await?;
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

impl Pipe {
    pub(super) async fn run(&mut self) -> Result<(), BridgeError> {
        self.meet().await?;
        let soft = self.stream.bridge.lifecycle.soft.clone();
        loop {
            let heard = tokio::select! {
                // First, so that what was accepted before the stop is asked.
                biased;
                heard = self.hear() => heard?,
                () = soft.cancelled(), if self.asked.is_empty() => return Err(BridgeError::Stopped),
            };
            match heard {
                Heard::Line(line) => self.line(&line).await?,
                Heard::Note(Note::Tell(text)) => self.tell(text).await?,
                Heard::Note(_) => {}
            }
        }
    }

    async fn hear(&mut self) -> Result<Heard, BridgeError> {
        loop {
            tokio::select! {
                line = self.child.line() => return Ok(Heard::Line(line?)),
                note = self.stream.mailbox.receive() => if let Some(note) = Note::read(&note) {
                    return Ok(Heard::Note(note));
                },
            }
        }
    }

    /// Finds out whether the server needs a translator. A legacy one is met by its client.
    async fn meet(&mut self) -> Result<(), BridgeError> {
        let nobody = Introduction {
            version: Version::NEWEST_LEGACY,
            client_info: session::brief_client_info(None),
            capabilities: "{}".into(),
        };
        let child = &mut self.child;
        if let Some(discovered) = child.discovered(&nobody).await? {
            self.translator = Some(Translator::new(discovered));
            let known = child.bridge.learned.tools(child.whose);
            if matches!(child.upstream, Upstream::Http(_)) {
                self.tools = match known {
                    Some(tools) => tools,
                    None => child.learn_tools(Some(&nobody)).await?,
                };
            }
        }
        Ok(())
    }

    /// What the server says goes out as it came.
    async fn line(&mut self, line: &Bytes) -> Result<(), BridgeError> {
        let said = match &mut self.translator {
            Some(translator) => translator.hear_server(line),
            None => FromServer::parse(text(line)).map(|_| vec![Said::ToClient(line.clone())]),
        };
        match said {
            Some(said) => self.say(said).await,
            None => Ok(self.child.junk(line)?),
        }
    }

    /// What the client says goes in as it came, but for the ids of its requests.
    async fn tell(&mut self, text: String) -> Result<(), BridgeError> {
        let Ok(message) = Message::parse(text.into()) else { return Ok(()) };
        if let Err(unknown) = tools::check(&self.stream.server, &self.caller, &message) {
            let Some(id) = message.id() else { return Ok(()) };
            return self.stream.event(unknown.document(Some(id))).await;
        }
        let message = match (message.kind(), message.method()) {
            (Kind::Request, _) => {
                let Some(ours) = self.asked.ask(&message) else {
                    let refusal = legacy::error(message.id(), INTERNAL_ERROR, "too many requests at once", None);
                    return self.stream.event(refusal.into()).await;
                };
                ours
            }
            (Kind::Notification, "notifications/cancelled") => {
                let Some(ours) = self.asked.cancel(&message) else { return Ok(()) };
                ours
            }
            (Kind::Notification, "notifications/initialized") if self.translator.is_none() => {
                self.child.upstream.send(message.text());
                self.child.upstream.listen();
                return Ok(());
            }
            _ => message,
        };
        let said = match &mut self.translator {
            Some(translator) => translator.hear_client(&message),
            None => vec![Said::ToServer(message.text().to_owned())],
        };
        self.say(said).await
    }

    async fn say(&mut self, all: Vec<Said>) -> Result<(), BridgeError> {
        for said in all {
            match said {
                Said::ToServer(text) => {
                    if let Ok(message) = Message::parse(text.clone().into()) {
                        self.child.mirror(&message, &self.tools);
                    }
                    self.child.upstream.send(&text);
                }
                Said::ToClient(text) => self.event(text).await?,
            }
        }
        Ok(())
    }

    async fn event(&mut self, said: Bytes) -> Result<(), BridgeError> {
        let Some((kind, event)) = self.asked.for_client(&self.shown(said)) else { return Ok(()) };
        if kind == Kind::Response {
            tokio::time::sleep_until(self.notified + APART).await;
        }
        self.stream.event(event).await?;
        if kind == Kind::Notification {
            self.notified = Instant::now();
        }
        Ok(())
    }

    /// What the server says, as the caller may see it.
    fn shown(&self, said: Bytes) -> Bytes {
        let server = &self.stream.server;
        if server.access.tools.is_none() {
            return said;
        }
        match self.asked.answered_by(&said) {
            Some((id, LIST)) => {
                tools::shown(server, &self.caller, &said).unwrap_or_else(|error| error.document(Some(id)))
            }
            _ => said,
        }
    }

    /// Every request that has no answer gets an error, then the stream ends.
    pub(super) async fn say_goodbye(&mut self, error: Option<&BridgeError>) {
        for id in std::mem::take(&mut self.asked).into_ids() {
            let error = error.unwrap_or(&BridgeError::Interrupted).document(Some(&id));
            if self.stream.outbox.event(error).await.is_err() {
                break;
            }
        }
        self.stream.outbox.quiet();
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
