//! How long a question may take is what the configuration says. No test here asks how soon something was: a machine
//! that stalls makes everything late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tollbridge::clock::Clock;
use tollbridge::config::TokenStoreKind;
use tollbridge::store::{StoreError, TokenStore};

use crate::home::{Key, Seen, Tokens as _, found, key, look, redis_kind_within, ring, secret, server, user};
use crate::redis_server::RedisServer;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_mins(1);
/// Longer than a question may take by default, whatever it tries.
const LONGER_THAN_DEFAULT: Duration = Duration::from_secs(4);
/// Two questions that end at one moment may have been stalled, but not every time.
const TRIES: usize = 20;

fn open(timeout: Duration, url: String, keys: &[Key]) -> TokenStore {
    TokenStore::open(&redis_kind_within(timeout, url), Arc::new(ring(keys)), Clock::System).unwrap()
}

/// A Redis with a token of alice's, and the key that sealed it.
async fn with_a_token() -> (RedisServer, [Key; 1]) {
    let (redis, keys) = (RedisServer::start(&[]), [key("k1")]);
    open(LONG, redis.tcp_url(), &keys).set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    (redis, keys)
}

async fn looked(store: &TokenStore) -> Seen {
    look(store, &user("alice"), "notion").await
}

#[tokio::test]
async fn a_question_that_may_take_long_outlives_a_redis_that_hangs() {
    let (redis, keys) = with_a_token().await;
    let connected = open(LONG, redis.tcp_url(), &keys);
    assert_eq!(looked(&connected).await, found("ntn_1"));
    // It has yet to connect, and to be let into another database.
    let new = open(LONG, format!("{}1", redis.tcp_url()), &keys);
    redis.signal(Signal::STOP);
    let questions = async { tokio::join!(looked(&connected), looked(&new)) };
    let mut questions = std::pin::pin!(questions);
    let answers = tokio::time::timeout(LONGER_THAN_DEFAULT, &mut questions).await;
    assert!(answers.is_err(), "Redis hangs: {answers:?}");
    redis.signal(Signal::CONT);
    assert_eq!(questions.await, (found("ntn_1"), Seen::Absent));
}

#[tokio::test]
async fn of_two_questions_to_a_redis_that_hangs_the_one_that_may_take_less_fails_first_and_not_too_soon() {
    let (redis, keys) = with_a_token().await;
    let [short, default] = [SHORT, TokenStoreKind::TIMEOUT].map(|timeout| open(timeout, redis.tcp_url(), &keys));
    for store in [&short, &default] {
        // One that may take so little may fail while the machine stalls, and finds later.
        while looked(store).await != found("ntn_1") {}
    }
    redis.signal(Signal::STOP);
    for (store, at_least) in [(&short, SHORT * 5 / 12), (&default, Duration::from_millis(250))] {
        let start = Instant::now();
        assert_eq!(looked(store).await, Seen::Failed(StoreError::Timeout));
        assert!(start.elapsed() >= at_least, "{:?}", start.elapsed());
    }
    let mut was_first = false;
    for _ in 0..TRIES {
        was_first = tokio::select! {
            biased;
            _ = looked(&default) => false,
            _ = looked(&short) => true,
        };
        if was_first {
            break;
        }
    }
    assert!(was_first, "the one that may take longer is never later");
    redis.signal(Signal::CONT);
    while looked(&short).await != found("ntn_1") {}
}
