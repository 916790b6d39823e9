//! Other nodes, reached through Redis pub/sub: every node listens to a channel of its own.
//!
//! `PUBLISH` counts who listens, which says that a node is there and not that an exchange is. So every message asks
//! for a receipt, which comes back on the sender's own channel; without one in time nobody knows, and that is said.
//! A message travels in parts, each after the receipt of the one before, so that what lies between two nodes in
//! Redis is bounded far below its `client-output-buffer-limit pubsub`. Needs Redis 6 or later, and for an ACL user
//! `+publish +subscribe +ping +set +get +del` and `&{prefix}:node*`.
//!
//! Not for a Redis Cluster yet: there `PUBLISH` counts only who listens at the same server, so a node could seem gone.
//! Sharded pub/sub goes into [`Peers::publish`] and [`RedisClient::subscribe`]; nothing else knows of the commands.

mod directory;
mod listener;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::local::Local;
use super::wire::{Body, Frame, Part};
use super::{NodeId, NotDelivered};
use crate::clock::within;
use crate::keyring::Keyring;
use crate::lifecycle::Lifecycle;
use crate::secret::Secret;
use crate::store::{CommandBatch, RedisClient, SetupError, StoreError};

/// The longest part of a message, bytes.
const PART: usize = 256 << 10;
/// Bytes that may be without a receipt, in KiB: of every node together far less than Redis keeps for a slow reader.
const WITHOUT_RECEIPT: usize = 4 << 10;
/// For how long after this node listens again a count of zero may mean that the other does not yet, at least: longer than
/// a pause and an attempt to connect.
const SETTLING: Duration = Duration::from_millis(800);
/// Between two tries while the other node may be about to listen again.
const RETRY: Duration = Duration::from_millis(20);
/// Receipts that may wait to be sent. Without one the sender does not know; it is told so by its deadline.
const RECEIPTS: usize = 4096;

/// What became of a frame, as its receipt says.
type Verdict = Result<(), NotDelivered>;

/// The way to the other nodes.
pub(super) struct Peers {
    node: NodeId,
    link: RedisClient,
    /// One part of a message, with everything it waits for.
    deadline: Duration,
    /// [`SETTLING`], or longer where an attempt to connect may be: the other may be in the middle of one.
    settling: Duration,
    keyring: Arc<Keyring>,
    prefix: Box<str>,
    /// The channel that every node listens to beside its own.
    channel_of_all: String,
    /// The number of the last frame.
    number: AtomicU64,
    /// Who waits for the receipt of which frame.
    expected: Mutex<HashMap<u64, oneshot::Sender<Verdict>>>,
    room: Semaphore,
    /// Since when this node listens without a break.
    listening: watch::Sender<Option<Instant>>,
}

/// A receipt that is expected until this is dropped.
struct Expected<'a> {
    peers: &'a Peers,
    number: u64,
    verdict: oneshot::Receiver<Verdict>,
}

