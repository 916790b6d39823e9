//! Nodes that relay to each other, in one process.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tollbridge::config::TokenStoreKind;
use tollbridge::keyring::Keyring;
use tollbridge::lifecycle::Lifecycle;
use tollbridge::memory::{Memory, Share};
use tollbridge::metrics::Gauge;
use tollbridge::relay::{MAX_MESSAGE, Mailbox, Relay};
use tollbridge::secret::Secret;
use tollbridge::user::UserId;

use crate::support::Redis;

/// How long anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);
/// How long a question to Redis may take where a test is not about that: one that stalls with its machine is no outage.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// More memory than any test here needs.
pub(crate) fn share() -> Share {
    Memory::new(None, MAX_MESSAGE, Gauge::default()).share(&UserId::local("alice").unwrap(), MAX_MESSAGE)
}

/// A sender and a receiver.
pub(crate) struct Nodes {
    pub(crate) here: Relay,
    pub(crate) there: Relay,
    _redis: Option<Redis>,
}

/// A node and what ends it.
pub(crate) struct Node {
    pub(crate) relay: Relay,
    pub(crate) lifecycle: Lifecycle,
}

impl Nodes {
    /// Both are one node that is alone.
    pub(crate) fn one() -> Self {
        let relay = Relay::local();
        Self { here: relay.clone(), there: relay, _redis: None }
    }

    /// Two nodes that share a Redis.
    pub(crate) async fn two() -> Self {
        let redis = Redis::start();
        let keyring = Arc::new(Keyring::ephemeral());
        let [here, there] = [(); 2].map(|()| Node::start_within(PATIENCE, &redis, &keyring));
        here.until_listening().await;
        there.until_listening().await;
        Self { here: here.relay, there: there.relay, _redis: Some(redis) }
    }
}

impl Node {
    /// A node that shares `redis` and `keyring` with others.
    pub(crate) fn start(redis: &Redis, keyring: &Arc<Keyring>) -> Self {
        Self::start_within(TokenStoreKind::TIMEOUT, redis, keyring)
    }

    /// The same where a question to Redis may take `timeout`.
    pub(crate) fn start_within(timeout: Duration, redis: &Redis, keyring: &Arc<Keyring>) -> Self {
        let lifecycle = Lifecycle::default();
        let kind = TokenStoreKind::Redis { url: Secret::new(redis.url()), prefix: "toll".to_owned(), timeout };
        let relay = Relay::start(Some(&kind), Arc::clone(keyring), &lifecycle, MAX_MESSAGE).unwrap();
        Self { relay, lifecycle }
    }

    pub(crate) async fn until_listening(&self) {
        soon("the node listens", async || self.relay.is_listening()).await;
    }
}

/// The next message, which must come.
pub(crate) async fn received(mailbox: &mut Mailbox) -> Bytes {
    tokio::time::timeout(DEADLINE, mailbox.receive()).await.expect("a message")
}

/// Whether nothing lies in the mailbox now.
pub(crate) fn silent(mailbox: &mut Mailbox) -> bool {
    let receive = std::pin::pin!(mailbox.receive());
    receive.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Asks again and again until it is so.
pub(crate) async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not so in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
