//! What happened, and how a line says it.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::request_id::RequestId;
use crate::telemetry::encode_for_log;
use crate::user::UserId;

/// Random bytes of the id of a change.
const CHANGE_ID: usize = 12;

/// The longest name of a client in a line, bytes.
const MAX_CLIENT: usize = 128;

/// Something that happened. What is not known, or has no meaning for the event, is left out of its line.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What it was.
    pub kind: EventKind,
    /// Whose token, or who it was.
    pub user: Option<&'a UserId>,
    /// For which server.
    pub server: Option<&'a ServerName>,
    /// The program by which it was done, if not the client of the request.
    pub client: Option<&'a str>,
    /// Where it came from, if not from where the request did.
    pub source: Option<IpAddr>,
    /// What came of it.
    pub outcome: Outcome,
    /// The id of the sealing key.
    pub key: Option<&'a str>,
    /// Tells two tokens apart and says nothing of them.
    pub fingerprint: Option<&'a str>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A user has signed in with a browser.
    SignIn,
    /// A user has signed out.
    SignOut,
    /// A credential was presented that is none.
    Refused,
    /// A user was led to the page where they save a token.
    LinkGiven,
    /// A user has begun to sign in at the service of a server.
    SignInBegun,
    /// That has ended, and gave nothing.
    SignInEnded,
    /// The service was asked to renew a token.
    TokenRenewed,
    /// A token can be renewed no more: its user must sign in again.
    SignInNeeded,
    /// A token went into a server that was started for its user.
    TokenReleased,
    /// A token is saved where there was none.
    TokenSet,
    /// A token is saved in place of another.
    TokenReplaced,
    /// A token is saved although nobody knows that it is good, be it in place of another or not.
    TokenSavedAnyway,
    /// A token that a user entered is tried.
    TokenProbed,
    /// A token is removed.
    TokenRemoved,
    /// The tokens of a backup are saved.
    TokensRestored,
    /// A configuration is made of another program's.
    Import,
    /// All tokens are sealed with this key.
    KeyRotated,
    /// A key that seals nothing any more is let go.
    KeyRetired,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is about to be done.
    Begun,
    /// It was done.
    Done,
    /// It was not done, because it may not be.
    Refused,
    /// It was not done, because somebody else was faster.
    Changed,
    /// It was not done, because something failed.
    Failed,
    /// Nobody knows, nor whether a token that was tried is good.
    Unknown,
}

/// What all lines about one event share, as JSON after the opening brace.
#[derive(Debug)]
pub(super) struct Written(pub(super) String);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    event: EventKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a str>,
}

impl Event<'_> {
    /// Something that was done and of which nothing else is known.
    #[must_use]
    pub fn of(kind: EventKind) -> Self {
        let (user, server, client, source, key, fingerprint) = Default::default();
        Self { kind, user, server, client, source, outcome: Outcome::Done, key, fingerprint }
    }

    /// What its lines say, with what is known of the request that the running task serves.
    pub(super) fn describe(&self, change: Option<&str>) -> Written {
        let request = RequestId::current();
        let request = request.as_ref();
        let members = Members {
            event: self.kind,
            change,
            user: self.user.map(UserId::subject),
            issuer: self.user.map(UserId::issuer),
            server: self.server.map(ServerName::as_str),
            request: request.map(RequestId::as_str),
            client: self.client.or(request.and_then(RequestId::client)).map(cut),
            source: self.source.or(request.and_then(RequestId::source)),
            key: self.key,
            fingerprint: self.fingerprint,
        };
        let text = serde_json::to_string(&members).expect("names and addresses are JSON");
        // The escapes are JSON's, so it stays JSON.
        Written(encode_for_log(&text[1..]).into_owned())
    }
}

impl Written {
    /// One line: what came of it by now.
    pub(super) fn line(&self, now: UnixTime, outcome: Outcome) -> String {
        let outcome = serde_json::to_string(&outcome).expect("a word is JSON");
        format!("{{\"time\":\"{now}\",\"outcome\":{outcome},{}\n", self.0)
    }
}

/// An id that ties the lines of one change together.
pub(super) fn change_id() -> String {
    let mut random = [0; CHANGE_ID];
    aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
    BASE64_URL_SAFE_NO_PAD.encode(random)
}

/// As much of a client's name as a line has room for.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_CLIENT)]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_a_client_calls_itself() {
        let user = UserId::new("https://idp", "\u{e4}\"\u{202e}").unwrap();
        let client = format!("a\n\u{2028}\u{1b}[2J\u{202e}{}", "\u{e4}".repeat(200));
        let event = Event { user: Some(&user), client: Some(&client), ..Event::of(EventKind::LinkGiven) };
        let line = event.describe(Some("c1")).line(UnixTime(0), Outcome::Begun);
        assert!(!line.trim_end().contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}')), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["user"], "\u{e4}\"\u{202e}");
        let kept = read["client"].as_str().unwrap();
        assert!(client.starts_with(kept) && (MAX_CLIENT - 1..=MAX_CLIENT).contains(&kept.len()), "{kept}");
        assert_eq!((&read["time"], &read["event"]), (&"1970-01-01T00:00:00Z".into(), &"link-given".into()));
        assert_eq!((&read["outcome"], &read["change"]), (&"begun".into(), &"c1".into()));
        assert!(read.get("server").is_none() && read.get("request").is_none());
    }

    #[test]
    fn each_change_has_an_id_of_its_own() {
        assert_ne!(change_id(), change_id());
        assert_eq!(change_id().len(), CHANGE_ID * 4 / 3);
    }
}
