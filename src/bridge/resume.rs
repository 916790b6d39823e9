//! A modern client calls again, and the server that asked is waiting, here or on another node: the call is led to it,
//! and its answer back. Nothing is started for it, so nothing is done twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::error::BridgeError;
use super::questions::{BadState, Note, Retry, answers};
use super::sse::{Form, Last, Outbox, way_back};
use super::{Bridge, Connection};
use crate::relay::{Address, Mailbox, NotDelivered};
use crate::respond::Body;

/// How often it is asked whether the server still waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a parked call says to whoever has called again.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    /// One event.
    Event(String),
    /// The final message, with its status and after how many seconds to try again.
    Last(u16, String, Option<u64>),
    /// There is no final message.
    Quiet,
}

impl Reply {
    pub(super) fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("replies hold only text").into()
    }
}

impl Bridge {
    /// Leads `call` to the server that waits at `address`.
    pub(super) async fn resume(
        self: &Arc<Self>,
        call: &Call,
        (address, round): (&str, u32),
        form: Form,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        let address: Address = address.parse().map_err(|_| BadState)?;
        let answers = answers(&call.message).ok_or(BridgeError::BadAnswers)?;
        let mailbox = self.relay.open();
        let retry = Retry {
            reply_to: mailbox.address().to_string(),
            id: call.id().to_owned(),
            progress: call.progress().map(std::borrow::Cow::into_owned),
            answers,
            round,
        };
        match self.relay.deliver(&address, Note::Retry(retry).write()).await {
            Ok(()) => {}
            Err(NotDelivered::Gone) => return Err(BadState.into()),
            Err(NotDelivered::TooLarge) => return Err(BridgeError::TooLarge),
            Err(NotDelivered::Full | NotDelivered::Failed) => return Err(BridgeError::Relay),
        }
        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) = way_back(self.config.limits.write_stall, lost);
        let gone = connection.gone.child_token();
        let guard = gone.clone().drop_guard();
        let way = Way { bridge: Arc::clone(self), address, mailbox, outbox, gone, id: call.id().to_owned() };
        self.lifecycle.spawn(way.lead_back());
        Ok(inbox.respond(form, guard).await)
    }
}

/// The way of an answer from where the server is to where its client is.
struct Way {
    bridge: Arc<Bridge>,
    address: Address,
    mailbox: Mailbox,
    outbox: Outbox,
    gone: CancellationToken,
    id: String,
}

impl Way {
    async fn lead_back(mut self) {
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.tick().await;
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                reply = self.mailbox.receive() => match serde_json::from_slice(&reply) {
                    Ok(Reply::Event(text)) => {
                        if self.outbox.event(text.into()).await.is_err() {
                            return self.leave();
                        }
                    }
                    Ok(Reply::Last(status, text, retry_after)) => {
                        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                        return self.outbox.last(Last { status, text: text.into(), session: None, retry_after }).await;
                    }
                    Ok(Reply::Quiet) => return self.outbox.quiet(),
                    Err(_) => {}
                },
                () = self.gone.cancelled() => return self.leave(),
                () = self.bridge.lifecycle.hard.cancelled() => return self.fail(&BridgeError::Stopped).await,
                // What it said before it ended has been received by now.
                () = std::future::ready(()), if ended => return self.fail(&BridgeError::Lost).await,
                _ = probe.tick() => {
                    ended = self.bridge.relay.probe(&self.address).await == Err(NotDelivered::Gone);
                }
            }
        }
    }

    fn leave(&self) {
        let (relay, address) = (self.bridge.relay.clone(), self.address);
        self.bridge.tell_of_an_end(async move { relay.insist(&address, Note::Left.write()).await });
    }

    async fn fail(&self, error: &BridgeError) {
        self.outbox.last(error.last(Some(&self.id))).await;
    }
}
