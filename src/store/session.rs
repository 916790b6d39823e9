//! What is kept of a legacy session: that it was ended, its log level, its subscriptions and where its listener is.
//! Nothing of it can be read without the session's nonce and a key, and all of it expires with the session.
//!
//! Invariants: one session holds [`MAX_SESSION`] bytes at most, and one user [`MAX_SESSIONS`] of them and
//! [`MAX_ENDED`] ended ones, so nobody fills the store for others. A session that was ended stays ended: nothing is
//! written to it any more, and no room that others took keeps it from being ended.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::record::Names;
use super::{Backend, StoreError, TokenStore};
use crate::clock::UnixTime;
use crate::keyring::{Keyring, Place, Purpose};
use crate::user::UserId;

/// The most resources that one session is subscribed to.
pub const MAX_SUBSCRIPTIONS: usize = 100;

/// The longest URI of a subscription, bytes.
pub const MAX_URI: usize = 2 * 1024;

/// What one session's subscriptions may take with all else that is kept of it, bytes as stored.
pub const MAX_SESSION: usize = 64 << 10;

/// Sessions of one user that anything but their end is kept of; of one more, what is kept of the one that was written to
/// least lately is forgotten.
pub const MAX_SESSIONS: usize = 32;

/// Ended sessions of one user that are remembered one by one; of one more, every session that expires no later than the
/// first of them counts as ended.
pub const MAX_ENDED: usize = 1000;

/// How far the clocks of two nodes may be apart: what ends a session is remembered for that much longer than the session
/// lasts.
pub(super) const CLOCK_ERROR: Duration = Duration::from_mins(5);

/// Holds the address of the session's listener, sealed.
pub(super) const LISTENER: &str = "listener";
/// Holds the log level, sealed.
pub(super) const LEVEL: &str = "level";
/// How a field begins that holds a resource's URI, sealed; the rest is the URI's keyed hash.
pub(super) const RESOURCE: &str = "uri:";

/// What is kept of one session: sealed values by field.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// Which legacy session.
#[derive(Debug, Clone, Copy)]
pub struct SessionKey<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// What tells it from every other.
    pub nonce: &'a str,
    /// When it expires, the same on every node.
    pub expires: UnixTime,
}

/// What a request needs to know of the session that it is made in.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// The log level that its client set.
    pub level: Option<String>,
    /// Where the listener is that last claimed the session; it may be gone.
    pub listener: Option<Listener>,
}

/// What a client has set in its session.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SessionState {
    /// The log level.
    pub level: Option<String>,
    /// The URIs of the resources that it is subscribed to, sorted.
    pub subscriptions: Vec<String>,
}

/// A listener's claim on a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where the listener can be reached.
    pub address: String,
    /// The claim as it is stored, by which it is told from a later one.
    sealed: Vec<u8>,
}

/// What became of a change of what is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionUpdate {
    /// It is kept; where the session's listener was at that moment.
    Kept(Option<String>),
    /// There is no room for it in the session.
    NoRoom,
    /// The session was ended.
    Ended,
}

/// The names of a session and of whose it is, one pair per key of the ring, the active key's first.
#[derive(Clone)]
pub(super) struct SessionNames {
    users: Names,
    sessions: Names,
    /// When the session expires.
    pub(super) expires: UnixTime,
    /// For how long it is kept from now.
    pub(super) lifetime: Duration,
}

impl SessionNames {
    /// Pairs of the name of the user and of the session.
    pub(super) fn pairs(&self) -> impl ExactSizeIterator<Item = (&String, &String)> {
        self.users.iter().zip(self.sessions.iter())
    }

    /// The pair to write under.
    pub(super) fn active(&self) -> (&str, &str) {
        (self.users.active(), self.sessions.active())
    }

    /// The names of the session under older keys.
    pub(super) fn older(&self) -> &[String] {
        self.sessions.older()
    }
}

/// How much is asked of a session that has not been ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// [`LEVEL`] and [`LISTENER`].
    SessionStatus,
    /// All its fields.
    All,
}

impl Want {
    /// The fields that are wanted, if not all.
    pub(super) const STANDING: [&str; 2] = [LEVEL, LISTENER];
}

