//! A service that is down for a while, under load.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::faults::{PATIENCE, has_passed};
use crate::relay::{Fault, Relay};
use crate::service::Service;
use crate::support::{Client, Home, Redis, bearer_identity, number};
use crate::{Setting, config, found};

/// People, the first of whom have what has expired; the last has what is good.
const PEOPLE: [(&str, &str); 7] = [
    ("u0", "key-of-u0-0123456789abcdef0"),
    ("u1", "key-of-u1-0123456789abcdef0"),
    ("u2", "key-of-u2-0123456789abcdef0"),
    ("u3", "key-of-u3-0123456789abcdef0"),
    ("u4", "key-of-u4-0123456789abcdef0"),
    ("u5", "key-of-u5-0123456789abcdef0"),
    ("u6", "key-of-u6-0123456789abcdef0"),
];

/// The pause between two calls under load.
const PAUSE: Duration = Duration::from_millis(20);

/// What a call of this person comes to, and how long it takes.
async fn call(setting: &Setting, person: usize) -> (u16, Option<String>, Duration) {
    let begun = Instant::now();
    let mut client = Client::modern(&setting.nodes[0], "guarded", Some(PEOPLE[person].1));
    let answer = client.call("whoami", json!({})).await.expect("an answer");
    (answer.status, answer.header("retry-after").map(str::to_owned), begun.elapsed())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it measures")]
async fn a_service_that_is_down_is_left_alone_and_is_called_once_to_see_whether_it_is_back() {
    let relay = Relay::start();
    let service = Service::behind(&relay, &json!({ "says": 1 }));
    let (home, redis) = (Home::new(), Redis::start());
    let mut configured = config(&home, &redis, &service, &found());
    configured["identity"] = bearer_identity(&PEOPLE);
    let nodes = vec![home.serve(configured)];
    let setting = Setting { service, nodes, home, redis };
    for (n, (user, token)) in PEOPLE.iter().enumerate() {
        if n == 6 {
            setting.service.set(&json!({ "says": 3600 })).await;
        }
        setting.connected_as(token, user).await;
    }
    has_passed(Duration::from_secs(1)).await;

    let mut took = Vec::new();
    relay.always(Some(Fault::Answered("503 Service Unavailable".to_owned())));
    let failed = join_all((0..5).map(|n| call(&setting, n))).await;
    assert!(failed.iter().all(|(status, ..)| *status == 503), "{failed:?}");
    assert_eq!(relay.came(), 5, "five failures are enough");
    let (began, seconds) = (Instant::now(), number("TOLLBRIDGE_TEST_OAUTH_SECONDS", 1));
    // Another configuration knows of it, too.
    setting.home.run(&["reload", "--config", &setting.home.config().to_string_lossy()], b"");
    let (mut longest, mut calls) = (Duration::ZERO, 0_u32);
    while began.elapsed() < Duration::from_secs(seconds as u64) || calls < 10 {
        let (expired, good) = tokio::join!(call(&setting, 5), call(&setting, 6));
        assert_eq!(good.0, 200, "what is good is used: {good:?}");
        let wait: u64 = expired.1.as_deref().expect("it says when").parse().expect("seconds");
        assert_eq!((expired.0, (1..=37).contains(&wait)), (503, true), "{expired:?}");
        (longest, calls) = (longest.max(expired.2), calls + 2);
        took.push(expired.2);
        tokio::time::sleep(PAUSE).await;
    }
    // As it is left alone for at least 24 s at a time.
    let most = 5 + began.elapsed().as_secs() / 24;
    assert!(relay.came() as u64 <= most, "{} calls", relay.came());
    took.sort();
    let (median, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!(
        "{calls} calls while the service is down: an answer of 503 took {median:?}, 99 % {most:?}, one {longest:?}"
    );

    let came = relay.came();
    relay.always(None);
    let back = Instant::now();
    loop {
        match call(&setting, 5).await {
            (200, ..) => break,
            (503, ..) if back.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            other => panic!("{other:?}"),
        }
    }
    println!("it was found to be back after {:?}", back.elapsed());
    assert_eq!(relay.came() - came, 1, "by one call");
    for person in 0..5 {
        // They wait for a moment more, as what they have says.
        while call(&setting, person).await.0 != 200 {
            assert!(back.elapsed() < PATIENCE, "{person} goes on");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
