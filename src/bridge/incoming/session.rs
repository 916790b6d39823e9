//! A legacy session, the same on every node: its id says what was agreed, the store says what changed since.

use std::sync::Arc;

use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use crate::bridge::error::BridgeError;
use crate::bridge::exchange::notes::Note;
use crate::bridge::{Bridge, IncomingMessage};
use crate::clock::UnixTime;
use crate::config::Server;
use crate::mcp::era::{Era, Version};
use crate::mcp::headers;
use crate::mcp::json::Object;
use crate::mcp::legacy::{self, Asked, Introduction};
use crate::mcp::message::{Answer, FromServer, Kind, Message};
use crate::mcp::modern::{self, Level};
use crate::mcp::session::{self, Owner, Session};
use crate::relay::NotDelivered;
use crate::request_id::RequestId;
use crate::respond::{self, Body};
use crate::secret::Credential;
use crate::store::{CallKey, MAX_URI, Rates, SessionKey, SessionStatus, SessionUpdate, StoreError};
use crate::tokens::TokenError;
use crate::user::UserId;

/// The session of `user` as the store knows it.
pub(in crate::bridge) fn key<'a>(user: &'a UserId, session: &'a Session) -> SessionKey<'a> {
    SessionKey { user, nonce: &session.nonce, expires: session.expires }
}

/// A change of a session's subscriptions that counts once the server has agreed to it.
pub(in crate::bridge) struct Subscription {
    user: UserId,
    session: Session,
    /// The request.
    message: Message,
    uri: String,
    adds: bool,
}

impl Bridge {
    /// The id of a session that begins now at this version. `server` is the era of the server that answered, if one did.
    ///
    /// # Errors
    /// The client says too much of itself.
    pub(in crate::bridge) fn begin_session(
        &self,
        owner: Owner<'_>,
        asked: &Asked,
        version: Version,
        server: Option<Era>,
    ) -> Result<HeaderValue, BridgeError> {
        let session = Session {
            version,
            client_info: session::brief_client_info(asked.client_info.as_deref()),
            capabilities: asked.capabilities.clone(),
            era: server.unwrap_or(Era::Legacy),
            met: server.is_some(),
            nonce: session::fresh_nonce(),
            expires: UnixTime(self.clock.now().0 + self.config.limits.session_lifetime.as_secs()),
        };
        let id = session.seal(&self.keyring, owner).map_err(|_| BridgeError::ClientTooLong)?;
        Ok(HeaderValue::from_str(&id).expect("a sealed text is base64url"))
    }

    /// The session that a request of the legacy era names; an id that does not open is as good as a session that has
    /// ended.
    pub(in crate::bridge) fn session(
        &self,
        head: &Parts,
        user: &UserId,
        server: &Server,
    ) -> Result<Option<Session>, BridgeError> {
        let id = headers::single(&head.headers, headers::SESSION_ID).map_err(|_| BridgeError::Session)?;
        let Some(id) = id else { return Ok(None) };
        let owner = Owner { user, server: &server.name };
        Session::open(&self.keyring, owner, id, self.clock.now()).map(Some).ok_or(BridgeError::Session)
    }

    /// How long a session still lasts.
    pub(in crate::bridge) fn remaining(&self, session: &Session) -> Duration {
        Duration::from_secs(session.expires.0.saturating_sub(self.clock.now().0))
    }

    /// What is kept of a session that has not been ended.
    ///
    /// # Errors
    /// The session was ended, or nobody knows whether it was.
    pub(in crate::bridge) fn unless_ended<T>(&self, kept: Result<Option<T>, StoreError>) -> Result<T, BridgeError> {
        kept.map_err(|error| self.store_failed(&error))?.ok_or(BridgeError::Session)
    }

