//! `GET /{server}/mcp`: what is said to a legacy session of a server's own accord, or of the bridge's. A server runs
//! for it only while the session is subscribed to a resource, unless the operator wants one always; what the servers
//! of calls say of changed lists comes as notes. Source: MCP 2025-11-25, basic/transports, "Listening for Messages from
//! the Server".

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tokio::time::Instant;

use super::on_demand_server::{OnDemandServer, ServerEvent};
use super::subscription;
use super::subscription::filter::Filter;
use super::{Stream, Work};
use crate::bridge::connect::told::{ConnectionWatch, page_is_done};
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::child::Child;
use crate::bridge::exchange::handshake::Handshake;
use crate::bridge::exchange::list_changes::Pace;
use crate::bridge::exchange::notes::Note;
use crate::bridge::exchange::questions::{for_client, seal_question};
use crate::bridge::incoming::read;
use crate::bridge::incoming::session::{introduction, key, learn_client};
use crate::bridge::response::sse::{COMMENT, Outbox, response_channel};
use crate::bridge::{Bridge, Connection};
use crate::config::{Listening, RequestValues, Server, WithoutToken};
use crate::mcp::json::{self, Object};
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::lists::List;
use crate::mcp::message::{FromServer, from_server};
use crate::mcp::modern::{self, Level};
use crate::mcp::mrtr;
use crate::mcp::session::Session;
use crate::mcp::tasks;
use crate::memory::Held;
use crate::relay::{Mailbox, NotDelivered};
use crate::respond::Body;
use crate::store::{SessionState, SessionStatus};
use crate::user::{Caller, UserId};

/// How many questions of one server may wait for answers.
const MOST_OPEN: usize = 64;

/// A session's listener.
pub(super) struct Listener {
    pub(super) stream: Stream,
    /// Whether nothing else is said on its stream.
    owns_stream: bool,
    session: Session,
    state: SessionState,
    server: OnDemandServer,
    /// What is to be said of changed lists.
    pace: Pace,
    /// Questions that have not been answered: the server's id, the id that its client knows, and what both hold.
    open: BTreeMap<String, (String, Held)>,
    /// How often a modern server has been asked to listen.
    asked: u32,
    /// Lets it hear that its user's token has changed.
    watch: ConnectionWatch,
}

/// What happens next.
enum Event {
    /// Something of the server.
    Server(ServerEvent),
    /// A note of another request.
    Note(Note),
    /// It is time to say that this list has changed.
    Changed(List),
    /// It is time to look whether there is a token.
    Look,
}

impl Bridge {
    /// Opens the session's listener, if it has none on any node.
    pub(in crate::bridge) async fn listen(
        self: &Arc<Self>,
        head: &Parts,
        caller: Caller,
        server: Arc<Server>,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        if modern::is_modern(&head.headers, None) {
            return Err(BridgeError::Method("POST"));
        }
        let session = self.session(head, &caller.user, &server)?.ok_or(BridgeError::Method("POST"))?;
        learn_client(&session.client_info);
        if !read::accepts_events(head) {
            return Err(BridgeError::NotAcceptable);
        }
        let permit = Arc::new(self.limits.admit_stream(&caller.user).await?);
        let lifetime = self.remaining(&session);
        let (outbox, inbox) =
            response_channel(self.config.limits.write_stall, Bytes::new(), self.share(&caller.user, &server));
        let listener = self.listener((caller, head), server, session, outbox).await?;
        let guard = self.run_stream(Work::Listener(Box::new(listener)), permit, lifetime, connection);
        // At once: there are proxies that hand headers on with the first byte.
        Ok(inbox.stream_at_once(COMMENT, self.config.limits.keep_alive, guard))
    }

    /// What listens for the session and says what it hears by `outbox`, if nothing else does on any node.
    pub(super) async fn listener(
        self: &Arc<Self>,
        (caller, head): (Caller, &Parts),
        server: Arc<Server>,
        session: Session,
        outbox: Outbox,
    ) -> Result<Listener, BridgeError> {
        let (user, values) = (&caller.user, server.request_values(&head.headers)?);
        let status = self.unless_ended(self.store.session_status(&key(user, &session)).await)?;
        let mailbox = self.claim((user, &server), &session, &status).await?;
        // What is set from now on is told to the mailbox.
        let state = self.unless_ended(self.store.session_state(&key(user, &session)).await)?;
        let mut stream = Stream { bridge: Arc::clone(self), caller, server, outbox, mailbox };
        let watch = stream.watch_connection(&session).await;
        Ok(Listener::new(stream, values, (session, state), watch))
    }

