//! What lives as long as the process, whatever the configuration becomes meanwhile.

use std::sync::Arc;

use reqwest::Client;
use tokio::time::sleep;

use super::StartError;
use crate::audit::Audit;
use crate::auth::BadCredentials;
use crate::bridge::{ConnectionChanges, Probes};
use crate::clock::Clock;
use crate::config::{Config, TokenStoreKind};
use crate::heap;
use crate::http_client;
use crate::keyring::{Keyring, random_name};
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::oauth::{CallLimits, Services};
use crate::relay::{Relay, longest_message};
use crate::store::{PRESENT, SetupError, StoreError, TokenStore};
use crate::tokens::TokenSource;
use crate::upstream::container::Containers;
use crate::upstream::process::confinement::Confiner;
use crate::upstream::process::group::Spawner;
use crate::upstream::process::host_checks::{self, Verdict};
use crate::upstream::process::instance::resources::InstanceResources;
use crate::upstream::process::orphans::UntaggedChildren;
use crate::upstream::spares::{SpareStarts, Starter};

/// What every configuration of this process shares.
pub(super) struct Node {
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Arc<TokenStore>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) audit: Audit,
    pub(super) relay: Relay,
    pub(super) starter: Starter,
    pub(super) spare_starts: SpareStarts,
    pub(super) limits: Limits,
    pub(super) memory: Memory,
    pub(super) http: Client,
    pub(super) probes: Probes,
    pub(super) bad_credentials: BadCredentials,
    call_limits: CallLimits,
    resources: InstanceResources,
}

impl Node {
    /// Starts what lives as long as the process, as its first configuration says.
    pub(super) fn start(
        config: &Config,
        (store, keyring): (Arc<TokenStore>, Arc<Keyring>),
        (metrics, lifecycle): (&Arc<Metrics>, &Lifecycle),
        resources: InstanceResources,
    ) -> Result<Self, StartError> {
        let place = config.token_store.as_ref().map(|store| &store.kind);
        let audit = Audit::open(config.audit.as_ref(), place, metrics.audit.clone(), Clock::System)?;
        let relay = relay(config, &keyring, &store, lifecycle)?;
        let confiner = Confiner::new(&resources, lifecycle);
        let spawner = Spawner::new(lifecycle, UntaggedChildren::End, confiner, metrics.processes.clone())?;
        let containers = Containers::new(config, &spawner, lifecycle);
        promise(config, &resources)?;
        let starter = Starter { spawner, containers };
        Ok(Self {
            lifecycle: lifecycle.clone(),
            metrics: Arc::clone(metrics),
            store,
            keyring,
            audit,
            relay,
            spare_starts: SpareStarts::new(&starter),
            starter,
            limits: limits(config, metrics, lifecycle),
            memory: Memory::new(config.limits.memory, longest_message(config.longest()), metrics.memory.clone()),
            http: http_client::build().map_err(StartError::HttpClient)?,
            probes: Probes::default(),
            bad_credentials: BadCredentials::default(),
            call_limits: CallLimits::default(),
            resources,
        })
    }

    /// Takes over what another configuration says of all this. Nothing that runs is ended by it.
    pub(super) fn change_to(&self, config: &Config) -> Limits {
        self.starter.containers.add(config);
        let longest = longest_message(config.longest());
        self.relay.raise_longest(longest);
        self.memory.change_to(config.limits.memory, longest);
        self.limits.changed_to(&config.limits)
    }

    /// The services at which users sign in.
    pub(super) fn services(&self, config: &Arc<Config>) -> Result<Arc<Services>, StartError> {
        Services::of(config, &self.store, &self.http, &self.call_limits, Clock::System).map_err(StartError::HttpClient)
    }

    /// What users have saved: written down when it changes, told to streams on all nodes, and renewed by `services`.
    pub(super) fn tokens(&self, services: &Arc<Services>) -> TokenSource {
        let changes = ConnectionChanges { relay: self.relay.clone(), lifecycle: self.lifecycle.clone() };
        let tokens = TokenSource::new(Arc::clone(&self.store), Clock::System, self.audit.clone());
        let refused = self.metrics.oauth_client_refused.clone();
        tokens.heard_by(Arc::new(changes)).renewed_by(Arc::clone(services), self.lifecycle.clone(), refused)
    }

    /// What must hold for the servers of `config` on this host and does not.
    pub(super) fn impossible(&self, config: &Config) -> Option<String> {
        let findings = host_checks::findings(config, &self.resources);
        findings.into_iter().find(|finding| finding.verdict == Verdict::Impossible).map(|finding| finding.text)
    }

    /// Ends what is left.
    pub(super) async fn end(&self) {
        if !self.starter.spawner.kill_everything() {
            tracing::error!("a process could not be ended");
        }
        self.store.close().await;
        self.audit.flush().await;
        self.resources.remove();
    }
}

/// The token store and the keys that seal; where none is configured the keys are made up, and sessions and what is kept
/// of them end with the process.
pub(super) async fn store(config: &Config, metrics: &Metrics) -> Result<(Arc<TokenStore>, Arc<Keyring>), StartError> {
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

/// The way to the other nodes, and from commands beside them.
fn relay(
    config: &Config,
    keyring: &Arc<Keyring>,
    store: &Arc<TokenStore>,
    lifecycle: &Lifecycle,
) -> Result<Relay, SetupError> {
    let shared = config.token_store.as_ref().map(|store| &store.kind);
    if let Some(TokenStoreKind::Redis { .. }) = shared {
        lifecycle.accompany(present(Arc::clone(store)));
    }
    let relay = Relay::start(shared, Arc::clone(keyring), lifecycle, longest_message(config.longest()))?;
    if let Some(TokenStoreKind::Embedded { .. }) = shared {
        lifecycle.accompany(relay.clone().hear_commands(Arc::clone(store)));
    }
    Ok(relay)
}

/// Lets the other nodes know that this one is there.
async fn present(store: Arc<TokenStore>) {
    let node = random_name();
    loop {
        // One that cannot be asked now is asked later.
        let _noted = store.note_node(&node).await;
        sleep(PRESENT).await;
    }
}

/// Lets requests in, with what looks after the memory that they take.
fn limits(config: &Config, metrics: &Metrics, lifecycle: &Lifecycle) -> Limits {
    let limits = Limits::new(&config.limits, metrics);
    lifecycle.accompany(limits.pressure().watch());
    lifecycle.accompany(heap::give_back());
    limits
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
