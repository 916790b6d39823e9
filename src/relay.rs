//! The relay: delivers a message to the node and request that hold the process it is for.
//!
//! A request that keeps something others must reach (a question on its stream, a parked server, a long stream) opens
//! a [`Mailbox`] and lets the mailbox's [`Address`] travel inside a sealed id. Whoever is handed that id, on whichever
//! node, delivers to the address: in memory if the node is this one, else through Redis. [`Relay::deliver`] answers
//! with what became of the message; it is never lost without a word.
//!
//! Invariants: an address is only ever taken out of something sealed, so reaching a mailbox is having been told of it.
//! A mailbox holds a bounded number of messages and bytes, as long as there is memory for them, and nothing is left of it
//! once it is dropped.

mod local;
mod nodes;
mod redis;
mod replay_filter;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use self::redis::Peers;
use crate::config::TokenStoreKind;
use crate::keyring::Keyring;
use crate::lifecycle::Lifecycle;
use crate::memory::Share;
use crate::store::SetupError;
use local::Local;

pub use local::Mailbox;
pub use nodes::Nodes;

/// The longest message, bytes, unless a longer one is asked for: twice the longest line of a server by default.
pub const MAX_MESSAGE: usize = longest_message(16 << 20);

/// Messages that may wait in a mailbox.
pub const MAX_WAITING: usize = 16;

/// Bytes that may wait in a mailbox. A message may be longer than this if it waits alone.
pub const MAX_WAITING_BYTES: usize = 1 << 20;

/// For how long an exchange may go on before the other nodes are told as what it listens: most are over by then.
pub const UNANNOUNCED: Duration = Duration::from_millis(100);

/// For how long an exchange that is not found by its key may be one that is only about to be announced.
const MAYBE_ANNOUNCED: Duration = Duration::from_secs(1);

/// The longest message, bytes, where what is relayed comes in pieces of up to `longest` bytes: one may be written within
/// another, and there is room for what is said about it.
#[must_use]
pub const fn longest_message(longest: usize) -> usize {
    longest.saturating_mul(2).saturating_add(64 << 10)
}

/// Between looks at a mailbox that was full: doubled from the first to the second.
const ROOM: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// For how long a message is delivered again that must not be lost, and the first pause, which doubles.
const INSISTENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(200)];

/// Delivers messages to exchanges of this node and of others. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct Relay {
    local: Arc<Local>,
    others: Others,
}

/// The other nodes.
#[derive(Debug, Clone)]
enum Others {
    /// There are none.
    None,
    /// They share a Redis with this one. What is asked of them is on the heap: it is rare, and large within everything
    /// that may come to ask it.
    Redis(Arc<Peers>),
}

/// Which node: made up at its start, so that nothing meant for an earlier process reaches a later one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId([u8; 16]);

/// Where a mailbox is. Its text, `node.exchange`, belongs inside sealed ids only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    node: NodeId,
    exchange: u64,
}

/// Why a message did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDelivered {
    /// The exchange has ended, or its node has. It does not come back.
    #[error("what the message is for is gone")]
    Gone,
    /// Its mailbox is full, or there is no memory for it; there may be room later.
    #[error("too many messages wait for the same request")]
    Full,
    /// Longer than the node takes.
    #[error("the message is too long to be relayed")]
    TooLarge,
    /// Nobody knows: Redis could not be asked, or no receipt came in time. It may have arrived.
    #[error("the message could not be relayed")]
    Failed,
}

/// The text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the address of a mailbox")]
pub struct NotAnAddress;

impl Relay {
    /// The relay of a bridge that is alone.
    #[must_use]
    pub fn local() -> Self {
        Self::alone(MAX_MESSAGE)
    }

    fn alone(longest: usize) -> Self {
        Self { local: Arc::new(Local::new(NodeId::random(), longest)), others: Others::None }
    }

