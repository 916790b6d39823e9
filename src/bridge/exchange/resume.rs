//! A modern client calls again, and the server that asked is waiting, here or on another node: the call is forwarded
//! to it, and its answer back. Nothing is started for it, so nothing is done twice. A modern server that is gone may be replaced
//! by a fresh one: it said itself, in the state that it gave, all that the next round needs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::call::{Call, Purpose};
use super::notes::{Note, Retry};
use super::questions::Owner;
use super::relayed_reply::RelayedReply;
use super::request_state::{BadState, NextStep, RequestState, Transcript, answers};
use crate::bridge::error::BridgeError;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::sse::{Outbox, response_channel};
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::relay::{Address, Mailbox, NotDelivered};
use crate::respond::Body;

/// How often it is asked whether the server still waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How much later than its server's time is over an answer may come from its node. One that hangs says nothing of itself.
const LATE: Duration = Duration::from_secs(5);

impl Bridge {
    /// How a call goes on that may bring a state back: it is answered by the server that waits for it, or begins with a
    /// fresh one, which knows what was answered before.
    pub(in crate::bridge) async fn continue_call(
        self: &Arc<Self>,
        incoming: &IncomingMessage,
        call: &mut Call,
        connection: &Connection,
    ) -> Result<ControlFlow<Response<Body>, Transcript>, BridgeError> {
        let fresh = Ok(ControlFlow::Continue(Transcript::default()));
        if call.is_about_held_task(incoming.server.tasks) {
            return self.ask_about_task(incoming, call, connection).await.map(ControlFlow::Break);
        }
        if !matches!(call.purpose, Purpose::Modern(_)) {
            return fresh;
        }
        let owner = Owner { user: &incoming.caller.user, server: &incoming.server.name };
        let Some(brought) = RequestState::of(&incoming.message, &self.keyring, owner, self.clock.now())? else {
            return fresh;
        };
        let answers = answers(&incoming.message).ok_or(BridgeError::BadAnswers)?;
        match brought.next {
            NextStep::Again => {
                call.begin_anew(&answers)?;
                fresh
            }
            NextStep::Replay(transcript) => Ok(ControlFlow::Continue(transcript.with(&answers))),
            NextStep::Parked { at, round } => {
                match self.resume(incoming, call, (&at, round, answers), connection).await? {
                    Some(response) => Ok(ControlFlow::Break(response)),
                    None => Err(BadState.into()),
                }
            }
            NextStep::Kept { at, round, state } => {
                if let Some(response) = self.resume(incoming, call, (&at, round, answers), connection).await? {
                    return Ok(ControlFlow::Break(response));
                }
                call.bring(state.as_deref())?;
                fresh
            }
        }
    }

    /// Leads `call` to the server that waits at `address`; `None` if it is gone.
    async fn resume(
        self: &Arc<Self>,
        incoming: &IncomingMessage,
        call: &Call,
        (address, round, answers): (&str, u32, Vec<(String, String)>),
        connection: &Connection,
    ) -> Result<Option<Response<Body>>, BridgeError> {
        let address = address.parse().map_err(|_| BadState)?;
        let (id, progress) = (call.id().to_owned(), call.progress.clone());
        let note = |reply_to| Note::Retry(Retry { reply_to, id, progress, answers, round });
        self.forward_to(incoming, call, (address, note), connection).await
    }

    /// Forwards `call` to the server that an exchange at this address has, by a note that says where the answer goes; `None`
    /// if it is gone.
    pub(super) async fn forward_to(
        self: &Arc<Self>,
        incoming: &IncomingMessage,
        call: &Call,
        (address, note): (Address, impl FnOnce(String) -> Note),
        connection: &Connection,
    ) -> Result<Option<Response<Body>>, BridgeError> {
        self.limits.admit_message(&incoming.caller.user, incoming.message.text().len()).await?;
        let mailbox = self.mailbox(&incoming.caller.user, &incoming.server);
        let note = note(mailbox.address().to_string()).write();
        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) =
            response_channel(self.config.limits.write_stall, lost, self.share(&incoming.caller.user, &incoming.server));
        let gone = connection.gone.child_token();
        let guard = gone.clone().drop_guard();
        let (bridge, id, within) =
            (Arc::clone(self), call.id().to_owned(), incoming.server.process.request_timeout + LATE);
        let forwarding = Forwarding { bridge, address, mailbox, outbox, gone, id, within };
        let (delivered, delivery) = oneshot::channel();
        self.lifecycle.spawn(forwarding.deliver_and_run(note, delivered));
        match delivery.await.unwrap_or(Err(NotDelivered::Failed)) {
            Ok(()) => Ok(Some(inbox.respond(self.form(call), guard.into()).await)),
            Err(NotDelivered::Gone) => Ok(None),
            Err(NotDelivered::TooLarge) => Err(BridgeError::TooLarge),
            Err(NotDelivered::Full) => Err(BridgeError::Relay),
            // The node may have taken it before it fell silent.
            Err(NotDelivered::Failed) => Err(BridgeError::Lost),
        }
    }
}

/// The way of an answer from where the server is to where its client is.
struct Forwarding {
    bridge: Arc<Bridge>,
    address: Address,
    mailbox: Mailbox,
    outbox: Outbox,
    gone: CancellationToken,
    id: String,
    /// How long the answer may take.
    within: Duration,
}

impl Forwarding {
    /// Delivers `note` and forwards what comes back. It is a task of its own from the first step: a client that leaves while
    /// the note is on its way has its server told so, after the note.
    async fn deliver_and_run(self, note: Bytes, delivered: oneshot::Sender<Result<(), NotDelivered>>) {
        let done = self.bridge.relay.deliver(&self.address, note).await;
        if done.is_ok() {
            // Its server runs.
            self.outbox.ready();
        }
        let _client_left = delivered.send(done);
        if done.is_ok() {
            self.run().await;
        }
    }

    async fn run(mut self) {
        let deadline = tokio::time::sleep(self.within);
        tokio::pin!(deadline);
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.tick().await;
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                reply = self.mailbox.receive() => match RelayedReply::read(reply) {
                    Some(RelayedReply::Event(text)) => {
                        if self.outbox.event(text).await.is_err() {
                            return self.leave();
                        }
                    }
                    Some(RelayedReply::Final(status, retry_after, text)) => {
                        let text = text.into();
                        return self.outbox.finish(FinalMessage { status, text, session: None, retry_after }).await;
                    }
                    None => {
                        tracing::warn!("a node of another version holds this call; its answer is not understood");
                        return self.fail(&BridgeError::Lost).await;
                    }
                },
                () = self.gone.cancelled() => return self.leave(),
                () = self.bridge.lifecycle.hard.cancelled() => return self.fail(&BridgeError::Interrupted).await,
                // What it said before it ended has been received by now.
                () = std::future::ready(()), if ended => return self.fail(&BridgeError::Lost).await,
                () = &mut deadline => return self.fail(&BridgeError::Lost).await,
                _ = probe.tick() => {
                    ended = self.bridge.relay.probe(&self.address).await == Err(NotDelivered::Gone);
                }
            }
        }
    }

    fn leave(&self) {
        let (relay, address) = (self.bridge.relay.clone(), self.address);
        self.bridge.notify_of_end(async move { relay.insist(&address, Note::Left.write()).await });
    }

    async fn fail(&self, error: &BridgeError) {
        self.outbox.finish(error.last(Some(&self.id))).await;
    }
}
