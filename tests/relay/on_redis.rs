//! What holds between nodes that share a Redis, when the Redis or a node fails or lies.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tollbridge::keyring::Keyring;
use tollbridge::relay::{Address, NotDelivered, Relay};

use crate::nodes::{DEADLINE, Node, Nodes, received, share, silent, soon};
use crate::support::Redis;

/// How soon everything must work again once Redis is back.
const BACK: Duration = Duration::from_secs(1);

/// `N` nodes with the same keys that listen.
async fn listening<const N: usize>(redis: &Redis) -> [Node; N] {
    let keyring = Arc::new(Keyring::ephemeral());
    let nodes = std::array::from_fn(|_| Node::start(redis, &keyring));
    for node in &nodes {
        node.until_listening().await;
    }
    nodes
}

/// Delivers in vain, which is said in good time: once in three, since a busy machine holds up one and not all.
async fn fails_in_time(relay: &Relay, to: &Address) {
    for attempt in 1.. {
        let start = Instant::now();
        assert_eq!(relay.deliver(to, "lost".into()).await, Err(NotDelivered::Failed));
        if start.elapsed() < 2 * BACK {
            return;
        }
        assert!(attempt < 3, "{:?}", start.elapsed());
    }
}

fn connection(redis: &Redis) -> redis::Connection {
    redis::Client::open(redis.url()).unwrap().get_connection().unwrap()
}

