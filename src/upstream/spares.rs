//! Spares: servers that are started before the request that they are for, so that it does not wait for their start. Each
//! serves one request, and ends with it.
//!
//! What a spare is started from is the same for everybody, so nothing of a user or a request is in one: what is theirs is
//! told to it by the request that takes it, where it waits for that: before its program's first instruction, or where it
//! first needs it. No answer depends on there being any: a request that finds none starts its server itself. How many wait
//! is a function of the configuration alone.
//!
//! There is a [`Pool`] for each server that has spares; its task starts them, watches them while they wait and replaces
//! them. Taking one is a step under a lock, in which nothing is waited for.

mod pool;
mod spare;
pub mod trial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::UpstreamError;
use super::container::{Containers, ImageError};
use super::process::group::{Graces, Spawner};
use super::started::Started;
use crate::config::{Config, Hold, Launch, Plan, Server, ServerName};
use crate::lifecycle::Lifecycle;
use crate::metrics::SpareCounts;
use pool::Pool;

pub use pool::Turn;

/// How many spares are started at a time, of all servers.
const STARTS: usize = 2;

/// Starts what has been filled.
#[derive(Clone)]
pub struct Starter {
    /// Starts programs.
    pub spawner: Spawner,
    /// Starts containers, and clears away after them.
    pub containers: Arc<Containers>,
}

impl Starter {
    /// Starts the server as it is for everybody, so that it waits where its spares do. Nothing if it has none, or cannot be
    /// started so.
    #[must_use]
    pub fn start_early(&self, server: &Server) -> Option<Result<Started, UpstreamError>> {
        let settings = server.spares.as_ref()?;
        let hold = settings.hold;
        match (server.early()?, &server.plan, hold) {
            (Launch::Stdio(program), _, Hold::Ready) => Some(Started::program(&self.spawner, program)),
            (Launch::Stdio(program), _, Hold::Start) => Some(Started::held_program(&self.spawner, program)),
            (Launch::Stdio(mut program), _, Hold::Node | Hold::Python) => {
                let late = server.late_names();
                self.spawner.gates().put_before(&mut program, &late, (hold, settings.environment_copies))?;
                Some(Started::gated_program(&self.spawner, program))
            }
            (Launch::Container(container), _, Hold::Ready) => Some(Started::container(&self.containers, container)),
            (Launch::Container(container), Plan::Container(plan), Hold::Start) => {
                Started::held_container(&self.containers, plan, container)
            }
            (Launch::Container(_) | Launch::Http(_), ..) => None,
        }
    }

    /// Learns what must be known before the spares of `server` can be started.
    async fn prepare(&self, server: &Server) -> Result<(), ImageError> {
        match (&server.plan, &server.spares) {
            (Plan::Container(plan), Some(spares)) if spares.hold == Hold::Start => {
                self.containers.learn_image(plan).await
            }
            _ => Ok(()),
        }
    }
}

/// Starts spares: so many at a time, and those of one configuration once those of the one before have ended.
pub struct SpareStarts {
    starter: Starter,
    /// A permit is the turn to start one, among all servers.
    turns: Arc<Semaphore>,
    /// The tasks that keep those of the configuration that is served.
    keepers: Mutex<TaskTracker>,
}

impl SpareStarts {
    /// There are none so far.
    #[must_use]
    pub fn new(starter: &Starter) -> Self {
        let none = TaskTracker::new();
        none.close();
        Self { starter: starter.clone(), turns: Arc::new(Semaphore::new(STARTS)), keepers: Mutex::new(none) }
    }
}

/// The spares of all servers.
pub struct Spares {
    pools: HashMap<ServerName, Arc<Pool>>,
    keepers: TaskTracker,
    retired: CancellationToken,
}

impl Spares {
    /// For the servers of `config`. Starts the tasks that keep them, in `lifecycle`, with which they end when it drains,
    /// or before that when they are retired. None is started while `is_crowded`, and before the last ones of `starts` have
    /// been retired and have ended.
    #[must_use]
    pub fn new(
        config: &Config,
        starts: &SpareStarts,
        counts: &SpareCounts,
        lifecycle: &Lifecycle,
        is_crowded: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        let (mut pools, retired) = (HashMap::new(), lifecycle.drain.child_token());
        let keepers = TaskTracker::new();
        let last =
            std::mem::replace(&mut *starts.keepers.lock().unwrap_or_else(PoisonError::into_inner), keepers.clone());
        // Also where there is nothing to keep: whoever comes next waits for all that were before.
        let of_last = last.clone();
        lifecycle.spawn(keepers.track_future(async move { of_last.wait().await }));
        let ends = Lifecycle { drain: retired.clone(), ..lifecycle.clone() };
        for (name, count) in config.spares() {
            let Some(server) = config.servers.get(name) else { continue };
            let pool = Arc::new(Pool::new(Arc::clone(server), count, counts.clone()));
            let keeper = pool::Keeper::new(Arc::clone(&pool), starts.starter.clone(), Arc::clone(&starts.turns), &ends);
            // Of no request: what it logs has no user.
            let span = tracing::info_span!(parent: None, "spares", server = %name);
            let (last, is_crowded) = (last.clone(), is_crowded.clone());
            let kept = async move {
                last.wait().await;
                keeper.keep(is_crowded).await;
            };
            lifecycle.spawn(keepers.track_future(kept.instrument(span)));
            pools.insert(name.clone(), pool);
        }
        Self { pools, keepers, retired }
    }

