//! What is kept of a legacy session: that it was ended, its log level and its subscriptions. Nothing of it can be read
//! without the session's nonce and a key, and all of it expires with the session.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::record::Names;
use super::{Backend, Lookup, StoreError, TokenStore};
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::user::UserId;

/// The most resources that one session is subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 100;

/// The longest URI of a subscription, bytes.
pub const MAX_URI: usize = 2 * 1024;

/// Holds the address of the session's listener, sealed.
pub(super) const LISTENER: &str = "listener";
/// There if the session was ended.
pub(super) const REVOKED: &str = "revoked";
/// Holds the log level, sealed.
pub(super) const LEVEL: &str = "level";
/// How a field begins that holds a resource's URI, sealed; the rest is the URI's keyed hash.
pub(super) const RESOURCE: &str = "uri:";

/// What is kept of one session: sealed values by field.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// What is kept of a legacy session beside its id.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SessionState {
    /// Whether it was ended.
    pub revoked: bool,
    /// The log level that its client set.
    pub level: Option<String>,
    /// The URIs of the resources that it is subscribed to, sorted.
    pub subscriptions: Vec<String>,
    /// Where the listener is that last claimed the session; it may be gone.
    pub listener: Option<Listener>,
}

/// A listener's claim on a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where the listener can be reached.
    pub address: String,
    /// The claim as it is stored, by which it is told from a later one.
    sealed: Vec<u8>,
}

/// One field as a backend writes it.
pub(super) struct Note {
    /// Its name.
    pub(super) field: String,
    /// What it holds.
    pub(super) value: Vec<u8>,
    /// How long it is kept, and with it all that is kept of the session.
    pub(super) lifetime: Duration,
}