    /// The relay of a bridge with this token store, for messages of up to `longest` bytes: nodes that share a Redis share
    /// a relay. It listens until the hard stop of `lifecycle`, within a Tokio runtime; Redis may be down meanwhile.
    ///
    /// # Errors
    /// The URL is unusable.
    pub fn start(
        store: Option<&TokenStoreKind>,
        keyring: Arc<Keyring>,
        lifecycle: &Lifecycle,
        longest: usize,
    ) -> Result<Self, SetupError> {
        let mut relay = Self::alone(longest);
        if let Some(TokenStoreKind::Redis { url, prefix, timeout }) = store {
            let peers = Arc::new(Peers::open(url, prefix, *timeout, keyring, relay.local.node())?);
            peers.listen(Arc::clone(&relay.local), lifecycle);
            relay.others = Others::Redis(peers);
        }
        Ok(relay)
    }

    /// From now on messages of up to `longest` bytes come in; those that came in before still do, since what they are for
    /// goes on.
    pub fn raise_longest(&self, longest: usize) {
        self.local.raise_longest(longest);
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.local.node()
    }

    /// Opens a mailbox at an address that never was and never will be another's. Dropping it closes it. What waits in it
    /// is a part of `share`, of which nothing else should be: one long message may be as much as there is.
    #[must_use]
    pub fn open(&self, share: Share) -> Mailbox {
        self.local.open(share)
    }

    /// Delivers `payload` to the mailbox at `to` and returns once it lies there. Messages that one task delivers one
    /// after the other arrive in that order. That it arrived does not say that it was read: the exchange may end first,
    /// which [`Relay::probe`] tells. Of a delivery that is cancelled nobody knows either.
    ///
    /// # Errors
    /// It was not delivered; after [`NotDelivered::Failed`] nobody knows.
    pub async fn deliver(&self, to: &Address, payload: Bytes) -> Result<(), NotDelivered> {
        if payload.len() > self.local.longest() {
            return Err(NotDelivered::TooLarge);
        }
        match &self.others {
            _ if to.node == self.node() => self.local.deliver(to.exchange, payload),
            Others::None => Err(NotDelivered::Gone),
            Others::Redis(peers) => Box::pin(peers.deliver(to.node, to.exchange, &payload)).await,
        }
    }

    /// [`Relay::deliver`], waiting up to `patience` while the mailbox is full: for streams, whose sender should be no
    /// faster than their reader.
    ///
    /// # Errors
    /// As [`Relay::deliver`]; [`NotDelivered::Full`] when patience has come to its end.
    pub async fn deliver_within(&self, patience: Duration, to: &Address, payload: Bytes) -> Result<(), NotDelivered> {
        let until = Instant::now() + patience;
        let mut pause = ROOM[0];
        loop {
            match self.deliver(to, payload.clone()).await {
                Err(NotDelivered::Full) if Instant::now() < until => sleep(pause).await,
                done => return done,
            }
            pause = (pause * 2).min(ROOM[1]);
        }
    }

    /// [`Relay::deliver`], again for a few seconds while it fails or the mailbox is full: for what must not be lost, and
    /// says no more if it arrives twice.
    ///
    /// # Errors
    /// As [`Relay::deliver`], of the last time.
    pub async fn insist(&self, to: &Address, payload: Bytes) -> Result<(), NotDelivered> {
        again(|| self.deliver(to, payload.clone())).await
    }

    /// [`Relay::insist`], waiting up to `patience` whenever the mailbox is full: for an answer that is not made twice.
    ///
    /// # Errors
    /// As [`Relay::deliver_within`], of the last time.
    pub async fn insist_within(&self, patience: Duration, to: &Address, payload: Bytes) -> Result<(), NotDelivered> {
        again(|| self.deliver_within(patience, to, payload.clone())).await
    }

    /// [`Relay::deliver_by_key`], again as in [`Relay::insist`], also while the exchange may be one that is only about to
    /// be announced.
    ///
    /// # Errors
    /// As [`Relay::deliver_by_key`], of the last time.
    pub async fn insist_by_key(&self, key: &str, payload: Bytes) -> Result<(), NotDelivered> {
        let until = Instant::now() + MAYBE_ANNOUNCED;
        again(|| async {
            match self.deliver_by_key(key, payload.clone()).await {
                Err(NotDelivered::Gone) if self.has_others() && Instant::now() < until => Err(NotDelivered::Failed),
                done => done,
            }
        })
        .await
    }

    /// Lets the other nodes find the mailbox at `at` by `key` for `lifetime`: for what carries no address of ours.
    ///
    /// # Errors
    /// They could not be told.
    pub async fn announce(&self, key: &str, at: &Address, lifetime: Duration) -> Result<(), NotDelivered> {
        match &self.others {
            Others::None => Ok(()),
            Others::Redis(peers) => Box::pin(peers.announce(key, at, lifetime)).await,
        }
    }

