//! Tracks one engine's containers of this instance: which run, and which have ended and must be removed. One task lists
//! and removes them, one call at a time, however many end at once and however long the engine hangs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::INSTANCE_LABEL;
use super::client::{CallError, Client};
use crate::config::Engine;
use crate::lifecycle::Lifecycle;
use crate::upstream::process::group::Exit;
use crate::upstream::process::instance::{Instance, Liveness};

/// The pause between two lists: an engine takes so long to make a container whose client was killed.
const ROUND: Duration = Duration::from_millis(150);
/// In how many lists a container must be missing, if its client was killed: it may just be being made.
const LISTS: u8 = 3;
/// The longest pause between two tries while the engine does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After which time something that is not gone makes the bridge not ready.
const OVERDUE: Duration = Duration::from_secs(5);
/// How long, and how often, to look for containers that a slow engine makes after their clients were killed.
const LATE: Duration = Duration::from_secs(10);
const LATE_ROUND: Duration = Duration::from_secs(1);
/// How often containers of dead instances are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// One engine's containers of this instance.
pub(super) struct ContainerTracker {
    client: Client,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    live: HashSet<String>,
    ended: HashMap<String, Ended>,
    late_until: Option<Instant>,
}

/// A container that must not be there any more.
struct Ended {
    since: Instant,
    /// When its client ended, if it has.
    client: Option<Instant>,
    lists: u8,
    killed: bool,
    gone: Option<oneshot::Sender<()>>,
}

impl ContainerTracker {
    pub(super) fn new(client: Client) -> Self {
        Self { client, table: Mutex::default(), changed: Notify::new() }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        self.client.engine()
    }

    /// The client by which it is asked.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What is done under the lock leaves the table whole at every step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container of this name is about to be made.
    pub(super) fn begin(&self, name: &str) {
        self.table().live.insert(name.to_owned());
    }

    /// It never was.
    pub(super) fn forget(&self, name: &str) {
        self.table().live.remove(name);
        self.changed.notify_one();
    }

    /// It must not be there any longer, though its client goes on.
    pub(super) fn evict(&self, name: &str) {
        let mut table = self.table();
        table.live.remove(name);
        let ended = Ended { since: Instant::now(), client: None, lists: LISTS, killed: true, gone: None };
        table.ended.insert(name.to_owned(), ended);
        drop(table);
        self.changed.notify_one();
    }

    /// Its client has ended in this way: it must not be there any longer. `gone` is told when it is not.
    pub(super) fn end(&self, name: String, exit: Exit, gone: Option<oneshot::Sender<()>>) {
        // A client that ends by itself has waited for its container to be removed, unless it says that the engine failed.
        let killed = !matches!(exit, Exit::Code(code) if code < 125);
        let now = Instant::now();
        let mut table = self.table();
        table.live.remove(&name);
        let since = table.ended.get(&name).map_or(now, |evicted| evicted.since);
        table
            .ended
            .insert(name, Ended { since, client: Some(now), lists: if killed { LISTS } else { 1 }, killed, gone });
        drop(table);
        self.changed.notify_one();
    }

    /// Whether something should have been gone for a while.
    pub(super) fn is_overdue(&self) -> bool {
        self.table().ended.values().any(|ended| ended.since.elapsed() > OVERDUE)
    }

    /// Clears away until `lifecycle` is to stop and nothing is left; what a hard stop leaves, having begun to remove it, is
    /// for the supervisor.
    pub(super) async fn keep(self: Arc<Self>, lifecycle: Lifecycle) {
        let hard = lifecycle.hard.clone();
        tokio::select! {
            () = self.work(&lifecycle) => {}
            () = hard.cancelled() => self.remove_all().await,
        }
    }

    /// Removes what there is. Dropped, it goes on as far as the engine's client can.
    async fn remove_all(&self) {
        if let Ok(names) = self.client.own().await {
            let _ = self.client.remove(&names).await;
        }
    }

    async fn work(&self, lifecycle: &Lifecycle) {
        let mut next_sweep = Instant::now();
        let mut failures = Failures::default();
        let mut unknown = BTreeSet::new();
        loop {
            let now = Instant::now();
            if now >= next_sweep {
                failures.note(self.sweep(&mut unknown).await);
                next_sweep = now + SWEEP;
            }
            let removed = self.remove_ended().await;
            let pause = failures.note(removed);
            let (next, is_empty) = {
                let table = self.table();
                (table.next(pause), table.is_empty())
            };
            let stopping = lifecycle.soft.is_cancelled();
            if stopping && is_empty {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
                () = self.changed.notified(), if next.is_none_or(|next| next > pause) => {}
                () = tokio::time::sleep_until(next_sweep) => {}
                () = lifecycle.soft.cancelled(), if !stopping => {}
            }
        }
    }

    /// Lists the containers once, and removes by force whatever is there and should not be.
    async fn remove_ended(&self) -> Result<(), CallError> {
        let began = Instant::now();
        let names = self.client.own().await?;
        let strays = self.table().judge(&names, began);
        if strays.is_empty() { Ok(()) } else { self.client.remove(&strays).await }
    }

    /// Removes the containers of dead instances. `unknown` are the instances that could not be judged the last time.
    async fn sweep(&self, unknown: &mut BTreeSet<String>) -> Result<(), CallError> {
        let is_local = self.engine().is_local();
        let liveness = |label: &str| match Instance::parse(label).map(|instance| instance.liveness()) {
            Some(Liveness::OtherBoot) if is_local => Liveness::Dead,
            liveness => liveness.unwrap_or(Liveness::Unknown),
        };
        let (mut dead, mut others) = (Vec::new(), Vec::new());
        for (id, label) in self.client.labelled().await? {
            match liveness(&label) {
                Liveness::Dead => dead.push(id),
                Liveness::OtherBoot | Liveness::Unknown => others.push(label),
                Liveness::Alive => {}
            }
        }
        self.tell_of(&others, unknown);
        if !dead.is_empty() {
            tracing::info!(count = dead.len(), "removing the containers of bridges that have died");
            self.client.remove(&dead).await?;
        }
        Ok(())
    }

