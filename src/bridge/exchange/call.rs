//! A call: what is asked of a fresh server, and how its client is introduced to it.

use std::borrow::Cow;

use http::HeaderMap;

use super::handshake::ClientKind;
use crate::bridge::error::BridgeError;
use crate::config::{Questions, Tasks};
use crate::mcp::json::Object;
use crate::mcp::legacy::{Introduction, REQUEST_ID, can_be_asked};
use crate::mcp::message::Message;
use crate::mcp::modern::{Level, Modern};
use crate::mcp::session::Session;
use crate::mcp::tasks;
use crate::relay::Address;

/// A request, its client, and what is to be done.
#[derive(Debug)]
pub(in crate::bridge) struct Call {
    /// The client's request, as a server is asked it: under an id of the bridge's own, which is its progress token too.
    pub(in crate::bridge) message: Message,
    /// Its id as its client wrote it.
    pub(in crate::bridge) id: String,
    /// Its progress token as its client wrote it.
    pub(in crate::bridge) progress: Option<String>,
    /// Who the server is told is calling.
    pub(in crate::bridge) introduction: Introduction,
    /// What is done after the handshake.
    pub(in crate::bridge) purpose: Purpose,
    /// From which level the client wants log messages, if it has said so.
    pub(in crate::bridge) level: Option<Level>,
    /// Where the listener of its session is, if it has had one.
    pub(in crate::bridge) listener: Option<Address>,
    /// The headers that say they mirror parameters of a tool, or what the method of an extension names.
    pub(in crate::bridge) mirrored: HeaderMap,
    /// Whether the client takes events, so that it can be asked while it waits.
    pub(in crate::bridge) events: bool,
    /// Whether the client takes a JSON document.
    pub(in crate::bridge) json: bool,
    /// Where it was made before and led its person to a page: whether they agreed to go there.
    pub(in crate::bridge) agreed: Option<bool>,
}

/// What a call is for.
#[derive(Debug)]
pub(in crate::bridge) enum Purpose {
    /// The handshake itself, for a legacy client; its answer begins a session.
    Initialize(crate::mcp::legacy::Asked),
    /// What the server says of itself, for a modern client.
    Discover,
    /// A legacy client's request, in its session if it has one.
    Legacy(Option<Session>),
    /// A modern client's request.
    Modern(Modern),
}

impl Call {
    /// The request's id as its client wrote it.
    pub(in crate::bridge) fn id(&self) -> &str {
        &self.id
    }

    /// The request's id as the server knows it.
    pub(in crate::bridge) fn id_at_server(&self) -> &str {
        self.message.id().unwrap_or(REQUEST_ID)
    }

    /// Brings a server its own state, as written, in place of the bridge's.
    pub(super) fn bring(&mut self, state: Option<&str>) -> Result<(), BridgeError> {
        self.message = if let Some(state) = state {
            self.message.with_param("requestState", state)
        } else {
            let mut params = self.message.params_object();
            params.remove("requestState");
            Message::parse(self.message.with_params(&params.write()).into()).map_err(BridgeError::Malformed)?
        };
        Ok(())
    }

    /// Takes out what was said of an earlier call, of which no server knows; `answers` are those it brings, by key.
    pub(super) fn begin_anew(&mut self, answers: &[(String, String)]) -> Result<(), BridgeError> {
        let action = |answer: &str| Object::parse(answer).ok()?.get_string("action").map(Cow::into_owned);
        let accepted = |(_, answer): &(String, String)| action(answer).is_none_or(|action| action == "accept");
        self.agreed = (!answers.is_empty()).then(|| answers.iter().all(accepted));
        let mut params = self.message.params_object();
        params.remove("inputResponses");
        params.remove("requestState");
        let anew = self.message.with_params(&params.write());
        self.message = Message::parse(anew.into()).map_err(BridgeError::Malformed)?;
        Ok(())
    }

    /// Whether its client is of the era in which leaving is cancelling.
    pub(in crate::bridge) fn is_modern(&self) -> bool {
        matches!(self.purpose, Purpose::Modern(_) | Purpose::Discover)
    }

    /// Whether its server may come to wait, parked, for the client to call again.
    pub(in crate::bridge) fn may_park(&self, questions: Questions) -> bool {
        let Purpose::Modern(modern) = &self.purpose else { return false };
        questions == Questions::Park && may_ask(self.message.method()) && can_be_asked(&modern.capabilities)
    }

    /// Whether its server may come to be held for a task.
    pub(in crate::bridge) fn may_begin_task(&self, kept: Tasks) -> bool {
        kept == Tasks::Hold && self.message.method() == "tools/call" && self.declares_tasks()
    }

    /// Whether its client has declared the extension.
    pub(in crate::bridge) fn declares_tasks(&self) -> bool {
        matches!(&self.purpose, Purpose::Modern(modern) if tasks::declared(&modern.capabilities))
    }

    /// Whether it is about a task that a server is held for.
    pub(super) fn is_about_held_task(&self, kept: Tasks) -> bool {
        kept == Tasks::Hold && self.is_modern() && tasks::is_about_one(self.message.method())
    }

    /// Which client it has, for the handshake.
    pub(in crate::bridge) fn client(&self) -> ClientKind<'_> {
        match &self.purpose {
            Purpose::Modern(_) | Purpose::Discover => ClientKind::Modern,
            Purpose::Legacy(Some(session)) => session_client(session),
            Purpose::Legacy(None) | Purpose::Initialize(_) => ClientKind::WithoutSession,
        }
    }

    /// Whether a legacy server, which keeps a log or not, may tell or ask its client something that belongs to no request.
    pub(super) fn may_be_told_unasked(&self, logs: bool) -> bool {
        let hears_logs = logs && (!self.is_modern() || self.level.is_some());
        let acts = may_ask(self.message.method());
        self.events && acts && (hears_logs || can_be_asked(&self.introduction.capabilities))
    }

    /// Whether the status line may go out before the answer is there: not where the answer begins a session, whose id
    /// travels in a header.
    pub(in crate::bridge) fn may_commit_early(&self) -> bool {
        !matches!(self.purpose, Purpose::Initialize(_))
    }

    /// The session, if there is one.
    pub(in crate::bridge) fn session(&self) -> Option<&Session> {
        match &self.purpose {
            Purpose::Legacy(session) => session.as_ref(),
            _ => None,
        }
    }
}

/// The client of a session, for the handshake: what its server is, is known only if one answered it.
pub(in crate::bridge) fn session_client(session: &Session) -> ClientKind<'_> {
    if session.met { ClientKind::InSession(session) } else { ClientKind::WithoutSession }
}

/// Whether a modern client can be asked for input by the result of this method. Source: MCP 2026-07-28,
/// basic/patterns/mrtr, "Supported Requests".
pub(in crate::bridge) fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}
