//! How much may run at once: of one user, of one server, in all. A request that finds no room waits a bounded time
//! among a bounded number, in the order of arrival, or is refused at once.
//!
//! A request passes three gates in this order: its user's, its server's, the one for all. What waits at a gate holds
//! only the gates before it, so a user with too much to do waits for nobody but themself, and a slow server keeps
//! nothing of what another server could use.

mod parking;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::{self, ServerName};
pub use parking::Parked;
use parking::ParkingLot;

use crate::metrics::{Counted, Gauge, Metrics};
use crate::user::UserId;

/// The shortest `Retry-After`: the header counts whole seconds.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Lets requests in.
#[derive(Debug)]
pub struct Limits {
    users: Arc<Gates<UserId>>,
    streams: Arc<Gates<UserId>>,
    servers: Arc<Gates<ServerName>>,
    all: Arc<Gates<()>>,
    parked: Arc<ParkingLot>,
    queue: Duration,
    permits: Gauge,
    waiting: Gauge,
}

/// The right to run one request; dropping it makes room for the next.
#[derive(Debug)]
pub struct Permit {
    _all: Pass<()>,
    _server: Pass<ServerName>,
    _user: Pass<UserId>,
    _counted: Counted,
}

/// A request that found no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for {}", if *yours { "another request of this user" } else { "another request" })]
pub struct Refused {
    /// Whether it is the user who has too much running (429), rather than the server or the bridge (503).
    pub yours: bool,
    /// When to try again, a second at least.
    pub retry_after: Duration,
}

impl Limits {
    /// The gates as configured; `metrics` shows how many permits are held and how many requests wait for one.
    #[must_use]
    pub fn new(limits: &config::Limits, metrics: &Metrics) -> Self {
        Self {
            users: Gates::new(limits.per_user),
            streams: Gates::new(limits.streams_per_user),
            servers: Gates::new(limits.per_server),
            all: Gates::new(limits.total),
            parked: Arc::default(),
            queue: limits.queue,
            permits: metrics.permits.clone(),
            waiting: metrics.waiting.clone(),
        }
    }

    /// Lets one more server wait for an answer of `user`. If too many wait already, the one that has waited longest must
    /// go: a person answers the question asked last.
    #[must_use]
    pub fn park(&self, user: &UserId) -> Parked {
        self.parked.enter(user)
    }

    /// Lets one request of `user` to `server` in, after waiting `queue` at most. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// Says whose limit is reached: at once if as many wait there already as may run, else after `queue`.
    pub async fn admit(&self, user: &UserId, server: &ServerName) -> Result<Permit, Refused> {
        self.through(&self.users, user, server).await
    }

    /// Lets one long stream of `user` to `server` in. Streams have a gate of their own, so that clients that only listen
    /// keep nobody from calling.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub async fn admit_stream(&self, user: &UserId, server: &ServerName) -> Result<Permit, Refused> {
        self.through(&self.streams, user, server).await
    }

    async fn through(&self, users: &Arc<Gates<UserId>>, user: &UserId, server: &ServerName) -> Result<Permit, Refused> {
        let until = Instant::now() + self.queue;
        let refused = |yours| Refused { yours, retry_after: self.queue.max(RETRY_AFTER_MIN) };
        let user = users.enter(user.clone(), until, &self.waiting).await.ok_or(refused(true))?;
        let server = self.servers.enter(server.clone(), until, &self.waiting).await.ok_or(refused(false))?;
        let all = self.all.enter((), until, &self.waiting).await.ok_or(refused(false))?;
        Ok(Permit { _all: all, _server: server, _user: user, _counted: Counted::new(&self.permits) })
    }
}

/// A gate for each key in use. One that nobody runs or waits behind is forgotten, so the map is never larger than the
/// number of requests in the process.
#[derive(Debug)]
struct Gates<K: Eq + Hash> {
    /// How many may run behind one gate, and as many again may wait at it.
    size: usize,
    open: Mutex<HashMap<K, Gate>>,
}

#[derive(Debug)]
struct Gate {
    /// Room to run, given in the order of asking.
    room: Arc<Semaphore>,
    /// How many run or wait.
    inside: usize,
}

impl<K: Eq + Hash + Clone> Gates<K> {
    fn new(size: usize) -> Arc<Self> {
        let size = size.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self { size, open: Mutex::default() })
    }

    async fn enter(self: &Arc<Self>, key: K, until: Instant, waiting: &Gauge) -> Option<Pass<K>> {
        let (place, room) = self.take_place(key)?;
        // A semaphore hands what is released to whoever waits, so trying first overtakes nobody.
        if let Ok(slot) = Arc::clone(&room).try_acquire_owned() {
            return Some(Pass { _slot: slot, _place: place });
        }
        let _waiting = Counted::new(waiting);
        let slot = timeout_at(until, room.acquire_owned()).await.ok()?.ok()?;
        Some(Pass { _slot: slot, _place: place })
    }

    fn take_place(self: &Arc<Self>, key: K) -> Option<(Place<K>, Arc<Semaphore>)> {
        let mut open = self.lock();
        let gate =
            open.entry(key.clone()).or_insert_with(|| Gate { room: Arc::new(Semaphore::new(self.size)), inside: 0 });
        if gate.inside >= self.size.saturating_mul(2) {
            return None;
        }
        gate.inside += 1;
        Some((Place { gates: Arc::clone(self), key }, Arc::clone(&gate.room)))
    }
}

