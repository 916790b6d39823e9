//! Wiring: the only place that builds what lives as long as the process, and the only one that ends it.

mod admin_listener;
mod control;
mod generation;
mod node;
mod reload;
mod server_reports;

use std::future::Future;
use std::io;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::admin::Admin;
use crate::audit::AuditError;
use crate::config::{Config, IdentityMethod};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Counter, Metrics};
use crate::rate_limit::LogRateLimit;
use crate::server::{ConnectionLimits, DisconnectWatcher, Listener, Server, Times};
use crate::service_manager::Notice;
use crate::store::{SetupError, StoreError, TokenStore};
use crate::swap::Swap;
use crate::sys::{self, Signals};
use crate::telemetry::LogFilter;
use crate::upstream::container::Containers;
use crate::upstream::process::instance::resources::InstanceResources;

use admin_listener::AdminListener;
use generation::Generation;
use node::Node;
use reload::{Reloader, Wiring};
pub use server_reports::server_reports;

/// How long everything but connections may take to end once it must end now.
const LAST_EFFORT: Duration = Duration::from_millis(700);

/// Why the bridge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The token store cannot be used as configured.
    #[error("the token store cannot be used: {0}")]
    Store(#[from] SetupError),
    /// The token store is configured in a way that would lose tokens.
    #[error("the token store cannot be trusted: {0}")]
    Policy(StoreError),
    /// What happens cannot be written down as configured.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// TLS for calls to servers elsewhere cannot be set up.
    #[error("calls to other servers cannot be set up: {0}")]
    HttpClient(reqwest::Error),
    /// A server is to be confined in a way that cannot be left out.
    #[error("{0}")]
    Confinement(String),
    /// The system refuses something that every process may do.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// Whether the configuration must be mended, rather than something on the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_configuration())
    }
}

/// What a bridge is started with, besides its configuration.
pub struct Start {
    /// The file of the configuration, which may be read again.
    pub file: PathBuf,
    /// What there is on the host for its servers.
    pub resources: InstanceResources,
    /// What the log shows.
    pub log_filter: LogFilter,
    /// Counts lines of the log that were dropped.
    pub log_lines_dropped: Counter,
    /// Is told of each configuration before it is served.
    pub tell: Box<dyn Fn(&Config) + Send + Sync>,
    /// Tells the service manager.
    pub notify: Box<dyn Fn(Notice) + Send + Sync>,
    /// How long may pass between two signs of life, if somebody waits for them.
    pub watchdog: Option<Duration>,
    /// The socket on which clients are served, if it is there already.
    pub socket: Option<OwnedFd>,
}

/// Serves until a signal says to stop, or `orphaned` resolves because nobody watches over the process any more, and
/// returns when nothing is left.
///
/// # Errors
/// If it cannot start.
pub async fn run(config: Config, start: Start, orphaned: impl Future<Output = ()>) -> Result<(), StartError> {
    let (mut signals, hangup) = StopSignals::listen()?;
    let Start { file, resources, log_filter, log_lines_dropped, tell, notify, watchdog, socket } = start;
    log_filter.change_to(config.log_filter.as_deref()).expect("it was checked with the configuration");
    tell(&config);
    let config = Arc::new(config);
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::new(lifecycle.tasks.clone(), log_lines_dropped));
    // A store may be long in answering, and nothing has been started yet.
    let (store, keyring) = tokio::select! {
        opened = node::store(&config, &metrics) => opened?,
        () = signals.next() => return Ok(()),
    };
    let node = Node::start(&config, (store, keyring), (&metrics, &lifecycle), resources)?;
    let generation = Generation::of(&node, Arc::clone(&config), node.services(&config)?);
    let server = server(&generation, &metrics, &lifecycle)?;
    let listener = listen(&config, socket).await?;
    let admin = AdminListener::bind(config.admin.as_ref(), generation.operators()).await?;
    let (store, containers) = (Arc::clone(&node.store), Arc::clone(&node.starter.containers));
    let check = move || is_there(Arc::clone(&store), Arc::clone(&containers));
    let health = Arc::new(Admin::new(lifecycle.clone(), Arc::clone(&metrics), check));
    metrics.config.serve(config.outline.fingerprint());
    let wiring = Wiring { file, log_filter, tell, notify, operators: admin.operators() };
    let reloader = Arc::new(Reloader::new(node, Arc::clone(&server), generation, wiring));
    lifecycle.accompany(Arc::clone(&reloader).on_signal(hangup));
    control::serve(&reloader, &health);
    // Whoever hears of it may give commands at once.
    announce(&config, &listener)?;
    lifecycle.spawn(server.run(listener));
    reloader.notify(Notice::Ready);
    if let Some(patience) = watchdog {
        lifecycle.accompany(Arc::clone(&reloader).show_life(patience / 2));
    }
    tokio::select! {
        () = until_stopped(&lifecycle, signals, &reloader, orphaned) => {}
        () = admin.serve(health, &lifecycle) => {}
    }
    reloader.node.end().await;
    tracing::info!("stopped");
    Ok(())
}

