//! The first format: one unnamed value and when it was saved, which is all that the first versions know.
//!
//! The plain bytes are the time (seconds since 1970, 8 bytes, big endian), then the value.

use zeroize::Zeroizing;

use super::{Record, RecordKind};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::secret::{Credential, Secret};
use crate::store::StoreError;
use crate::user::UserId;

/// The version of what is inside the envelope. Another one is another place.
const VERSION: &str = "record/1";

/// The one value of `record`, if this format can say all of it but how it was saved, which a note says.
pub(super) fn is_enough_for(record: &Record) -> Option<&Secret> {
    match (record.kind, record.expires_at, &record.fields[..]) {
        (RecordKind::Fields, None, [(name, value)]) if **name == *Credential::TOKEN => Some(value),
        _ => None,
    }
}

pub(super) fn seal(
    keyring: &Keyring,
    user: &UserId,
    server: &ServerName,
    saved_at: UnixTime,
    token: &Secret,
) -> Vec<u8> {
    let token = token.expose().as_bytes();
    let mut plain = Zeroizing::new(Vec::with_capacity(8 + token.len()));
    plain.extend(saved_at.0.to_be_bytes());
    plain.extend(token);
    at(user, server, |place| keyring.seal(place, &plain))
}

pub(super) fn open(keyring: &Keyring, user: &UserId, server: &ServerName, sealed: &[u8]) -> Result<Record, StoreError> {
    let plain = at(user, server, |place| keyring.open(place, sealed)).map_err(StoreError::Sealed)?;
    let (saved_at, token) = plain.split_first_chunk().ok_or(StoreError::Shape)?;
    let token = Secret::new(str::from_utf8(token).map_err(|_| StoreError::Shape)?.to_owned());
    Ok(Record {
        kind: RecordKind::Fields,
        saved_at: UnixTime(u64::from_be_bytes(*saved_at)),
        saved_by: None,
        expires_at: None,
        fields: vec![(Credential::TOKEN.into(), token)],
        grant: None,
    })
}

fn at<T>(user: &UserId, server: &ServerName, then: impl FnOnce(Place<'_>) -> T) -> T {
    let parts = [VERSION, user.issuer(), user.subject(), server.as_str(), Credential::TOKEN];
    then(Place { purpose: Purpose::Token, parts: &parts })
}
