//! A legacy session, the same on every node: its id says what was agreed, the store says what changed since.

use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};

use super::error::BridgeError;
use super::questions::Note;
use super::{Asked, Bridge};
use crate::config::Server;
use crate::mcp::era::Era;
use crate::mcp::headers;
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::message::{Answer, FromServer, Kind, Message};
use crate::mcp::modern::{self, Level};
use crate::mcp::session::{Owner, Session};
use crate::relay::NotDelivered;
use crate::respond::{self, Body};
use crate::secret::Secret;
use crate::store::{MAX_URI, SessionState, StoreError};
use crate::tokens::TokenError;
use crate::user::UserId;

/// Under which key a session's listener is delivered to. The nonce is known to who has the session's id, and to us.
pub(super) fn listener_key(nonce: &str) -> String {
    format!("session:{nonce}")
}

/// A change of a session's subscriptions that counts once the server has agreed to it.
pub(super) struct Subscription {
    session: Session,
    /// The request.
    message: Message,
    uri: String,
    adds: bool,
}

impl Bridge {
    /// The session that a request of the legacy era names; an id that does not open is as good as a session that has
    /// ended.
    pub(super) fn session(&self, head: &Parts, user: &UserId, server: &Server) -> Result<Option<Session>, BridgeError> {
        let id = headers::single(&head.headers, headers::SESSION_ID).map_err(|_| BridgeError::Session)?;
        let Some(id) = id else { return Ok(None) };
        let owner = Owner { user, server: &server.name };
        Session::open(&self.keyring, owner, id, self.clock.now()).map(Some).ok_or(BridgeError::Session)
    }

    /// How long a session still lasts.
    pub(super) fn remaining(&self, session: &Session) -> Duration {
        Duration::from_secs(session.expires.0.saturating_sub(self.clock.now().0))
    }

    /// What is kept of a session that has not been ended. A store that failed is no reason to refuse what needs none.
    ///
    /// # Errors
    /// The session was ended.
    pub(super) fn alive(&self, kept: Result<SessionState, StoreError>) -> Result<SessionState, BridgeError> {
        match kept {
            Ok(state) if state.revoked => Err(BridgeError::Session),
            Ok(state) => Ok(state),
            Err(error) => {
                self.metrics.store_failures.inc();
                tracing::warn!(%error, "what is kept of a session is not known; going on without it");
                Ok(SessionState::default())
            }
        }
    }

    /// The user's token, and what is kept of the session if there is one: one question to the store.
    ///
    /// # Errors
    /// The session was ended.
    pub(super) async fn look_up(
        &self,
        user: &UserId,
        server: &Server,
        session: Option<&Session>,
    ) -> Result<(Result<Option<Secret>, TokenError>, SessionState), BridgeError> {
        let Some(session) = session else {
            return Ok((self.tokens.access_token(user, server).await, SessionState::default()));
        };
        let (token, kept) = self.tokens.in_session(user, server, &session.nonce).await;
        match (&token, kept) {
            // One failure is said once.
            (Err(TokenError::Failed(_)), Err(_)) => Ok((token, SessionState::default())),
            (_, kept) => Ok((token, self.alive(kept)?)),
        }
    }

