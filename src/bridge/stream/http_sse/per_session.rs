//! HTTP+SSE with `sse: session`, in front of a server with a state that its client comes back to: one server for the life of the stream,
//! which hears what its client posts, and says what it says.

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::pending_requests::{ClientRequest, PendingRequests};
use super::per_request::APART;
use crate::bridge::connect::link::Lack;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::child::Child;
use crate::bridge::exchange::notes::Note;
use crate::bridge::exchange::renewed_token::NoOther;
use crate::bridge::incoming::tool_access;
use crate::bridge::response::reason::reason_of;
use crate::bridge::stream::Stream;
use crate::mcp::legacy;
use crate::mcp::message::{Kind, Message, from_server};
use crate::mcp::tools::LIST;

const INTERNAL_ERROR: i64 = -32603;

/// How much of what a client says first is kept for a server with another token.
const MOST_AGAIN: usize = 8;

/// A client's stream, and its server.
pub(in crate::bridge::stream) struct PerSession {
    pub(in crate::bridge::stream) stream: Stream,
    pub(in crate::bridge::stream) child: Child,
    pending: PendingRequests,
    /// What the server has been told so far; nothing once it has said something, or was told more than is kept.
    told: Option<Vec<Message>>,
    /// Whether its token has just been renewed.
    is_fresh: bool,
    /// Why its user's token does not do any more.
    lack: Option<Lack>,
    /// When the last notification went out.
    notified: Instant,
}

/// Tells a server this, and listens to one that has heard that its session has begun.
fn say(child: &mut Child, message: &Message) {
    child.upstream.send(message.text());
    if message.method() == "notifications/initialized" {
        child.upstream.listen();
    }
}

impl PerSession {
    pub(in crate::bridge::stream) fn new(stream: Stream, child: Child) -> Self {
        let (pending, told) = (PendingRequests::default(), Some(Vec::new()));
        Self { stream, child, pending, told, is_fresh: false, lack: None, notified: Instant::now() }
    }

    pub(in crate::bridge::stream) async fn run(&mut self) -> Result<(), BridgeError> {
        let soft = self.stream.bridge.lifecycle.soft.clone();
        loop {
            tokio::select! {
                // First, so that what was accepted before the stop is asked.
                biased;
                note = self.stream.mailbox.receive() => match Note::read(&note) {
                    Some(Note::Tell(text)) => self.tell(text).await?,
                    // The server has the token of before. A client that opens another stream gets another server.
                    Some(Note::Connection) => return Ok(()),
                    _ => {}
                },
                line = self.child.line() => match line {
                    Ok(line) => self.line(&line).await?,
                    Err(error) => if self.ends_after(error.into()).await? {
                        return Ok(());
                    },
                },
                () = soft.cancelled(), if self.pending.is_empty() => return Err(BridgeError::Stopped),
            }
        }
    }

    /// A server that has refused its token before it said anything is replaced by one with a fresh token, which is told the
    /// same; whether the stream is over.
    async fn ends_after(&mut self, error: BridgeError) -> Result<bool, BridgeError> {
        let fresh = match Box::pin(self.child.other_token(error, self.is_fresh)).await {
            Ok(fresh) => fresh,
            Err(NoOther::Error(error)) => return Err(error),
            Err(NoOther::Lack(lack)) => {
                self.lack = Some(lack);
                return Ok(true);
            }
        };
        // A client that opens another stream gets another server.
        let Some(told) = &self.told else { return Ok(true) };
        self.child.refill(fresh).await?;
        self.is_fresh = true;
        for message in told {
            say(&mut self.child, message);
        }
        Ok(false)
    }

    /// What the server says goes out as it came, but for the ids of its client's requests, and the tools that its client
    /// may not use.
    async fn line(&mut self, line: &Bytes) -> Result<(), BridgeError> {
        if from_server(line).is_none() {
            return Ok(self.child.count_invalid(line)?);
        }
        (self.told, self.is_fresh) = (None, false);
        let Some(said) = self.pending.for_client(line) else { return Ok(()) };
        let event = match said.answers {
            Some(ClientRequest { method, id, .. }) if method == LIST => {
                let shown = tool_access::shown(&self.stream.server, &self.stream.caller, &said.text);
                shown.unwrap_or_else(|error| error.document(Some(&id)))
            }
            _ => said.text,
        };
        if said.kind == Kind::Response {
            sleep_until(self.notified + APART).await;
        }
        self.stream.event(event).await?;
        if said.kind == Kind::Notification {
            self.notified = Instant::now();
        }
        Ok(())
    }

    /// What the client says goes in as it came, but for the ids of its requests.
    async fn tell(&mut self, text: String) -> Result<(), BridgeError> {
        let Ok(message) = Message::parse(text.into()) else { return Ok(()) };
        if let Err(unknown) = tool_access::check(&self.stream.server, &self.stream.caller, &message) {
            let Some(id) = message.id() else { return Ok(()) };
            return self.stream.event(unknown.document(Some(id))).await;
        }
        if message.kind() == Kind::Request
            && message.method() != "ping"
            && let Err(too_soon) = self.count(message.id()).await
        {
            return self.stream.event(too_soon).await;
        }
        let ours = match (message.kind(), message.method()) {
            (Kind::Request, _) => self.pending.ask(&message),
            (Kind::Notification, "notifications/cancelled") => self.pending.cancel(&message),
            _ => Some(message.clone()),
        };
        match ours {
            Some(ours) => {
                say(&mut self.child, &ours);
                self.told = self.told.take().filter(|told| told.len() < MOST_AGAIN);
                if let Some(told) = &mut self.told {
                    told.push(ours.counted(&self.child.share));
                }
            }
            None if message.kind() == Kind::Request => {
                let refusal = legacy::error(message.id(), INTERNAL_ERROR, "too many requests at once", None);
                self.stream.event(refusal.into()).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Counts a call; the error that a request with this id gets if it may not be made yet.
    async fn count(&self, id: Option<&str>) -> Result<(), Bytes> {
        let Stream { bridge, caller, server, .. } = &self.stream;
        bridge.count_call(&caller.user, server).await.map_err(|error| {
            bridge.metrics.refused_because(reason_of(&error));
            error.document(id)
        })
    }

    /// Every request that has no answer gets an error, then the stream ends.
    pub(in crate::bridge::stream) async fn finish(&mut self, error: Option<&BridgeError>) {
        let Stream { bridge, caller, server, .. } = &self.stream;
        let lack = self.lack.take().or_else(|| Lack::of_refusal(server, error?));
        let lead = lack.map(|lack| bridge.lead_stream_to_page((&caller.user, server), &lack));
        for id in std::mem::take(&mut self.pending).into_ids() {
            let error = match &lead {
                Some(lead) => lead(Some(&id)).into(),
                None => error.unwrap_or(&BridgeError::Interrupted).document(Some(&id)),
            };
            if self.stream.outbox.event(error).await.is_err() {
                break;
            }
        }
        self.stream.outbox.finish_silently();
    }
}
