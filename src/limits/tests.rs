use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinSet, yield_now};
use tokio_util::task::TaskTracker;

use super::*;
use crate::metrics::Counter;

const QUEUE: Duration = Duration::from_mins(1);

fn config(per_user: usize, per_server: usize, total: usize) -> config::Limits {
    let second = Duration::from_secs(1);
    config::Limits {
        body: 0,
        header_timeout: second,
        connections: None,
        connections_per_address: None,
        connection_idle: second,
        body_idle: second,
        body_timeout: second,
        memory: None,
        commit_delay: second,
        keep_alive: second,
        write_stall: second,
        shutdown_grace: second,
        pre_stop_delay: second,
        session_lifetime: second,
        per_user,
        parked_per_user: per_user,
        streams_per_user: per_user,
        streams_total: total,
        per_server,
        total,
        queue: QUEUE,
        rate: None,
        spares: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_becomes_smaller_lets_nobody_in_until_enough_have_left_and_a_larger_one_does_at_once() {
    let limits = limits(10, 10, 3);
    let admit = async |limits: &Limits| limits.admit(&user("alice"), &server("s"), false).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(admit(&limits).await.unwrap());
    }
    let smaller = limits.changed_to(&config(10, 10, 1));
    held.pop();
    held.pop();
    assert_eq!(admit(&smaller).await.unwrap_err().exhausted, Exhausted::OfAll);
    held.pop();
    held.push(admit(&smaller).await.unwrap());
    assert!(admit(&smaller).await.is_err());
    let larger = smaller.changed_to(&config(10, 10, 2));
    held.push(admit(&larger).await.unwrap());
    assert!(admit(&larger).await.is_err());
    drop(held);
    assert!(limits.all.lock().gates.is_empty());
}

fn limits(per_user: usize, per_server: usize, total: usize) -> Limits {
    Limits::new(&config(per_user, per_server, total), &Metrics::new(TaskTracker::new(), Counter::default()))
}

fn user(name: impl std::fmt::Display) -> UserId {
    UserId::local(&name.to_string()).unwrap()
}

fn server(name: impl std::fmt::Display) -> ServerName {
    ServerName::parse(&name.to_string()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn however_many_streams_there_are_no_call_is_refused() {
    let limits = limits(1, 1, 2);
    let streams = [limits.admit_stream(&user("alice")).await, limits.admit_stream(&user("bob")).await];
    assert!(streams.iter().all(Result::is_ok));
    assert_eq!(limits.admit_stream(&user("alice")).await.unwrap_err().exhausted, Exhausted::StreamsOfUser);
    assert_eq!(limits.admit_stream(&user("carol")).await.unwrap_err().exhausted, Exhausted::Streams);
    let _call = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let _other = limits.admit(&user("bob"), &server("b"), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_keep_no_more_servers_than_there_may_be_calls_and_leave_room_for_the_calls() {
    let limits = limits(1, 9, 2);
    let kept = [limits.admit_stream_server(&user("alice")).await, limits.admit_stream_server(&user("bob")).await];
    assert!(kept.iter().all(Result::is_ok));
    assert_eq!(limits.admit_stream_server(&user("alice")).await.unwrap_err().exhausted, Exhausted::OfUser);
    assert_eq!(limits.admit_stream_server(&user("carol")).await.unwrap_err().exhausted, Exhausted::OfAll);
    let _call = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let _stream = limits.admit_stream(&user("alice")).await.unwrap();
    drop(kept);
    drop(limits.admit_stream_server(&user("alice")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_be_parked_have_a_limit_of_their_own_and_leave_room_for_others() {
    let config = config::Limits { parked_per_user: 1, ..config(9, 9, 9) };
    let limits = Limits::new(&config, &Metrics::new(TaskTracker::new(), Counter::default()));
    let parked = limits.admit(&user("alice"), &server("a"), true).await.unwrap();
    let refused = limits.admit(&user("alice"), &server("b"), true).await.unwrap_err();
    assert!(refused.exhausted == Exhausted::Parked && refused.exhausted.is_users_own());
    drop(limits.admit(&user("alice"), &server("a"), false).await.unwrap());
    drop(limits.admit(&user("bob"), &server("a"), true).await.unwrap());
    drop(parked);
    drop(limits.admit(&user("alice"), &server("b"), true).await.unwrap());
    assert!(is_empty(&limits));
}

fn is_empty(limits: &Limits) -> bool {
    limits.users.lock().gates.is_empty()
        && limits.parked.lock().gates.is_empty()
        && limits.servers.lock().gates.is_empty()
        && limits.all.lock().gates.is_empty()
        && limits.permits.get() == 0
        && limits.waiting.get() == 0
}

/// Starts a request that waits, and returns once it does.
async fn waiting<F>(waiters: &mut JoinSet<F::Output>, request: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    waiters.spawn(request);
    yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn the_refusal_says_whose_limit_it_was() {
    let limits = limits(1, 2, 3);
    let (alice, bob) = (user("alice"), user("bob"));
    let _first = limits.admit(&alice, &server("a"), false).await.unwrap();
    assert!(
        limits.admit(&alice, &server("b"), false).await.unwrap_err().exhausted.is_users_own(),
        "alice has one running already"
    );
    let _second = limits.admit(&bob, &server("a"), false).await.unwrap();
    assert!(
        !limits.admit(&user("carol"), &server("a"), false).await.unwrap_err().exhausted.is_users_own(),
        "two run on a"
    );
    let _third = limits.admit(&user("carol"), &server("b"), false).await.unwrap();
    assert!(
        !limits.admit(&user("dave"), &server("c"), false).await.unwrap_err().exhausted.is_users_own(),
        "three run in all"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_queue_time_and_no_longer() {
    let limits = limits(1, 9, 9);
    let _held = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let start = Instant::now();
    let refused = limits.admit(&user("alice"), &server("a"), false).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), QUEUE.as_secs());
    assert_eq!(refused.retry_after, QUEUE);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let limits = Arc::new(limits(2, 9, 9));
    let held = [
        limits.admit(&user("alice"), &server("a"), false).await,
        limits.admit(&user("alice"), &server("a"), false).await,
    ];
    let mut waiters = JoinSet::new();
    for _ in 0..2 {
        let limits = Arc::clone(&limits);
        waiting(&mut waiters, async move { limits.admit(&user("alice"), &server("a"), false).await.is_ok() }).await;
    }
    assert_eq!(limits.waiting.get(), 2);
    let start = Instant::now();
    assert!(limits.admit(&user("alice"), &server("a"), false).await.unwrap_err().exhausted.is_users_own());
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(held);
    assert_eq!(waiters.join_all().await, [true, true]);
    assert!(is_empty(&limits));
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_let_in_first() {
    let limits = Arc::new(limits(9, 4, 9));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(limits.admit(&user("early"), &server("a"), false).await.unwrap());
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = JoinSet::new();
    for name in ["first", "second", "third", "fourth"] {
        let (limits, order) = (Arc::clone(&limits), Arc::clone(&order));
        waiting(&mut waiters, async move {
            let permit = limits.admit(&user(name), &server("a"), false).await.unwrap();
            order.lock().unwrap().push(name);
            drop(permit);
        })
        .await;
    }
    held.pop();
    let latecomer = async {
        let permit = limits.admit(&user("latecomer"), &server("a"), false).await;
        permit.map(|_| order.lock().unwrap().push("latecomer"))
    };
    let (late, _) = tokio::join!(latecomer, waiters.join_all());
    late.unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "second", "third", "fourth", "latecomer"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_with_too_much_to_do_delays_nobody_else() {
    let limits = Arc::new(limits(2, 4, 4));
    let mut greedy = JoinSet::new();
    for _ in 0..100 {
        let limits = Arc::clone(&limits);
        waiting(&mut greedy, async move {
            let permit = limits.admit(&user("greedy"), &server("a"), false).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
            permit.is_ok()
        })
        .await;
    }
    let start = Instant::now();
    let _one = limits.admit(&user("modest"), &server("a"), false).await.unwrap();
    let _two = limits.admit(&user("modest"), &server("a"), false).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_keeps_nothing_of_what_another_could_use() {
    let limits = Arc::new(limits(1, 2, 4));
    let mut slow = JoinSet::new();
    for name in 0..100 {
        let limits = Arc::clone(&limits);
        waiting(&mut slow, async move {
            let _permit = limits.admit(&user(name), &server("slow"), false).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
        })
        .await;
    }
    let start = Instant::now();
    let _one = limits.admit(&user("x"), &server("quick"), false).await.unwrap();
    let _two = limits.admit(&user("y"), &server("quick"), false).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_the_queue_leaves_no_trace() {
    let limits = Arc::new(limits(1, 9, 9));
    let held = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let mut waiters = JoinSet::new();
    let theirs = Arc::clone(&limits);
    waiting(&mut waiters, async move { theirs.admit(&user("alice"), &server("a"), false).await.is_ok() }).await;
    assert_eq!((limits.permits.get(), limits.waiting.get()), (1, 1));
    waiters.shutdown().await;
    assert_eq!((limits.permits.get(), limits.waiting.get()), (1, 0));
    drop(held);
    assert!(is_empty(&limits));
}

#[tokio::test(start_paused = true)]
async fn it_is_crowded_while_somebody_waits_because_as_many_run_as_may() {
    let limits = Arc::new(limits(2, 1, 2));
    let is_crowded = limits.crowding();
    let first = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let _second = limits.admit(&user("bob"), &server("b"), false).await.unwrap();
    let mut asking = JoinSet::new();
    let ask = |name: &'static str| {
        let limits = Arc::clone(&limits);
        async move { limits.admit(&user(name), &server(name), false).await.unwrap() }
    };
    let (alice, busy) = (user("alice"), server("a"));
    let waits = tokio::time::timeout(Duration::from_millis(1), limits.admit(&alice, &busy, false));
    assert!(waits.await.is_err());
    assert!(!is_crowded(), "who waits for one server does not wait for room");
    asking.spawn(ask("c"));
    while !is_crowded() {
        yield_now().await;
    }
    drop(first);
    let third = asking.join_next().await.unwrap().unwrap();
    assert!(!is_crowded(), "all run, and nobody waits");
    drop(third);
}

/// Counts one more until dropped, and fails when there are more than `most`.
struct Within(Arc<AtomicUsize>);

impl Within {
    fn new(count: &Arc<AtomicUsize>, most: usize) -> Self {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(now <= most, "{now} at once, {most} allowed");
        Self(Arc::clone(count))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_more_than_allowed_and_never_fewer_than_asked() {
    const USERS: usize = 7;
    const SERVERS: usize = 3;
    // The queues hold whatever is asked at once, so everything asked must be let in.
    let limits = Arc::new(limits(3, 11, 17));
    let counts: Vec<_> = (0..=USERS + SERVERS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut requests = JoinSet::new();
    for worker in 0..USERS * 6 {
        let (limits, counts) = (Arc::clone(&limits), counts.clone());
        requests.spawn(async move {
            let (user_at, own) = (worker % USERS, user(worker % USERS));
            for step in 0..300 {
                let server_at = (worker * 31 + step * step) % SERVERS;
                let permit = limits.admit(&own, &server(server_at), false).await.unwrap();
                let within = [
                    Within::new(&counts[user_at], 3),
                    Within::new(&counts[USERS + server_at], 11),
                    Within::new(&counts[USERS + SERVERS], 17),
                ];
                yield_now().await;
                drop((within, permit));
            }
        });
    }
    requests.join_all().await;
    assert!(is_empty(&limits), "idle users and servers are forgotten");
}

#[tokio::test]
async fn a_permit_may_move_to_the_task_that_ends_the_call() {
    let limits = limits(1, 1, 1);
    let permit = limits.admit(&user("alice"), &server("a"), false).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move { drop(permit) });
    task.join_all().await;
    assert!(is_empty(&limits));
}
