//! The spares of one server: a queue, oldest first, and the task that keeps it filled.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::spare::{LOOK, Spare};
use super::{AT_ONCE, Starter};
use crate::config::Server;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Discarded, SpareCounts};
use crate::upstream::process::group::Graces;
use crate::upstream::started::Started;

/// How long the start of another waits for the request that took one: they would compete for the processor.
const HEAD_START: Duration = Duration::from_millis(250);

/// The pause before one that ended by itself is replaced: doubled from the first to the second.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(5)];

/// One that waited as long has not failed.
const GOOD: Duration = Duration::from_secs(10);

/// After how many failures in a row the operator is told.
const TOLD: u32 = 5;

/// The spares of one server.
pub(super) struct Pool {
    server: Arc<Server>,
    count: usize,
    state: Mutex<State>,
    /// A spare was taken, or a request that took one is done.
    changed: Notify,
    /// Whether the operator has been told that they fail, and no request has been answered since.
    told: AtomicBool,
    /// Whether one has answered a request, and none has failed since.
    proven: AtomicBool,
    counts: SpareCounts,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    spares: VecDeque<Spare>,
    /// Requests that took one and have no answer yet, and until when what replaces it waits for them.
    running: HashMap<u64, Instant>,
    taken: u64,
    /// Room is wanted: none is started before this.
    not_before: Option<Instant>,
    /// Whether one has waited for long since the last that failed.
    has_lasted: bool,
}

/// What a request of a server that has spares holds while it runs.
pub struct Turn {
    pool: Arc<Pool>,
    took: Option<u64>,
}

impl Turn {
    pub(super) fn without_spare(pool: &Arc<Pool>) -> Self {
        Self { pool: Arc::clone(pool), took: None }
    }

    /// Whether its server is a spare.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.took.is_some()
    }

    /// The server has answered: if spares of it fail now, that is news.
    pub fn answered(&self) {
        self.pool.told.store(false, Relaxed);
        if self.is_spare() {
            self.pool.proven.store(true, Relaxed);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(took) = self.took {
            self.pool.state().running.remove(&took);
            self.pool.changed.notify_one();
        }
    }
}

impl Pool {
    pub(super) fn new(server: Arc<Server>, count: usize, counts: SpareCounts) -> Self {
        let (told, proven) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { server, count, state: Mutex::default(), changed: Notify::new(), told, proven, counts }
    }

    #[cfg(test)]
    pub(super) fn has_any(&self) -> bool {
        !self.state().spares.is_empty()
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is done under the lock leaves the state whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest that lives, and what its request holds.
    pub(super) fn take(self: &Arc<Self>) -> (Option<Started>, Turn) {
        let mut state = self.state();
        let lives = state.spares.iter_mut().position(|spare| !spare.is_over());
        let Some(spare) = lives.and_then(|at| state.spares.remove(at)) else {
            self.counts.missed.inc();
            return (None, Turn::without_spare(self));
        };
        state.has_lasted |= spare.age() >= GOOD;
        state.taken += 1;
        let took = state.taken;
        state.running.insert(took, Instant::now() + HEAD_START);
        drop(state);
        self.counts.taken.inc();
        self.changed.notify_one();
        (Some(spare.into_started()), Turn { pool: Arc::clone(self), took: Some(took) })
    }

    /// One that a request needs the room of, if there is one.
    pub(super) fn give_up(&self) -> Option<Started> {
        let mut state = self.state();
        let spare = state.spares.pop_back()?;
        state.not_before = Some(Instant::now() + PAUSE[0]);
        drop(state);
        self.changed.notify_one();
        self.counts.discard(Discarded::Room);
        Some(spare.into_started())
    }

    /// Takes in what the spares write. Ready with one that cannot be of use any more.
    fn poll_useless(&self, task: &mut Context<'_>) -> Poll<Spare> {
        let mut state = self.state();
        let useless = state.spares.iter_mut().position(|spare| spare.poll_useless(task).is_ready());
        useless.and_then(|at| state.spares.remove(at)).map_or(Poll::Pending, Poll::Ready)
    }
}

impl State {
    /// When the next one may be started, if one is missing and none is being started.
    fn next_start(&mut self, count: usize) -> Option<Instant> {
        let now = Instant::now();
        self.running.retain(|_, until| *until > now);
        let missing = count.saturating_sub(self.spares.len());
        if missing == 0 || self.spares.iter().any(Spare::is_starting) {
            return None;
        }
        let free = if missing > self.running.len() { Some(now) } else { self.running.values().min().copied() };
        free.map(|free| self.not_before.map_or(free, |not_before| free.max(not_before)))
    }

    fn remove_aged(&mut self) -> Option<Spare> {
        let now = Instant::now();
        let aged = self.spares.iter().position(|spare| spare.until() <= now)?;
        self.has_lasted |= self.spares[aged].age() >= GOOD;
        self.spares.remove(aged)
    }
}

/// The task that keeps a pool filled.
pub(super) struct Keeper {
    pool: Arc<Pool>,
    starter: Starter,
    /// A permit is the turn to start one, among all servers.
    starts: Arc<Semaphore>,
    lifecycle: Lifecycle,
    /// How many have failed in a row.
    failures: u32,
    /// When another may be started after a failure, or where it was not the time.
    not_before: Instant,
}

impl Keeper {
    pub(super) fn new(pool: Arc<Pool>, starter: Starter, starts: Arc<Semaphore>, lifecycle: &Lifecycle) -> Self {
        let not_before = Instant::now();
        Self { pool, starter, starts, lifecycle: lifecycle.clone(), failures: 0, not_before }
    }

