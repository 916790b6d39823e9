//! `GET /{server}/mcp`: what a server says to a legacy session of its own accord. Source: MCP 2025-11-25,
//! basic/transports, "Listening for Messages from the Server".

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::{Child, Heard, Stream, Work};
use crate::bridge::error::BridgeError;
use crate::bridge::meet::{For, Met};
use crate::bridge::questions::{Note, for_client, seal_question};
use crate::bridge::session::{introduction, key};
use crate::bridge::sse::way_back;
use crate::bridge::talk::text;
use crate::bridge::{Bridge, Connection, read};
use crate::config::Server;
use crate::mcp::json::{self, Object};
use crate::mcp::legacy::{self, Initialized, without_tasks};
use crate::mcp::message::FromServer;
use crate::mcp::modern::{self, Level};
use crate::mcp::mrtr;
use crate::mcp::session::Session;
use crate::relay::{Mailbox, NotDelivered};
use crate::respond::Body;
use crate::store::{SessionState, Standing};
use crate::upstream::UpstreamError;
use crate::user::UserId;

use super::subscription::{self, Filter};

/// How many questions of one server may wait for answers.
const MOST_OPEN: usize = 64;

/// A session's listener.
pub(super) struct Listener {
    pub(super) stream: Stream,
    session: Session,
    state: SessionState,
    /// Questions that have not been answered: the server's id, and the id that its client knows.
    open: BTreeMap<String, String>,
    /// How often a modern server has been asked to listen.
    asked: u32,
}

impl Bridge {
    /// Opens the session's listener, if it has none on any node.
    pub(in crate::bridge) async fn listen(
        self: &Arc<Self>,
        head: &Parts,
        user: UserId,
        server: Arc<Server>,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        if modern::is_modern(&head.headers, None) {
            return Err(BridgeError::Method("POST"));
        }
        let session = self.session(head, &user, &server)?.ok_or(BridgeError::Method("POST"))?;
        if !read::accepts_events(head) {
            return Err(BridgeError::NotAcceptable);
        }
        let (permit, token, standing) = match self.admit_stream(&user, &server, Some(&session)).await? {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(refusal),
        };
        let mailbox = self.claim(&user, &session, &standing).await?;
        // What is set from now on is told to the mailbox.
        let state = self.alive(self.store.session_state(&key(&user, &session)).await)?;
        let child = Child::staying(self, &user, &server, token)?;
        let lifetime = self.remaining(&session);
        let (outbox, inbox) = way_back(self.config.limits.write_stall, Bytes::new(), child.share.clone());
        let stream = Stream { bridge: Arc::clone(self), user, server, child, outbox, mailbox };
        let listener = Listener { stream, session, state, open: BTreeMap::new(), asked: 0 };
        let guard = self.run_stream(Work::Listener(listener), permit, lifetime, connection);
        Ok(inbox.stream_at_once(None, self.config.limits.keep_alive, guard))
    }

    /// A mailbox that is the session's only listener.
    async fn claim(&self, user: &UserId, session: &Session, standing: &Standing) -> Result<Mailbox, BridgeError> {
        if let Some(before) = &standing.listener {
            let address = before.address.parse().map_err(|_| BridgeError::Relay)?;
            match self.relay.probe(&address).await {
                Err(NotDelivered::Gone) => {}
                Ok(()) => return Err(BridgeError::Listening),
                Err(_) => return Err(BridgeError::Relay),
            }
        }
        let mailbox = self.relay.open();
        let address = mailbox.address().to_string();
        let claimed = self.store.claim(&key(user, session), standing.listener.as_ref(), &address).await;
        if !claimed.map_err(|error| self.store_failed(&error))? {
            return Err(BridgeError::Listening);
        }
        Ok(mailbox)
    }
}

impl Listener {
    pub(super) async fn run(&mut self) -> Result<(), BridgeError> {
        let capabilities = without_tasks(&self.session.capabilities);
        let client = introduction(&self.session, capabilities);
        let met = self.stream.child.meet_to_listen(&client, For::Session(&self.session)).await?;
        match &met {
            Met::Legacy(initialized) => self.replay(initialized)?,
            Met::Modern(_) => self.ask_to_listen(),
        }
        loop {
            match self.stream.hear().await? {
                Heard::Line(line) => self.line(&line).await?,
                Heard::Note(Note::Left) => return Ok(()),
                Heard::Note(note) => self.note(note, &met),
            }
        }
    }

