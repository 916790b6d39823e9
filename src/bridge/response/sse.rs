//! The channel from a conversation to its client: messages are held until the form of the response is known, then each is
//! one server-sent event, or the final one a document. Source: MCP 2025-11-25 and 2026-07-28, basic/transports; WHATWG HTML, "Server-sent events".

mod body;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::final_message::FinalMessage;
use crate::bridge::exchange::relayed_reply::RelayedReply;
use crate::limits::Permit;
use crate::mcp::headers::SESSION_ID;
use crate::memory::{Held, Share};
use crate::relay::{Address, NotDelivered, Relay};
use crate::respond::{self, Body};
pub(in crate::bridge) use body::COMMENT;
use body::{Events, Framing, OneEvent, frame, pieces};

/// What may wait for a client, in bytes.
const QUEUE_BYTES: u32 = 1024 * 1024;

/// What a waiting message counts for at least, so that 16 fill the queue.
const QUEUE_FLOOR: u32 = QUEUE_BYTES / 16;

/// The longest final message that is sent as an event where JSON would do: official clients refuse longer events.
const MAX_FINAL_EVENT: usize = 512 * 1024;

#[derive(Debug)]
enum Item {
    Event(Bytes, Held, OwnedSemaphorePermit),
    Final(FinalMessage, Held),
    /// There is nothing more to say.
    Silent,
}

/// What a conversation says.
pub(in crate::bridge) enum ResponsePart {
    /// A message before the final one.
    Event(Bytes),
    /// The final message.
    Final(FinalMessage),
    /// That there is no final message.
    Nothing,
}

/// The conversation's end of a response channel.
#[derive(Clone)]
pub(in crate::bridge) enum Outbox {
    /// To a client of this node.
    Local(LocalOutbox),
    /// To another exchange, perhaps of another node, that has the client.
    Remote(RemoteOutbox),
}

/// To a client of this node.
#[derive(Debug, Clone)]
pub(in crate::bridge) struct LocalOutbox {
    items: mpsc::UnboundedSender<Item>,
    ready: CancellationToken,
    room: Arc<Semaphore>,
    /// What waits is a part of it.
    share: Share,
    stall: Duration,
    /// Bytes of messages so far.
    sent: Arc<AtomicU64>,
}

/// To a client that another exchange has.
#[derive(Clone)]
pub(in crate::bridge) struct RemoteOutbox {
    relay: Relay,
    to: Address,
    stall: Duration,
}

/// The client takes nothing, or not fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge) struct Stalled;

/// The client's end of a response channel.
pub(in crate::bridge) struct Inbox {
    items: mpsc::UnboundedReceiver<Item>,
    /// Cancelled when the server has started.
    ready: CancellationToken,
    lost: Bytes,
}

/// What a client has of its exchange until it has been answered or has left.
#[derive(Debug)]
pub(in crate::bridge) struct Guard {
    /// Dropped when it has been answered or has left.
    _left: DropGuard,
    /// The right to run, which goes with the last byte of the answer.
    permit: Option<Arc<Permit>>,
}

impl Guard {
    /// The guard of a client whose leaving cancels `left`, and who has a permit until the answer is delivered.
    pub(in crate::bridge) fn new(left: &CancellationToken, permit: &Arc<Permit>) -> Self {
        Self { _left: left.clone().drop_guard(), permit: Some(Arc::clone(permit)) }
    }
}

impl From<DropGuard> for Guard {
    fn from(left: DropGuard) -> Self {
        Self { _left: left, permit: None }
    }
}

/// A response channel to one client; `stall` is how long it may take no event, `lost` is what it is told if the conversation
/// ends without a final message. What waits for the client is a part of `share`.
#[must_use]
pub(in crate::bridge) fn response_channel(stall: Duration, lost: Bytes, share: Share) -> (Outbox, Inbox) {
    let (sender, items) = mpsc::unbounded_channel();
    let (ready, room) = (CancellationToken::new(), Arc::new(Semaphore::new(QUEUE_BYTES as usize)));
    let outbox = LocalOutbox { items: sender, ready: ready.clone(), room, share, stall, sent: Arc::default() };
    (Outbox::Local(outbox), Inbox { items, ready, lost })
}

impl Outbox {
    /// A response channel by the exchange at `to`.
    pub(in crate::bridge) fn remote(relay: Relay, to: Address, stall: Duration) -> Self {
        Self::Remote(RemoteOutbox { relay, to, stall })
    }

