//! A call: what is asked of a fresh server, and how its client is introduced to it.

use http::HeaderMap;

use super::error::BridgeError;
use super::meet::For;
use crate::config::{Questions, Tasks};
use crate::mcp::legacy::{Introduction, REQUEST_ID, can_be_asked};
use crate::mcp::message::Message;
use crate::mcp::modern::{Level, Modern};
use crate::mcp::session::Session;
use crate::mcp::tasks;
use crate::relay::Address;

/// A request, its client, and what is to be done.
#[derive(Debug)]
pub(super) struct Call {
    /// The client's request, as a server is asked it: under an id of the bridge's own, which is its progress token too.
    pub(super) message: Message,
    /// Its id as its client wrote it.
    pub(super) id: String,
    /// Its progress token as its client wrote it.
    pub(super) progress: Option<String>,
    /// Who the server is told is calling.
    pub(super) introduction: Introduction,
    /// What is done once the server has been met.
    pub(super) purpose: Purpose,
    /// From which level the client wants log messages, if it has said so.
    pub(super) level: Option<Level>,
    /// Where the listener of its session is, if it has had one.
    pub(super) listener: Option<Address>,
    /// The headers that say they mirror parameters of a tool, or what the method of an extension names.
    pub(super) mirrored: HeaderMap,
    /// Whether the client takes events, so that it can be asked while it waits.
    pub(super) events: bool,
    /// Whether the client takes a JSON document.
    pub(super) json: bool,
}

/// What a call is for.
#[derive(Debug)]
pub(super) enum Purpose {
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
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The request's id as the server knows it.
    pub(super) fn id_at_server(&self) -> &str {
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

    /// Whether its client is of the era in which leaving is cancelling.
    pub(super) fn is_modern(&self) -> bool {
        matches!(self.purpose, Purpose::Modern(_) | Purpose::Discover)
    }

    /// Whether its server may come to wait, parked, for the client to call again.
    pub(super) fn may_park(&self, questions: Questions) -> bool {
        let Purpose::Modern(modern) = &self.purpose else { return false };
        questions == Questions::Park && may_ask(self.message.method()) && can_be_asked(&modern.capabilities)
    }

    /// Whether its server may come to be held for a task.
    pub(super) fn may_begin_task(&self, kept: Tasks) -> bool {
        let Purpose::Modern(modern) = &self.purpose else { return false };
        kept == Tasks::Hold && self.message.method() == "tools/call" && tasks::declared(&modern.capabilities)
    }

    /// Whether it is about a task that a server is held for.
    pub(super) fn is_about_held_task(&self, kept: Tasks) -> bool {
        kept == Tasks::Hold && self.is_modern() && tasks::is_about_one(self.message.method())
    }

    /// Who its client is to a server that is about to be met.
    pub(super) fn client(&self) -> For<'_> {
        match &self.purpose {
            Purpose::Modern(_) | Purpose::Discover => For::Modern,
            Purpose::Legacy(Some(session)) => For::Session(session),
            Purpose::Legacy(None) | Purpose::Initialize(_) => For::Newcomer,
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
    pub(super) fn may_commit_early(&self) -> bool {
        !matches!(self.purpose, Purpose::Initialize(_))
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.purpose {
            Purpose::Legacy(session) => session.as_ref(),
            _ => None,
        }
    }
}

/// Whether a modern client can be asked for input by the result of this method. Source: MCP 2026-07-28,
/// basic/patterns/mrtr, "Supported Requests".
pub(super) fn may_ask(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}