    /// Says to a legacy server what its client has said to others before it.
    fn replay(&mut self, initialized: &Initialized) -> Result<(), BridgeError> {
        if initialized.version != self.session.version {
            return Err(UpstreamError::VersionChanged.into());
        }
        let upstream = &mut self.stream.child.upstream;
        let level = self.state.level.as_deref().and_then(Level::parse);
        if let Some(level) = level.filter(|_| initialized.offers("logging")) {
            upstream.send(&legacy::set_level(level));
        }
        for uri in &self.state.subscriptions {
            upstream.send(&legacy::change_subscription(uri, true));
        }
        Ok(())
    }

    /// Asks a modern server for everything that a legacy one would say unasked, in place of what was asked before.
    fn ask_to_listen(&mut self) {
        let id = |number| format!(r#""{}listen:{number}""#, legacy::RESERVED);
        if self.asked > 0 {
            let cancelled = legacy::cancelled(&id(self.asked), "changed");
            self.stream.child.upstream.send(&cancelled);
        }
        self.asked += 1;
        let filter = Filter::everything(self.state.subscriptions.clone());
        let client = introduction(&self.session, without_tasks(&self.session.capabilities));
        let level = self.state.level.as_deref().and_then(Level::parse);
        let request = filter.request(&id(self.asked), &client, level);
        self.stream.child.upstream.send(&request);
    }

    async fn line(&mut self, line: &Bytes) -> Result<(), BridgeError> {
        match FromServer::parse(text(line)) {
            Some(FromServer::Notification { method, params }) => self.notification(line, &method, params).await,
            Some(FromServer::Request { id, method, params }) => self.question(id, &method, params).await,
            // Answers to what the bridge asked; a refusal changes nothing for the others.
            Some(FromServer::Response { .. }) => Ok(()),
            None => Ok(self.stream.child.junk(line)?),
        }
    }

    async fn notification(&mut self, line: &Bytes, method: &str, params: Option<&str>) -> Result<(), BridgeError> {
        match method {
            // Progress belongs to a request, and there is none; the rest is between the bridge and a modern server.
            "notifications/progress" | subscription::ACKNOWLEDGED => Ok(()),
            "notifications/cancelled" => match self.cancelled(params) {
                Some(text) => self.stream.event(text.into()).await,
                None => Ok(()),
            },
            _ if self.asked > 0 => self.stream.event(subscription::untagged(line)).await,
            _ => self.stream.event(line.clone()).await,
        }
    }

    /// The server takes a question back: said with the id that its client knows.
    fn cancelled(&mut self, params: Option<&str>) -> Option<String> {
        let mut params = Object::parse(params?).ok()?;
        let sealed = json::quote(&self.open.remove(params.get("requestId")?)?);
        params.set("requestId", &sealed);
        Some(format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}}"#, params.write()))
    }

    /// Puts a question of the server to the client, with an id that brings the answer back to this node.
    async fn question(&mut self, id: &str, method: &str, params: Option<&str>) -> Result<(), BridgeError> {
        let may_be_asked = mrtr::capability_for(method, params)
            .is_some_and(|capability| mrtr::declares(&self.session.capabilities, capability));
        if !may_be_asked || self.open.len() >= MOST_OPEN {
            self.stream.child.decline(id, method);
            return Ok(());
        }
        let (bridge, address) = (&self.stream.bridge, self.stream.mailbox.address());
        let (owner, nonce) = (self.stream.owner(), &self.session.nonce);
        let sealed = |id: &str| seal_question(&bridge.keyring, owner, nonce, &address, id);
        let (sealed, text) = for_client(id, method, params.unwrap_or("{}"), sealed);
        self.open.insert(id.to_owned(), sealed);
        self.stream.event(text.into()).await
    }

    fn note(&mut self, note: Note, met: &Met) {
        let upstream = &mut self.stream.child.upstream;
        match (note, met) {
            (Note::Answer { id, failed, text }, _) if self.open.remove(&id).is_some() => {
                let member = if failed { "error" } else { "result" };
                upstream.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{text}}}"#));
            }
            (Note::Tell(text), Met::Legacy(_)) => upstream.send(&text),
            (Note::Tell(text), Met::Modern(_)) if self.change(&text).is_some() => self.ask_to_listen(),
            _ => {}
        }
    }

    /// Takes up what would be said to a legacy server.
    fn change(&mut self, text: &str) -> Option<()> {
        let message = Object::parse(text).ok()?;
        let params = message.get_object("params")?;
        let uri = params.get_string("uri").map(std::borrow::Cow::into_owned);
        match &*message.get_string("method")? {
            "logging/setLevel" => self.state.level = Some(params.get_string("level")?.into_owned()),
            "resources/subscribe" => self.state.subscriptions.push(uri?),
            "resources/unsubscribe" => {
                let uri = uri?;
                self.state.subscriptions.retain(|subscribed| *subscribed != uri);
            }
            _ => return None,
        }
        Some(())
    }
}
