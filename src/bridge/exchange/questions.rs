//! What a server asks its client in the middle of a call (sampling, elicitation, roots), under an id by which the answer
//! finds the exchange that waits for it: the id carries its address, sealed to the user.
//! Source: MCP 2025-11-25, client/{sampling,elicitation,roots}.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::json::{self, Object};
use crate::memory::Held;
use crate::relay::Address;
use crate::user::UserId;

/// What the ids begin with that the bridge gives to questions, states and tasks.
pub(in crate::bridge) const PREFIX: &str = "tb1-";

/// A question that waits for its answer.
#[derive(Debug)]
pub(in crate::bridge) struct Question {
    /// Its id as the server wrote it.
    pub(in crate::bridge) id: String,
    /// The key by which a modern client answers it.
    pub(in crate::bridge) key: String,
    pub(in crate::bridge) method: String,
    /// Its parameters as written.
    pub(in crate::bridge) params: String,
    /// The answer, where all are waited for.
    pub(in crate::bridge) answer: Option<String>,
    /// What it holds.
    pub(in crate::bridge) held: Option<Held>,
}

impl Question {
    pub(in crate::bridge) fn new(id: &str, method: &str, params: &str) -> Self {
        // The key says what it is about to whoever reads a trace, and no two ids have the same.
        let about = method.split('/').next().unwrap_or_default();
        let plain: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let (id, key) = (id.to_owned(), format!("{about}-{plain}"));
        Self { id, key, method: method.to_owned(), params: params.to_owned(), answer: None, held: None }
    }

    /// How long it is, bytes.
    pub(in crate::bridge) fn length(&self) -> usize {
        self.id.len() + self.key.len() + self.method.len() + self.params.len()
    }
}

/// Whose exchange it is: what was sealed for one user and server opens for no other.
#[derive(Clone, Copy)]
pub(in crate::bridge) struct Owner<'a> {
    pub(in crate::bridge) user: &'a UserId,
    pub(in crate::bridge) server: &'a ServerName,
}

/// Where the answer to a question of a live call goes.
#[derive(Serialize, Deserialize)]
struct QuestionId<'a> {
    a: &'a str,
    i: Cow<'a, str>,
}

/// An id for a question that leads its answer to `address`, and there to whoever asked with `id`.
pub(in crate::bridge) fn seal_question(
    keyring: &Keyring,
    owner: Owner<'_>,
    nonce: &str,
    address: &Address,
    id: &str,
) -> String {
    let address = address.to_string();
    let plain = serde_json::to_vec(&QuestionId { a: &address, i: id.into() }).expect("text serializes");
    format!("{PREFIX}{}", keyring.seal_text(question_place(&question_parts(owner, nonce)), &plain))
}

/// A question as a client sees it on a stream: its id and its progress token are `sealed`, so that what the client says
/// about them finds the way back. The id, and the message.
pub(in crate::bridge) fn for_client(
    id: &str,
    method: &str,
    params: &str,
    sealed: impl Fn(&str) -> String,
) -> (String, String) {
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
pub(in crate::bridge) fn open_question(
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
pub(in crate::bridge) fn call_key(nonce: &str, id: &str) -> String {
    let id = json::string(id).map_or_else(|| id.to_owned(), |decoded| format!("\"{decoded}"));
    format!("call {nonce} {id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::metrics::Gauge;
    use crate::relay::Relay;

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
