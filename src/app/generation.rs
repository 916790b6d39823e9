//! What follows from one configuration. Requests keep the one that they began with, so several may live at a time.

use std::sync::Arc;

use super::node::Node;
use crate::account::{Account, Operators};
use crate::auth::Authenticator;
use crate::bridge::error::BridgeError;
use crate::bridge::{Bridge, ServerFacts, ServerReport};
use crate::clock::Clock;
use crate::config::{Config, Server, ServerName};
use crate::oauth::Services;
use crate::rate_limit::LogRateLimit;
use crate::routes::Routes;
use crate::telemetry::LogThrottle;
use crate::tokens::Prober;
use crate::upstream::http::HttpServers;
use crate::upstream::spares::Spares;
use crate::user::Caller;

/// What follows from one configuration.
pub(super) struct Generation {
    pub(super) config: Arc<Config>,
    bridge: Arc<Bridge>,
    account: Arc<Account>,
}

impl Generation {
    /// Takes over what `config` says of the node, and starts the spares of its servers.
    pub(super) fn of(node: &Node, config: Arc<Config>, services: Arc<Services>) -> Self {
        let limits = node.change_to(&config);
        node.metrics.servers.serve(config.servers.keys().map(ServerName::as_str));
        let spares = Spares::new(&config, &node.spare_starts, &node.metrics.spares, &node.lifecycle, limits.crowding());
        let bridge = Arc::new(Bridge {
            authenticator: Arc::new(Authenticator::new(&config, node.bad_credentials.clone())),
            spares,
            starter: node.starter.clone(),
            limits,
            memory: node.memory.clone(),
            tokens: node.tokens(&services),
            store: Arc::clone(&node.store),
            store_failure_log: LogThrottle::default(),
            relay: node.relay.clone(),
            keyring: Arc::clone(&node.keyring),
            // What was learned of a server may not be true of another under its name.
            server_facts: ServerFacts::nothing(),
            probes: node.probes.clone(),
            http: HttpServers::new(node.http.clone()),
            audit: node.audit.clone(),
            metrics: Arc::clone(&node.metrics),
            refusals: LogRateLimit::default(),
            lifecycle: node.lifecycle.clone(),
            clock: Clock::System,
            config: Arc::clone(&config),
        });
        let account = Arc::new(account(&bridge, services));
        Self { config, bridge, account }
    }

    /// Its paths.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::new(Routes::new(Arc::clone(&self.bridge), Arc::clone(&self.account)))
    }

    /// The API of operators, if there is one.
    pub(super) fn operators(&self) -> Option<Operators> {
        let token = self.config.admin.as_ref()?.token.as_ref()?;
        Some(Operators::new(Arc::clone(&self.account), token))
    }

    /// What `server` turns out to be.
    pub(super) async fn report(&self, caller: &Caller, server: &Arc<Server>) -> Result<ServerReport, BridgeError> {
        self.bridge.report(caller, server).await
    }

    /// Ends what it keeps for requests, of which no more come.
    pub(super) fn retire(&self) {
        self.bridge.spares.retire();
    }
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
