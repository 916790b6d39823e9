//! Spares: servers that are started before the request that they are for, so that it does not wait for their start. Each
//! serves one request, and ends with it.
//!
//! What a spare is started from is the same for everybody, so nothing of a user or a request is in one, and no answer
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
use tracing::Instrument as _;

use super::UpstreamError;
use super::container::Containers;
use super::process::group::{Graces, Spawner};
use super::started::Started;
use crate::config::{Config, Launch, Server, ServerName};
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
    /// Starts the server as it is for everybody.
    fn start_early(&self, server: &Server) -> Option<Result<Started, UpstreamError>> {
        match server.early()? {
            Launch::Stdio(program) => Some(Started::program(&self.spawner, program)),
            Launch::Container(container) => Some(Started::container(&self.containers, container)),
            Launch::Http(_) => None,
        }
    }
}

/// The spares of all servers.
pub struct Spares {
    pools: HashMap<ServerName, Arc<Pool>>,
}

impl Spares {
    /// For the servers of `config`. Starts the tasks that keep them, in `lifecycle`, with which they end when it drains.
    /// None is started while `is_crowded`.
    #[must_use]
    pub fn new(
        config: &Config,
        starter: &Starter,
        counts: &SpareCounts,
        lifecycle: &Lifecycle,
        is_crowded: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Self {
        let starts = Arc::new(Semaphore::new(STARTS));
        let mut pools = HashMap::new();
        for (name, count) in config.spares() {
            let Some(server) = config.servers.get(name) else { continue };
            let pool = Arc::new(Pool::new(Arc::clone(server), count, counts.clone()));
            let keeper = pool::Keeper::new(Arc::clone(&pool), starter.clone(), Arc::clone(&starts), lifecycle);
            // Of no request: what it logs has no user.
            let span = tracing::info_span!(parent: None, "spares", server = %name);
            lifecycle.spawn(keeper.keep(is_crowded.clone()).instrument(span));
            pools.insert(name.clone(), pool);
        }
        Self { pools }
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

    /// Ends a spare, so that there is room for what `server` could not be started for want of; false if there is none.
    pub async fn make_room(&self, server: &Server) -> bool {
        let users = |server: &Server| server.plan.process().and_then(|process| process.confinement.run_as);
        let mut pools: Vec<_> = self.pools.values().collect();
        // Perhaps it is a user that is wanted.
        pools.sort_by_key(|pool| users(pool.server()) != users(server));
        let Some(spare) = pools.into_iter().find_map(|pool| pool.give_up()) else { return false };
        spare.close(AT_ONCE).await;
        true
    }
}

/// How a server is ended that has done nothing.
const AT_ONCE: Graces = Graces { eof: Duration::ZERO, term: Duration::ZERO };
