//! The second format: named values, and all that is known of them. Written only where the first one cannot say it, for
//! earlier versions take it for one of a newer version: they neither read it nor write over it.
//!
//! It is the byte [`FORMAT`], then an envelope. The plain bytes are JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::grant;
use super::{Record, RecordKind, SavedBy};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::secret::{Credential, Secret};
use crate::store::StoreError;
use crate::user::UserId;

/// The first byte. An envelope by itself begins with another one.
pub(super) const FORMAT: u8 = 2;
/// The version of what is inside the envelope. Another one is another place.
const VERSION: &str = "record/2";
/// The most bytes that JSON makes of one.
const ESCAPED: usize = 6;
/// More than a record has beside names and values, bytes, and more than each of these has beside itself.
const AROUND: usize = 256;

/// What is sealed. A member that this version does not know was added by a newer one, and would be lost if it were
/// written again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plain<'a> {
    v: u8,
    kind: RecordKind,
    saved_at: u64,
    saved_by: Option<SavedBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    fields: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    grant: Option<grant::Plain<'a>>,
}

pub(super) fn seal(keyring: &Keyring, user: &UserId, server: &ServerName, record: &Record) -> Vec<u8> {
    let size = record.fields.iter().map(|(name, value)| AROUND + ESCAPED * (name.len() + value.expose().len()));
    // The whole size at once: growing would leave the values behind in freed memory.
    let grant = record.grant.as_ref().map(|grant| grant::Plain::of(grant));
    let around = AROUND + grant.as_ref().map_or(0, |grant| grant.size(ESCAPED));
    let mut plain = Zeroizing::new(Vec::with_capacity(around + size.sum::<usize>()));
    let fields = record.fields.iter().map(|(name, value)| (Cow::from(&**name), Cow::from(value.expose())));
    let written = Plain {
        v: FORMAT,
        kind: record.kind,
        saved_at: record.saved_at.0,
        saved_by: record.saved_by,
        expires_at: record.expires_at.map(|time| time.0),
        fields: fields.collect(),
        grant,
    };
    serde_json::to_writer(&mut *plain, &written).expect("names and values are text");
    let envelope = at(user, server, |place| keyring.seal(place, &plain));
    [&[FORMAT], &envelope[..]].concat()
}

/// What [`seal`] made, without its first byte.
pub(super) fn open(keyring: &Keyring, user: &UserId, server: &ServerName, sealed: &[u8]) -> Result<Record, StoreError> {
    let plain = at(user, server, |place| keyring.open(place, sealed)).map_err(StoreError::Sealed)?;
    // It was written by who has the key, and says more than this version knows.
    let Plain { v: FORMAT, kind, saved_at, saved_by, expires_at, fields, grant } =
        serde_json::from_slice(&plain).map_err(|_| StoreError::Newer)?
    else {
        return Err(StoreError::Newer);
    };
    let fields = fields.into_iter().map(|(name, value)| (name.into(), Secret::new(value.into_owned())));
    Ok(Record {
        kind,
        saved_at: UnixTime(saved_at),
        saved_by,
        expires_at: expires_at.map(UnixTime),
        fields: fields.collect(),
        grant: grant.map(|grant| Box::new(grant.into_grant())),
    })
}

fn at<T>(user: &UserId, server: &ServerName, then: impl FnOnce(Place<'_>) -> T) -> T {
    let parts = [VERSION, user.issuer(), user.subject(), server.as_str(), Credential::TOKEN];
    then(Place { purpose: Purpose::Token, parts: &parts })
}
