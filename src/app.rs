//! Wiring: the only place that builds what lives as long as the process, and the only one that ends it.

mod admin_listener;

use std::io;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::account::Account;
use crate::audit::{Audit, AuditError};
use crate::auth::Authenticator;
use crate::bridge::{Bridge, ConnectionChanges, Probes, ServerFacts};
use crate::clock::Clock;
use crate::config::{Config, IdentityMethod, Listen, TokenStoreKind};
use crate::heap;
use crate::http_client;
use crate::keyring::Keyring;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::metrics::{Counter, Metrics};
use crate::oauth::Services;
use crate::rate_limit::LogRateLimit;
use crate::relay::{Relay, longest_message};
use crate::routes::Routes;
use crate::server::{ConnectionLimits, DisconnectWatcher, Listener, Server, Times};
use crate::store::{SetupError, StoreError, TokenStore};
use crate::sys::{self, Signals};
use crate::telemetry::LogThrottle;
use crate::tokens::{Prober, TokenSource};
use crate::upstream::container::Containers;
use crate::upstream::http::HttpServers;
use crate::upstream::process::confinement::Confiner;
use crate::upstream::process::group::Spawner;
use crate::upstream::process::host_checks::{self, Verdict};
use crate::upstream::process::instance::resources::InstanceResources;
use crate::upstream::process::orphans::UntaggedChildren;
use crate::upstream::spares::{Spares, Starter};

use admin_listener::AdminListener;

/// How long everything may take to end once it must end now.
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

/// Serves until a signal says to stop, or `orphaned` resolves because nobody watches over the process any more, and
/// returns when nothing is left. `dropped` counts lines of the log.
///
/// # Errors
/// If it cannot start.
pub async fn run(
    config: Config,
    resources: InstanceResources,
    dropped: Counter,
    orphaned: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let (mut signals, hangup) = StopSignals::listen()?;
    let config = Arc::new(config);
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::new(lifecycle.tasks.clone(), dropped));
    // A store may be long in answering, and nothing has been started yet.
    let (store, keyring) = tokio::select! {
        opened = store(&config, &metrics) => opened?,
        () = signals.next() => return Ok(()),
    };
    let audit = open_audit(&config, &metrics, hangup, &lifecycle)?;
    let relay = relay(&config, Arc::clone(&keyring), &store, &lifecycle)?;
    let confiner = Confiner::new(&resources, &lifecycle);
    let spawner = Spawner::new(&lifecycle, UntaggedChildren::End, confiner, metrics.processes.clone())?;
    let containers = Containers::new(&config, &spawner, &lifecycle);
    promise(&config, &resources)?;
    let starter = Starter { spawner: spawner.clone(), containers: Arc::clone(&containers) };
    let limits = limits(&config, &metrics, &lifecycle);
    let http = http_client::build().map_err(StartError::HttpClient)?;
    let services = Services::of(&config, &store, &http, Clock::System).map_err(StartError::HttpClient)?;
    let bridge = Arc::new(Bridge {
        authenticator: Arc::new(Authenticator::new(&config)),
        spares: Spares::new(&config, &starter, &metrics.spares, &lifecycle, limits.crowding()),
        starter,
        limits,
        memory: Memory::new(config.limits.memory, longest_message(config.longest()), metrics.memory.clone()),
        tokens: tokens(Arc::clone(&store), &audit, (&relay, &lifecycle), (&services, &metrics)),
        store: Arc::clone(&store),
        store_failure_log: LogThrottle::default(),
        relay,
        keyring,
        server_facts: ServerFacts::nothing(),
        probes: Probes::default(),
        http: HttpServers::new(http),
        audit: audit.clone(),
        metrics: Arc::clone(&metrics),
        refusals: LogRateLimit::default(),
        lifecycle: lifecycle.clone(),
        clock: Clock::System,
        config: Arc::clone(&config),
    });
    let account = Arc::new(account(&bridge, services));
    let server = server(bridge, Arc::clone(&account))?;
    let listener = listen(&config).await?;
    let admin = AdminListener::bind(config.admin.as_ref(), account).await?;
    announce(&config, &listener)?;
    lifecycle.spawn(server.run(listener));
    tokio::select! {
        () = until_stopped(&lifecycle, signals, config.limits.shutdown_grace, orphaned) => {}
        () = admin.serve((Arc::clone(&store), containers), metrics, &lifecycle) => {}
    }
    if !spawner.kill_everything() {
        tracing::error!("a process could not be ended");
    }
    store.close().await;
    audit.flush().await;
    resources.remove();
    tracing::info!("stopped");
    Ok(())
}

/// What users have saved: written down by `audit` when it changes, told to streams on all nodes, and renewed.
fn tokens(
    store: Arc<TokenStore>,
    audit: &Audit,
    (relay, lifecycle): (&Relay, &Lifecycle),
    (services, metrics): (&Arc<Services>, &Metrics),
) -> TokenSource {
    let changes = ConnectionChanges { relay: relay.clone(), lifecycle: lifecycle.clone() };
    let tokens = TokenSource::new(store, Clock::System, audit.clone()).heard_by(Arc::new(changes));
    tokens.renewed_by(Arc::clone(services), lifecycle.clone(), metrics.oauth_client_refused.clone())
}

/// The way to the other nodes, and from commands beside them.
fn relay(
    config: &Config,
    keyring: Arc<Keyring>,
    store: &Arc<TokenStore>,
    lifecycle: &Lifecycle,
) -> Result<Relay, SetupError> {
    let shared = config.token_store.as_ref().map(|store| &store.kind);
    let relay = Relay::start(shared, keyring, lifecycle, longest_message(config.longest()))?;
    if let Some(TokenStoreKind::Embedded { .. }) = shared {
        lifecycle.accompany(relay.clone().hear_commands(Arc::clone(store)));
    }
    Ok(relay)
}