impl TokenStore {
    /// What is kept of the legacy session with this nonce; of one that nothing is known of, nothing.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn session_state(&self, nonce: &str) -> Result<SessionState, StoreError> {
        let names = Names::of_session(&self.keyring, nonce);
        let read = |fields: Fields| read(&self.keyring, nonce, fields);
        match &self.backend {
            Backend::Redis(redis) => redis.session(&names, read).await,
            Backend::Embedded(embedded) => embedded.session(names, self.clock.now(), read).await,
        }
    }

    /// [`TokenStore::lookup`] and [`TokenStore::session_state`] in one question.
    pub async fn lookup_in_session(
        &self,
        user: &UserId,
        server: &ServerName,
        nonce: &str,
    ) -> (Lookup, Result<SessionState, StoreError>) {
        let session = Names::of_session(&self.keyring, nonce);
        let found = self
            .find(user, server, Some(&session), |token, fields| Ok((token, read(&self.keyring, nonce, fields)?)))
            .await;
        match found {
            Ok((token, state)) => (token.map_or(Lookup::Absent, Lookup::Found), Ok(state)),
            Err(error) => (Lookup::Failed(error.clone()), Err(error)),
        }
    }

    /// Remembers the log level that the session's client set.
    ///
    /// # Errors
    /// The store failed; the level may be remembered or not.
    pub async fn set_level(&self, nonce: &str, level: &str, lifetime: Duration) -> Result<(), StoreError> {
        let value = seal(&self.keyring, nonce, LEVEL, level);
        self.note(nonce, Note { field: LEVEL.to_owned(), value, lifetime }).await.map(drop)
    }

    /// Remembers that the session is subscribed to the resource at `uri`; whether there was room for it: no more than
    /// [`MAX_SUBSCRIPTIONS`] of no more than [`MAX_URI`].
    ///
    /// # Errors
    /// The store failed; the subscription may be remembered or not.
    pub async fn subscribe(&self, nonce: &str, uri: &str, lifetime: Duration) -> Result<bool, StoreError> {
        if uri.len() > MAX_URI {
            return Ok(false);
        }
        let field = resources(&self.keyring, nonce, uri).next().expect("a ring is never empty");
        let value = seal(&self.keyring, nonce, &field, uri);
        self.note(nonce, Note { field, value, lifetime }).await
    }

    /// Forgets a subscription, if there is one.
    ///
    /// # Errors
    /// The store failed; the subscription may be remembered or not.
    pub async fn unsubscribe(&self, nonce: &str, uri: &str) -> Result<(), StoreError> {
        let names = Names::of_session(&self.keyring, nonce);
        let fields = resources(&self.keyring, nonce, uri).collect();
        match &self.backend {
            Backend::Redis(redis) => redis.forget(&names, fields).await,
            Backend::Embedded(embedded) => embedded.forget(names, fields).await,
        }
    }

    /// Claims the session for the listener at `address`, in place of the one that was `seen` there; whether it was, and
    /// no other was faster.
    ///
    /// # Errors
    /// The store failed; the session may be claimed or not.
    pub async fn claim(
        &self,
        nonce: &str,
        seen: Option<&Listener>,
        address: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let names = Names::of_session(&self.keyring, nonce);
        let value = seal(&self.keyring, nonce, LISTENER, address);
        let note = Note { field: LISTENER.to_owned(), value, lifetime };
        let seen = seen.map(|seen| seen.sealed.clone());
        match &self.backend {
            Backend::Redis(redis) => redis.replace(&names, seen, &note).await,
            Backend::Embedded(embedded) => embedded.replace(names, seen, note, self.clock.now()).await,
        }
    }

    /// Ends the legacy session with this nonce for every node, for as long as it could still be presented.
    ///
    /// # Errors
    /// The store failed; the session may go on.
    pub async fn revoke(&self, nonce: &str, lifetime: Duration) -> Result<(), StoreError> {
        self.note(nonce, Note { field: REVOKED.to_owned(), value: Vec::new(), lifetime }).await.map(drop)
    }

    async fn note(&self, nonce: &str, note: Note) -> Result<bool, StoreError> {
        let names = Names::of_session(&self.keyring, nonce);
        match &self.backend {
            Backend::Redis(redis) => redis.note(&names, &note).await,
            Backend::Embedded(embedded) => embedded.note(names, note, self.clock.now()).await,
        }
    }
}

/// The names of the field for `uri`, one per key of the ring, the active one's first.
fn resources(keyring: &Keyring, nonce: &str, uri: &str) -> impl Iterator<Item = String> {
    let hashes = keyring.index("resource", &[nonce, uri]);
    hashes.map(|hash| format!("{RESOURCE}{}", BASE64_URL_SAFE_NO_PAD.encode(hash)))
}

fn seal(keyring: &Keyring, nonce: &str, field: &str, value: &str) -> Vec<u8> {
    keyring.seal(place(&["session", "1", nonce, field]), value.as_bytes())
}

fn place<'a>(parts: &'a [&'a str; 4]) -> Place<'a> {
    Place { purpose: Purpose::Session, parts }
}

/// What the fields of a session say; where two keys wrote the same field, the first that was read counts.
fn read(keyring: &Keyring, nonce: &str, fields: Fields) -> Result<SessionState, StoreError> {
    let mut state = SessionState::default();
    for (field, value) in fields {
        if field == REVOKED {
            state.revoked = true;
            continue;
        }
        let plain = keyring.open(place(&["session", "1", nonce, &field]), &value).map_err(StoreError::Sealed)?;
        let text = str::from_utf8(&plain).map_err(|_| StoreError::Shape)?.to_owned();
        match &*field {
            LEVEL => drop(state.level.get_or_insert(text)),
            LISTENER => drop(state.listener.get_or_insert(Listener { address: text, sealed: value })),
            _ if field.starts_with(RESOURCE) => state.subscriptions.push(text),
            // A newer version's.
            _ => {}
        }
    }
    state.subscriptions.sort_unstable();
    state.subscriptions.dedup();
    Ok(state)
}
