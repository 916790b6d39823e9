//! Spares: servers that are started before the request that they are for, so that it does not wait for their start. Each
//! serves one request, and ends with it.
//!
//! What a spare is started from is the same for everybody, so nothing of a user or a request is in one: what is theirs is
//! told to it by the request that takes it, where it waits for that before its program's first instruction. No answer
//! depends on there being any: a request that finds none starts its server itself. How many wait is a function of the
//! configuration alone.
//!
//! There is a [`Pool`] for each server that has spares; its task starts them, watches them while they wait and replaces
//! them. Taking one is a step under a lock, in which nothing is waited for.

mod pool;
mod spare;
pub mod trial;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
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
        let hold = server.spares.as_ref()?.hold;
        match (server.early()?, &server.plan, hold) {
            (Launch::Stdio(program), _, Hold::Ready) => Some(Started::program(&self.spawner, program)),
            (Launch::Stdio(program), _, Hold::Start) => Some(Started::held_program(&self.spawner, program)),
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

/// The spares of all servers.
pub struct Spares {
    pools: HashMap<ServerName, Arc<Pool>>,
    retired: CancellationToken,
}

impl Spares {
    /// For the servers of `config`. Starts the tasks that keep them, in `lifecycle`, with which they end when it drains,
    /// or before that when they are retired. None is started while `is_crowded`.
    #[must_use]
    pub fn new(
        config: &Config,
        starter: &Starter,
        counts: &SpareCounts,
        lifecycle: &Lifecycle,
        is_crowded: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        let starts = Arc::new(Semaphore::new(STARTS));
        let (mut pools, retired) = (HashMap::new(), lifecycle.drain.child_token());
        let ends = Lifecycle { drain: retired.clone(), ..lifecycle.clone() };
        for (name, count) in config.spares() {
            let Some(server) = config.servers.get(name) else { continue };
            let pool = Arc::new(Pool::new(Arc::clone(server), count, counts.clone()));
            let keeper = pool::Keeper::new(Arc::clone(&pool), starter.clone(), Arc::clone(&starts), &ends);
            // Of no request: what it logs has no user.
            let span = tracing::info_span!(parent: None, "spares", server = %name);
            lifecycle.spawn(keeper.keep(is_crowded.clone()).instrument(span));
            pools.insert(name.clone(), pool);
        }
        Self { pools, retired }
    }

    /// Ends all that wait, and starts no more: there is another configuration. Requests that still run with this one start
    /// their servers themselves.
    pub fn retire(&self) {
        self.retired.cancel();
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