/// Lets requests in, with what looks after the memory that they take.
fn limits(config: &Config, metrics: &Metrics, lifecycle: &Lifecycle) -> Limits {
    let limits = Limits::new(&config.limits, metrics);
    lifecycle.accompany(limits.pressure().watch());
    lifecycle.accompany(heap::give_back());
    limits
}

/// What happens is written down from now on; upon each SIGHUP the file is opened anew.
fn open_audit(config: &Config, metrics: &Metrics, hangup: Signal, lifecycle: &Lifecycle) -> Result<Audit, AuditError> {
    let shared = config.token_store.as_ref().map(|store| &store.kind);
    let audit = Audit::open(config.audit.as_ref(), shared, metrics.audit.clone(), Clock::System)?;
    lifecycle.accompany(reopen_on(hangup, audit.clone()));
    Ok(audit)
}

/// Opens the file of the audit anew upon each SIGHUP.
async fn reopen_on(mut hangup: Signal, audit: Audit) {
    while hangup.recv().await.is_some() {
        audit.reopen();
        tracing::info!(
            "SIGHUP: `audit.file` is opened anew; the configuration is read at the start, so restart to change it"
        );
    }
}

/// The connections to a bridge, of which there are none yet.
fn server(bridge: Arc<Bridge>, account: Arc<Account>) -> io::Result<Arc<Server>> {
    let (config, metrics) = (Arc::clone(&bridge.config), Arc::clone(&bridge.metrics));
    Ok(Arc::new(Server {
        connections: Arc::new(ConnectionLimits::new(&config, &metrics)),
        disconnects: Arc::new(DisconnectWatcher::new()?),
        refusals: LogRateLimit::default(),
        times: Times::from(&config.limits),
        lifecycle: bridge.lifecycle.clone(),
        routes: Arc::new(Routes::new(bridge, account)),
        metrics,
    }))
}

/// The pages of a bridge, which share with it whom it knows and what is saved. It tries what is entered on them.
fn account(bridge: &Arc<Bridge>, services: Arc<Services>) -> Account {
    Account {
        config: Arc::clone(&bridge.config),
        authenticator: Arc::clone(&bridge.authenticator),
        tokens: bridge.tokens.clone(),
        prober: Arc::clone(bridge) as Arc<dyn Prober>,
        services,
        audit: bridge.audit.clone(),
        store: Arc::clone(&bridge.store),
        store_failure_log: LogThrottle::default(),
        keyring: Arc::clone(&bridge.keyring),
        memory: bridge.memory.clone(),
        metrics: Arc::clone(&bridge.metrics),
        refusals: LogRateLimit::default(),
        clock: bridge.clock.clone(),
    }
}

/// The token store and the keys that seal; where none is configured the keys are made up, and sessions and what is kept
/// of them end with the process.
async fn store(config: &Config, metrics: &Metrics) -> Result<(Arc<TokenStore>, Arc<Keyring>), StartError> {
    let Some(settings) = &config.token_store else {
        let keyring = Arc::new(Keyring::ephemeral());
        let store = TokenStore::in_memory(Arc::clone(&keyring), Clock::System)?;
        return Ok((Arc::new(store.counted(metrics)), keyring));
    };
    let keyring = Arc::new(Keyring::load(&settings.keys).map_err(SetupError::from)?);
    let store = TokenStore::open(&settings.kind, Arc::clone(&keyring), Clock::System)?.counted(metrics);
    match store.check_policy().await {
        Ok(notices) => notices.iter().for_each(|notice| tracing::warn!(%notice, "token store")),
        // A failover may still make a master of it.
        Err(error @ StoreError::Replica) => tracing::warn!(%error, "the token store cannot be used yet"),
        Err(error) => return Err(StartError::Policy(error)),
    }
    Ok((Arc::new(store), keyring))
}

/// Where clients are served.
async fn listen(config: &Config) -> Result<Listener, StartError> {
    let bound = Listener::bind(&config.listen, config.limits.write_stall).await;
    bound.map_err(|error| {
        let address = match &config.listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => path.display().to_string(),
        };
        StartError::Listen { address, error }
    })
}

/// Says what holds for the servers' processes on this host, and refuses to start without what must.
fn promise(config: &Config, resources: &InstanceResources) -> Result<(), StartError> {
    for finding in host_checks::findings(config, resources) {
        match finding.verdict {
            Verdict::Holds => tracing::info!("{}", finding.text),
            Verdict::Weak | Verdict::Missing => tracing::warn!("{}", finding.text),
            Verdict::Impossible => return Err(StartError::Confinement(finding.text)),
        }
    }
    Ok(())
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
    grace: Duration,
    orphaned: impl Future<Output = ()>,
) {
    let mut orphaned = std::pin::pin!(orphaned);
    let supervised = tokio::select! {
        () = signals.next() => true,
        () = &mut orphaned => false,
    };
    lifecycle.drain.cancel();
    lifecycle.tasks.close();
    if supervised {
        tracing::info!("stopping: running requests may finish");
        tokio::select! {
            () = lifecycle.tasks.wait() => {}
            () = tokio::time::sleep(grace) => tracing::warn!("`shutdownGrace` is over: ending requests that still run"),
            () = signals.next() => {}
            () = orphaned => {}
        }
    } else {
        tracing::error!("the supervisor is gone: stopping at once");
    }
    lifecycle.soft.cancel();
    lifecycle.hard.cancel();
    let _ = timeout(LAST_EFFORT, lifecycle.tasks.wait()).await;
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
