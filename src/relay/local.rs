//! The exchanges of this node and what waits for them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::wire::Part;
use super::{Address, MAX_WAITING, MAX_WAITING_BYTES, NodeId, NotDelivered};
use crate::memory::{Held, Share};

/// After how long a message whose next part does not come is given up. Its sender gives up a part sooner.
const ABANDONED: Duration = Duration::from_secs(3);

/// Every open mailbox of this node.
pub(super) struct Local {
    node: NodeId,
    /// The longest message, bytes.
    longest: AtomicUsize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The id of the next exchange; none is used twice.
    next: u64,
    exchanges: HashMap<u64, Arc<Exchange>>,
    keys: HashMap<String, u64>,
    /// Who hears what is said on a topic.
    topics: HashMap<String, HashSet<u64>>,
}

/// What waits for one exchange.
pub(super) struct Exchange {
    /// What waits is a part of it.
    share: Share,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    /// Messages that have arrived in part.
    begun: Vec<Begun>,
    /// Bytes of everything that waits, and of everything that has begun as if it were complete.
    held: usize,
    closed: bool,
}

/// A message that has arrived in part.
struct Begun {
    /// Whose message, and which of theirs.
    name: (NodeId, u64),
    bytes: BytesMut,
    total: usize,
    /// Memory for all of it.
    held: Held,
    /// When its last part arrived.
    last: Instant,
}

/// Where messages for one exchange of this node arrive. Dropping it closes it and forgets what was not read.
pub struct Mailbox {
    address: Address,
    exchange: Arc<Exchange>,
    keys: Vec<String>,
    topics: Vec<String>,
    local: Arc<Local>,
}

impl Mailbox {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The next message, in the order of arrival. Waits until there is one; no message is lost if it is cancelled.
    pub async fn receive(&mut self) -> Bytes {
        loop {
            if let Some(payload) = self.exchange.take() {
                return payload;
            }
            self.exchange.arrived.notified().await;
        }
    }

    /// Also receives what is delivered by `key`, until it is dropped or another mailbox of this node listens as the
    /// same. A key must name its session, so that no other session's message is ever meant by it.
    pub fn listen_as(&mut self, key: String) {
        self.local.open_now().keys.insert(key.clone(), self.address.exchange);
        self.keys.push(key);
    }

    /// Also receives what is said on `topic`, on whichever node, until it is dropped.
    pub fn join(&mut self, topic: String) {
        self.local.open_now().topics.entry(topic.clone()).or_default().insert(self.address.exchange);
        self.topics.push(topic);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut open = self.local.open_now();
        open.exchanges.remove(&self.address.exchange);
        for key in &self.keys {
            if open.keys.get(key) == Some(&self.address.exchange) {
                open.keys.remove(key);
            }
        }
        for topic in &self.topics {
            let Some(joined) = open.topics.get_mut(topic) else { continue };
            joined.remove(&self.address.exchange);
            if joined.is_empty() {
                open.topics.remove(topic);
            }
        }
        drop(open);
        self.exchange.close();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.address)
    }
}

impl Local {
    pub(super) fn new(node: NodeId, longest: usize) -> Self {
        Self { node, longest: AtomicUsize::new(longest), open: Mutex::default() }
    }

    pub(super) fn longest(&self) -> usize {
        self.longest.load(Relaxed)
    }

