//! Seals bytes to their place: what one place sealed opens nowhere else.
//!
//! An envelope is `format ‖ key id length ‖ key id ‖ nonce ‖ ciphertext and tag`, sealed with AES-256-GCM-SIV. Format,
//! key id, purpose and the parts of the place are its associated data, each preceded by its length.

mod root_key;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::swap::Swap;

pub use root_key::{KeyProblem, ROOT_KEY_LEN, RootKey};

/// The only envelope format so far.
const FORMAT: u8 = 1;

/// The tag that GCM-SIV puts after its ciphertext, bytes.
const TAG_LEN: usize = 16;

/// The longest id of a key, bytes.
const MAX_ID: usize = 32;

/// The length of a fingerprint: 36 bits as base64url.
const FINGERPRINT: usize = 6;

/// Separates our derived keys from whatever else may be derived from the same root.
const SALT: &[u8] = b"tollbridge/keyring/1";

/// A ring of keys: the first seals, all open. One root key each; purposes get their own by HKDF.
pub struct Keyring {
    /// Never empty; ids are distinct.
    keys: Swap<[RingKey]>,
}

/// What is derived from one root key.
struct RingKey {
    id: Arc<str>,
    /// In the order of [`Purpose::ALL`].
    seals: [RandomizedNonceKey; Purpose::ALL.len()],
    index: hmac::Key,
}

/// Where sealed bytes belong. The parts are bound as associated data, length-prefixed.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What the key is for; every purpose has its own derived key.
    pub purpose: Purpose,
    /// Whose, which server, which field, which version: whatever makes the place unique.
    pub parts: &'a [&'a str],
}

/// What sealed bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A user's token at rest.
    Token,
    /// A legacy client's session id.
    Session,
    /// An id, a state or a message that travels between nodes through others' hands.
    Route,
    /// Who is signed in with a browser, in its cookie.
    Browser,
    /// That a form was made by a bridge, and for whom.
    Form,
    /// A sign-in at a service that has begun.
    Flow,
    /// What a service knows this bridge as.
    Client,
}

impl Purpose {
    /// Every purpose, in the order of their keys.
    const ALL: [Self; 7] =
        [Self::Token, Self::Session, Self::Route, Self::Browser, Self::Form, Self::Flow, Self::Client];

    fn label(self) -> &'static str {
        match self {
            Self::Token => "seal/token",
            Self::Session => "seal/session",
            Self::Route => "seal/route",
            Self::Browser => "seal/browser",
            Self::Form => "seal/form",
            Self::Flow => "seal/flow",
            Self::Client => "seal/client",
        }
    }
}

/// Why sealed bytes do not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not in a format this version knows.
    #[error("the sealed bytes are of an unknown format")]
    Format,
    /// Sealed by a key that is not in the ring.
    #[error("the sealing key is not in the key ring")]
    UnknownKey,
    /// Tampered with, or moved from another place.
    #[error("the sealed bytes do not belong here")]
    Tampered,
}

/// Why a key ring cannot be used. Names keys by their id; never shows key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no key to seal with.
    #[error("the key ring holds no key")]
    Empty,
    /// One key is no good.
    #[error("sealing key \"{id}\": {problem}")]
    Key {
        /// The key's id.
        id: String,
        /// What is wrong with it.
        problem: KeyProblem,
    },
}