impl<K: Eq + Hash> Gates<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Gate>> {
        // What is done under the lock leaves the map whole at every step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Through one gate. The fields are dropped in this order: the gate is forgotten only when its room is whole again.
#[derive(Debug)]
struct Pass<K: Eq + Hash> {
    _slot: OwnedSemaphorePermit,
    _place: Place<K>,
}

/// Counted as running or waiting at one gate.
#[derive(Debug)]
struct Place<K: Eq + Hash> {
    gates: Arc<Gates<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = self.gates.lock();
        if let Some(gate) = open.get_mut(&self.key) {
            gate.inside -= 1;
            if gate.inside == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::{JoinSet, yield_now};
    use tokio_util::task::TaskTracker;

    use super::*;

    const QUEUE: Duration = Duration::from_secs(3);

    fn limits(per_user: usize, per_server: usize, total: usize) -> Limits {
        let second = Duration::from_secs(1);
        let config = config::Limits {
            body: 0,
            header_timeout: second,
            body_idle: second,
            commit_delay: second,
            keep_alive: second,
            write_stall: second,
            shutdown_grace: second,
            session_lifetime: second,
            per_user,
            streams_per_user: per_user,
            per_server,
            total,
            queue: QUEUE,
        };
        Limits::new(&config, &Metrics::new(TaskTracker::new()))
    }

    fn user(name: impl std::fmt::Display) -> UserId {
        UserId::local(&name.to_string()).unwrap()
    }

    fn server(name: impl std::fmt::Display) -> ServerName {
        ServerName::parse(&name.to_string()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_listens_keeps_nobody_from_calling() {
        let limits = limits(1, 9, 9);
        let _stream = limits.admit_stream(&user("alice"), &server("a")).await.unwrap();
        let _call = limits.admit(&user("alice"), &server("a")).await.unwrap();
        assert!(limits.admit_stream(&user("alice"), &server("b")).await.unwrap_err().yours);
    }

    fn is_empty(limits: &Limits) -> bool {
        limits.users.lock().is_empty()
            && limits.servers.lock().is_empty()
            && limits.all.lock().is_empty()
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
        let _first = limits.admit(&alice, &server("a")).await.unwrap();
        assert!(limits.admit(&alice, &server("b")).await.unwrap_err().yours, "alice has one running already");
        let _second = limits.admit(&bob, &server("a")).await.unwrap();
        assert!(!limits.admit(&user("carol"), &server("a")).await.unwrap_err().yours, "two run on a");
        let _third = limits.admit(&user("carol"), &server("b")).await.unwrap();
        assert!(!limits.admit(&user("dave"), &server("c")).await.unwrap_err().yours, "three run in all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_queue_time_and_no_longer() {
        let limits = limits(1, 9, 9);
        let _held = limits.admit(&user("alice"), &server("a")).await.unwrap();
        let start = Instant::now();
        let refused = limits.admit(&user("alice"), &server("a")).await.unwrap_err();
        assert_eq!(start.elapsed().as_secs(), QUEUE.as_secs());
        assert_eq!(refused.retry_after, QUEUE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        let limits = Arc::new(limits(2, 9, 9));
        let held = [limits.admit(&user("alice"), &server("a")).await, limits.admit(&user("alice"), &server("a")).await];
        let mut waiters = JoinSet::new();
        for _ in 0..2 {
            let limits = Arc::clone(&limits);
            waiting(&mut waiters, async move { limits.admit(&user("alice"), &server("a")).await.is_ok() }).await;
        }
        assert_eq!(limits.waiting.get(), 2);
        let start = Instant::now();
        assert!(limits.admit(&user("alice"), &server("a")).await.unwrap_err().yours);
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
            held.push(limits.admit(&user("early"), &server("a")).await.unwrap());
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiters = JoinSet::new();
        for name in ["first", "second", "third", "fourth"] {
            let (limits, order) = (Arc::clone(&limits), Arc::clone(&order));
            waiting(&mut waiters, async move {
                let permit = limits.admit(&user(name), &server("a")).await.unwrap();
                order.lock().unwrap().push(name);
                drop(permit);
            })
            .await;
        }
        held.pop();
        let latecomer = async {
            let permit = limits.admit(&user("latecomer"), &server("a")).await;
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
                let permit = limits.admit(&user("greedy"), &server("a")).await;
                tokio::time::sleep(Duration::from_mins(1)).await;
                permit.is_ok()
            })
            .await;
        }
        let start = Instant::now();
        let _one = limits.admit(&user("modest"), &server("a")).await.unwrap();
        let _two = limits.admit(&user("modest"), &server("a")).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_keeps_nothing_of_what_another_could_use() {
        let limits = Arc::new(limits(1, 2, 4));
        let mut slow = JoinSet::new();
        for name in 0..100 {
            let limits = Arc::clone(&limits);
            waiting(&mut slow, async move {
                let _permit = limits.admit(&user(name), &server("slow")).await;
                tokio::time::sleep(Duration::from_mins(1)).await;
            })
            .await;
        }
        let start = Instant::now();
        let _one = limits.admit(&user("x"), &server("quick")).await.unwrap();
        let _two = limits.admit(&user("y"), &server("quick")).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_queue_leaves_no_trace() {
        let limits = Arc::new(limits(1, 9, 9));
        let held = limits.admit(&user("alice"), &server("a")).await.unwrap();
        let mut waiters = JoinSet::new();
        let theirs = Arc::clone(&limits);
        waiting(&mut waiters, async move { theirs.admit(&user("alice"), &server("a")).await.is_ok() }).await;
        assert_eq!((limits.permits.get(), limits.waiting.get()), (1, 1));
        waiters.shutdown().await;
        assert_eq!((limits.permits.get(), limits.waiting.get()), (1, 0));
        drop(held);
        assert!(is_empty(&limits));
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
                    let permit = limits.admit(&own, &server(server_at)).await.unwrap();
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
        let permit = limits.admit(&user("alice"), &server("a")).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { drop(permit) });
        task.join_all().await;
        assert!(is_empty(&limits));
    }
}