impl Peers {
    /// Those of `node`, where a command to Redis may take `timeout`; nothing is sent yet.
    pub(super) fn open(
        url: &Secret,
        prefix: &str,
        timeout: Duration,
        keyring: Arc<Keyring>,
        node: NodeId,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            node,
            link: RedisClient::open(url, timeout)?,
            deadline: timeout * 5 / 3,
            settling: (timeout * 4 / 3).max(SETTLING),
            keyring,
            prefix: prefix.into(),
            channel_of_all: format!("{prefix}:node:all"),
            number: AtomicU64::new(0),
            expected: Mutex::default(),
            room: Semaphore::new(WITHOUT_RECEIPT),
            listening: watch::Sender::new(None),
        })
    }

    /// Listens for `local` until the hard stop. Redis may be down.
    pub(super) fn listen(self: &Arc<Self>, local: Arc<Local>, lifecycle: &Lifecycle) {
        let (receipts, to_send) = mpsc::channel(RECEIPTS);
        lifecycle.accompany(listener::listen(Arc::clone(self), local, receipts));
        lifecycle.accompany(listener::send_receipts(Arc::clone(self), to_send));
    }

    /// Delivers `payload` to an exchange of another node, in parts.
    pub(super) async fn deliver(&self, node: NodeId, exchange: u64, payload: &Bytes) -> Verdict {
        let (mut message, mut offset) = (None, 0);
        loop {
            let bytes = &payload[offset..payload.len().min(offset + PART)];
            let part = |number| {
                let message = *message.get_or_insert(number);
                Body::Part(Part { exchange, message, total: payload.len(), offset, bytes })
            };
            self.tell(node, bytes.len(), part).await?;
            offset += bytes.len();
            if offset >= payload.len() {
                return Ok(());
            }
        }
    }

    /// Whether an exchange of another node is there.
    pub(super) async fn probe(&self, node: NodeId, exchange: u64) -> Verdict {
        self.tell(node, 0, |_| Body::Probe { exchange }).await
    }

    /// Says something to all nodes that have joined `topic`.
    pub(super) async fn tell_topic(&self, topic: &str, payload: &Bytes) -> Verdict {
        let frame = Frame { from: self.node, number: self.next_number(), body: Body::Topic { topic, payload } };
        let published = self.publish(&self.channel_of_all, frame);
        let published = within(self.deadline, published).await;
        published.and_then(Result::ok).map(drop).ok_or(NotDelivered::Failed)
    }

    pub(super) fn is_listening(&self) -> bool {
        self.listening.borrow().is_some()
    }

    /// How many receipts are expected.
    pub(super) fn expected(&self) -> usize {
        self.expected_now().len()
    }

    /// Says something of `length` bytes to a node and waits for the receipt. What is said is made from its number.
    async fn tell<'a>(&self, node: NodeId, length: usize, mut body: impl FnMut(u64) -> Body<'a>) -> Verdict {
        let channel = self.channel_of(node);
        let work = async {
            let units = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
            let _room = self.room.acquire_many(units).await.expect("the semaphore is never closed");
            loop {
                self.until_listening().await;
                let expected = self.expect();
                let frame = Frame { from: self.node, number: expected.number, body: body(expected.number) };
                match self.publish(&channel, frame).await {
                    Err(_) => return Err(NotDelivered::Failed),
                    Ok(1..) => return expected.verdict().await,
                    Ok(0) if self.has_settled() => return Err(NotDelivered::Gone),
                    Ok(0) => sleep(RETRY).await,
                }
            }
        };
        within(self.deadline, work).await.unwrap_or(Err(NotDelivered::Failed))
    }

    /// Publishes a frame and answers how many heard it.
    async fn publish(&self, channel: &str, frame: Frame<'_>) -> Result<u64, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("PUBLISH").arg(channel).arg(frame.seal(&self.keyring, channel));
        self.link.ask(&batch, |[receivers]: [u64; 1]| Ok(receivers)).await
    }

    /// Waits until a receipt could be heard.
    async fn until_listening(&self) {
        let mut listening = self.listening.subscribe();
        let _never_closed = listening.wait_for(Option::is_some).await;
    }

    /// Whether a node that does not listen now is not merely late after an outage, in which all lost their connection.
    fn has_settled(&self) -> bool {
        self.listening.borrow().is_some_and(|since| since.elapsed() > self.settling)
    }

    fn expect(&self) -> Expected<'_> {
        let (sender, verdict) = oneshot::channel();
        let number = self.next_number();
        self.expected_now().insert(number, sender);
        Expected { peers: self, number, verdict }
    }

    /// A receipt has come; one that nobody expects any more is ignored.
    fn settle(&self, number: u64, verdict: Verdict) {
        if let Some(sender) = self.expected_now().remove(&number) {
            let _nobody_waits = sender.send(verdict);
        }
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn expected_now(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Verdict>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of one node.
    fn channel_of(&self, node: NodeId) -> String {
        format!("{}:node:{node}", self.prefix)
    }
}

impl Expected<'_> {
    async fn verdict(mut self) -> Verdict {
        (&mut self.verdict).await.unwrap_or(Err(NotDelivered::Failed))
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.peers.expected_now().remove(&self.number);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({})", self.node)
    }
}
