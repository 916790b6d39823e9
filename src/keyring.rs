//! Seals bytes to their place: what one place sealed opens nowhere else.

use zeroize::Zeroizing;

/// A ring of keys: the first seals, all open. One root key each; purposes get their own by HKDF.
#[derive(Debug)]
pub struct Keyring;

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

impl Keyring {
    /// Seals `plain` to `place` with the first key.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        todo!("{place:?} {plain:?}")
    }

    /// Opens what [`Keyring::seal`] made for the same place, with whichever key of the ring sealed it.
    ///
    /// # Errors
    /// Says whether the format, the key or the place is wrong.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        todo!("{place:?} {sealed:?}")
    }
}
