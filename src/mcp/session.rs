//! A legacy session without a session store: the `Mcp-Session-Id` is the session, sealed. Any node can rebuild the
//! handshake of any later request from it. Source: MCP 2025-11-25, basic/transports, "Session Management".

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::era::{Era, Version};
use super::json::{self, Object};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::user::UserId;

/// The longest session id, in bytes: proxies limit header lines, and other headers travel too.
pub const MAX_ID: usize = 2048;

/// The longest name or version of a client that is kept, in bytes.
const MAX_CLIENT_NAME: usize = 128;

/// What `initialize` agreed on.
#[derive(Debug, Clone)]
pub struct Session {
    /// The negotiated protocol version.
    pub version: Version,
    /// The client's name and version, as a JSON object.
    pub client_info: String,
    /// The client's capabilities as written.
    pub capabilities: String,
    /// The era of the server when it answered `initialize`.
    pub era: Era,
    /// Whether a server answered `initialize`, rather than the bridge in its place.
    pub met: bool,
    /// What tells this session from every other.
    pub nonce: String,
    /// When it ends.
    pub expires: UnixTime,
}

/// Whom a session belongs to; it opens for nobody and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The user who initialized.
    pub user: &'a UserId,
    /// The server they initialized.
    pub server: &'a ServerName,
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    v: &'a str,
    #[serde(borrow)]
    i: &'a RawValue,
    #[serde(borrow)]
    c: &'a RawValue,
    n: &'a str,
    e: u64,
    /// Whether the server is modern.
    #[serde(default)]
    m: bool,
    /// Whether no server has been met yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    u: bool,
}

/// The client says too much of itself for a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's capabilities are too long for a session")]
pub struct TooLong;

impl Session {
    /// The session id. Experimental capabilities are left out where they would make it too long.
    ///
    /// # Errors
    /// If it would be over [`MAX_ID`] all the same.
    pub fn seal(&self, keyring: &Keyring, owner: Owner<'_>) -> Result<String, TooLong> {
        let whole = self.seal_with(keyring, owner, &self.capabilities);
        if whole.len() <= MAX_ID {
            return Ok(whole);
        }
        let mut known = Object::parse(&self.capabilities).unwrap_or_default();
        known.remove("experimental");
        known.remove("extensions");
        let less = self.seal_with(keyring, owner, &known.write());
        if less.len() <= MAX_ID { Ok(less) } else { Err(TooLong) }
    }

    fn seal_with(&self, keyring: &Keyring, owner: Owner<'_>, capabilities: &str) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("kept only if it is JSON");
        let (i, c) = (raw(&self.client_info), raw(capabilities));
        let sealed = Sealed {
            v: self.version.as_str(),
            i: &i,
            c: &c,
            n: &self.nonce,
            e: self.expires.0,
            m: self.era == Era::Modern,
            u: !self.met,
        };
        let plain = serde_json::to_vec(&sealed).expect("plain fields serialize");
        keyring.seal_text(place(&parts(owner)), &plain)
    }

    /// The session that `id` is, if it is one of this owner's and has not ended.
    #[must_use]
    pub fn open(keyring: &Keyring, owner: Owner<'_>, id: &str, now: UnixTime) -> Option<Self> {
        if id.len() > MAX_ID {
            return None;
        }
        let plain = keyring.open_text(place(&parts(owner)), id).ok()?;
        let sealed: Sealed<'_> = serde_json::from_slice(&plain).ok()?;
        let session = Self {
            version: Version::parse(sealed.v)?,
            client_info: sealed.i.get().to_owned(),
            capabilities: sealed.c.get().to_owned(),
            era: if sealed.m { Era::Modern } else { Era::Legacy },
            met: !sealed.u,
            nonce: sealed.n.to_owned(),
            expires: UnixTime(sealed.e),
        };
        (now < session.expires).then_some(session)
    }
}

fn parts(owner: Owner<'_>) -> [&str; 3] {
    [owner.user.issuer(), owner.user.subject(), owner.server.as_str()]
}

fn place<'a>(parts: &'a [&'a str; 3]) -> Place<'a> {
    Place { purpose: Purpose::Session, parts }
}

/// What tells a new session from every other: 128 random bits as text.
#[must_use]
pub fn fresh_nonce() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A client's name and version alone, each cut to a length that a session id can carry.
#[must_use]
pub fn brief_client_info(client_info: Option<&str>) -> String {
    let info = client_info.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
    let field = |key: &str| {
        let text = info.get_string(key).unwrap_or_else(|| "unknown".into());
        let end = (0..=MAX_CLIENT_NAME.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        json::quote(&text[..end])
    };
    format!(r#"{{"name":{},"version":{}}}"#, field("name"), field("version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(capabilities: &str) -> Session {
        Session {
            version: Version::V2025_11_25,
            client_info: brief_client_info(Some(r#"{"name":"n","version":"1","icons":[1]}"#)),
            capabilities: capabilities.to_owned(),
            era: Era::Modern,
            met: true,
            nonce: "abc".into(),
            expires: UnixTime(100),
        }
    }

    #[test]
    fn a_session_opens_for_its_owner_until_it_ends_and_for_nobody_else() {
        let keyring = Keyring::ephemeral();
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let (one, two) = (ServerName::parse("one").unwrap(), ServerName::parse("two").unwrap());
        let owner = Owner { user: &alice, server: &one };
        let id = session(r#"{"roots":{}}"#).seal(&keyring, owner).unwrap();
        assert!(id.bytes().all(|b| b.is_ascii_graphic()));
        let opened = Session::open(&keyring, owner, &id, UnixTime(99)).unwrap();
        assert_eq!(opened.capabilities, r#"{"roots":{}}"#);
        assert_eq!(opened.client_info, r#"{"name":"n","version":"1"}"#);
        assert_eq!(opened.era, Era::Modern);
        assert!(Session::open(&keyring, owner, &id, UnixTime(100)).is_none());
        assert!(Session::open(&keyring, Owner { user: &bob, ..owner }, &id, UnixTime(1)).is_none());
        assert!(Session::open(&keyring, Owner { server: &two, ..owner }, &id, UnixTime(1)).is_none());
        assert!(Session::open(&Keyring::ephemeral(), owner, &id, UnixTime(1)).is_none());
    }

    #[test]
    fn what_is_experimental_is_left_out_before_a_session_is_refused() {
        let keyring = Keyring::ephemeral();
        let (alice, one) = (UserId::local("alice").unwrap(), ServerName::parse("one").unwrap());
        let owner = Owner { user: &alice, server: &one };
        let long = "x".repeat(3000);
        let id =
            session(&format!(r#"{{"roots":{{}},"experimental":{{"a":"{long}"}}}}"#)).seal(&keyring, owner).unwrap();
        assert!(id.len() <= MAX_ID);
        assert_eq!(Session::open(&keyring, owner, &id, UnixTime(1)).unwrap().capabilities, r#"{"roots":{}}"#);
        assert_eq!(session(&format!(r#"{{"roots":"{long}"}}"#)).seal(&keyring, owner), Err(TooLong));
    }
}