    /// A mailbox that is the session's only listener.
    async fn claim(
        &self,
        (user, server): (&UserId, &Server),
        session: &Session,
        status: &SessionStatus,
    ) -> Result<Mailbox, BridgeError> {
        if let Some(before) = &status.listener {
            let address = before.address.parse().map_err(|_| BridgeError::Relay)?;
            match self.relay.probe(&address).await {
                Err(NotDelivered::Gone) => {}
                Ok(()) => return Err(BridgeError::Listening),
                Err(_) => return Err(BridgeError::Relay),
            }
        }
        let mailbox = self.mailbox(user, server);
        let address = mailbox.address().to_string();
        let claimed = self.store.claim(&key(user, session), status.listener.as_ref(), &address).await;
        if !claimed.map_err(|error| self.store_failed(&error))? {
            return Err(BridgeError::Listening);
        }
        Ok(mailbox)
    }
}

impl Stream {
    /// Lets the listener of `session` hear of changes of its user's token.
    async fn watch_connection(&mut self, session: &Session) -> ConnectionWatch {
        let Self { bridge, caller, server, mailbox, .. } = self;
        let mut watch = ConnectionWatch::new(mailbox, (&caller.user, server));
        if !session.met {
            // What was saved between `initialize` and now nobody has heard of.
            watch.look_from(Instant::now());
        } else if server.without_token == WithoutToken::Start && !bridge.is_connected(&caller.user, server).await {
            watch.look_later();
        }
        watch
    }
}

impl Listener {
    fn new(
        stream: Stream,
        values: RequestValues,
        (session, state): (Session, SessionState),
        watch: ConnectionWatch,
    ) -> Self {
        let server = OnDemandServer::new(&stream, values, &session);
        Self {
            stream,
            owns_stream: true,
            session,
            state,
            server,
            pace: Pace::default(),
            open: BTreeMap::new(),
            asked: 0,
            watch,
        }
    }

    /// The same on a stream that goes on without it.
    pub(super) fn on_shared_stream(self) -> Self {
        Self { owns_stream: false, ..self }
    }

