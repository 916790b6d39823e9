//! One suite of behaviour for the relay within a node and between nodes; `relay/on_redis` holds what only nodes that
//! share a Redis have.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "relay/nodes.rs"]
mod nodes;
#[path = "relay/on_redis.rs"]
mod on_redis;
mod support;
#[path = "relay/timeouts.rs"]
mod timeouts;

use std::time::{Duration, Instant};

use bytes::Bytes;
use nodes::{DEADLINE, Nodes, received, share, silent, soon};
use tollbridge::relay::{Address, MAX_MESSAGE, MAX_WAITING, MAX_WAITING_BYTES, NotDelivered};

/// Runs each behaviour within one node and between two.
macro_rules! within_and_between_nodes {
    ($($behaviour:ident),+ $(,)?) => {
        mod within_a_node {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Nodes::one()).await; })+
        }
        mod between_nodes {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Nodes::two().await).await; })+
        }
    };
}

within_and_between_nodes! {
    a_message_reaches_the_exchange_it_is_for_and_no_other,
    an_address_survives_its_text,
    an_exchange_that_has_ended_is_gone,
    a_full_mailbox_refuses_until_it_is_read,
    long_messages_fill_a_mailbox_by_their_bytes,
    the_longest_message_arrives_whole_and_a_longer_one_is_refused,
    ten_thousand_messages_of_one_sender_arrive_in_order,
    long_messages_of_many_senders_do_not_mix,
    a_reader_that_is_cancelled_loses_nothing,
    a_patient_sender_waits_for_its_reader,
    a_message_by_key_reaches_who_listens_as_it,
    what_is_said_on_a_topic_reaches_everyone_who_has_joined_it,
    nothing_is_left_of_mailboxes_that_were_dropped,
}

async fn a_message_reaches_the_exchange_it_is_for_and_no_other(nodes: Nodes) {
    let (mut one, mut other) = (nodes.there.open(share()), nodes.there.open(share()));
    let mut near = nodes.here.open(share());
    assert_eq!(nodes.here.deliver(&one.address(), "for one".into()).await, Ok(()));
    assert_eq!(nodes.here.deliver(&one.address(), Bytes::new()).await, Ok(()));
    assert_eq!(received(&mut one).await, "for one");
    assert_eq!(received(&mut one).await, "");
    assert!(silent(&mut one) && silent(&mut other) && silent(&mut near));
}

async fn what_is_said_on_a_topic_reaches_everyone_who_has_joined_it(nodes: Nodes) {
    let (mut one, mut two) = (nodes.there.open(share()), nodes.there.open(share()));
    let (mut near, mut other) = (nodes.here.open(share()), nodes.there.open(share()));
    for mailbox in [&mut one, &mut two, &mut near] {
        mailbox.join("topic".to_owned());
    }
    other.join("another topic".to_owned());
    for _ in 0..MAX_WAITING {
        assert_eq!(nodes.there.deliver(&two.address(), "before".into()).await, Ok(()));
    }
    let began = Instant::now();
    assert_eq!(nodes.here.tell_topic("topic", "said".into()).await, Ok(()));
    assert_eq!((received(&mut near).await, received(&mut one).await), ("said".into(), "said".into()));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for _ in 0..MAX_WAITING {
        assert_eq!(received(&mut two).await, "before");
    }
    assert!(silent(&mut two) && silent(&mut other), "one that is full misses it, another topic is another");
    drop((one, two, near, other));
    assert_eq!((nodes.here.entries(), nodes.there.entries()), (0, 0));
    assert_eq!(nodes.here.tell_topic("topic", "to nobody".into()).await, Ok(()));
}

