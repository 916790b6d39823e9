//! What a server asks its client in the middle of a call, and how the answer finds its way back: ids and states that
//! carry their own address, sealed to their user, and the notes that one exchange sends to another.
//! Source: MCP 2025-11-25, client/{sampling,elicitation,roots}; MCP 2026-07-28, basic/patterns/mrtr.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::json::{self, Object};
use crate::mcp::lists::List;
use crate::mcp::message::{MAX_MEMBERS, Message};
use crate::memory::Held;
use crate::relay::Address;
use crate::user::UserId;

/// What the ids begin with that the bridge gives to questions, states and tasks.
pub(super) const PREFIX: &str = "tb1-";

/// The longest text that is compared by what it says rather than by how it is written, bytes.
const MAX_CANONICAL: usize = 256 << 10;

/// What one exchange says to another, on whichever node it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// The client's answer to the question with this id: `"result":…` or `"error":…`, as written.
    Answer {
        /// The id as its asker wrote it.
        id: String,
        /// Whether it is an error.
        failed: bool,
        /// The result or the error as written.
        text: String,
    },
    /// A message for the server, as written.
    Tell(String),
    /// The server of a call says that this list has changed.
    Changed(List),
    /// The client no longer wants its answer; the notification that says so, as written.
    Cancelled(String),
    /// The client has called again, with answers.
    Retry(Retry),
    /// The client that called again has left.
    Left,
    /// Somebody asks about the task that the server is held for.
    Task(TaskRequest),
}

/// A request about a task.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TaskRequest {
    /// Where its answer goes.
    pub(super) reply_to: String,
    /// The whole message as written.
    pub(super) text: String,
}

/// A call that continues one that was parked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Retry {
    /// Where its answer goes.
    pub(super) reply_to: String,
    /// Its id as written.
    pub(super) id: String,
    /// Its progress token as written.
    pub(super) progress: Option<String>,
    /// The answers by key, as written.
    pub(super) answers: Vec<(String, String)>,
    /// Which round of questions it answers.
    pub(super) round: u32,
}

impl Note {
    pub(super) fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("notes hold only text").into()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Question {
    /// Its id as the server wrote it.
    pub(super) id: String,
    /// The key by which a modern client answers it.
    pub(super) key: String,
    pub(super) method: String,
    /// Its parameters as written.
    pub(super) params: String,
    /// The answer, where all are waited for.
    pub(super) answer: Option<String>,
    /// What it holds.
    pub(super) held: Option<Held>,
}

impl Question {
    pub(super) fn new(id: &str, method: &str, params: &str) -> Self {
        // The key says what it is about to whoever reads a trace, and no two ids have the same.
        let about = method.split('/').next().unwrap_or_default();
        let plain: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let (id, key) = (id.to_owned(), format!("{about}-{plain}"));
        Self { id, key, method: method.to_owned(), params: params.to_owned(), answer: None, held: None }
    }

    /// How long it is, bytes.
    pub(super) fn length(&self) -> usize {
        self.id.len() + self.key.len() + self.method.len() + self.params.len()
    }
}

/// Whose exchange it is: what was sealed for one user and server opens for no other.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) user: &'a UserId,
    pub(super) server: &'a ServerName,
}

/// Where the answer to a question of a live call goes.
#[derive(Serialize, Deserialize)]
struct QuestionId<'a> {
    a: &'a str,
    i: Cow<'a, str>,
}

/// An id for a question that leads its answer to `address`, and there to whoever asked with `id`.
pub(super) fn seal_question(keyring: &Keyring, owner: Owner<'_>, nonce: &str, address: &Address, id: &str) -> String {
    let address = address.to_string();
    let plain = serde_json::to_vec(&QuestionId { a: &address, i: id.into() }).expect("text serializes");
    format!("{PREFIX}{}", keyring.seal_text(question_place(&question_parts(owner, nonce)), &plain))
}

