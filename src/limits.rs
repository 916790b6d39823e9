//! How much may run at once: of one user, of one server, in all. A request that finds no room waits a bounded time
//! among a bounded number, in the order of arrival, or is refused at once.
//!
//! A call passes its gates in this order: its user's, the one for calls that may be parked if it is one, its server's,
//! the one for all. What waits at a gate holds only the gates before it, so a user with too much to do waits for nobody
//! but themself, and a slow server keeps nothing of what another server could use. Long streams have gates of their
//! own, and so have the servers that some of them keep: however many there are, no call is refused because of them.

pub mod body;
mod message_rate;
mod pressure;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::{self, ServerName};
use message_rate::MessageRate;
pub use pressure::{Pressure, Shortage};

use crate::memory::Full;
use crate::metrics::{Counted, Gauge, Metrics};
use crate::user::UserId;

/// The shortest `Retry-After`: the header counts whole seconds.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Lets requests in. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct Limits {
    users: Arc<Gates<UserId>>,
    parked: Arc<Gates<UserId>>,
    servers: Arc<Gates<ServerName>>,
    all: Arc<Gates<()>>,
    users_streams: Arc<Gates<UserId>>,
    streams: Arc<Gates<()>>,
    users_kept: Arc<Gates<UserId>>,
    kept: Arc<Gates<()>>,
    message_rate: Arc<MessageRate>,
    queue: Duration,
    pressure: Pressure,
    permits: Gauge,
    waiting: Gauge,
}

/// The right to run one request; dropping it makes room for the next.
#[derive(Debug)]
pub struct Permit {
    _all: Pass<()>,
    _server: Option<Pass<ServerName>>,
    _parked: Option<Pass<UserId>>,
    _user: Pass<UserId>,
    _counted: Counted,
}

/// A request that found no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{exhausted}")]
pub struct Refused {
    /// What there was no room for.
    pub exhausted: Exhausted,
    /// When to try again, a second at least.
    pub retry_after: Duration,
}

/// What there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// `perUser` is reached.
    #[error("no room for another request of this user")]
    OfUser,
    /// `perServer` or `total` is reached.
    #[error("no room for another request")]
    OfAll,
    /// Too many messages that need no process.
    #[error("too many messages of this user in a short time")]
    Messages,
    /// `parkedPerUser` is reached.
    #[error("no room for another call of this user that may wait or be held: answer what is asked, or let tasks end")]
    Parked,
    /// `streamsPerUser` is reached.
    #[error("no room for another stream of this user")]
    StreamsOfUser,
    /// `streamsTotal` is reached.
    #[error("no room for another stream")]
    Streams,
    /// The user's part of `memory` is used up.
    #[error("no memory for another request of this user")]
    MemoryOfUser,
    /// `memory` is used up.
    #[error("no memory for another request")]
    Memory,
    /// The host is near its end.
    #[error("the host is short of {}", .0.as_str())]
    Host(Shortage),
}

impl Refused {
    /// There is no memory for what a request brings.
    #[must_use]
    pub fn no_memory(full: Full) -> Self {
        let exhausted = if full == Full::All { Exhausted::Memory } else { Exhausted::MemoryOfUser };
        Self { exhausted, retry_after: RETRY_AFTER_MIN }
    }
}

impl Exhausted {
    /// Whether it is the user who has too much running (429), rather than the server or the bridge (503).
    #[must_use]
    pub fn is_users_own(self) -> bool {
        match self {
            Self::OfUser | Self::Messages | Self::Parked | Self::StreamsOfUser | Self::MemoryOfUser => true,
            Self::OfAll | Self::Streams | Self::Memory | Self::Host(_) => false,
        }
    }
}

impl Limits {
    /// The gates as configured; `metrics` shows how many permits are held and how many requests wait for one.
    #[must_use]
    pub fn new(limits: &config::Limits, metrics: &Metrics) -> Self {
        Self {
            users: Gates::new(limits.per_user),
            parked: Gates::new(limits.parked_per_user),
            servers: Gates::new(limits.per_server),
            all: Gates::new(limits.total),
            users_streams: Gates::new(limits.streams_per_user),
            streams: Gates::new(limits.streams_total),
            users_kept: Gates::new(limits.per_user),
            kept: Gates::new(limits.total),
            message_rate: Arc::default(),
            queue: limits.queue,
            pressure: Pressure::default(),
            permits: metrics.permits.clone(),
            waiting: metrics.waiting.clone(),
        }
    }

