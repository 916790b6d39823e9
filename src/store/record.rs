//! What a record holds and what it is bound to; the names under which records lie.
//!
//! A record is written in the oldest format that can say what it holds, so that a node of an earlier version reads what
//! it can use; the first byte tells which format it is.

mod grant;
mod v1;
mod v2;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{self, Keyring, OpenError, Place, Purpose};
use crate::secret::{Credential, Secret};
use crate::user::UserId;

pub use grant::{ClientAuth, ClientKind, ClientOf, Grant, GrantState, SignInReason};

/// What a user has saved for one server.
#[derive(Debug)]
pub struct Record {
    /// How its values came about.
    pub kind: RecordKind,
    /// When it was saved.
    pub saved_at: UnixTime,
    /// How it was saved, if that is known.
    pub saved_by: Option<SavedBy>,
    /// When the service stops taking its values, if that is known.
    pub expires_at: Option<UnixTime>,
    /// Its values by the names of the server's fields, no name twice and none of them empty. The only value of a server
    /// without named fields is [`Credential::TOKEN`].
    pub fields: Vec<(Box<str>, Secret)>,
    /// What else a service gave with the access token that is its value.
    pub grant: Option<Box<Grant>>,
}

/// How the values of a record came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A person or a program gave them.
    Fields,
    /// The service gave them after its user had signed in there.
    OAuth,
}

/// How a record was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SavedBy {
    /// By its user, on the page of the bridge.
    Page,
    /// By an operator, with `tollbridge token set`.
    Cli,
    /// By a program, with the API.
    Api,
    /// By its user, who signed in at the service.
    SignIn,
}

/// Tells a record from every other that was ever stored: the SHA-256 of its sealed bytes, which are random. It changes
/// with each write, also where the same values are saved again or sealed with another key.
#[derive(Clone, PartialEq, Eq)]
pub struct Revision([u8; 32]);

/// The names of one thing, one per key of the ring: the active key's first. A reader looks under all of them, a writer
/// writes under the first and clears the others, so that changing the active key loses nothing.
#[derive(Clone)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn of_user(keyring: &Keyring, user: &UserId) -> Self {
        Self::of(keyring, "tokens", &[user.issuer(), user.subject()])
    }

    pub(super) fn of_session(keyring: &Keyring, user: &UserId, nonce: &str) -> Self {
        Self::of(keyring, "session", &[user.issuer(), user.subject(), nonce])
    }

    pub(super) fn active(&self) -> &str {
        &self.0[0]
    }

    pub(super) fn older(&self) -> &[String] {
        &self.0[1..]
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.iter()
    }

    fn of(keyring: &Keyring, label: &str, parts: &[&str]) -> Self {
        Self(keyring.index(label, parts).map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)).collect())
    }
}

/// `record` of `user` for `server`, sealed to be that and nothing else.
pub(super) fn seal(keyring: &Keyring, user: &UserId, server: &ServerName, record: &Record) -> Vec<u8> {
    match v1::is_enough_for(record) {
        Some(token) => v1::seal(keyring, user, server, record.saved_at, token),
        None => v2::seal(keyring, user, server, record),
    }
}

/// What [`seal`] made for the same user and server.
pub(super) fn open(keyring: &Keyring, user: &UserId, server: &ServerName, sealed: &[u8]) -> Result<Record, StoreError> {
    let record = match sealed.split_first() {
        Some((&v2::FORMAT, sealed)) => v2::open(keyring, user, server, sealed)?,
        _ => v1::open(keyring, user, server, sealed)?,
    };
    let is_empty = record.fields.iter().any(|(_, value)| value.expose().is_empty());
    if is_empty || record.fields.is_empty() { Err(StoreError::Shape) } else { Ok(record) }
}

/// Tells `sealed` from every other that was ever stored, to who looks no closer than a [`Revision`] does: its last bytes,
/// which are those of an authentication tag.
pub(super) fn mark(sealed: &[u8]) -> u64 {
    sealed.last_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// The id of the key that `sealed` says it was sealed with, if it is of a format that this version knows.
pub(super) fn key_id(sealed: &[u8]) -> Option<&str> {
    match sealed.split_first() {
        Some((&v2::FORMAT, sealed)) => keyring::key_id(sealed),
        _ => keyring::key_id(sealed),
    }
}

/// Why a record that gave this error is not written over, where the proofs of all keys have been seen.
pub(super) fn kept_because(error: StoreError) -> StoreError {
    match error {
        StoreError::Sealed(OpenError::Format) => StoreError::Newer,
        StoreError::Sealed(OpenError::Tampered) | StoreError::Shape => StoreError::Damaged,
        error => error,
    }
}

/// How `record` was saved, if its format cannot say it.
pub(super) fn unsaid(record: &Record) -> Option<SavedBy> {
    record.saved_by.filter(|_| v1::is_enough_for(record).is_some())
}

/// Whose records lie at `name`, sealed to that name: names are hashes, and a list wants to show people.
pub(super) fn seal_owner(keyring: &Keyring, user: &UserId, name: &str) -> Vec<u8> {
    // Neither part holds a control character.
    let plain = format!("{}\n{}", user.issuer(), user.subject());
    keyring.seal(Place { purpose: Purpose::Token, parts: &["owner/1", name] }, plain.as_bytes())
}

/// What [`seal_owner`] made for the same name.
pub(super) fn open_owner(keyring: &Keyring, name: &str, sealed: &[u8]) -> Result<UserId, StoreError> {
    let place = Place { purpose: Purpose::Token, parts: &["owner/1", name] };
    let plain = keyring.open(place, sealed).map_err(StoreError::Sealed)?;
    let (issuer, subject) =
        str::from_utf8(&plain).ok().and_then(|text| text.split_once('\n')).ok_or(StoreError::Shape)?;
    UserId::new(issuer, subject).map_err(|_| StoreError::Shape)
}

/// A proof that the active key wrote here, with the key's id. Records lie under names that only their key can tell, so
/// a ring that lacks the key would see none of them; the proof is what it sees instead.
pub(super) fn prove(keyring: &Keyring) -> (String, Vec<u8>) {
    let keyring = keyring.snapshot();
    let id = keyring.active_id();
    (id.as_ref().to_owned(), keyring.seal(Place { purpose: Purpose::Token, parts: &["key/1", &id] }, &[]))
}

/// Whether the ring holds every key that wrote here.
pub(super) fn verify(keyring: &Keyring, proofs: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    for (id, proof) in proofs {
        keyring.open(Place { purpose: Purpose::Token, parts: &["key/1", id] }, proof).map_err(StoreError::Sealed)?;
    }
    Ok(())
}

impl Record {
    /// One unnamed value.
    #[must_use]
    pub fn token(saved_at: UnixTime, saved_by: SavedBy, token: Secret) -> Self {
        let fields = vec![(Credential::TOKEN.into(), token)];
        Self { kind: RecordKind::Fields, saved_at, saved_by: Some(saved_by), expires_at: None, fields, grant: None }
    }
}

impl Revision {
    pub(super) fn of(sealed: &[u8]) -> Self {
        let hash = digest(&SHA256, sealed);
        Self(hash.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }
}

/// As base64url.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}