/// A question as a client sees it on a stream: its id and its progress token are `sealed`, so that what the client says
/// about them finds the way back. The id, and the message.
pub(super) fn for_client(id: &str, method: &str, params: &str, sealed: impl Fn(&str) -> String) -> (String, String) {
    let mut object = Object::parse(params).unwrap_or_default();
    let token = object.get_object("_meta").and_then(|meta| meta.get("progressToken")).map(|t| json::quote(&sealed(t)));
    let meta = token.as_ref().and_then(|token| {
        let mut meta = object.get_object("_meta")?;
        meta.set("progressToken", token);
        Some(meta.write())
    });
    if let Some(meta) = &meta {
        object.set("_meta", meta);
    }
    object.remove("task");
    let (id, params) = (sealed(id), object.write());
    let (quoted, method) = (json::quote(&id), json::quote(method));
    (id, format!(r#"{{"jsonrpc":"2.0","id":{quoted},"method":{method},"params":{params}}}"#))
}

/// Where the answer to `sealed` goes, if it is a question of this session.
pub(super) fn open_question(
    keyring: &Keyring,
    owner: Owner<'_>,
    nonce: &str,
    sealed: &str,
) -> Option<(Address, String)> {
    let text = sealed.strip_prefix(PREFIX)?;
    let plain = keyring.open_text(question_place(&question_parts(owner, nonce)), text).ok()?;
    let question: QuestionId<'_> = serde_json::from_slice(&plain).ok()?;
    Some((question.a.parse().ok()?, question.i.into_owned()))
}

fn question_parts<'a>(owner: Owner<'a>, nonce: &'a str) -> [&'a str; 5] {
    ["question", owner.user.issuer(), owner.user.subject(), owner.server.as_str(), nonce]
}

fn question_place<'a>(parts: &'a [&'a str; 5]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}

/// The key by which a call is found that only its client's id names. It says whose session, so that equal ids of two
/// clients never meet.
pub(super) fn call_key(nonce: &str, id: &str) -> String {
    let id = json::string(id).map_or_else(|| id.to_owned(), |decoded| format!("\"{decoded}"));
    format!("call {nonce} {id}")
}

/// What a modern client brings back when it calls again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestState {
    /// What the call was: its method, its name and its arguments, as a digest.
    call: String,
    /// When it ends, in seconds since 1970.
    expires: u64,
    /// How the call goes on.
    pub(super) next: NextStep,
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
pub(super) struct Transcript {
    /// Answered questions: their fingerprint and the answer as written.
    pub(super) answered: Vec<(String, String)>,
    /// Open questions: their key and their fingerprint.
    pub(super) open: Vec<(String, String)>,
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
    pub(super) fn with(mut self, answers: &[(String, String)]) -> Self {
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
    pub(super) fn new(message: &Message, expires: UnixTime, next: NextStep) -> Self {
        Self { call: fingerprint_of_call(message), expires: expires.0, next }
    }

    pub(super) fn seal(&self, keyring: &Keyring, owner: Owner<'_>) -> String {
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
    pub(super) fn of(
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
pub(super) fn answers(message: &Message) -> Option<Vec<(String, String)>> {
    let Some(text) = message.param("inputResponses") else { return Some(Vec::new()) };
    let responses = Object::parse_up_to(MAX_MEMBERS, text).ok()?;
    responses.iter().map(|(key, text)| text.starts_with('{').then(|| (key.to_owned(), text.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::metrics::Gauge;
    use crate::relay::Relay;

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

    #[test]
    fn a_question_is_answered_within_its_own_session_only() {
        let keyring = Keyring::ephemeral();
        let alice = UserId::local("alice").unwrap();
        let server = ServerName::parse("s").unwrap();
        let owner = Owner { user: &alice, server: &server };
        let memory = Memory::new(None, 1, Gauge::default());
        let mailbox = Relay::local().open(memory.share(&alice, 1));
        let id = seal_question(&keyring, owner, "n1", &mailbox.address(), "\"q\"");
        let (address, original) = open_question(&keyring, owner, "n1", &id).unwrap();
        assert_eq!((address, original.as_str()), (mailbox.address(), "\"q\""));
        assert!(open_question(&keyring, owner, "n2", &id).is_none());
    }

    #[test]
    fn no_two_ids_of_questions_have_one_key() {
        let key = |id| Question::new(id, "elicitation/create", "{}").key;
        assert_eq!(key("12"), "elicitation-12");
        let keys: std::collections::BTreeSet<_> =
            ["12", r#""12""#, r#""1-2""#, "1.2", "-12", r#""%2D12""#, "1e2"].into_iter().map(key).collect();
        assert_eq!(keys.len(), 7, "{keys:?}");
    }

    #[test]
    fn equal_ids_of_two_sessions_and_of_two_types_are_two_keys() {
        assert_ne!(call_key("a", "1"), call_key("b", "1"));
        assert_ne!(call_key("a", "1"), call_key("a", "\"1\""));
        assert_eq!(call_key("a", r#""x""#), call_key("a", r#""\u0078""#));
    }
}