    /// Ends all that wait, and starts no more: there is another configuration. Requests that still run with this one start
    /// their servers themselves.
    pub fn retire(&self) {
        self.retired.cancel();
        self.keepers.close();
    }

    /// The spare of `server` that has waited longest, if one waits, and what the request holds whether it got one or not;
    /// nothing for a server without spares.
    #[must_use]
    pub fn take(&self, server: &ServerName) -> Option<(Option<Started>, Turn)> {
        Some(self.pools.get(server)?.take())
    }

    /// What a request holds that starts its server itself although spares may wait.
    #[must_use]
    pub fn pass(&self, server: &ServerName) -> Option<Turn> {
        Some(Turn::without_spare(self.pools.get(server)?))
    }

    /// Whether spares of `server` have shown that they answer: one did, and none has failed since.
    #[must_use]
    pub fn are_proven(&self, server: &ServerName) -> bool {
        self.pools.get(server).is_some_and(|pool| pool.is_proven())
    }

    /// Ends a spare, so that there is room for what `server` could not be started for want of; false if there is none.
    pub async fn make_room(&self, server: &Server) -> bool {
        let users = |server: &Server| server.plan.process().and_then(|process| process.confinement.run_as);
        let mut pools: Vec<_> = self.pools.values().collect();
        // Perhaps it is a user that is wanted.
        pools.sort_by_key(|pool| users(pool.server()) != users(server));
        let Some(spare) = pools.into_iter().find_map(|pool| pool.give_up()) else { return false };
        // Dropping it ends it, too, where an engine takes its time.
        let _ = timeout(MAKING_ROOM, spare.close(AT_ONCE)).await;
        true
    }
}

/// How long a request waits for the end of a spare whose room it needs.
const MAKING_ROOM: Duration = Duration::from_secs(1);

/// How a server is ended that has done nothing.
const AT_ONCE: Graces = Graces { eof: Duration::ZERO, term: Duration::ZERO };

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadOptions, parse};
    use crate::metrics::{Counter, Metrics};
    use crate::upstream::process::confinement::Confiner;
    use crate::upstream::process::instance::resources::InstanceResources;
    use crate::upstream::process::orphans::UntaggedChildren;

    async fn until(holds: impl Fn() -> bool) {
        let looked = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_mins(1), looked).await.unwrap();
    }

    #[tokio::test]
    async fn the_spares_of_a_configuration_are_started_once_those_of_all_before_have_ended() {
        let text = r#"{ "limits": { "spares": 1 }, "mcpServers": {
            "s": { "command": "cat", "spares": { "count": 1, "sameUser": true } } } }"#;
        let config = parse(text, Path::new("/etc/tollbridge.json"), &LoadOptions::default()).unwrap();
        let lifecycle = Lifecycle::default();
        let metrics = Metrics::new(lifecycle.tasks.clone(), Counter::default());
        let none = || Err("not here".to_owned());
        let confiner = Confiner::new(&InstanceResources { directory: none(), cgroup: none() }, &lifecycle);
        let spawner = Spawner::new(&lifecycle, UntaggedChildren::Spare, confiner, metrics.processes.clone()).unwrap();
        let starter = Starter { containers: Containers::new(&config, &spawner, &lifecycle), spawner };
        let starts = SpareStarts::new(&starter);
        let next = || Spares::new(&config, &starts, &metrics.spares, &lifecycle, || false);
        let has_any = |spares: &Spares| spares.pools.values().any(|pool| pool.has_any());

        let (first, second, third) = (next(), next(), next());
        second.retire();
        until(|| has_any(&first)).await;
        first.retire();
        until(|| has_any(&third)).await;
        assert!(first.keepers.is_empty() && !has_any(&first) && second.keepers.is_empty());
        let fourth = next();
        third.take(&ServerName::parse("s").unwrap()).unwrap().0.unwrap().close(AT_ONCE).await;
        until(|| has_any(&third)).await;
        assert!(!has_any(&fourth), "the third are not retired");
        third.retire();
        until(|| has_any(&fourth)).await;
        fourth.retire();
        fourth.keepers.wait().await;
    }
}