    /// Takes back what was announced of `key`.
    ///
    /// # Errors
    /// The other nodes could not be told; what they find by it is gone all the same.
    pub async fn withdraw(&self, key: &str) -> Result<(), NotDelivered> {
        match &self.others {
            Others::None => Ok(()),
            Others::Redis(peers) => Box::pin(peers.withdraw(key)).await,
        }
    }

    /// Whether the mailbox at `to` is still open: for who waits for something from its exchange.
    ///
    /// # Errors
    /// [`NotDelivered::Gone`] if it is not; [`NotDelivered::Failed`] if nobody knows.
    pub async fn probe(&self, to: &Address) -> Result<(), NotDelivered> {
        match &self.others {
            _ if to.node == self.node() => self.local.probe(to.exchange),
            Others::None => Err(NotDelivered::Gone),
            Others::Redis(peers) => Box::pin(peers.probe(to.node, to.exchange)).await,
        }
    }

    /// Delivers `payload` to the mailbox that listens as `key` on this node, or that another has announced.
    ///
    /// # Errors
    /// As [`Relay::deliver`]; [`NotDelivered::Gone`] if nobody listens as `key`, or nobody has said so.
    pub async fn deliver_by_key(&self, key: &str, payload: Bytes) -> Result<(), NotDelivered> {
        match (self.local.deliver_by_key(key, payload.clone()), &self.others) {
            (Err(NotDelivered::Gone), Others::Redis(peers)) => {
                let found = Box::pin(peers.find(key)).await?;
                self.deliver(&found, payload).await
            }
            (done, _) => done,
        }
    }

    /// Leaves `payload` in every mailbox, on whichever node, that has joined `topic`. Nobody says whether it arrived: what is
    /// said so must be of no harm if it is missed.
    ///
    /// # Errors
    /// The other nodes could not be told.
    pub async fn tell_topic(&self, topic: &str, payload: Bytes) -> Result<(), NotDelivered> {
        self.local.tell_topic(topic, &payload);
        match &self.others {
            Others::None => Ok(()),
            Others::Redis(peers) => peers.tell_topic(topic, &payload).await,
        }
    }

    fn has_others(&self) -> bool {
        matches!(self.others, Others::Redis(_))
    }

    /// Whether other nodes can reach this one now, if there may be any.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        match &self.others {
            Others::None => true,
            Others::Redis(peers) => peers.is_listening(),
        }
    }

    /// How many mailboxes, keys, topics and unanswered deliveries this node remembers: zero when no request of it is left.
    #[must_use]
    pub fn entries(&self) -> usize {
        let unanswered = match &self.others {
            Others::None => 0,
            Others::Redis(peers) => peers.expected(),
        };
        self.local.entries() + unanswered
    }
}

/// Delivers until that is done, in vain for good, or insisted on for long enough.
async fn again<F>(deliver: impl Fn() -> F) -> Result<(), NotDelivered>
where
    F: Future<Output = Result<(), NotDelivered>>,
{
    let until = Instant::now() + INSISTENCE[0];
    let mut pause = INSISTENCE[1];
    loop {
        match deliver().await {
            Err(NotDelivered::Failed | NotDelivered::Full) if Instant::now() < until => sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
}

impl NodeId {
    fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has random bytes");
        Self(bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// The node that holds the exchange.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.node, self.exchange)
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (node, exchange) = text.split_once('.').ok_or(NotAnAddress)?;
        let node = BASE64_URL_SAFE_NO_PAD.decode(node).map_err(|_| NotAnAddress)?;
        let node = NodeId(node.try_into().map_err(|_| NotAnAddress)?);
        let exchange = u64::from_str_radix(exchange, 16).map_err(|_| NotAnAddress)?;
        Ok(Self { node, exchange })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_takes_little_room_within_whatever_may_come_to_wait_for_it() {
        let relay = Relay::local();
        let to = format!("{}.0", relay.node()).parse().unwrap();
        let bytes = size_of_val(&relay.insist_within(Duration::ZERO, &to, Bytes::new()));
        assert!(bytes < 1024, "{bytes}");
    }
}
