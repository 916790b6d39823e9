//! What one message gets: an answer at once, or its user's token, a fresh server started with it, and the task that
//! streams the answer back.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::local_answers::LocalAnswer;
use super::session::learn_client;
use super::tool_access;
use crate::bridge::connect::handshake::is_asked_without_token;
use crate::bridge::connect::link::Lack;
use crate::bridge::connect::tool;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::Exchange;
use crate::bridge::exchange::call::Call;
use crate::bridge::exchange::child::Child;
use crate::bridge::response::pending::{Outcome, PendingResponse};
use crate::bridge::response::sse::response_channel;
use crate::bridge::stream::LISTEN;
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::config::Inputs;
use crate::limits::Permit;
use crate::mcp::modern::Level;
use crate::metrics::Phase;
use crate::secret::Credential;

impl Bridge {
    /// What one message asks, with which token, of which fresh server.
    pub(in crate::bridge) async fn begin(
        self: &Arc<Self>,
        mut incoming: IncomingMessage,
        connection: &Connection,
    ) -> Result<Outcome, BridgeError> {
        let subscription = incoming.subscription()?;
        let mut call = match self.answer_locally(&incoming).await? {
            LocalAnswer::Answered(response) => return Ok(Outcome::Answered(incoming.answered(response))),
            LocalAnswer::Call(call) => *call,
        };
        learn_client(&call.introduction.client_info);
        let asks_to_connect = tool::is_called(&incoming.server, &call.message);
        if !asks_to_connect {
            tool_access::check(&incoming.server, &incoming.caller, &call.message)?;
        }
        if call.is_modern() && call.message.method() == LISTEN {
            return self.subscribe(incoming, call, connection).await.map(Outcome::Answered);
        }
        let transcript = match self.continue_call(&incoming, &mut call, connection).await? {
            ControlFlow::Break(response) => return Ok(Outcome::Answered(incoming.answered(response))),
            ControlFlow::Continue(transcript) => transcript,
        };

        let values = incoming.server.request_values(&incoming.head.headers)?;
        let waits = Instant::now();
        let permit = self.admit(&incoming, &call).await?;
        incoming.course.spent(Phase::Queue, waits);
        let credential = match self.find_credential(&mut incoming, &mut call, connection).await? {
            Ok(credential) if !asks_to_connect => credential,
            Err(_) if is_asked_without_token(&incoming.server, &call) => None,
            found => {
                if found.is_err() {
                    self.metrics.servers.token_missing(incoming.server.name.as_str());
                }
                let answer = self.connect(incoming, (call, found.err()), permit, connection).await;
                return Ok(Outcome::Pending(answer));
            }
        };
        let inputs = Inputs::of(&incoming.caller, credential, values);
        let starts = Instant::now();
        // How fast a client reads the answers to a batch is no reason to refuse the rest of it, unless it does not read.
        let patience = if incoming.turn.is_some() { self.config.limits.write_stall } else { Duration::ZERO };
        let child = Child::open(self, &incoming.server, inputs, patience).await?;
        incoming.course.spent(Phase::Start, starts);

        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) = response_channel(self.config.limits.write_stall, lost, child.share.clone());
        let form = self.form(&call);
        let exchange = Exchange::new(self, incoming, call, child, (outbox, transcript));
        let guard = self.run_exchange(exchange, permit, connection);
        Ok(Outcome::Pending(PendingResponse { inbox, form, guard, subscription }))
    }

    /// Waits until the call may have a server.
    async fn admit(&self, incoming: &IncomingMessage, call: &Call) -> Result<Permit, BridgeError> {
        let may_park = call.may_park(incoming.server.questions) || call.may_begin_task(incoming.server.tasks);
        // Held while waiting, so that one message of a batch waits at a time.
        let _turn = match &incoming.turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        Ok(self.limits.admit(&incoming.caller.user, &incoming.server.name, may_park).await?)
    }

    /// What the user saved, where the server takes it, or why that does not do; and what the call's session has set.
    async fn find_credential(
        &self,
        incoming: &mut IncomingMessage,
        call: &mut Call,
        connection: &Connection,
    ) -> Result<Result<Option<Credential>, Lack>, BridgeError> {
        let asks = Instant::now();
        let (user, server) = (&incoming.caller.user, &incoming.server);
        let (credential, status) = self.token_and_status(user, server, incoming.session.as_ref()).await?;
        incoming.course.spent(Phase::Store, asks);
        call.level = call.level.or_else(|| status.level.as_deref().and_then(Level::parse));
        call.listener = status.listener.and_then(|listener| listener.address.parse().ok());
        match credential {
            Ok(credential) => Ok(Ok(credential)),
            Err(error) => {
                let lack = self.lack(&incoming.server, &error)?;
                self.awaited_credential(incoming, (call, lack), connection).await
            }
        }
    }
}