/// Whether what requests need is there.
async fn is_there(store: Arc<TokenStore>, containers: Arc<Containers>) -> bool {
    if !containers.are_cleared() {
        tracing::warn!("not ready: containers of requests that have ended are still there");
        return false;
    }
    let checked = async { store.check().await.and(store.check_writes().await) };
    checked.await.inspect_err(|error| tracing::warn!(%error, "not ready: the token store")).is_ok()
}

/// The connections to a bridge, of which there are none yet.
fn server(generation: &Generation, metrics: &Arc<Metrics>, lifecycle: &Lifecycle) -> io::Result<Arc<Server>> {
    Ok(Arc::new(Server {
        connections: Arc::new(ConnectionLimits::new(&generation.config, metrics)),
        disconnects: Arc::new(DisconnectWatcher::new()?),
        refusals: LogRateLimit::default(),
        times: Swap::new(Arc::new(Times::from(&generation.config.limits))),
        lifecycle: lifecycle.clone(),
        routes: Swap::new(generation.routes()),
        metrics: Arc::clone(metrics),
    }))
}

/// Where clients are served.
async fn listen(config: &Config, socket: Option<OwnedFd>) -> Result<Listener, StartError> {
    let stall = config.limits.write_stall;
    let bound = match socket {
        Some(socket) => Listener::of(socket, stall),
        None => Listener::bind(&config.listen, stall, config.reuse_port).await,
    };
    bound.map_err(|error| StartError::Listen { address: config.listen.to_string(), error })
}

/// Ends the start: gives back what only that needed, and says where clients are served: on stdout, for whoever started the process, and in the log, with what should be known.
fn announce(config: &Config, listener: &Listener) -> io::Result<()> {
    sys::give_start_back();
    let address = listener.describe();
    tracing::info!(%address, servers = config.servers.len(), "serving");
    for method in &config.identity {
        if let IdentityMethod::Local(caller) = method {
            tracing::warn!(user = %caller.user, "every caller on this machine is this user: identity is `local`");
        }
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on {address}")?;
    stdout.flush()
}

/// Waits for the first signal, then until every task has ended, a second signal comes, or the grace is over; whatever
/// is left then is ended.
async fn until_stopped(
    lifecycle: &Lifecycle,
    mut signals: StopSignals,
    reloader: &Reloader,
    orphaned: impl Future<Output = ()>,
) {
    let mut orphaned = std::pin::pin!(orphaned);
    let is_alone = || {
        tracing::error!("the supervisor is gone: stopping at once");
        false
    };
    let supervised = tokio::select! {
        () = signals.next() => true,
        () = &mut orphaned => is_alone(),
    };
    let [delay, grace] = reloader.graces();
    lifecycle.stopping.cancel();
    reloader.notify(Notice::Stopping);
    let is_in_order = supervised && {
        if !delay.is_zero() {
            tracing::info!("not ready any more; requests are taken until `preStopDelay` is over");
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = signals.next() => false,
            () = &mut orphaned => is_alone(),
        }
    };
    lifecycle.drain.cancel();
    lifecycle.tasks.close();
    lifecycle.connections.close();
    if is_in_order {
        tracing::info!("stopping: running requests may finish");
        tokio::select! {
            () = lifecycle.tasks.wait() => {}
            () = tokio::time::sleep(grace) => tracing::warn!("`shutdownGrace` is over: ending requests that still run"),
            () = signals.next() => {}
            () = orphaned => {}
        }
    }
    lifecycle.soft.cancel();
    lifecycle.hard.cancel();
    let _ = timeout(LAST_EFFORT, lifecycle.tasks.wait()).await;
    // Whoever takes what their request came to is told of it, also on a slow machine.
    lifecycle.connections.wait().await;
}

/// The signals that say to stop.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Lets them, and SIGHUP, wait until somebody listens: they would end the process on the spot. Call it before there is another
    /// thread that takes signals.
    pub fn block() {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Signals::of(&kinds.map(|kind| kind.as_raw_value())).block_only();
    }

    /// From here on somebody listens, to SIGHUP too.
    fn listen() -> io::Result<(Self, Signal)> {
        let signals = Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        // Its handler stays, and no server inherits it.
        let hangup = signal(SignalKind::hangup())?;
        Signals::none().block_only();
        Ok((signals, hangup))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