    /// Starts, watches and replaces spares until the bridge is to stop, and ends them then.
    pub(super) async fn keep(mut self, is_crowded: impl Fn() -> bool + Sync) {
        let stopping = self.lifecycle.drain.clone();
        while !stopping.is_cancelled() {
            let due = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                due = self.step(&is_crowded) => due,
            };
            let pool = Arc::clone(&self.pool);
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                useless = poll_fn(|task| pool.poll_useless(task)) => self.failed(useless),
                () = pool.changed.notified() => {}
                () = until(due) => {}
            }
        }
        self.end_all().await;
    }

    /// Does what is due, and says when it must look again.
    async fn step(&mut self, is_crowded: impl Fn() -> bool) -> Option<Instant> {
        while let Some(aged) = self.pool.remove_aged() {
            self.end(aged, Discarded::Aged);
        }
        self.pool.look();
        let mut start = self.pool.next_start().map(|start| start.max(self.not_before));
        if start.is_some_and(|start| start <= Instant::now()) {
            self.start(is_crowded).await;
            start = self.pool.next_start().map(|start| start.max(self.not_before));
        }
        [start, self.pool.next_look()].into_iter().flatten().min()
    }

    /// Starts one, if it is the time.
    async fn start(&mut self, is_crowded: impl Fn() -> bool) {
        let Ok(turn) = Arc::clone(&self.starts).try_acquire_owned() else {
            self.not_before = Instant::now() + LOOK;
            return;
        };
        if is_crowded() {
            self.not_before = Instant::now() + HEAD_START;
            return;
        }
        let server = Arc::clone(&self.pool.server);
        if let Err(error) = self.starter.prepare(&server).await {
            tracing::debug!(%error, "a spare could not be prepared");
            return self.count_failure(|| tracing::warn!(%error, "spares cannot be started"));
        }
        let (Some(settings), Some(started)) = (&server.spares, self.starter.start_early(&server)) else {
            // It does not become one that has them.
            self.not_before = Instant::now() + PAUSE[1];
            return;
        };
        match started {
            Ok(started) => {
                let spare = Spare::new(started, settings, server.process.start_timeout, &self.pool.counts, turn);
                self.pool.state().spares.push_back(spare);
            }
            Err(error) => {
                tracing::debug!(%error, "a spare could not be started");
                self.count_failure(|| tracing::warn!(%error, "spares cannot be started"));
            }
        }
    }

    /// One has ended by itself, or wrote too much.
    fn failed(&mut self, spare: Spare) {
        self.pool.proven.store(false, Relaxed);
        if std::mem::take(&mut self.pool.state().has_lasted) || spare.age() >= GOOD {
            self.failures = 0;
        }
        self.count_failure(|| {
            tracing::warn!("spares end before they are asked anything: `spares` are of no use to this server");
            spare.explain();
        });
        self.end(spare, Discarded::Ended);
    }

    /// Counts a failure; `tell` tells the operator of the last of several.
    fn count_failure(&mut self, tell: impl FnOnce()) {
        let pause = PAUSE[0] * 2_u32.saturating_pow(self.failures.min(30));
        self.not_before = Instant::now() + pause.min(PAUSE[1]);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= TOLD && !self.pool.told.swap(true, Relaxed) {
            tell();
        }
    }

    /// Ends one that is not needed any more, while nobody waits for it.
    fn end(&self, spare: Spare, why: Discarded) {
        let graces = match why {
            Discarded::Aged => Graces::from(&self.pool.server.process),
            Discarded::Ended | Discarded::Stopped | Discarded::Room => AT_ONCE,
        };
        let ending = ending(self.pool.discarded(spare, why), graces, self.lifecycle.hard.clone());
        self.lifecycle.spawn(ending);
    }

    /// Ends all, and returns when nothing is left of them.
    async fn end_all(&self) {
        let spares: Vec<_> = self.pool.state().spares.drain(..).collect();
        let hard = &self.lifecycle.hard;
        let endings = spares
            .into_iter()
            .map(|spare| ending(self.pool.discarded(spare, Discarded::Stopped), AT_ONCE, hard.clone()));
        futures_util::future::join_all(endings).await;
    }
}

impl Pool {
    fn discarded(&self, spare: Spare, why: Discarded) -> Started {
        tracing::debug!(why = why.as_str(), "a spare is ended");
        self.counts.discard(why);
        spare.into_started()
    }

    fn remove_aged(&self) -> Option<Spare> {
        self.state().remove_aged()
    }

    fn next_start(&self) -> Option<Instant> {
        self.state().next_start(self.count)
    }

    fn look(&self) {
        self.state().spares.iter_mut().for_each(Spare::look);
    }

    /// When one is to be looked at again.
    fn next_look(&self) -> Option<Instant> {
        self.state().spares.iter().map(Spare::next_look).min()
    }
}

async fn ending(started: Started, graces: Graces, hard: CancellationToken) {
    tokio::select! {
        () = started.close(graces) => {}
        // Dropping a server is killing it.
        () = hard.cancelled() => {}
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
