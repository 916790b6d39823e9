//! What a message gets: an answer at once, or one that is pending because a server works at it.

use std::sync::Arc;

use http::Response;

use super::error::BridgeError;
use super::sse::{Guard, Inbox, ResponseForm};
use crate::bridge::exchange::call::Call;
use crate::bridge::incoming::session::{self, Subscription};
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::respond::Body;

/// What has become of a message.
pub(in crate::bridge) enum Outcome {
    /// It has been answered.
    Answered(Response<Body>),
    /// A server works at the answer.
    Pending(PendingResponse),
}

/// An answer on its way.
pub(in crate::bridge) struct PendingResponse {
    pub(in crate::bridge) inbox: Inbox,
    pub(in crate::bridge) form: ResponseForm,
    /// Dropped when nobody waits for the answer any more.
    pub(in crate::bridge) guard: Guard,
    /// What counts once the server has agreed to it.
    pub(in crate::bridge) subscription: Option<Subscription>,
}

impl PendingResponse {
    /// The answer as a response of its own.
    pub(in crate::bridge) async fn respond(self, bridge: &Bridge) -> Result<Response<Body>, BridgeError> {
        let response = self.inbox.respond(self.form, self.guard).await;
        match self.subscription {
            Some(change) => bridge.after_subscription(change, response).await,
            None => Ok(response),
        }
    }
}

impl Bridge {
    /// The response to one message.
    pub(in crate::bridge) async fn serve(
        self: &Arc<Self>,
        incoming: IncomingMessage,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        match self.begin(incoming, connection).await? {
            Outcome::Answered(response) => Ok(response),
            Outcome::Pending(pending) => pending.respond(self).await,
        }
    }

    /// How the client of a call wants its answer.
    pub(in crate::bridge) fn form(&self, call: &Call) -> ResponseForm {
        let limits = &self.config.limits;
        ResponseForm {
            // What is to be looked at before it goes out is a document.
            accepts_events: call.events && !session::is_subscription(&call.message),
            accepts_json: call.json,
            commit_delay: call.may_commit_early().then_some(limits.commit_delay),
            keep_alive: limits.keep_alive,
        }
    }
}