    /// The user's token, and the status of the session if there is one, for a call that is counted: one command to the store.
    ///
    /// # Errors
    /// The call may not be made yet; or the session was ended, or nobody knows whether it was.
    pub(in crate::bridge) async fn token_and_status(
        &self,
        user: &UserId,
        server: &Arc<Server>,
        session: Option<&Session>,
    ) -> Result<(Result<Option<Credential>, TokenError>, SessionStatus), BridgeError> {
        let session = session.map(|session| key(user, session));
        let call = CallKey { user, server: &server.name, session: session.as_ref(), rates: self.rates(server) };
        let (token, kept) = self.tokens.for_call(server, &call).await?;
        Ok((token, self.unless_ended(kept)?))
    }

    /// Counts a call of a server that is there already.
    ///
    /// # Errors
    /// It may not be made yet.
    pub(in crate::bridge) async fn count_call(&self, user: &UserId, server: &Server) -> Result<(), BridgeError> {
        let call = CallKey { user, server: &server.name, session: None, rates: self.rates(server) };
        self.store.status_for_call(&call).await.map(drop).map_err(BridgeError::TooSoon)
    }

    fn rates(&self, server: &Server) -> Rates {
        Rates { of_user: self.config.limits.rate, at_server: server.rate }
    }

    /// `DELETE /{server}/mcp`: ends the session on every node, and its listener wherever that is.
    pub(in crate::bridge) async fn end_session(
        self: &Arc<Self>,
        head: &Parts,
        user: &UserId,
        server: &Server,
    ) -> Result<Response<Body>, BridgeError> {
        if modern::is_modern(&head.headers, None) {
            return Err(BridgeError::Method("POST"));
        }
        let session = self.session(head, user, server)?.ok_or(BridgeError::NoSession)?;
        self.limits.admit_message(user, 0).await?;
        let (bridge, user) = (Arc::clone(self), user.clone());
        // Whoever ends a session often leaves at once. Its listener would never hear of it.
        let ended = self.lifecycle.to_the_end(async move { bridge.revoke(&user, &session).await });
        let response = ended.await.unwrap_or(Err(BridgeError::Store))?;
        tracing::info!(server = %server.name, method = "DELETE", status = 204, "session ended");
        Ok(response)
    }