    pub(super) fn finish(&self) {
        if self.owns_stream {
            self.stream.outbox.finish_silently();
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), BridgeError> {
        loop {
            self.server.need(self.is_always() || !self.state.subscriptions.is_empty());
            match self.next_event().await {
                Event::Server(ServerEvent::Handshake(again)) => self.introduce(again).await?,
                Event::Server(ServerEvent::Line(line)) => self.line(&line).await?,
                Event::Server(ServerEvent::Lost) => self.open.clear(),
                Event::Note(Note::Left) => return Ok(()),
                Event::Note(Note::Connection) => {
                    // It has the token of before. The next turn starts another, if there is to be one.
                    self.server.replace();
                    self.open.clear();
                    self.connection_changed(true).await?;
                }
                Event::Look => self.connection_changed(false).await?,
                Event::Note(note) => self.note(note),
                Event::Changed(list) => self.stream.event(list.notification().into()).await?,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        loop {
            tokio::select! {
                event = self.server.next() => return Event::Server(event),
                list = self.pace.next() => return Event::Changed(list),
                () = self.watch.due() => return Event::Look,
                note = self.stream.mailbox.receive() => if let Some(note) = Note::read(&note) {
                    return Event::Note(note);
                },
            }
        }
    }

    pub(super) fn into_child(self) -> Option<Child> {
        self.server.into_child()
    }

    fn is_always(&self) -> bool {
        self.stream.server.listen == Listening::Always
    }

    fn client(&self) -> Introduction {
        introduction(&self.session, tasks::of_client(&self.session.capabilities, false))
    }

    fn level(&self) -> Option<Level> {
        self.state.level.as_deref().and_then(Level::parse)
    }

    /// Tells the client what a change of its user's token means to it; `is_told` says whether there was one.
    async fn connection_changed(&mut self, is_told: bool) -> Result<(), BridgeError> {
        let Stream { bridge, caller, server, .. } = &self.stream;
        let is_connected = bridge.is_connected(&caller.user, server).await;
        if is_told || is_connected {
            self.pace.happened(List::Tools);
        }
        self.watch.seen(is_connected);
        if let Some(done) = page_is_done(&self.session).filter(|_| is_connected) {
            self.stream.event(done.into()).await?;
        }
        Ok(())
    }

    /// Says to a server what its client has said to others before it. What changed while there was none nobody saw.
    async fn introduce(&mut self, again: bool) -> Result<(), BridgeError> {
        self.asked = 0;
        let level = self.level();
        let Some(running) = self.server.running() else { return Ok(()) };
        let upstream = &mut running.child.upstream;
        if let Handshake::Legacy(initialized) = &running.handshake {
            if let Some(level) = level.filter(|_| initialized.offers("logging")) {
                upstream.send(&legacy::set_level(level));
            }
            for uri in &self.state.subscriptions {
                upstream.send(&legacy::change_subscription(uri, true));
            }
        } else {
            self.ask_to_listen();
        }
        for uri in self.state.subscriptions.iter().filter(|_| again) {
            self.stream.event(subscription::updated(uri)).await?;
        }
        Ok(())
    }

    /// Asks a modern server for what a legacy one would say unasked, in place of what was asked before.
    fn ask_to_listen(&mut self) {
        let filter = Filter::of_session(self.is_always(), self.state.subscriptions.clone());
        let (client, level, before) = (self.client(), self.level(), self.asked);
        let Some(running) = self.server.running() else { return };
        let id = |number| format!(r#""{}listen:{number}""#, legacy::RESERVED);
        if before > 0 {
            running.child.upstream.send(&legacy::cancelled(&id(before), "changed"));
        }
        running.child.upstream.send(&filter.request(&id(before + 1), &client, level));
        self.asked += 1;
    }

    async fn line(&mut self, line: &Bytes) -> Result<(), BridgeError> {
        match from_server(line) {
            Some(FromServer::Notification { method, params }) => self.notification(line, &method, params).await,
            Some(FromServer::Request { id, method, params }) => self.question(id, &method, params).await,
            // Answers to what the bridge asked; a refusal changes nothing for the others.
            Some(FromServer::Response { .. }) | None => Ok(()),
        }
    }

    async fn notification(&mut self, line: &Bytes, method: &str, params: Option<&str>) -> Result<(), BridgeError> {
        if let Some(list) = List::changed_by(method) {
            self.pace.happened(list);
            return Ok(());
        }
        let is_modern =
            matches!(self.server.running(), Some(running) if matches!(running.handshake, Handshake::Modern(_)));
        match method {
            // Progress belongs to a request, and there is none; the rest is between the bridge and a modern server.
            "notifications/progress" | subscription::ACKNOWLEDGED => Ok(()),
            "notifications/cancelled" => match self.cancelled(params) {
                Some(event) => self.stream.event(event.into()).await,
                None => Ok(()),
            },
            _ if is_modern => self.stream.event(subscription::untagged(line)).await,
            _ => self.stream.event(line.clone()).await,
        }
    }

    /// The server takes a question back: said with the id that its client knows.
    fn cancelled(&mut self, params: Option<&str>) -> Option<String> {
        let mut params = Object::parse(params?).ok()?;
        let (sealed, _held) = self.open.remove(params.get("requestId")?)?;
        let sealed = json::quote(&sealed);
        params.set("requestId", &sealed);
        Some(format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}}"#, params.write()))
    }

    /// Puts a question of the server to the client, with an id that brings the answer back to this node.
    async fn question(&mut self, id: &str, method: &str, params: Option<&str>) -> Result<(), BridgeError> {
        let Some(running) = self.server.running() else { return Ok(()) };
        let may_be_asked = mrtr::capability_for(method, params)
            .is_some_and(|capability| mrtr::declares(&self.session.capabilities, capability));
        // The sealed one is a third longer.
        let held = running.child.share.take(3 * id.len()).ok().filter(|_| may_be_asked && self.open.len() < MOST_OPEN);
        let Some(held) = held else {
            running.child.decline(id, method);
            return Ok(());
        };
        let (bridge, address) = (&self.stream.bridge, self.stream.mailbox.address());
        let (owner, nonce) = (self.stream.owner(), &self.session.nonce);
        let sealed = |id: &str| seal_question(&bridge.keyring, owner, nonce, &address, id);
        let (sealed, text) = for_client(id, method, params.unwrap_or("{}"), sealed);
        self.open.insert(id.to_owned(), (sealed, held));
        self.stream.event(text.into()).await
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Changed(list) => self.pace.happened(list),
            Note::Answer { id, failed, text } if self.open.remove(&id).is_some() => {
                let member = if failed { "error" } else { "result" };
                self.tell(&format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{text}}}"#));
            }
            Note::Tell(text) => {
                let is_change = self.change(&text).is_some();
                match self.server.running().map(|running| &running.handshake) {
                    Some(Handshake::Legacy(_)) => self.tell(&text),
                    Some(Handshake::Modern(_)) if is_change => self.ask_to_listen(),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Says something to the server, if there is one.
    fn tell(&mut self, text: &str) {
        if let Some(running) = self.server.running() {
            running.child.upstream.send(text);
        }
    }

    /// Takes note of what is changed by what would be said to a legacy server.
    fn change(&mut self, text: &str) -> Option<()> {
        let message = Object::parse(text).ok()?;
        let params = message.get_object("params")?;
        let uri = params.get_string("uri").map(std::borrow::Cow::into_owned);
        match &*message.get_string("method")? {
            "logging/setLevel" => self.state.level = Some(params.get_string("level")?.into_owned()),
            "resources/subscribe" => {
                let uri = uri?;
                if !self.state.subscriptions.contains(&uri) {
                    self.state.subscriptions.push(uri);
                }
            }
            "resources/unsubscribe" => {
                let uri = uri?;
                self.state.subscriptions.retain(|subscribed| *subscribed != uri);
            }
            _ => return None,
        }
        Some(())
    }
}
