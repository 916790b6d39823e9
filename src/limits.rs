//! How much may run at once: of one user, of one server, in all. A request that finds no room waits a bounded time
//! among a bounded number, in the order of arrival, or is refused at once.
//!
//! A request passes three gates in this order: its user's, its server's, the one for all. What waits at a gate holds
//! only the gates before it, so a user with too much to do waits for nobody but themself, and a slow server keeps
//! nothing of what another server could use.

mod parking;
mod pressure;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::{self, ServerName};
pub use parking::Parked;
use parking::ParkingLot;
pub use pressure::{Pressure, Short};

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
    pressure: Pressure,
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
#[error("{}", self.sentence())]
pub struct Refused {
    /// Whether it is the user who has too much running (429), rather than the server or the bridge (503).
    pub yours: bool,
    /// What the host is short of, if it was that.
    pub short: Option<Short>,
    /// When to try again, a second at least.
    pub retry_after: Duration,
}

impl Refused {
    fn sentence(&self) -> String {
        match self {
            Self { short: Some(short), .. } => format!("the host is short of {}", short.as_str()),
            Self { yours: true, .. } => "no room for another request of this user".to_owned(),
            Self { yours: false, .. } => "no room for another request".to_owned(),
        }
    }
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
            pressure: Pressure::default(),
            permits: metrics.permits.clone(),
            waiting: metrics.waiting.clone(),
        }
    }

    /// Whether the host is near its end; nobody is let in then. It is never, unless somebody watches it.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
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
    /// Says whose limit is reached, or what the host is short of: at once if as many wait there already as may run, else
    /// after `queue`.
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
        let refused = |yours| Refused { yours, short: None, retry_after: self.queue.max(RETRY_AFTER_MIN) };
        if let Some(short) = self.pressure.short() {
            return Err(Refused { yours: false, short: Some(short), retry_after: RETRY_AFTER_MIN });
        }
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
mod tests;