    /// The same gates with other limits. Who is let in stays; where that is more than may be, nobody is let in until it is
    /// not.
    #[must_use]
    pub fn changed_to(&self, limits: &config::Limits) -> Self {
        self.users.resize(limits.per_user);
        self.parked.resize(limits.parked_per_user);
        self.servers.resize(limits.per_server);
        self.all.resize(limits.total);
        self.users_streams.resize(limits.streams_per_user);
        self.streams.resize(limits.streams_total);
        self.users_kept.resize(limits.per_user);
        self.kept.resize(limits.total);
        Self { queue: limits.queue, ..self.clone() }
    }

    /// Whether the host is near its end; nobody is let in then. It is never, unless somebody watches it.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }

    /// Says whether somebody waits for a permit because `total` are running, or the host is short of something: not the time
    /// for what nobody waits for.
    pub fn crowding(&self) -> impl Fn() -> bool + Clone + Send + use<> {
        let (all, pressure) = (Arc::clone(&self.all), self.pressure.clone());
        move || pressure.short().is_some() || all.is_waited_at(&())
    }

    /// Lets one message of `user`, of so many bytes, pass that needs no process, after a moment if many have passed just
    /// now.
    ///
    /// # Errors
    /// Too many have.
    pub async fn admit_message(&self, user: &UserId, bytes: usize) -> Result<(), Refused> {
        self.message_rate.keep(user, bytes).await
    }

    /// Lets one call of `user` to `server` in, after waiting `queue` at most. Dropping the future leaves the queue. The
    /// server of a call that `may_park` may come to wait for its user's answer: its place is taken before it is asked
    /// anything, so that none has to go that has acted.
    ///
    /// # Errors
    /// Says which limit is reached, or what the host is short of: at once if as many wait there already as may run, else
    /// after `queue`.
    pub async fn admit(&self, user: &UserId, server: &ServerName, may_park: bool) -> Result<Permit, Refused> {
        let queue = self.queue()?;
        let user_pass = queue.enter(&self.users, user.clone(), Exhausted::OfUser).await?;
        let parked =
            if may_park { Some(queue.enter(&self.parked, user.clone(), Exhausted::Parked).await?) } else { None };
        let server = queue.enter(&self.servers, server.clone(), Exhausted::OfAll).await?;
        let all = queue.enter(&self.all, (), Exhausted::OfAll).await?;
        Ok(self.permit(user_pass, parked, Some(server), all))
    }

    /// Lets one long stream of `user` in.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub async fn admit_stream(&self, user: &UserId) -> Result<Permit, Refused> {
        let queue = self.queue()?;
        let user = queue.enter(&self.users_streams, user.clone(), Exhausted::StreamsOfUser).await?;
        let all = queue.enter(&self.streams, (), Exhausted::Streams).await?;
        Ok(self.permit(user, None, None, all))
    }

    /// Lets a stream of `user` have a server that stays as long as it is needed. There may be as many as calls, beside
    /// the calls.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub async fn admit_stream_server(&self, user: &UserId) -> Result<Permit, Refused> {
        let queue = self.queue()?;
        let user = queue.enter(&self.users_kept, user.clone(), Exhausted::OfUser).await?;
        let all = queue.enter(&self.kept, (), Exhausted::OfAll).await?;
        Ok(self.permit(user, None, None, all))
    }

    fn permit(
        &self,
        user: Pass<UserId>,
        parked: Option<Pass<UserId>>,
        server: Option<Pass<ServerName>>,
        all: Pass<()>,
    ) -> Permit {
        Permit { _all: all, _server: server, _parked: parked, _user: user, _counted: Counted::new(&self.permits) }
    }

    /// A wait at gates, which ends after `queue` at whichever gate.
    fn queue(&self) -> Result<Queue<'_>, Refused> {
        if let Some(short) = self.pressure.short() {
            return Err(Refused { exhausted: Exhausted::Host(short), retry_after: RETRY_AFTER_MIN });
        }
        let retry_after = self.queue.max(RETRY_AFTER_MIN);
        Ok(Queue { until: Instant::now() + self.queue, retry_after, waiting: &self.waiting })
    }
}

/// A request on its way through its gates.
struct Queue<'a> {
    until: Instant,
    retry_after: Duration,
    waiting: &'a Gauge,
}