    /// Says that whoever speaks has started: from now on its silence counts.
    pub(in crate::bridge) fn ready(&self) {
        if let Self::Local(local) = self {
            local.ready.cancel();
        }
    }

    /// Queues one message, waiting for room. A client of this node that has left takes everything: whether that ends
    /// the conversation is for its owner to say.
    ///
    /// # Errors
    /// If there was no room for as long as a client may stall, or the exchange that has the client is gone.
    pub(in crate::bridge) async fn event(&self, text: Bytes) -> Result<(), Stalled> {
        match self {
            Self::Local(local) => local.event(text).await,
            Self::Remote(remote) => remote.event(text).await,
        }
    }

    /// How many bytes of messages a client of this node has been sent.
    pub(in crate::bridge) fn sent(&self) -> u64 {
        match self {
            Self::Local(local) => local.sent.load(Ordering::Relaxed),
            Self::Remote(_) => 0,
        }
    }

    /// Sends the final message; to a client of this node that never waits.
    pub(in crate::bridge) async fn finish(&self, message: FinalMessage) {
        match self {
            Self::Local(local) => {
                let held = local.count(message.text.len());
                let _ = local.items.send(Item::Final(message, held));
            }
            Self::Remote(remote) => remote.finish(message).await,
        }
    }

    /// Ends the channel without a final message: the client has said that it wants none.
    pub(in crate::bridge) fn finish_silently(&self) {
        if let Self::Local(local) = self {
            let _ = local.items.send(Item::Silent);
        }
    }
}

impl LocalOutbox {
    async fn event(&self, text: Bytes) -> Result<(), Stalled> {
        let size = u32::try_from(text.len()).unwrap_or(QUEUE_BYTES).clamp(QUEUE_FLOOR, QUEUE_BYTES);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(size) {
            Ok(room) => room,
            Err(_) => tokio::time::timeout(self.stall, self.wait_for(size)).await.map_err(|_| Stalled)?,
        };
        let held = self.count(text.len());
        let _ = self.items.send(Item::Event(text, held, room));
        Ok(())
    }

    fn count(&self, bytes: usize) -> Held {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.share.count(bytes)
    }

    async fn wait_for(&self, size: u32) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_many_owned(size).await.expect("the semaphore is never closed")
    }
}

impl RemoteOutbox {
    async fn event(&self, text: Bytes) -> Result<(), Stalled> {
        let reply = RelayedReply::Event(text).write();
        self.relay.deliver_within(self.stall, &self.to, reply).await.map_err(|_| Stalled)
    }

    async fn finish(&self, message: FinalMessage) {
        let reply = RelayedReply::Final(message.status, message.retry_after, message.text.into_bytes()).write();
        match self.relay.insist_within(self.stall, &self.to, reply).await {
            Ok(()) | Err(NotDelivered::Gone) => {}
            // Whoever has the client sees that this end is gone, and says that the call may have been carried out.
            Err(error) => tracing::warn!(%error, "the answer of a call could not be delivered"),
        }
    }
}

/// How a client wants its answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::bridge) struct ResponseForm {
    /// Whether it accepts events.
    pub(in crate::bridge) accepts_events: bool,
    /// Whether it accepts a document.
    pub(in crate::bridge) accepts_json: bool,
    /// How long the status line may wait for something to forward once the server has started; `None` is until the
    /// final message.
    pub(in crate::bridge) commit_delay: Option<Duration>,
    /// The pause after which a stream gets a comment, and the longest that the status line waits for a server to start.
    pub(in crate::bridge) keep_alive: Duration,
}

