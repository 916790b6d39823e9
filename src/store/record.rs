//! What a record holds and what it is bound to; the names under which records lie.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::StoreError;
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::secret::Secret;
use crate::user::UserId;

/// The version of what is inside a record's envelope. Another one is another place.
const VERSION: &str = "record/1";

/// What a record holds: when it was saved (seconds since 1970, 8 bytes, big endian), then the token.
pub(super) struct Record {
    pub(super) saved_at: UnixTime,
    pub(super) token: Secret,
}

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

/// The record of `user`'s `token` for `server`, sealed to be that and nothing else.
pub(super) fn seal(
    keyring: &Keyring,
    user: &UserId,
    server: &ServerName,
    saved_at: UnixTime,
    token: &Secret,
) -> Vec<u8> {
    let token = token.expose().as_bytes();
    let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(8 + token.len()));
    plain.extend(saved_at.0.to_be_bytes());
    plain.extend(token);
    at(user, server, |place| keyring.seal(place, &plain))
}

/// What [`seal`] made for the same user and server.
pub(super) fn open(keyring: &Keyring, user: &UserId, server: &ServerName, sealed: &[u8]) -> Result<Record, StoreError> {
    let plain = at(user, server, |place| keyring.open(place, sealed)).map_err(StoreError::Sealed)?;
    let (saved_at, token) = plain.split_first_chunk().ok_or(StoreError::Shape)?;
    let token = str::from_utf8(token).map_err(|_| StoreError::Shape)?;
    if token.is_empty() {
        return Err(StoreError::Shape);
    }
    Ok(Record { saved_at: UnixTime(u64::from_be_bytes(*saved_at)), token: Secret::new(token.to_owned()) })
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
    let id = keyring.active_id();
    (id.to_owned(), keyring.seal(Place { purpose: Purpose::Token, parts: &["key/1", id] }, &[]))
}

/// Whether the ring holds every key that wrote here.
pub(super) fn verify(keyring: &Keyring, proofs: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    for (id, proof) in proofs {
        keyring.open(Place { purpose: Purpose::Token, parts: &["key/1", id] }, proof).map_err(StoreError::Sealed)?;
    }
    Ok(())
}

fn at<T>(user: &UserId, server: &ServerName, then: impl FnOnce(Place<'_>) -> T) -> T {
    let parts = [VERSION, user.issuer(), user.subject(), server.as_str(), "token"];
    then(Place { purpose: Purpose::Token, parts: &parts })
}