    /// `DELETE /{server}/mcp`: ends the session on every node, and its listener wherever that is.
    pub(super) async fn end_session(
        &self,
        head: &Parts,
        user: &UserId,
        server: &Server,
    ) -> Result<Response<Body>, BridgeError> {
        if modern::is_modern(&head.headers, None) {
            return Err(BridgeError::Method("POST"));
        }
        let session = self.session(head, user, server)?.ok_or(BridgeError::NoSession)?;
        let state = self.alive(self.store.session_state(&session.nonce).await)?;
        let revoked = self.store.revoke(&session.nonce, self.remaining(&session)).await;
        revoked.map_err(|error| self.store_failed(&error))?;
        // By its address, which is receipted, and by its key, in case it is only now being opened.
        if let Some(address) = state.listener.and_then(|listener| listener.address.parse().ok()) {
            let relay = self.relay.clone();
            self.tell_of_an_end(async move { relay.insist(&address, Note::Left.write()).await });
        }
        let (relay, key) = (self.relay.clone(), listener_key(&session.nonce));
        self.tell_of_an_end(async move { relay.insist_by_key(&key, Note::Left.write()).await });
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    /// Leaves a note for the session's listener, if there is a listener on any node.
    pub(super) async fn tell_listener(&self, session: &Session, note: Note) {
        match self.relay.deliver_by_key(&listener_key(&session.nonce), note.write()).await {
            Ok(()) | Err(NotDelivered::Gone) => {}
            Err(error) => tracing::warn!(%error, "a session's listener could not be told"),
        }
    }

    /// `logging/setLevel`: remembered, and said to every server that is started for the session from now on.
    pub(super) async fn set_level(&self, asked: &Asked, session: &Session) -> Result<Response<Body>, BridgeError> {
        self.alive(self.store.session_state(&session.nonce).await)?;
        let level = asked.message.params_object().get_string("level").and_then(|name| Level::parse(&name));
        let level = level.ok_or(BridgeError::Level)?;
        let kept = self.store.set_level(&session.nonce, level.as_str(), self.remaining(session)).await;
        kept.map_err(|error| self.store_failed(&error))?;
        self.tell_listener(session, Note::Tell(legacy::set_level(level))).await;
        Ok(agreed(&asked.message))
    }

    /// Changes the subscriptions of a session whose server is modern, and is told of them when it listens; any other must
    /// be asked first.
    pub(super) async fn change_locally(&self, asked: &Asked) -> Result<Option<Response<Body>>, BridgeError> {
        let change = asked.subscription()?.filter(|change| change.session.era == Era::Modern);
        let Some(change) = change else { return Ok(None) };
        self.alive(self.store.session_state(&change.session.nonce).await)?;
        self.change(&change).await?;
        Ok(Some(agreed(&change.message)))
    }

    /// The server has answered a change of subscriptions: if it agreed, so does the session.
    pub(super) async fn after_subscription(
        &self,
        change: Subscription,
        response: Response<Body>,
    ) -> Result<Response<Body>, BridgeError> {
        let Body::Full(text) = response.body() else { return Ok(response) };
        let answer = str::from_utf8(text).ok().and_then(FromServer::parse);
        match answer {
            Some(FromServer::Response { answer: Answer::Result(_), .. }) => {
                self.change(&change).await?;
                Ok(response)
            }
            _ => Ok(response),
        }
    }

    async fn change(&self, change: &Subscription) -> Result<(), BridgeError> {
        let nonce = &change.session.nonce;
        let kept = if change.adds {
            self.store.subscribe(nonce, &change.uri, self.remaining(&change.session)).await
        } else {
            self.store.unsubscribe(nonce, &change.uri).await.map(|()| true)
        };
        if !kept.map_err(|error| self.store_failed(&error))? {
            return Err(BridgeError::Subscriptions);
        }
        let told = Note::Tell(legacy::change_subscription(&change.uri, change.adds));
        self.tell_listener(&change.session, told).await;
        Ok(())
    }
}

/// The answer to a request that was agreed to.
fn agreed(message: &Message) -> Response<Body> {
    respond::json(StatusCode::OK, legacy::result(message.id().unwrap_or("null"), "{}"))
}

impl Asked {
    /// The change of the session's subscriptions that this request asks for.
    ///
    /// # Errors
    /// The URI is longer than what is kept.
    pub(super) fn subscription(&self) -> Result<Option<Subscription>, BridgeError> {
        let Some(session) = self.session.as_ref().filter(|_| is_subscription(&self.message)) else { return Ok(None) };
        let adds = self.message.method() == "resources/subscribe";
        let params = self.message.params_object();
        let Some(uri) = params.get_string("uri") else { return Ok(None) };
        if uri.len() > MAX_URI {
            return Err(BridgeError::Subscriptions);
        }
        let (session, message) = (session.clone(), self.message.clone());
        Ok(Some(Subscription { session, message, uri: uri.into_owned(), adds }))
    }
}

/// Whether a request changes a session's subscriptions.
pub(super) fn is_subscription(message: &Message) -> bool {
    message.kind() == Kind::Request && matches!(message.method(), "resources/subscribe" | "resources/unsubscribe")
}

/// How the bridge introduces the client of a session to a fresh server.
pub(super) fn introduction(session: &Session, capabilities: String) -> Introduction {
    Introduction { version: session.version, client_info: session.client_info.clone(), capabilities }
}