    /// Says once of each instance that it cannot be judged from here, with what to do if it has died: nobody else will.
    fn tell_of(&self, labels: &[String], told: &mut BTreeSet<String>) {
        for (label, count) in news(labels, told) {
            let client = self.engine().program.display();
            let filter = format!("{INSTANCE_LABEL}={label}");
            tracing::warn!(
                count,
                "there are containers of a bridge that cannot be seen from here (in another container or machine, or \
                 hidden in /proc); if it has died, remove them: {client} rm -f $({client} ps -aq --filter label={filter})"
            );
        }
    }
}

/// How often each label is there that was not the last time; from now on those that are there are the last time's.
fn news(labels: &[String], told: &mut BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut news = BTreeMap::new();
    for label in labels.iter().filter(|label| !told.contains(*label)) {
        *news.entry(label.clone()).or_default() += 1;
    }
    *told = labels.iter().cloned().collect();
    news
}

impl Table {
    fn is_empty(&self) -> bool {
        self.live.is_empty() && self.ended.is_empty()
    }

    /// Takes note of what was there in a list that was asked for at `began`, and tells what must be removed.
    fn judge(&mut self, names: &[String], began: Instant) -> Vec<String> {
        let there: HashSet<&str> = names.iter().map(String::as_str).collect();
        self.ended.retain(|name, ended| {
            if ended.client.is_none_or(|at| at >= began) || there.contains(name.as_str()) {
                return true;
            }
            ended.lists -= 1;
            if ended.lists > 0 {
                return true;
            }
            if ended.killed {
                self.late_until = Some(began + LATE);
            }
            if let Some(gone) = ended.gone.take() {
                let _ = gone.send(());
            }
            false
        });
        self.late_until = self.late_until.filter(|until| *until > began);
        names.iter().filter(|name| !self.live.contains(*name)).cloned().collect()
    }

    /// When to look again, if there is a reason to.
    fn next(&self, pause: Duration) -> Option<Duration> {
        if self.ended.is_empty() { self.late_until.map(|_| pause.max(LATE_ROUND)) } else { Some(pause) }
    }
}

/// How often the engine has failed one after the other.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// Says once when it begins to fail and when it answers again; returns how long to wait.
    fn note(&mut self, outcome: Result<(), CallError>) -> Duration {
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.0) > 0 {
                    tracing::info!("the container engine answers again");
                }
                ROUND
            }
            Err(error) => {
                if self.0 == 0 {
                    tracing::warn!(%error, "the container engine fails: containers are cleared away when it answers");
                }
                self.0 = self.0.saturating_add(1);
                (ROUND * (1 << self.0.min(8))).min(LONGEST_PAUSE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(since: Instant, lists: u8) -> Ended {
        Ended { since, client: Some(since), lists, killed: lists > 1, gone: None }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_whose_client_was_killed_is_gone_when_it_was_not_there_three_times() {
        let mut table = Table::default();
        table.live.insert("live".to_owned());
        table.ended.insert("killed".to_owned(), ended(Instant::now(), LISTS));
        tokio::time::advance(ROUND).await;
        assert_eq!(table.judge(&names(&["live"]), Instant::now()), names(&[]));
        assert_eq!(table.judge(&names(&["live", "killed"]), Instant::now()), ["killed"], "it appears late");
        assert_eq!(table.judge(&names(&["live"]), Instant::now()), names(&[]));
        assert_eq!(table.next(ROUND), Some(ROUND));
        table.judge(&names(&["live"]), Instant::now());
        assert!(table.ended.is_empty() && !table.is_empty());
        assert_eq!(table.next(ROUND), Some(LATE_ROUND), "a slow engine may still make it");
        assert_eq!(table.judge(&names(&["live", "killed"]), Instant::now()), ["killed"]);
        tokio::time::advance(LATE).await;
        table.judge(&names(&["live"]), Instant::now());
        assert_eq!(table.next(ROUND), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_began_before_the_end_says_nothing_of_it() {
        let mut table = Table::default();
        let began = Instant::now();
        tokio::time::advance(ROUND).await;
        table.ended.insert("a".to_owned(), ended(Instant::now(), 1));
        table.judge(&[], began);
        assert_eq!(table.ended.len(), 1);
        tokio::time::advance(ROUND).await;
        table.judge(&[], Instant::now());
        assert!(table.is_empty());
    }

    #[test]
    fn tries_get_rarer_while_the_engine_fails() {
        let mut failures = Failures::default();
        let pauses: Vec<_> = (0..6).map(|_| failures.note(Err(CallError::TimedOut)).as_millis()).collect();
        assert_eq!(pauses, [300, 600, 1200, 2000, 2000, 2000]);
        assert_eq!(failures.note(Ok(())), ROUND);
    }

    #[test]
    fn an_instance_that_cannot_be_judged_is_told_of_once() {
        let mut told = BTreeSet::new();
        assert_eq!(news(&names(&["a", "b", "a"]), &mut told), [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
        assert_eq!(news(&names(&["a", "c"]), &mut told), [("c".to_owned(), 1)].into());
        assert_eq!(news(&names(&["b"]), &mut told), [("b".to_owned(), 1)].into(), "it is another time");
    }
}