/// One field as a backend writes it.
pub(super) struct Note {
    /// Its name.
    pub(super) field: String,
    /// What it holds.
    pub(super) value: Vec<u8>,
    /// In place of what it may be written.
    pub(super) over: Overwrite,
}

/// What a field may hold before.
pub(super) enum Overwrite {
    /// Whatever it is.
    Anything,
    /// This, or nothing.
    Only(Option<Vec<u8>>),
}

/// What a backend made of a note, with the sealed address of the listener.
pub(super) enum Written {
    Kept(Option<Vec<u8>>),
    /// No room, or not what was seen.
    Refused,
    Ended,
}

impl TokenStore {
    /// What a request in the session needs to know; nothing if the session was ended.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn session_status(&self, key: &SessionKey<'_>) -> Result<Option<SessionStatus>, StoreError> {
        let read = |fields: Option<Fields>| session_status(&self.keyring, key.nonce, fields);
        self.kept(key, Want::SessionStatus, read).await
    }

    /// What the client has set in the session; nothing if the session was ended.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn session_state(&self, key: &SessionKey<'_>) -> Result<Option<SessionState>, StoreError> {
        let read = |fields: Option<Fields>| state(&self.keyring, key.nonce, fields);
        self.kept(key, Want::All, read).await
    }

    async fn kept<T>(
        &self,
        key: &SessionKey<'_>,
        want: Want,
        read: impl FnOnce(Option<Fields>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let names = self.session_names(key);
        match &self.backend {
            Backend::Redis(redis) => redis.session(&names, want, read).await,
            Backend::Embedded(embedded) => embedded.session(names, want, read).await,
        }
    }

    /// Remembers the log level that the session's client set.
    ///
    /// # Errors
    /// The store failed; the level may be remembered or not.
    pub async fn set_level(&self, key: &SessionKey<'_>, level: &str) -> Result<SessionUpdate, StoreError> {
        let value = seal(&self.keyring, key.nonce, LEVEL, level);
        self.note(key, Note { field: LEVEL.to_owned(), value, over: Overwrite::Anything }).await
    }

    /// Remembers that the session is subscribed to the resource at `uri`, if there is room for it: no more than
    /// [`MAX_SUBSCRIPTIONS`] of no more than [`MAX_URI`], and no more than [`MAX_SESSION`] in all.
    ///
    /// # Errors
    /// The store failed; the subscription may be remembered or not.
    pub async fn subscribe(&self, key: &SessionKey<'_>, uri: &str) -> Result<SessionUpdate, StoreError> {
        if uri.len() > MAX_URI {
            return Ok(SessionUpdate::NoRoom);
        }
        let field = resources(&self.keyring, key.nonce, uri).next().expect("a ring is never empty");
        let value = seal(&self.keyring, key.nonce, &field, uri);
        self.note(key, Note { field, value, over: Overwrite::Anything }).await
    }

    /// Forgets a subscription, if there is one.
    ///
    /// # Errors
    /// The store failed; the subscription may be remembered or not.
    pub async fn unsubscribe(&self, key: &SessionKey<'_>, uri: &str) -> Result<SessionUpdate, StoreError> {
        let names = self.session_names(key);
        let fields = resources(&self.keyring, key.nonce, uri).collect();
        let written = match &self.backend {
            Backend::Redis(redis) => redis.forget(&names, fields).await?,
            Backend::Embedded(embedded) => embedded.forget(names, fields).await?,
        };
        self.noted(key, written)
    }

    /// Claims the session for the listener at `address`, in place of the one that was `seen` there; whether it was, and
    /// no other was faster, and the session not ended.
    ///
    /// # Errors
    /// The store failed; the session may be claimed or not.
    pub async fn claim(
        &self,
        key: &SessionKey<'_>,
        seen: Option<&Listener>,
        address: &str,
    ) -> Result<bool, StoreError> {
        let value = seal(&self.keyring, key.nonce, LISTENER, address);
        let over = Overwrite::Only(seen.map(|seen| seen.sealed.clone()));
        let noted = self.note(key, Note { field: LISTENER.to_owned(), value, over }).await?;
        Ok(matches!(noted, SessionUpdate::Kept(_)))
    }

    /// Ends the session for every node, for as long as it could still be presented anywhere, and forgets what else was
    /// kept of it, also where the store takes nothing else any more. Answers where its listener is that has claimed it.
    ///
    /// # Errors
    /// The store failed; the session may go on.
    pub async fn revoke(&self, key: &SessionKey<'_>) -> Result<Option<String>, StoreError> {
        let names = self.session_names(key);
        let listener = match &self.backend {
            Backend::Redis(redis) => redis.revoke(&names, self.clock.now()).await?,
            Backend::Embedded(embedded) => embedded.revoke(names, self.clock.now()).await?,
        };
        listener.map(|sealed| open(&self.keyring, key.nonce, LISTENER, &sealed)).transpose()
    }

    async fn note(&self, key: &SessionKey<'_>, note: Note) -> Result<SessionUpdate, StoreError> {
        let names = self.session_names(key);
        let written = match &self.backend {
            Backend::Redis(redis) => redis.note(&names, &note).await?,
            Backend::Embedded(embedded) => embedded.note(names, note, self.clock.now()).await?,
        };
        self.noted(key, written)
    }

    fn noted(&self, key: &SessionKey<'_>, written: Written) -> Result<SessionUpdate, StoreError> {
        match written {
            Written::Kept(listener) => {
                let open = |sealed: Vec<u8>| open(&self.keyring, key.nonce, LISTENER, &sealed);
                Ok(SessionUpdate::Kept(listener.map(open).transpose()?))
            }
            Written::Refused => Ok(SessionUpdate::NoRoom),
            Written::Ended => Ok(SessionUpdate::Ended),
        }
    }

    pub(super) fn session_names(&self, key: &SessionKey<'_>) -> SessionNames {
        SessionNames {
            users: self.names(key.user),
            sessions: Names::of_session(&self.keyring, key.user, key.nonce),
            expires: key.expires,
            lifetime: Duration::from_secs(key.expires.0.saturating_sub(self.clock.now().0)),
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

fn open(keyring: &Keyring, nonce: &str, field: &str, sealed: &[u8]) -> Result<String, StoreError> {
    let plain = keyring.open(place(&["session", "1", nonce, field]), sealed).map_err(StoreError::Sealed)?;
    Ok(str::from_utf8(&plain).map_err(|_| StoreError::Shape)?.to_owned())
}

fn place<'a>(parts: &'a [&'a str; 4]) -> Place<'a> {
    Place { purpose: Purpose::Session, parts }
}

/// What the fields of a session say of its status; where two keys wrote the same field, the first that was read
/// counts.
pub(super) fn session_status(
    keyring: &Keyring,
    nonce: &str,
    fields: Option<Fields>,
) -> Result<Option<SessionStatus>, StoreError> {
    let Some(fields) = fields else { return Ok(None) };
    let mut status = SessionStatus::default();
    for (field, sealed) in fields {
        match &*field {
            LEVEL if status.level.is_none() => status.level = Some(open(keyring, nonce, &field, &sealed)?),
            LISTENER if status.listener.is_none() => {
                status.listener = Some(Listener { address: open(keyring, nonce, &field, &sealed)?, sealed });
            }
            _ => {}
        }
    }
    Ok(Some(status))
}

/// What the fields of a session say that its client set; of the level, the first that was read.
fn state(keyring: &Keyring, nonce: &str, fields: Option<Fields>) -> Result<Option<SessionState>, StoreError> {
    let Some(fields) = fields else { return Ok(None) };
    let mut state = SessionState::default();
    for (field, sealed) in fields {
        match &*field {
            LEVEL if state.level.is_none() => state.level = Some(open(keyring, nonce, &field, &sealed)?),
            _ if field.starts_with(RESOURCE) => state.subscriptions.push(open(keyring, nonce, &field, &sealed)?),
            _ => {}
        }
    }
    state.subscriptions.sort_unstable();
    state.subscriptions.dedup();
    Ok(Some(state))
}
