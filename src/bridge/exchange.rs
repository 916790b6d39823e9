//! One exchange: a client's request, the fresh server that works at it, and everything that passes between the two until
//! the answer. `conversation` owns it and ends it, `run` does the work.

mod ask_client;
pub(in crate::bridge) mod call;
pub(in crate::bridge) mod child;
pub(in crate::bridge) mod conversation;
pub(in crate::bridge) mod course;
mod era_correction;
mod final_answer;
pub(in crate::bridge) mod handshake;
mod held_task;
pub(in crate::bridge) mod list_changes;
mod mirrored_headers;
pub(in crate::bridge) mod notes;
mod notifications;
pub(in crate::bridge) mod questions;
pub(in crate::bridge) mod relayed_reply;
pub(in crate::bridge) mod renewed_token;
pub(in crate::bridge) mod request_state;
mod resume;
mod run;
mod start;
mod tasks;
pub(in crate::bridge) mod visit;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use super::error::BridgeError;
use super::response::final_message::FinalMessage;
use super::response::sse::{Outbox, Stalled};
use super::{Bridge, IncomingMessage};
use crate::config::{Questions, Server};
use crate::mcp::era::Version;
use crate::mcp::message::Message;
use crate::mcp::mrtr;
use crate::memory::Held;
use crate::relay::Mailbox;
use crate::user::Caller;
use call::Call;
use child::Child;
use course::Course;
use handshake::Handshake;
use held_task::Task;
use list_changes::Changes;
use questions::{Owner, Question};
use request_state::Transcript;

/// A call in the making: what is asked, of which server, for whom.
pub(super) struct Exchange {
    pub(super) bridge: Arc<Bridge>,
    pub(super) caller: Caller,
    pub(super) server: Arc<Server>,
    pub(super) call: Call,
    pub(super) child: Child,
    pub(super) outbox: Outbox,
    /// Where notes from other exchanges arrive, once any may.
    pub(super) mailbox: Option<Mailbox>,
    /// What the server turned out to be.
    pub(super) handshake: Option<Handshake>,
    /// The request's id and progress token as the client has them now: a call that goes on has new ones.
    pub(super) reply_id: String,
    pub(super) reply_progress: Option<String>,
    /// Whether anything has been said to the client that is not the answer.
    pub(super) has_said: bool,
    /// Whether the request is on its way to the server, so that a cancellation means something to it.
    pub(super) asked: bool,
    /// What the client said when it cancelled, of the id that the server knows.
    pub(super) cancelled: Option<Message>,
    /// Questions of the server that have no answer yet.
    pub(super) open: Vec<Question>,
    /// How often the client has been asked to call again.
    pub(super) round: u32,
    /// What an earlier call asked and was answered.
    pub(super) transcript: Transcript,
    /// Whether a legacy client's answer is waited for: a call that waits for who has left never ends by itself.
    pub(super) waits: Arc<AtomicBool>,
    /// What the server says of its lists, if anybody is told.
    pub(super) changes: Option<Box<Changes>>,
    /// What a modern server wants back, while its client is asked, and what that holds.
    pub(super) required: Option<(mrtr::InputRequired, Held)>,
    /// The server's answer, if it came while nobody listened.
    pub(super) settled: Option<Bytes>,
    /// The task that the call was answered with, if the server is held for one.
    task: Option<Box<Task>>,
    /// How it has gone so far.
    course: Course,
}

/// How far the work has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The client has its answer.
    Answered,
    /// The client has been asked, or has been answered with a task, and the server waits.
    Parked,
}

impl Exchange {
    /// A call about to begin.
    pub(super) fn new(
        bridge: &Arc<Bridge>,
        incoming: IncomingMessage,
        call: Call,
        child: Child,
        (outbox, transcript): (Outbox, Transcript),
    ) -> Self {
        let (reply_id, reply_progress) = (call.id().to_owned(), call.progress.clone());
        let call = Call { message: call.message.counted(&child.share), ..call };
        Self {
            bridge: Arc::clone(bridge),
            caller: incoming.caller,
            server: incoming.server,
            call,
            child,
            outbox,
            mailbox: None,
            handshake: None,
            reply_id,
            reply_progress,
            has_said: false,
            asked: false,
            cancelled: None,
            open: Vec::new(),
            round: 0,
            transcript,
            waits: Arc::default(),
            changes: None,
            required: None,
            settled: None,
            task: None,
            course: incoming.course,
        }
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { user: &self.caller.user, server: &self.server.name }
    }

    pub(super) fn handshaken(&self) -> &Handshake {
        self.handshake.as_ref().expect("the handshake comes before any request")
    }

    pub(super) async fn event(&mut self, text: Bytes) -> Result<(), BridgeError> {
        self.has_said = true;
        self.course.send(text.len());
        self.outbox.event(text).await.map_err(|Stalled| BridgeError::Stalled)
    }

    pub(super) async fn last(&mut self, message: FinalMessage) {
        self.course.finish(&message);
        self.outbox.finish(message).await;
    }

    /// Where notes from other exchanges arrive from now on.
    pub(super) fn mailbox(&mut self) -> &mut Mailbox {
        let Self { mailbox, bridge, caller, server, .. } = self;
        mailbox.get_or_insert_with(|| bridge.mailbox(&caller.user, server))
    }

    /// What becomes of questions that must be answered by calling again.
    pub(super) fn policy(&self) -> Questions {
        self.server.questions
    }

    /// The version that a legacy client is told, where the server does not choose it.
    pub(super) fn version_for_client(&self) -> Version {
        self.call.introduction.version
    }
}
