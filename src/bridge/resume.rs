//! A modern client calls again, and the server that asked is waiting, here or on another node: the call is led to it,
//! and its answer back. Nothing is started for it, so nothing is done twice. A modern server that is gone may be replaced
//! by a fresh one: it said itself, in the state that it gave, all that the next round needs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::call::{Call, Purpose};
use super::error::BridgeError;
use super::questions::{BadState, NextStep, Note, Owner, RequestState, Retry, Transcript, answers};
use super::sse::{Last, Outbox, way_back};
use super::{Asked, Bridge, Connection};
use crate::relay::{Address, Mailbox, NotDelivered};
use crate::respond::Body;

/// How often it is asked whether the server still waits.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a parked call says to whoever has called again. On its way it is one byte that says what it is, and what
/// follows as it is: an answer may be as long as a server's longest line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// One event.
    Event(Bytes),
    /// The final message, with its status and after how many seconds to try again.
    Last(StatusCode, Option<u64>, Bytes),
}

impl Reply {
    pub(super) fn write(&self) -> Bytes {
        let (kind, status, retry_after, text) = match self {
            Self::Event(text) => return [&b"e"[..], text].concat().into(),
            Self::Last(status, retry_after, text) => (b"l", status.as_u16(), retry_after.unwrap_or(0), text),
        };
        [&kind[..], &status.to_be_bytes(), &retry_after.to_be_bytes(), text].concat().into()
    }

    /// What `bytes` say; `None` if a node of another version wrote them.
    fn read(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            b'e' => Some(Self::Event(bytes)),
            b'l' => {
                let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
                let retry_after = Some(bytes.try_get_u64().ok()?).filter(|seconds| *seconds > 0);
                Some(Self::Last(status, retry_after, bytes))
            }
            _ => None,
        }
    }
}

impl Bridge {
    /// How a call goes on that may bring a state back: it is answered by the server that waits for it, or begins with a
    /// fresh one, which knows what was answered before.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        asked: &Asked,
        call: &mut Call,
        connection: &Connection,
    ) -> Result<ControlFlow<Response<Body>, Transcript>, BridgeError> {
        let fresh = Ok(ControlFlow::Continue(Transcript::default()));
        if call.is_about_held_task(asked.server.tasks) {
            return self.ask_about_task(asked, call, connection).await.map(ControlFlow::Break);
        }
        if !matches!(call.purpose, Purpose::Modern(_)) {
            return fresh;
        }
        let owner = Owner { user: &asked.caller.user, server: &asked.server.name };
        let Some(brought) = RequestState::of(&asked.message, &self.keyring, owner, self.clock.now())? else {
            return fresh;
        };
        let answers = answers(&asked.message).ok_or(BridgeError::BadAnswers)?;
        match brought.next {
            NextStep::Again => fresh,
            NextStep::Replay(transcript) => Ok(ControlFlow::Continue(transcript.with(&answers))),
            NextStep::Parked { at, round } => {
                match self.resume(asked, call, (&at, round, answers), connection).await? {
                    Some(response) => Ok(ControlFlow::Break(response)),
                    None => Err(BadState.into()),
                }
            }
            NextStep::Kept { at, round, state } => {
                if let Some(response) = self.resume(asked, call, (&at, round, answers), connection).await? {
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
        asked: &Asked,
        call: &Call,
        (address, round, answers): (&str, u32, Vec<(String, String)>),
        connection: &Connection,
    ) -> Result<Option<Response<Body>>, BridgeError> {
        let address = address.parse().map_err(|_| BadState)?;
        let (id, progress) = (call.id().to_owned(), call.progress.clone());
        let note = |reply_to| Note::Retry(Retry { reply_to, id, progress, answers, round });
        self.lead(asked, call, (address, note), connection).await
    }

    /// Leads `call` to the server that an exchange at this address has, by a note that says where the answer goes; `None`
    /// if it is gone.
    pub(super) async fn lead(
        self: &Arc<Self>,
        asked: &Asked,
        call: &Call,
        (address, note): (Address, impl FnOnce(String) -> Note),
        connection: &Connection,
    ) -> Result<Option<Response<Body>>, BridgeError> {
        let mailbox = self.mailbox(&asked.caller.user, &asked.server);
        match self.relay.deliver(&address, note(mailbox.address().to_string()).write()).await {
            Ok(()) => {}
            Err(NotDelivered::Gone) => return Ok(None),
            Err(NotDelivered::TooLarge) => return Err(BridgeError::TooLarge),
            Err(NotDelivered::Full | NotDelivered::Failed) => return Err(BridgeError::Relay),
        }
        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) =
            way_back(self.config.limits.write_stall, lost, self.share(&asked.caller.user, &asked.server));
        // Its server runs.
        outbox.ready();
        let gone = connection.gone.child_token();
        let guard = gone.clone().drop_guard();
        let way = Way { bridge: Arc::clone(self), address, mailbox, outbox, gone, id: call.id().to_owned() };
        self.lifecycle.spawn(way.lead_back());
        Ok(Some(inbox.respond(self.form(call), guard.into()).await))
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
                reply = self.mailbox.receive() => match Reply::read(reply) {
                    Some(Reply::Event(text)) => {
                        if self.outbox.event(text).await.is_err() {
                            return self.leave();
                        }
                    }
                    Some(Reply::Last(status, retry_after, text)) => {
                        return self.outbox.last(Last { status, text, session: None, retry_after }).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_it_was_written_and_grows_by_a_few_bytes_whatever_it_holds() {
        let text = Bytes::from("\"\\".repeat(1000));
        let [status, retry] = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
        for reply in [
            Reply::Event(text.clone()),
            Reply::Last(status, None, text.clone()),
            Reply::Last(retry, Some(5), Bytes::new()),
        ] {
            let written = reply.write();
            assert!(written.len() <= text.len() + 11);
            assert_eq!(Reply::read(written), Some(reply));
        }
        for bytes in [&b""[..], b"l", b"l\0\xc8\0", b"l\0\0\0\0\0\0\0\0\0\0", b"{}"] {
            assert_eq!(Reply::read(bytes.into()), None, "{bytes:?}");
        }
    }
}
