//! What becomes of a message: an answer at once, or one that a server works at.

use std::sync::Arc;

use http::Response;

use super::call::Call;
use super::error::BridgeError;
use super::session::{self, Subscription};
use super::sse::{Form, Guard, Inbox};
use super::{Asked, Bridge, Connection};
use crate::respond::Body;

/// What has become of a message.
pub(super) enum Begun {
    /// It has been answered.
    Answered(Response<Body>),
    /// A server works at the answer.
    Underway(Exchange),
}

/// An answer on its way.
pub(super) struct Exchange {
    pub(super) inbox: Inbox,
    pub(super) form: Form,
    /// Dropped when nobody waits for the answer any more.
    pub(super) guard: Guard,
    /// What counts once the server has agreed to it.
    pub(super) subscription: Option<Subscription>,
}

impl Exchange {
    /// The answer as a response of its own.
    pub(super) async fn respond(self, bridge: &Bridge) -> Result<Response<Body>, BridgeError> {
        let response = self.inbox.respond(self.form, self.guard).await;
        match self.subscription {
            Some(change) => bridge.after_subscription(change, response).await,
            None => Ok(response),
        }
    }
}

impl Bridge {
    /// The response to one message.
    pub(super) async fn serve(
        self: &Arc<Self>,
        asked: Asked,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        match self.begin(asked, connection).await? {
            Begun::Answered(response) => Ok(response),
            Begun::Underway(exchange) => exchange.respond(self).await,
        }
    }

    /// How the client of a call wants its answer.
    pub(super) fn form(&self, call: &Call) -> Form {
        let limits = &self.config.limits;
        Form {
            // What is to be looked at before it goes out is a document.
            accepts_events: call.events && !session::is_subscription(&call.message),
            accepts_json: call.json,
            commit_delay: call.may_commit_early().then_some(limits.commit_delay),
            keep_alive: limits.keep_alive,
        }
    }
}