impl Inbox {
    /// The response: the final message alone if it is all there is, else a stream. `guard` is let go when the client
    /// has been answered or has left.
    pub(in crate::bridge) async fn respond(mut self, form: ResponseForm, guard: Guard) -> Response<Body> {
        if !form.accepts_events {
            return self.document(guard).await;
        }
        let first = match form.commit_delay {
            None => self.next_final().await,
            Some(delay) => tokio::select! {
                biased;
                first = self.items.recv() => first,
                () = silence(&self.ready, delay, form.keep_alive) => return self.stream(VecDeque::new(), form, guard),
            },
        };
        let is_long = |message: &FinalMessage| message.text.len() > MAX_FINAL_EVENT && form.accepts_json;
        match first {
            None => respond::json(StatusCode::INTERNAL_SERVER_ERROR, self.lost),
            Some(Item::Silent) => respond::empty(StatusCode::ACCEPTED),
            Some(Item::Final(message, held)) if message.status != StatusCode::OK || is_long(&message) => {
                whole(message, held, guard)
            }
            Some(Item::Final(mut message, held)) => {
                let text = std::mem::take(&mut message.text);
                let event = held.keep(frame(text, Framing::Events.around(true)), guard.permit);
                let mut response = respond::sse(OneEvent(Some(event)));
                add_headers(&mut response, &message);
                response
            }
            Some(Item::Event(text, held, _room)) => {
                let first = pieces(text.into(), held, &guard, Framing::Events.around(false));
                self.stream(first, form, guard)
            }
        }
    }

    /// A stream that begins at once, with this frame.
    pub(in crate::bridge) fn stream_at_once(self, first: Bytes, keep_alive: Duration, guard: Guard) -> Response<Body> {
        let form = ResponseForm { accepts_events: true, accepts_json: false, commit_delay: None, keep_alive };
        self.stream(VecDeque::from([first]), form, guard)
    }

    /// A document that begins at once: an array of every message, each as it comes.
    pub(in crate::bridge) fn array(self, keep_alive: Duration, guard: Guard) -> Response<Body> {
        let framing = Framing::Array { begun: false };
        respond::json_stream(self.events(framing, VecDeque::new(), keep_alive, guard))
    }

    /// What is said next, for whoever says it on.
    pub(in crate::bridge) async fn next(&mut self) -> ResponsePart {
        match self.items.recv().await {
            Some(Item::Event(text, held, _room)) => ResponsePart::Event(held.keep(text, ())),
            Some(Item::Final(mut message, held)) => {
                message.text = message.text.kept(held);
                ResponsePart::Final(message)
            }
            Some(Item::Silent) => ResponsePart::Nothing,
            None => {
                let (status, text) = (StatusCode::INTERNAL_SERVER_ERROR, std::mem::take(&mut self.lost).into());
                ResponsePart::Final(FinalMessage { status, text, session: None, retry_after: None })
            }
        }
    }

    async fn document(mut self, guard: Guard) -> Response<Body> {
        match self.next_final().await {
            Some(Item::Final(message, held)) => whole(message, held, guard),
            Some(Item::Silent) => respond::empty(StatusCode::ACCEPTED),
            _ => respond::json(StatusCode::INTERNAL_SERVER_ERROR, self.lost),
        }
    }

    async fn next_final(&mut self) -> Option<Item> {
        loop {
            match self.items.recv().await {
                Some(Item::Event(..)) => {}
                other => return other,
            }
        }
    }

    fn stream(self, pieces: VecDeque<Bytes>, form: ResponseForm, guard: Guard) -> Response<Body> {
        respond::sse(self.events(Framing::Events, pieces, form.keep_alive, guard))
    }

    fn events(self, framing: Framing, pieces: VecDeque<Bytes>, keep_alive: Duration, guard: Guard) -> Events {
        Events {
            items: self.items,
            lost: Some(self.lost),
            framing,
            pieces,
            flush: false,
            keep_alive,
            quiet: Box::pin(tokio::time::sleep(keep_alive)),
            guard,
        }
    }
}

/// Until a server has been silent for `delay` since it started, or has not started within `start`.
async fn silence(ready: &CancellationToken, delay: Duration, start: Duration) {
    if tokio::time::timeout(start, ready.cancelled()).await.is_ok() {
        tokio::time::sleep(delay).await;
    }
}

fn whole(mut message: FinalMessage, held: Held, guard: Guard) -> Response<Body> {
    let mut pieces = std::mem::take(&mut message.text).into_pieces();
    if message.status != StatusCode::OK {
        // A person may read it at a terminal.
        pieces.push_back(Bytes::from_static(b"\n"));
    }
    let mut response = respond::json_in_pieces(message.status, held.keep_all(pieces, guard.permit));
    add_headers(&mut response, &message);
    response
}

fn add_headers(response: &mut Response<Body>, message: &FinalMessage) {
    if let Some(session) = &message.session {
        response.headers_mut().insert(SESSION_ID, session.clone());
    }
    if let Some(seconds) = message.retry_after {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
}

#[cfg(test)]
mod tests;