    pub(super) fn raise_longest(&self, longest: usize) {
        self.longest.fetch_max(longest, Relaxed);
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn open(self: &Arc<Self>, share: Share) -> Mailbox {
        let exchange = Arc::new(Exchange { share, queue: Mutex::default(), arrived: Notify::new() });
        let mut open = self.open_now();
        let id = open.next;
        open.next += 1;
        open.exchanges.insert(id, Arc::clone(&exchange));
        let address = Address { node: self.node, exchange: id };
        Mailbox { address, exchange, keys: Vec::new(), topics: Vec::new(), local: Arc::clone(self) }
    }

    pub(super) fn deliver(&self, exchange: u64, payload: Bytes) -> Result<(), NotDelivered> {
        self.exchange(exchange)?.put(payload)
    }

    /// Takes a part of a message of another node; the message waits once its last part has come.
    pub(super) fn deliver_part(&self, from: NodeId, part: Part<'_>) -> Result<(), NotDelivered> {
        if part.total > self.longest() {
            return Err(NotDelivered::TooLarge);
        }
        let exchange = self.exchange(part.exchange)?;
        if part.bytes.len() == part.total {
            return exchange.put(Bytes::copy_from_slice(part.bytes));
        }
        exchange.put_part((from, part.message), part)
    }

    pub(super) fn deliver_by_key(&self, key: &str, payload: Bytes) -> Result<(), NotDelivered> {
        let exchange = self.open_now().keys.get(key).copied().ok_or(NotDelivered::Gone)?;
        self.deliver(exchange, payload)
    }

    /// Leaves `payload` with everyone who has joined `topic`; a full mailbox misses it.
    pub(super) fn tell_topic(&self, topic: &str, payload: &Bytes) {
        let joined: Vec<_> = {
            let open = self.open_now();
            let joined = open.topics.get(topic).into_iter().flatten();
            joined.filter_map(|exchange| open.exchanges.get(exchange).cloned()).collect()
        };
        for exchange in joined {
            let _missed = exchange.put(payload.clone());
        }
    }

    pub(super) fn probe(&self, exchange: u64) -> Result<(), NotDelivered> {
        self.exchange(exchange).map(drop)
    }

    pub(super) fn entries(&self) -> usize {
        let open = self.open_now();
        open.exchanges.len() + open.keys.len() + open.topics.len()
    }

    fn exchange(&self, id: u64) -> Result<Arc<Exchange>, NotDelivered> {
        self.open_now().exchanges.get(&id).cloned().ok_or(NotDelivered::Gone)
    }

    fn open_now(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({})", self.node)
    }
}

impl Exchange {
    fn put(&self, payload: Bytes) -> Result<(), NotDelivered> {
        let mut queue = self.queue();
        let held = queue.admit(payload.len(), &self.share)?;
        queue.waiting.push_back(held.keep(payload, ()));
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    fn put_part(&self, name: (NodeId, u64), part: Part<'_>) -> Result<(), NotDelivered> {
        let mut queue = self.queue();
        if part.offset == 0 {
            let held = queue.admit(part.total, &self.share)?;
            let bytes = BytesMut::with_capacity(part.total);
            queue.begun.push(Begun { name, bytes, total: part.total, held, last: Instant::now() });
        } else if queue.closed {
            return Err(NotDelivered::Gone);
        }
        // One that was given up, or a part that does not follow: the whole message must be sent again.
        let at = queue.begun.iter().position(|begun| begun.name == name).ok_or(NotDelivered::Failed)?;
        let begun = &mut queue.begun[at];
        if begun.bytes.len() != part.offset || begun.bytes.len() + part.bytes.len() > begun.total {
            return Err(NotDelivered::Failed);
        }
        begun.bytes.extend_from_slice(part.bytes);
        begun.last = Instant::now();
        if begun.bytes.len() == begun.total {
            let Begun { bytes, held, .. } = queue.begun.swap_remove(at);
            queue.waiting.push_back(held.keep(bytes.freeze(), ()));
            drop(queue);
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn take(&self) -> Option<Bytes> {
        let mut queue = self.queue();
        let payload = queue.waiting.pop_front()?;
        queue.held -= payload.len();
        Some(payload)
    }

    /// From now on nothing arrives, also not from who found the exchange before it was forgotten.
    fn close(&self) {
        *self.queue() = Queue { closed: true, ..Queue::default() };
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes room for a message of `length` bytes, and memory.
    fn admit(&mut self, length: usize, share: &Share) -> Result<Held, NotDelivered> {
        if self.closed {
            return Err(NotDelivered::Gone);
        }
        self.give_up_abandoned();
        let count = self.waiting.len() + self.begun.len();
        if count >= MAX_WAITING || (count > 0 && self.held + length > MAX_WAITING_BYTES) {
            return Err(NotDelivered::Full);
        }
        let held = share.take(length).map_err(|_| NotDelivered::Full)?;
        self.held += length;
        Ok(held)
    }

    /// Gives back the room of messages whose sender is gone.
    fn give_up_abandoned(&mut self) {
        let held = &mut self.held;
        self.begun.retain(|begun| {
            let alive = begun.last.elapsed() < ABANDONED;
            if !alive {
                *held -= begun.total;
            }
            alive
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::metrics::Gauge;
    use crate::relay::MAX_MESSAGE;
    use crate::user::UserId;

    const NODE: NodeId = NodeId([1; 16]);

    fn share() -> Share {
        Memory::new(None, MAX_MESSAGE, Gauge::default()).share(&UserId::local("alice").unwrap(), MAX_MESSAGE)
    }

    fn part(total: usize, offset: usize, bytes: &[u8]) -> Part<'_> {
        Part { exchange: 0, message: 1, total, offset, bytes }
    }

    #[test]
    fn what_came_in_before_still_does_where_shorter_messages_are_wanted() {
        let local = Local::new(NODE, 10);
        local.raise_longest(20);
        local.raise_longest(15);
        assert_eq!(local.longest(), 20);
    }

    #[test]
    fn who_found_a_mailbox_before_it_was_dropped_delivers_nothing_to_it() {
        let local = Arc::new(Local::new(NODE, MAX_MESSAGE));
        let mailbox = local.open(share());
        let found = local.exchange(0).unwrap();
        assert_eq!(found.put_part((NODE, 1), part(4, 0, b"ab")), Ok(()));
        drop(mailbox);
        assert_eq!(found.put("late".into()), Err(NotDelivered::Gone));
        assert_eq!(found.put_part((NODE, 1), part(4, 2, b"cd")), Err(NotDelivered::Gone));
        assert!(found.take().is_none());
    }

    #[test]
    fn a_part_that_does_not_follow_is_refused() {
        let local = Arc::new(Local::new(NODE, MAX_MESSAGE));
        let _mailbox = local.open(share());
        let other = NodeId([2; 16]);
        assert_eq!(local.deliver_part(NODE, part(6, 2, b"cd")), Err(NotDelivered::Failed), "no beginning");
        assert_eq!(local.deliver_part(NODE, part(6, 0, b"ab")), Ok(()));
        assert_eq!(local.deliver_part(other, part(6, 2, b"cd")), Err(NotDelivered::Failed), "of another");
        assert_eq!(local.deliver_part(NODE, part(6, 4, b"ef")), Err(NotDelivered::Failed), "a gap");
        assert_eq!(local.deliver_part(NODE, part(6, 2, b"cdefg")), Err(NotDelivered::Failed), "too long");
        assert_eq!(local.deliver_part(NODE, part(MAX_MESSAGE + 1, 0, b"ab")), Err(NotDelivered::TooLarge));
        assert_eq!(local.deliver_part(NODE, part(6, 2, b"cdef")), Ok(()));
        assert_eq!(local.exchange(0).unwrap().take().unwrap(), "abcdef");
    }

    #[tokio::test]
    async fn what_waits_is_counted_from_its_first_part_until_it_has_been_read() {
        let (local, gauge) = (Arc::new(Local::new(NODE, MAX_MESSAGE)), Gauge::default());
        let memory = Memory::new(Some(100), 100, gauge.clone());
        let mut mailbox = local.open(memory.share(&UserId::local("alice").unwrap(), 100));
        assert_eq!(local.deliver_part(NODE, part(60, 0, &[b'a'; 30])), Ok(()));
        assert_eq!(gauge.get(), 60);
        assert_eq!(local.deliver(0, Bytes::from_static(&[b'b'; 41])), Err(NotDelivered::Full));
        assert_eq!(local.deliver_part(NODE, part(60, 30, &[b'a'; 30])), Ok(()));
        let message = mailbox.receive().await;
        assert_eq!((message.len(), gauge.get()), (60, 60));
        drop(message);
        assert_eq!(local.deliver(0, Bytes::from_static(&[b'b'; 41])), Ok(()));
        assert_eq!(gauge.get(), 41);
        drop(mailbox);
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_whose_sender_is_gone_gives_its_room_back() {
        let local = Arc::new(Local::new(NODE, MAX_MESSAGE));
        let _mailbox = local.open(share());
        assert_eq!(local.deliver_part(NODE, part(MAX_MESSAGE, 0, b"ab")), Ok(()));
        assert_eq!(local.deliver(0, "x".into()), Err(NotDelivered::Full));
        tokio::time::advance(ABANDONED).await;
        assert_eq!(local.deliver(0, "x".into()), Ok(()));
        assert_eq!(local.deliver_part(NODE, part(MAX_MESSAGE, 2, b"cd")), Err(NotDelivered::Failed));
    }
}