impl Queue<'_> {
    async fn enter<K: Eq + Hash + Clone>(
        &self,
        gates: &Arc<Gates<K>>,
        key: K,
        exhausted: Exhausted,
    ) -> Result<Pass<K>, Refused> {
        let pass = gates.enter(key, self.until, self.waiting).await;
        pass.ok_or(Refused { exhausted, retry_after: self.retry_after })
    }
}

/// A gate for each key in use. One that nobody runs or waits behind is forgotten, so the map is never larger than the
/// number of requests in the process.
#[derive(Debug)]
struct Gates<K: Eq + Hash> {
    open: Mutex<Open<K>>,
}

#[derive(Debug)]
struct Open<K: Eq + Hash> {
    /// How many may run behind one gate, and as many again may wait at it.
    size: usize,
    gates: HashMap<K, Gate>,
}

#[derive(Debug)]
struct Gate {
    /// Room to run, given in the order of asking.
    room: Arc<Semaphore>,
    /// How many run or wait.
    inside: usize,
    /// How much of what is given back is not given out again: the gate has become smaller.
    surplus: usize,
}

impl Gate {
    fn of(size: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(size)), inside: 0, surplus: 0 }
    }

    fn resize(&mut self, (old, new): (usize, usize)) {
        let more = new.saturating_sub(old);
        let again = more.min(self.surplus);
        self.surplus -= again;
        self.room.add_permits(more - again);
        let less = old.saturating_sub(new);
        self.surplus += less - self.room.forget_permits(less);
    }
}

impl<K: Eq + Hash + Clone> Gates<K> {
    fn new(size: usize) -> Arc<Self> {
        let open = Open { size: possible(size), gates: HashMap::new() };
        Arc::new(Self { open: Mutex::new(open) })
    }

    fn resize(&self, size: usize) {
        let mut open = self.lock();
        let change = (open.size, possible(size));
        open.size = change.1;
        open.gates.values_mut().for_each(|gate| gate.resize(change));
    }

    async fn enter(self: &Arc<Self>, key: K, until: Instant, waiting: &Gauge) -> Option<Pass<K>> {
        let (mut pass, room) = self.take_place(key)?;
        // A semaphore hands what is released to whoever waits, so trying first overtakes nobody.
        if let Ok(slot) = Arc::clone(&room).try_acquire_owned() {
            pass.slot = Some(slot);
            return Some(pass);
        }
        let _waiting = Counted::new(waiting);
        pass.slot = Some(timeout_at(until, room.acquire_owned()).await.ok()?.ok()?);
        Some(pass)
    }

    /// Whether somebody waits at the gate of `key`.
    fn is_waited_at(&self, key: &K) -> bool {
        let open = self.lock();
        open.gates.get(key).is_some_and(|gate| gate.inside > open.size)
    }

    fn take_place(self: &Arc<Self>, key: K) -> Option<(Pass<K>, Arc<Semaphore>)> {
        let mut open = self.lock();
        let size = open.size;
        let gate = open.gates.entry(key.clone()).or_insert_with(|| Gate::of(size));
        if gate.inside >= size.saturating_mul(2) {
            return None;
        }
        gate.inside += 1;
        let room = Arc::clone(&gate.room);
        drop(open);
        Some((Pass { gates: Arc::clone(self), key, slot: None }, room))
    }
}

impl<K: Eq + Hash> Gates<K> {
    fn lock(&self) -> MutexGuard<'_, Open<K>> {
        // What is done under the lock leaves the map whole at every step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counted at one gate: as running if it has its slot, else as waiting.
#[derive(Debug)]
struct Pass<K: Eq + Hash> {
    gates: Arc<Gates<K>>,
    key: K,
    slot: Option<OwnedSemaphorePermit>,
}

impl<K: Eq + Hash> Drop for Pass<K> {
    fn drop(&mut self) {
        let mut open = self.gates.lock();
        let Some(gate) = open.gates.get_mut(&self.key) else { return };
        match self.slot.take() {
            Some(slot) if gate.surplus > 0 => {
                gate.surplus -= 1;
                slot.forget();
            }
            // Given back before the gate may be forgotten.
            slot => drop(slot),
        }
        gate.inside -= 1;
        if gate.inside == 0 {
            open.gates.remove(&self.key);
        }
    }
}

/// A size that a gate can have.
fn possible(size: usize) -> usize {
    size.clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests;
