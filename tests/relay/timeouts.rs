//! How long a message may wait for Redis is what the configuration says of the store.

use std::sync::Arc;
use std::time::Duration;

use tollbridge::keyring::Keyring;
use tollbridge::relay::NotDelivered;

use crate::nodes::{Node, received, share};
use crate::support::Redis;

#[tokio::test]
async fn a_message_that_may_wait_long_outlives_a_redis_that_hangs_and_one_that_may_not_fails() {
    let (redis, keyring) = (Redis::start(), Arc::new(Keyring::ephemeral()));
    let patient = Duration::from_mins(1);
    let [here, there] = [(); 2].map(|()| Node::start_within(patient, &redis, &keyring));
    let hasty = Node::start(&redis, &keyring);
    for node in [&here, &there, &hasty] {
        node.until_listening().await;
    }
    let mut mailbox = there.relay.open(share());
    let address = mailbox.address();
    redis.freeze();
    let mut delivery = std::pin::pin!(here.relay.deliver(&address, "patient".into()));
    tokio::select! {
        biased;
        failed = hasty.relay.deliver(&address, "hasty".into()) => assert_eq!(failed, Err(NotDelivered::Failed)),
        done = &mut delivery => panic!("Redis hangs: {done:?}"),
    }
    // By then who listens has asked whether Redis is there, and would have given it up by default.
    let done = tokio::time::timeout(Duration::from_secs(4), &mut delivery).await;
    assert!(done.is_err(), "Redis hangs: {done:?}");
    assert!(here.relay.is_listening() && there.relay.is_listening());
    redis.thaw();
    assert_eq!(delivery.await, Ok(()));
    // What was sent in vain may have come before.
    while received(&mut mailbox).await != "patient" {}
}