async fn an_address_survives_its_text(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let text = mailbox.address().to_string();
    assert!(text.len() < 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{text}");
    assert_eq!(nodes.here.deliver(&text.parse().unwrap(), "hello".into()).await, Ok(()));
    assert_eq!(received(&mut mailbox).await, "hello");
    for wrong in ["", ".", "1", &text[1..], &format!("{text}.1"), &format!("{text}g")] {
        assert!(wrong.parse::<Address>().is_err(), "{wrong}");
    }
}

async fn an_exchange_that_has_ended_is_gone(nodes: Nodes) {
    let mailbox = nodes.there.open(share());
    let address = mailbox.address();
    assert_eq!(nodes.here.probe(&address).await, Ok(()));
    drop(mailbox);
    let next = nodes.there.open(share());
    assert_ne!(next.address(), address);
    assert_eq!(nodes.here.probe(&address).await, Err(NotDelivered::Gone));
    assert_eq!(nodes.here.deliver(&address, "too late".into()).await, Err(NotDelivered::Gone));
    let long = Bytes::from(vec![0; MAX_MESSAGE]);
    assert_eq!(nodes.here.deliver(&address, long).await, Err(NotDelivered::Gone));
}

async fn a_full_mailbox_refuses_until_it_is_read(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    for n in 0..MAX_WAITING {
        assert_eq!(nodes.here.deliver(&address, n.to_string().into()).await, Ok(()));
    }
    assert_eq!(nodes.here.deliver(&address, "one more".into()).await, Err(NotDelivered::Full));
    assert_eq!(received(&mut mailbox).await, "0");
    assert_eq!(nodes.here.deliver(&address, "last".into()).await, Ok(()));
    for n in 1..MAX_WAITING {
        assert_eq!(received(&mut mailbox).await, n.to_string());
    }
    assert_eq!(received(&mut mailbox).await, "last");
}

async fn long_messages_fill_a_mailbox_by_their_bytes(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    let half = Bytes::from(vec![b'a'; MAX_WAITING_BYTES / 2]);
    for _ in 0..2 {
        assert_eq!(nodes.here.deliver(&address, half.clone()).await, Ok(()));
    }
    assert_eq!(nodes.here.deliver(&address, "x".into()).await, Err(NotDelivered::Full));
    assert_eq!(received(&mut mailbox).await, half);
    assert_eq!(nodes.here.deliver(&address, "x".into()).await, Ok(()));
    let long = Bytes::from(vec![b'b'; MAX_WAITING_BYTES]);
    assert_eq!(nodes.here.deliver(&address, long).await, Err(NotDelivered::Full));
}

async fn the_longest_message_arrives_whole_and_a_longer_one_is_refused(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    let longest: Bytes = (0..MAX_MESSAGE).map(|n| n.to_le_bytes()[n % 3]).collect();
    assert_eq!(nodes.here.deliver(&address, longest.clone()).await, Ok(()));
    assert!(received(&mut mailbox).await == longest);
    let longer = Bytes::from(vec![0; MAX_MESSAGE + 1]);
    assert_eq!(nodes.here.deliver(&address, longer).await, Err(NotDelivered::TooLarge));
    assert!(silent(&mut mailbox));
}

async fn ten_thousand_messages_of_one_sender_arrive_in_order(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    let send = async {
        for n in 0..10_000_u32 {
            nodes.here.deliver_within(Duration::from_secs(10), &address, n.to_string().into()).await.unwrap();
        }
    };
    let receive = async {
        for n in 0..10_000_u32 {
            assert_eq!(received(&mut mailbox).await, n.to_string());
        }
    };
    tokio::join!(send, receive);
    assert!(silent(&mut mailbox));
}

async fn long_messages_of_many_senders_do_not_mix(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    let mut senders = tokio::task::JoinSet::new();
    for n in 0..8_u8 {
        let here = nodes.here.clone();
        senders.spawn(async move {
            let payload = Bytes::from(vec![n; 300_000 + usize::from(n) * 100_000]);
            here.deliver_within(Duration::from_secs(10), &address, payload).await.unwrap();
        });
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let payload = received(&mut mailbox).await;
        assert!(payload.iter().all(|byte| *byte == payload[0]));
        assert_eq!(payload.len(), 300_000 + usize::from(payload[0]) * 100_000);
        seen.push(payload[0]);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    senders.join_all().await;
}

async fn a_reader_that_is_cancelled_loses_nothing(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    let send = async {
        for n in 0..200_u32 {
            nodes.here.deliver_within(Duration::from_secs(10), &address, n.to_string().into()).await.unwrap();
        }
    };
    let receive = async {
        let mut next = 0;
        while next < 200_u32 {
            tokio::select! {
                payload = mailbox.receive() => {
                    assert_eq!(payload, next.to_string());
                    next += 1;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::join!(send, receive);
}

async fn a_patient_sender_waits_for_its_reader(nodes: Nodes) {
    let mut mailbox = nodes.there.open(share());
    let address = mailbox.address();
    for _ in 0..MAX_WAITING {
        nodes.here.deliver(&address, "early".into()).await.unwrap();
    }
    let impatient = nodes.here.deliver_within(Duration::from_millis(20), &address, "never".into()).await;
    assert_eq!(impatient, Err(NotDelivered::Full));
    let patient = nodes.here.deliver_within(Duration::from_secs(10), &address, "late".into());
    let (delivered, first) = tokio::join!(patient, received(&mut mailbox));
    assert_eq!((delivered, first), (Ok(()), "early".into()));
}

async fn a_message_by_key_reaches_who_listens_as_it(nodes: Nodes) {
    let (mut one, mut other) = (nodes.there.open(share()), nodes.there.open(share()));
    one.listen_as("session/1".to_owned());
    one.listen_as("session/one".to_owned());
    other.listen_as("session/2".to_owned());
    for (mailbox, key) in [(&one, "session/1"), (&one, "session/one"), (&other, "session/2")] {
        nodes.there.announce(key, &mailbox.address(), DEADLINE).await.unwrap();
    }
    for key in ["session/3", ""] {
        assert_eq!(nodes.here.deliver_by_key(key, "for nobody".into()).await, Err(NotDelivered::Gone));
    }
    for key in ["session/1", "session/one", "session/2"] {
        assert_eq!(nodes.here.deliver_by_key(key, format!("for {key}").into()).await, Ok(()));
    }
    assert_eq!(received(&mut one).await, "for session/1");
    assert_eq!(received(&mut one).await, "for session/one");
    assert_eq!(received(&mut other).await, "for session/2");
    assert!(silent(&mut one) && silent(&mut other));
    // The one that came last listens, and goes on when an earlier one ends.
    other.listen_as("session/1".to_owned());
    nodes.there.announce("session/1", &other.address(), DEADLINE).await.unwrap();
    drop(one);
    assert_eq!(nodes.here.deliver_by_key("session/1", "again".into()).await, Ok(()));
    assert_eq!(received(&mut other).await, "again");
    assert_eq!(nodes.here.deliver_by_key("session/one", "late".into()).await, Err(NotDelivered::Gone));
    for key in ["session/1", "session/2"] {
        nodes.there.withdraw(key).await.unwrap();
    }
    drop(other);
    assert_eq!(nodes.here.deliver_by_key("session/1", "later".into()).await, Err(NotDelivered::Gone));
}

async fn nothing_is_left_of_mailboxes_that_were_dropped(nodes: Nodes) {
    for n in 0..100 {
        let mut mailbox = nodes.there.open(share());
        mailbox.listen_as(format!("session/{n}"));
        assert_eq!(nodes.here.deliver(&mailbox.address(), "unread".into()).await, Ok(()));
        assert!(nodes.there.entries() >= 2);
    }
    // A delivery that is given up half-way leaves nothing either.
    let mailbox = nodes.there.open(share());
    let long = Bytes::from(vec![0; MAX_MESSAGE]);
    let address = mailbox.address();
    let given_up = nodes.here.deliver(&address, long);
    let _ = tokio::time::timeout(Duration::from_millis(1), given_up).await;
    drop(mailbox);
    soon("nothing is left", async || nodes.here.entries() + nodes.there.entries() == 0).await;
}