    /// Ends a session, and its listener wherever that is.
    async fn revoke(&self, user: &UserId, session: &Session) -> Result<Response<Body>, BridgeError> {
        let status = self.unless_ended(self.store.session_status(&key(user, session)).await)?;
        let revoked = self.store.revoke(&key(user, session)).await;
        // One that has claimed the session meanwhile is told instead; one that claims it from now on is refused.
        let claimed = revoked.map_err(|error| self.store_failed(&error))?;
        let listener = claimed.or(status.listener.map(|listener| listener.address));
        if let Some(address) = listener.and_then(|address| address.parse().ok()) {
            let relay = self.relay.clone();
            self.notify_of_end(async move { relay.insist(&address, Note::Left.write()).await });
        }
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    /// Leaves a note for the session's listener, where it has one.
    pub(in crate::bridge) async fn tell_listener(&self, address: Option<&str>, note: Note) {
        let Some(address) = address.and_then(|address| address.parse().ok()) else { return };
        match self.relay.deliver(&address, note.write()).await {
            Ok(()) | Err(NotDelivered::Gone) => {}
            Err(error) => tracing::warn!(%error, "a session's listener could not be notified"),
        }
    }

    /// `logging/setLevel`: remembered, and said to every server that is started for the session from now on.
    pub(in crate::bridge) async fn set_level(
        &self,
        incoming: &IncomingMessage,
        session: &Session,
    ) -> Result<Response<Body>, BridgeError> {
        let level = incoming.message.param_string("level").and_then(|name| Level::parse(&name));
        let level = level.ok_or(BridgeError::Level)?;
        let noted = self.store.set_level(&key(&incoming.caller.user, session), level.as_str()).await;
        self.noted(noted, legacy::set_level(level)).await?;
        Ok(agreed(&incoming.message))
    }

    /// A change that was noted is also said to the session's listener.
    async fn noted(&self, noted: Result<SessionUpdate, StoreError>, text: String) -> Result<(), BridgeError> {
        match noted.map_err(|error| self.store_failed(&error))? {
            SessionUpdate::Kept(listener) => {
                self.tell_listener(listener.as_deref(), Note::Tell(text)).await;
                Ok(())
            }
            SessionUpdate::NoRoom => Err(BridgeError::Subscriptions),
            SessionUpdate::Ended => Err(BridgeError::Session),
        }
    }

    /// Changes the subscriptions of a session whose server is modern, and is told of them when it listens; any other must
    /// be asked first.
    pub(super) async fn change_locally(
        &self,
        incoming: &IncomingMessage,
    ) -> Result<Option<Response<Body>>, BridgeError> {
        let change = incoming.subscription()?.filter(|change| change.session.era == Era::Modern);
        let Some(change) = change else { return Ok(None) };
        self.limits.admit_message(&incoming.caller.user, change.message.text().len()).await?;
        self.change(&change).await?;
        Ok(Some(agreed(&change.message)))
    }

    /// The server has answered a change of subscriptions: if it agreed, so does the session.
    pub(in crate::bridge) async fn after_subscription(
        &self,
        change: Subscription,
        response: Response<Body>,
    ) -> Result<Response<Body>, BridgeError> {
        let Body::Full(pieces) = response.body() else { return Ok(response) };
        let text: Vec<u8> = pieces.iter().flatten().copied().collect();
        let answer = str::from_utf8(&text).ok().and_then(FromServer::parse);
        match answer {
            Some(FromServer::Response { answer: Answer::Result(_), .. }) => {
                self.change(&change).await?;
                Ok(response)
            }
            _ => Ok(response),
        }
    }

    async fn change(&self, change: &Subscription) -> Result<(), BridgeError> {
        let key = key(&change.user, &change.session);
        let noted = if change.adds {
            self.store.subscribe(&key, &change.uri).await
        } else {
            self.store.unsubscribe(&key, &change.uri).await
        };
        self.noted(noted, legacy::change_subscription(&change.uri, change.adds)).await
    }
}

/// The answer to a request that was agreed to.
fn agreed(message: &Message) -> Response<Body> {
    respond::json(StatusCode::OK, legacy::result(message.id().unwrap_or("null"), "{}"))
}

/// Learns what the client of the request that this task serves calls itself, for what is written down of it.
pub(in crate::bridge) fn learn_client(client_info: &str) {
    let Some(request) = RequestId::current() else { return };
    let info = Object::parse(client_info).unwrap_or_default();
    if let Some(name) = info.get_string("name") {
        request.introduce(&name);
    }
}

impl IncomingMessage {
    /// The change of the session's subscriptions that this request asks for.
    ///
    /// # Errors
    /// The URI is longer than what is kept.
    pub(in crate::bridge) fn subscription(&self) -> Result<Option<Subscription>, BridgeError> {
        let Some(session) = self.session.as_ref().filter(|_| is_subscription(&self.message)) else { return Ok(None) };
        let adds = self.message.method() == "resources/subscribe";
        let Some(uri) = self.message.param_string("uri") else { return Ok(None) };
        if uri.len() > MAX_URI {
            return Err(BridgeError::Subscriptions);
        }
        let (user, session, message) = (self.caller.user.clone(), session.clone(), self.message.clone());
        Ok(Some(Subscription { user, session, message, uri: uri.into_owned(), adds }))
    }
}

/// Whether a request changes a session's subscriptions.
pub(in crate::bridge) fn is_subscription(message: &Message) -> bool {
    message.kind() == Kind::Request && matches!(message.method(), "resources/subscribe" | "resources/unsubscribe")
}

/// How the bridge introduces the client of a session to a fresh server.
pub(in crate::bridge) fn introduction(session: &Session, capabilities: String) -> Introduction {
    Introduction { version: session.version, client_info: session.client_info.clone(), capabilities }
}