impl Keyring {
    /// The ring of `keys` with their ids: the first seals, all open.
    ///
    /// # Errors
    /// There is none, or an id is malformed or occurs twice.
    pub fn new(keys: Vec<(String, RootKey)>) -> Result<Self, KeyError> {
        let mut ring: Vec<RingKey> = Vec::with_capacity(keys.len());
        for (id, root) in keys {
            let well_formed = (1..=MAX_ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if !well_formed {
                return Err(KeyError::Key { id, problem: KeyProblem::Id });
            }
            if ring.iter().any(|key| *key.id == *id) {
                return Err(KeyError::Key { id, problem: KeyProblem::Duplicate });
            }
            ring.push(RingKey::derive(id.into(), &root));
        }
        if ring.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys: Swap::new(ring.into()) }) }
    }

    /// A ring of one random key that nobody else has and that ends with this process: for a bridge without a token
    /// store, whose sealed ids need not outlive it.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { keys: Swap::new(Arc::new([RingKey::derive("ephemeral".into(), &RootKey::random())])) }
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn active_id(&self) -> Arc<str> {
        Arc::clone(&self.keys.load()[0].id)
    }

    /// The ids of all keys, that of the one that seals first.
    #[must_use]
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.keys.load().iter().map(|key| Arc::clone(&key.id)).collect()
    }

    /// From now on has the keys of `other`, for everybody who shares it.
    pub fn replace_by(&self, other: &Self) {
        self.keys.store(other.keys.load());
    }

    /// Its keys as they are now, whatever replaces them: for what is sealed in several pieces that belong together.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { keys: Swap::new(self.keys.load()) }
    }

    /// Whether both have the same keys in the same order.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let marks = |ring: &Self| -> Vec<_> { ring.index("same", &[]).collect() };
        self.ids() == other.ids() && marks(self) == marks(other)
    }

    /// The id of a key that would be lost if `next` took the place of this ring: of the one that seals, if it is missing
    /// there, or of one that is another key there.
    #[must_use]
    pub fn lost_in(&self, next: &Self) -> Option<Arc<str>> {
        let marked = |ring: &Self| -> Vec<_> { ring.ids().into_iter().zip(ring.index("same", &[])).collect() };
        let next = marked(next);
        let is_lost = |(at, (id, mark)): (usize, &(Arc<str>, _))| match next.iter().find(|(other, _)| other == id) {
            Some((_, other)) => other != mark,
            None => at == 0,
        };
        let own = marked(self);
        let lost = own.iter().enumerate().find(|key| is_lost(*key))?;
        Some(Arc::clone(&lost.1.0))
    }

    /// Seals `plain` to `place` with the first key.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let keys = self.keys.load();
        let key = &keys[0];
        let id = key.id.as_bytes();
        let start = 2 + id.len() + NONCE_LEN;
        // The whole size at once: growing would leave the plaintext behind in freed memory.
        let mut envelope = Vec::with_capacity(start + plain.len() + TAG_LEN);
        envelope.extend([FORMAT, u8::try_from(id.len()).expect("an id is at most 32 bytes")]);
        envelope.extend(id);
        envelope.extend([0; NONCE_LEN]);
        envelope.extend(plain);
        let (nonce, tag) = key
            .seal_key(place.purpose)
            .seal_in_place_separate_tag(Aad::from(associated(&key.id, place)), &mut envelope[start..])
            .expect("the system gives random bytes and the input is far below 64 GiB");
        envelope[start - NONCE_LEN..start].copy_from_slice(nonce.as_ref());
        envelope.extend(tag.as_ref());
        envelope
    }

    /// Opens what [`Keyring::seal`] made for the same place, with whichever key of the ring sealed it.
    ///
    /// # Errors
    /// Says whether the format, the key or the place is wrong.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (&[FORMAT, id_len], rest) = sealed.split_first_chunk::<2>().ok_or(OpenError::Format)? else {
            return Err(OpenError::Format);
        };
        let (id, rest) = rest.split_at_checked(id_len.into()).ok_or(OpenError::Format)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Format)?;
        if ciphertext.len() < TAG_LEN {
            return Err(OpenError::Format);
        }
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id.as_bytes() == id).ok_or(OpenError::UnknownKey)?;
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .seal_key(place.purpose)
            .open_in_place(Nonce::from(nonce), Aad::from(associated(&key.id, place)), &mut plain)
            .map_err(|_| OpenError::Tampered)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    /// [`Keyring::seal`] as base64url without padding, for what travels in headers and links.
    #[must_use]
    pub fn seal_text(&self, place: Place<'_>, plain: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.seal(place, plain))
    }

    /// Opens what [`Keyring::seal_text`] made for the same place.
    ///
    /// # Errors
    /// As [`Keyring::open`]; text that is not base64url is of an unknown format.
    pub fn open_text(&self, place: Place<'_>, sealed: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(sealed).map_err(|_| OpenError::Format)?;
        self.open(place, &sealed)
    }

    /// Six characters that tell whether two values are the same, to who has seen neither: of an HMAC by the key that seals.
    #[must_use]
    pub fn fingerprint(&self, parts: &[&str]) -> String {
        let hash = self.index("fingerprint", parts).next().expect("a ring is never empty");
        let mut text = BASE64_URL_SAFE_NO_PAD.encode(hash);
        text.truncate(FINGERPRINT);
        text
    }

    /// Names under which a store may keep something about `parts`: HMAC-SHA256 of the label and the parts by every key
    /// of the ring, the active one's first. They tell nothing of the parts to who has no key.
    pub fn index(&self, label: &str, parts: &[&str]) -> impl Iterator<Item = [u8; 32]> + use<> {
        let mut message = Vec::with_capacity(128);
        append(&mut message, label);
        for part in parts {
            append(&mut message, part);
        }
        let keys = self.keys.load();
        (0..keys.len()).map(move |at| {
            let tag = hmac::sign(&keys[at].index, &message);
            tag.as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
        })
    }
}

/// A name that nobody can guess: 128 random bits as base64url.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn random_name() -> String {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
    BASE64_URL_SAFE_NO_PAD.encode(random)
}

/// The id of the key that `sealed` says it was sealed with, if it is an envelope of the format that this version knows.
#[must_use]
pub fn key_id(sealed: &[u8]) -> Option<&str> {
    let (&[FORMAT, length], rest) = sealed.split_first_chunk::<2>()? else { return None };
    str::from_utf8(rest.get(..length.into())?).ok()
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl RingKey {
    fn derive(id: Arc<str>, root: &RootKey) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(root.bytes());
        let expand = |label: &str| {
            let mut bytes = Zeroizing::new([0; ROOT_KEY_LEN]);
            extracted
                .expand(&[label.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut *bytes))
                .expect("32 bytes are within what HKDF-SHA256 gives");
            bytes
        };
        let seals = Purpose::ALL.map(|purpose| {
            RandomizedNonceKey::new(&AES_256_GCM_SIV, &*expand(purpose.label()))
                .expect("AES-256-GCM-SIV takes keys of 32 bytes")
        });
        let index = hmac::Key::new(hmac::HMAC_SHA256, &*expand("index"));
        Self { id, seals, index }
    }

    fn seal_key(&self, purpose: Purpose) -> &RandomizedNonceKey {
        &self.seals[purpose as usize]
    }
}

/// What an envelope is bound to. Every part is preceded by its length, so that no two places read alike.
fn associated(key: &str, place: Place<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(FORMAT);
    append(&mut bytes, key);
    append(&mut bytes, place.purpose.label());
    for part in place.parts {
        append(&mut bytes, part);
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, part: &str) {
    bytes.extend((part.len() as u64).to_be_bytes());
    bytes.extend(part.as_bytes());
}

#[cfg(test)]
mod tests;
