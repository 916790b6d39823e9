//! `requestState`: what a modern client brings back when it calls again, sealed to its user, server and call: where its
//! server waits, or what was answered before. Source: MCP 2026-07-28, basic/patterns/mrtr.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::questions::{Owner, PREFIX};
use crate::clock::UnixTime;
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::json::Object;
use crate::mcp::message::{MAX_MEMBERS, Message};

/// The longest text that is compared by what it says rather than by how it is written, bytes.
const MAX_CANONICAL: usize = 256 << 10;

/// How long a state lasts that needs no process to wait, in seconds.
pub(super) const STATE_LIFETIME: u64 = 15 * 60;

/// What a modern client brings back when it calls again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestState {
    /// What the call was: its method, its name and its arguments, as a digest.
    call: String,
    /// When it ends, in seconds since 1970.
    expires: u64,
    /// How the call goes on.
    pub(in crate::bridge) next: NextStep,
}

/// How a call that was answered with questions goes on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum NextStep {
    /// Its server waits at this address for the answers to this round.
    Parked {
        /// Where.
        at: String,
        /// Which round of questions.
        round: u32,
    },
    /// The modern server that asked waits at this address for the answers to this round. If it is gone, a fresh one is
    /// asked, which may know its state.
    Kept {
        /// Where.
        at: String,
        /// Which round of questions.
        round: u32,
        /// The server's own `requestState`, as written, if it gave one.
        state: Option<String>,
    },
    /// It begins anew, and what was answered before is answered again.
    Replay(Transcript),
    /// It begins anew.
    Again,
}

/// What has been asked and answered so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::bridge) struct Transcript {
    /// Answered questions: their fingerprint and the answer as written.
    pub(in crate::bridge) answered: Vec<(String, String)>,
    /// Open questions: their key and their fingerprint.
    pub(in crate::bridge) open: Vec<(String, String)>,
    /// How often the client has been asked.
    pub(super) rounds: u32,
    /// Answers that have been given again in this run.
    #[serde(skip)]
    used: Vec<usize>,
}

impl Transcript {
    /// The answer that was given before, in the order in which the same was asked; none is given twice in one run.
    pub(super) fn answer_again(&mut self, fingerprint: &str) -> Option<String> {
        let mut all = self.answered.iter().enumerate();
        let at = all.find(|(at, (asked, _))| asked == fingerprint && !self.used.contains(at))?.0;
        self.used.push(at);
        Some(self.answered[at].1.clone())
    }

    /// Adds what the client answers now to what it answered before.
    pub(in crate::bridge) fn with(mut self, answers: &[(String, String)]) -> Self {
        for (key, fingerprint) in std::mem::take(&mut self.open) {
            if let Some((_, answer)) = answers.iter().find(|(answered, _)| *answered == key) {
                self.answered.push((fingerprint, answer.clone()));
            }
        }
        self
    }
}

/// Why a `requestState` is not taken: -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`requestState` is not valid for this request, which may have been carried out already")]
pub struct BadState;

impl RequestState {
    /// A state for `message` that ends at `expires`.
    pub(in crate::bridge) fn new(message: &Message, expires: UnixTime, next: NextStep) -> Self {
        Self { call: fingerprint_of_call(message), expires: expires.0, next }
    }

    pub(in crate::bridge) fn seal(&self, keyring: &Keyring, owner: Owner<'_>) -> String {
        let plain = serde_json::to_vec(self).expect("text serializes");
        format!("{PREFIX}{}", keyring.seal_text(state_place(&state_parts(owner)), &plain))
    }

    /// Whether a state was made by the bridge, as far as its first letters tell.
    pub(super) fn is_ours(state: &str) -> bool {
        state.starts_with(PREFIX)
    }

    /// The state that `message` brings back; `None` if it brings none, or one that is not the bridge's.
    ///
    /// # Errors
    /// If it was tampered with, has ended, or belongs to another user, server or call.
    pub(in crate::bridge) fn of(
        message: &Message,
        keyring: &Keyring,
        owner: Owner<'_>,
        now: UnixTime,
    ) -> Result<Option<Self>, BadState> {
        let Some(sealed) = message.param_string("requestState") else {
            return Ok(None);
        };
        let Some(text) = sealed.strip_prefix(PREFIX) else { return Ok(None) };
        let plain = keyring.open_text(state_place(&state_parts(owner)), text).map_err(|_| BadState)?;
        let state: Self = serde_json::from_slice(&plain).map_err(|_| BadState)?;
        let fits = now.0 < state.expires && state.call == fingerprint_of_call(message);
        if fits { Ok(Some(state)) } else { Err(BadState) }
    }
}

fn state_parts(owner: Owner<'_>) -> [&str; 4] {
    ["state", owner.user.issuer(), owner.user.subject(), owner.server.as_str()]
}

fn state_place<'a>(parts: &'a [&'a str; 4]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}

/// What makes a call the same call: its method, what it names, and its arguments, however they are written.
fn fingerprint_of_call(message: &Message) -> String {
    let part = |key| canonical(message.param(key).unwrap_or("null"));
    fingerprint(&[message.method(), &part("name"), &part("uri"), &part("arguments")])
}

/// What makes a question the same question.
pub(super) fn fingerprint_of_question(method: &str, params: &str) -> String {
    fingerprint(&[method, &canonical(params)])
}

/// The text in a form in which order and white space do not matter; as written where that would take much memory.
fn canonical(text: &str) -> Cow<'_, str> {
    let value = Some(text).filter(|text| text.len() <= MAX_CANONICAL);
    let value = value.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    value.map_or(Cow::Borrowed(text), |value| Cow::Owned(value.to_string()))
}

fn fingerprint(parts: &[&str]) -> String {
    use base64::Engine as _;
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.finish())
}

/// The answers that a request brings, by key, as written; `None` if what it brings is not an object of objects.
pub(in crate::bridge) fn answers(message: &Message) -> Option<Vec<(String, String)>> {
    let Some(text) = message.param("inputResponses") else { return Some(Vec::new()) };
    let responses = Object::parse_up_to(MAX_MEMBERS, text).ok()?;
    responses.iter().map(|(key, text)| text.starts_with('{').then(|| (key.to_owned(), text.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerName;
    use crate::user::UserId;

    fn call(arguments: &str, state: &str) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments},"requestState":"{state}"}}}}"#
        );
        Message::parse(text.into()).unwrap()
    }

    #[test]
    fn a_state_is_good_for_its_own_call_user_and_time_only() {
        let keyring = Keyring::ephemeral();
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let server = ServerName::parse("s").unwrap();
        let owner = Owner { user: &alice, server: &server };
        let state = RequestState::new(&call(r#"{"a":1,"b":2}"#, ""), UnixTime(100), NextStep::Again);
        let sealed = state.seal(&keyring, owner);
        let open = |message: &Message, owner, now| RequestState::of(message, &keyring, owner, UnixTime(now));
        assert!(open(&call(r#"{"b": 2, "a":1}"#, &sealed), owner, 99).unwrap().is_some());
        assert!(open(&call(r#"{"a":1,"b":2}"#, &sealed), owner, 100).is_err());
        assert!(open(&call(r#"{"a":1,"b":3}"#, &sealed), owner, 1).is_err());
        assert!(open(&call(r#"{"a":1,"b":2}"#, &sealed), Owner { user: &bob, ..owner }, 1).is_err());
        assert!(open(&call(r#"{"a":1,"b":2}"#, &format!("{sealed}x")), owner, 1).is_err());
        assert!(open(&call("{}", "somebody else's"), owner, 1).unwrap().is_none());
    }
}