#[tokio::test]
async fn a_node_that_has_ended_is_gone() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mailbox = there.relay.open(share());
    assert_eq!(here.relay.deliver(&mailbox.address(), "alive".into()).await, Ok(()));
    there.lifecycle.hard.cancel();
    soon("the node is gone", async || {
        here.relay.deliver(&mailbox.address(), "dead".into()).await == Err(NotDelivered::Gone)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_gives_no_receipt_is_a_failure_within_its_deadline() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let address = there.relay.open(share()).address();
    there.lifecycle.hard.cancel();
    // Somebody listens who cannot answer.
    let mut deaf = connection(&redis);
    let mut deaf = deaf.as_pubsub();
    deaf.subscribe(format!("toll:node:{}", there.relay.node())).unwrap();
    fails_in_time(&here.relay, &address).await;
    assert_eq!(here.relay.entries(), 0);
}

#[tokio::test]
async fn a_node_with_other_keys_delivers_nothing() {
    let redis = Redis::start();
    let [there] = listening(&redis).await;
    let [stranger] = listening(&redis).await;
    let mut mailbox = there.relay.open(share());
    there.relay.announce("key", &mailbox.address(), DEADLINE).await.unwrap();
    assert_eq!(stranger.relay.deliver_by_key("key", "strange".into()).await, Err(NotDelivered::Gone));
    assert_eq!(stranger.relay.deliver(&mailbox.address(), "strange".into()).await, Err(NotDelivered::Failed));
    assert!(silent(&mut mailbox));
}

#[tokio::test]
async fn what_was_published_once_cannot_be_published_again_or_elsewhere() {
    let redis = Redis::start();
    let [here, there, third] = listening(&redis).await;
    let mut spy = connection(&redis);
    let mut spy = spy.as_pubsub();
    spy.psubscribe("toll:*").unwrap();
    // The same in number, so that a message for the one could be taken for one for the other.
    let (mut mailbox, mut other) = (there.relay.open(share()), third.relay.open(share()));
    assert_eq!(here.relay.deliver(&mailbox.address(), "once".into()).await, Ok(()));
    assert_eq!(received(&mut mailbox).await, "once");
    // What comes after it in order has arrived: from here on it would be taken for the one that is published again.
    assert_eq!(here.relay.deliver(&other.address(), "before".into()).await, Ok(()));
    assert_eq!(received(&mut other).await, "before");
    // The message and its receipt: again where they were, and on every other channel.
    let seen: Vec<redis::Msg> = (0..2).map(|_| spy.get_message().unwrap()).collect();
    let mut attacker = connection(&redis);
    let nodes = [&here, &there, &third].map(|node| format!("toll:node:{}", node.relay.node()));
    for message in &seen {
        for channel in &nodes {
            let heard: u64 =
                redis::cmd("PUBLISH").arg(channel).arg(message.get_payload_bytes()).query(&mut attacker).unwrap();
            assert!(heard >= 2, "the spy and the node");
        }
    }
    redis::cmd("PUBLISH").arg(&nodes[1]).arg("rubbish").exec(&mut attacker).unwrap();
    // What comes in order after all that arrives first.
    assert_eq!(here.relay.deliver(&mailbox.address(), "after".into()).await, Ok(()));
    assert_eq!(here.relay.deliver(&other.address(), "after".into()).await, Ok(()));
    assert_eq!(received(&mut mailbox).await, "after");
    assert_eq!(received(&mut other).await, "after");
}

#[tokio::test]
async fn redis_sees_nothing_in_the_clear() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mut monitor = TcpStream::connect(redis.address()).unwrap();
    monitor.set_read_timeout(Some(DEADLINE)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    let mut mailbox = there.relay.open(share());
    there.relay.announce("secret-key", &mailbox.address(), DEADLINE).await.unwrap();
    here.relay.deliver(&mailbox.address(), "secret-payload".into()).await.unwrap();
    here.relay.deliver_by_key("secret-key", "secret-cancel".into()).await.unwrap();
    received(&mut mailbox).await;
    received(&mut mailbox).await;
    redis::cmd("ECHO").arg("secret-end").exec(&mut connection(&redis)).unwrap();
    let traffic: Vec<String> = lines.take_while(|line| !line.contains("secret-end")).collect();
    let published = traffic.iter().filter(|line| line.contains("\"PUBLISH\"")).count();
    assert_eq!(published, 4, "two messages and their receipts: {traffic:?}");
    let clear = ["secret".to_owned(), mailbox.address().to_string()];
    assert!(!traffic.iter().any(|line| clear.iter().any(|clear| line.contains(clear))), "{traffic:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_a_failure_and_never_gone_and_over_within_a_second_of_redis_s_return() {
    let mut redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mut mailbox = there.relay.open(share());
    there.relay.announce("key", &mailbox.address(), DEADLINE).await.unwrap();
    let mut outages = Vec::new();
    for _ in 0..3 {
        assert_eq!(here.relay.deliver(&mailbox.address(), "before".into()).await, Ok(()));
        redis.crash();
        fails_in_time(&here.relay, &mailbox.address()).await;
        assert_eq!(here.relay.deliver_by_key("key", "during".into()).await, Err(NotDelivered::Failed));
        redis.restart();
        let start = Instant::now();
        loop {
            match here.relay.deliver(&mailbox.address(), "after".into()).await {
                Ok(()) => break,
                Err(error) => assert_eq!(error, NotDelivered::Failed),
            }
            assert!(start.elapsed() < DEADLINE, "it is not over");
        }
        outages.push(start.elapsed());
        assert_eq!(received(&mut mailbox).await, "before");
        assert_eq!(received(&mut mailbox).await, "after");
    }
    // The shortest: a busy machine draws out one, and a slow relay all.
    assert!(outages.iter().min() < Some(&BACK), "{outages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_insisted_on_arrives_after_an_outage() {
    let mut redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mut mailbox = there.relay.open(share());
    let address = mailbox.address();
    redis.crash();
    let in_vain = async {
        assert_eq!(here.relay.deliver(&address, "once".into()).await, Err(NotDelivered::Failed));
        redis.restart();
    };
    let (delivered, ()) = tokio::join!(here.relay.insist(&address, "over".into()), in_vain);
    assert_eq!(delivered, Ok(()));
    assert_eq!(received(&mut mailbox).await, "over");
}

#[tokio::test]
async fn a_node_that_is_late_after_an_outage_is_waited_for() {
    let redis = Redis::start();
    let keyring = Arc::new(Keyring::ephemeral());
    let there = Node::start(&redis, &keyring);
    there.until_listening().await;
    let mut mailbox = there.relay.open(share());
    let mut cutter = connection(&redis);
    for attempt in 1.. {
        there.until_listening().await;
        let list: String = redis::cmd("CLIENT").arg(&["LIST", "TYPE", "pubsub"]).query(&mut cutter).unwrap();
        // The newest: a node of an attempt before may not have left yet.
        let id = list.lines().last().unwrap().split([' ', '=']).nth(1).unwrap();
        // One that listens only now may have come out of an outage together with the other.
        let since = Instant::now();
        let here = Node::start(&redis, &keyring);
        here.until_listening().await;
        redis::cmd("CLIENT").arg(&["KILL", "ID", id]).exec(&mut cutter).unwrap();
        let delivered = here.relay.deliver(&mailbox.address(), "hello".into()).await;
        here.lifecycle.hard.cancel();
        if delivered.is_err() && since.elapsed() > Duration::from_millis(400) && attempt < 5 {
            // Too late to tell anything: for that long it is not waited for.
            continue;
        }
        assert_eq!(delivered, Ok(()));
        break;
    }
    assert_eq!(received(&mut mailbox).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_a_failure_and_heals() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mailbox = there.relay.open(share());
    redis.freeze();
    fails_in_time(&here.relay, &mailbox.address()).await;
    soon("the listeners notice", async || !here.relay.is_listening() && !there.relay.is_listening()).await;
    redis.thaw();
    soon("a message arrives", async || here.relay.deliver(&mailbox.address(), "after".into()).await == Ok(())).await;
}

#[tokio::test]
async fn a_message_that_lies_between_nodes_when_subscriptions_are_cut_is_not_lost_without_a_word() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mut mailbox = there.relay.open(share());
    let address = mailbox.address();
    let deliver = async |text: String| here.relay.deliver_within(DEADLINE, &address, text.into()).await;
    let send = async {
        let mut delivered = Vec::new();
        for n in 0..2_000_u32 {
            match deliver(n.to_string()).await {
                Ok(()) => delivered.push(Bytes::from(n.to_string())),
                Err(error) => assert_eq!(error, NotDelivered::Failed),
            }
        }
        soon("the end is delivered", async || deliver("end".to_owned()).await == Ok(())).await;
        delivered
    };
    let receive = async {
        let mut cutter = connection(&redis);
        let mut cuts = vec![1200, 200];
        let mut seen = Vec::new();
        loop {
            match received(&mut mailbox).await {
                end if end == "end" => break,
                payload => seen.push(payload),
            }
            if cuts.pop_if(|at| seen.len() >= *at).is_some() {
                let cut: u64 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query(&mut cutter).unwrap();
                assert_eq!(cut, 2);
            }
        }
        assert!(cuts.is_empty(), "both cuts were made");
        seen
    };
    let (delivered, seen) = tokio::join!(send, receive);
    let lost: Vec<_> = delivered.iter().filter(|payload| !seen.contains(payload)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(delivered.len() > 1_900, "{}", delivered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_while_redis_is_down() {
    let mut redis = Redis::start();
    redis.crash();
    let keyring = Arc::new(Keyring::ephemeral());
    let [here, there] = [Node::start(&redis, &keyring), Node::start(&redis, &keyring)];
    assert!(!here.relay.is_listening());
    let mut mailbox = there.relay.open(share());
    // Its own exchanges need no Redis.
    assert_eq!(there.relay.deliver(&mailbox.address(), "near".into()).await, Ok(()));
    redis.restart();
    soon("a message arrives", async || here.relay.deliver(&mailbox.address(), "far".into()).await == Ok(())).await;
    assert_eq!(received(&mut mailbox).await, "near");
    assert_eq!(received(&mut mailbox).await, "far");
}

#[tokio::test]
async fn a_message_by_key_is_said_to_the_one_of_three_nodes_that_has_announced_it_and_to_no_other() {
    let redis = Redis::start();
    let nodes: [Node; 3] = listening(&redis).await;
    let mut spy = connection(&redis);
    let mut spy = spy.as_pubsub();
    spy.psubscribe("toll:*").unwrap();
    let mut mailboxes = nodes.each_ref().map(|node| node.relay.open(share()));
    for (n, (mailbox, node)) in mailboxes.iter_mut().zip(&nodes).enumerate() {
        mailbox.listen_as(format!("session/{n}"));
        node.relay.announce(&format!("session/{n}"), &mailbox.address(), DEADLINE).await.unwrap();
    }
    for (from, to) in [(0, 1), (0, 2), (1, 1), (2, 0)] {
        nodes[from].relay.deliver_by_key(&format!("session/{to}"), format!("to {to}").into()).await.unwrap();
        assert_eq!(received(&mut mailboxes[to]).await, format!("to {to}"));
        // The message and its receipt; none at all where both are the same node.
        let said = if from == to { vec![] } else { vec![to, from] };
        for node in said {
            let channel = format!("toll:node:{}", nodes[node].relay.node());
            assert_eq!(spy.get_message().unwrap().get_channel_name(), channel);
        }
    }
    // What is delivered to each afterwards is the first thing that lies there.
    for mailbox in &mut mailboxes {
        nodes[0].relay.deliver(&mailbox.address(), "end".into()).await.unwrap();
        assert_eq!(received(mailbox).await, "end");
    }
}

#[tokio::test]
async fn a_message_that_is_insisted_on_finds_who_is_announced_only_now_and_gives_up_on_who_never_is() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mut mailbox = there.relay.open(share());
    let address = mailbox.address();
    let late = async {
        assert_eq!(here.relay.deliver_by_key("key", "once".into()).await, Err(NotDelivered::Gone));
        there.relay.announce("key", &address, DEADLINE).await.unwrap();
    };
    let (delivered, ()) = tokio::join!(here.relay.insist_by_key("key", "early".into()), late);
    assert_eq!(delivered, Ok(()));
    assert_eq!(received(&mut mailbox).await, "early");
    assert_eq!(here.relay.insist_by_key("another", "never".into()).await, Err(NotDelivered::Gone));
    let looks: String = redis::cmd("INFO").arg("commandstats").query(&mut connection(&redis)).unwrap();
    let looks = looks.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls=")?.split(',').next());
    assert!(looks.is_some_and(|looks| looks.parse::<u32>().unwrap() < 12), "{looks:?}");
}

#[tokio::test]
async fn a_thousand_messages_at_once_all_find_their_own_exchange() {
    let nodes = Nodes::two().await;
    let mut tasks = tokio::task::JoinSet::new();
    // A delivery has its deadline from when it begins, also while it waits for others.
    let turns = Arc::new(tokio::sync::Semaphore::new(100));
    for n in 0..1_000_u32 {
        let (here, mut mailbox, turns) = (nodes.here.clone(), nodes.there.open(share()), Arc::clone(&turns));
        tasks.spawn(async move {
            let payload = Bytes::from(n.to_string().repeat(500));
            let turn = turns.acquire().await.unwrap();
            assert_eq!(here.deliver(&mailbox.address(), payload.clone()).await, Ok(()));
            drop(turn);
            assert_eq!(received(&mut mailbox).await, payload);
        });
    }
    tasks.join_all().await;
    assert_eq!(nodes.here.entries() + nodes.there.entries(), 0);
}

#[tokio::test]
async fn a_soft_stop_does_not_wait_for_the_relay() {
    let redis = Redis::start();
    let [here, there] = listening(&redis).await;
    let mailbox = there.relay.open(share());
    there.lifecycle.soft.cancel();
    there.lifecycle.tasks.close();
    tokio::time::timeout(DEADLINE, there.lifecycle.tasks.wait()).await.expect("nothing to wait for");
    // Requests that still run are still reached.
    assert_eq!(here.relay.deliver(&mailbox.address(), "still there".into()).await, Ok(()));
}
