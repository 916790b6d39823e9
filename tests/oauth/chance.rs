//! What happens at any moment while a token is renewed: Redis ends and comes back with what it keeps, or leases vanish.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::faults::{call_at, is_current, just_expired, renewals, settled, with_relay, with_relay_and};
use crate::relay::Fault;
use crate::support::{Redis, number};
use crate::{Setting, support};

/// Calls at once.
const CALLS: usize = 6;

/// How long the service takes, and within which time after the first call Redis ends: before, meanwhile or after.
const SERVICE: Duration = Duration::from_millis(300);
const BEGINNING: Duration = Duration::from_millis(600);

/// How long Redis is away.
const OUTAGE: Duration = Duration::from_secs(2);

/// The longest pause between two looks for leases.
const PAUSE: Duration = Duration::from_millis(30);

/// Any moment within this.
fn moment(within: Duration) -> Duration {
    let random = u32::from_str_radix(&support::random_hex(2), 16).expect("it is hexadecimal");
    within * random / u32::from(u16::MAX)
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn a_redis_that_is_killed_at_any_moment_of_a_renewal_costs_no_sign_in_but_where_an_answer_was_lost() {
    let redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (mut setting, relay) = with_relay_and(redis, 2, &json!({}));
    relay.always(Some(Fault::Late(SERVICE)));
    let (rounds, mut lost) = (number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1), 0);
    for round in 0..rounds {
        just_expired(&setting).await;
        let (came, (done, refused)) = (relay.came(), renewals(&setting).await);
        let at = moment(BEGINNING);
        let Setting { nodes, redis, .. } = &mut setting;
        let outage = async {
            sleep(at).await;
            redis.crash();
            sleep(OUTAGE).await;
            redis.restart();
        };
        let calls = join_all((0..CALLS).map(|n| call_at(&nodes[n % 2])));
        for (status, said) in tokio::join!(calls, outage).0 {
            assert!(matches!(status, 200 | 503), "round {round}, {at:?}: {status} {said}");
        }
        let said = settled(&setting, 0).await;
        assert_eq!(settled(&setting, 1).await, said, "round {round}, {at:?}");
        let (came, after) = (relay.came() - came, renewals(&setting).await);
        if said == "alice-there read" {
            assert_eq!((came, after), (1, (done + 1, refused)), "round {round}, {at:?}");
            is_current(&setting, round % 2).await;
        } else {
            lost += 1;
            assert!(said.contains("because an answer of the service was lost on its way"), "{at:?}: {said}");
            assert_eq!((came, after), (2, (done + 1, refused + 1)), "round {round}, {at:?}");
        }
    }
    println!("Redis was killed {rounds} times, and {lost} answers were lost");
}

/// Takes leases away at any moment, as long as anybody waits.
async fn steal(redis: &Redis, stolen: &Cell<usize>) {
    const STEAL: &str = "local n = 0 \
        for _, key in ipairs(redis.call('KEYS', '*:lease:*')) do n = n + redis.call('DEL', key) end return n";
    loop {
        sleep(moment(PAUSE)).await;
        stolen.set(stolen.get() + redis.ask(&["EVAL", STEAL, "0"]).trim().parse::<usize>().expect("a number"));
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn leases_that_vanish_at_any_moment_make_no_second_call() {
    let (setting, relay) = with_relay(3, &json!({}));
    relay.always(Some(Fault::Late(SERVICE)));
    let (rounds, stolen) = (number("TOLLBRIDGE_TEST_OAUTH_ROUNDS", 1), Cell::new(0));
    for round in 0..rounds {
        just_expired(&setting).await;
        let (came, (done, _)) = (relay.came(), renewals(&setting).await);
        let said = tokio::select! {
            said = join_all((0..CALLS).map(|n| settled(&setting, n % 3))) => said,
            () = steal(&setting.redis, &stolen) => unreachable!("it goes on for ever"),
        };
        assert_eq!(said, [(); CALLS].map(|()| "alice-there read"), "round {round}");
        assert_eq!((relay.came() - came, renewals(&setting).await), (1, (done + 1, 0)), "round {round}");
        is_current(&setting, round % 3).await;
    }
    assert!(stolen.get() >= rounds, "{} leases were taken away", stolen.get());
    println!("{} leases were taken away in {rounds} rounds", stolen.get());
}
