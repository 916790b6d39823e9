//! Every server once, as a request would find it, beside a bridge that may be serving (`tollbridge doctor --servers`).

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::generation::Generation;
use super::node::{self, Node};
use crate::bridge::ServerReport;
use crate::bridge::error::BridgeError;
use crate::config::{Config, ServerName};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Counter, Metrics};
use crate::upstream::process::instance::resources::InstanceResources;
use crate::user::{Caller, UserId};

/// Starts each server of `config` once, one after the other, for a user who has saved nothing, and says what it is. Nothing that
/// others use is touched: no token store, nothing that is written down, no spares. Clearing up may take so long as `cleared`.
///
/// # Errors
/// If nothing can be started here.
///
/// # Panics
/// Never: the name of the user is plain.
pub async fn server_reports(
    mut config: Config,
    resources: InstanceResources,
    cleared: Duration,
) -> Result<Vec<(ServerName, Result<ServerReport, BridgeError>)>, StartError> {
    (config.token_store, config.audit, config.limits.spares) = (None, None, 0);
    let config = Arc::new(config);
    let lifecycle = Lifecycle::default();
    let metrics = Arc::new(Metrics::new(lifecycle.tasks.clone(), Counter::default()));
    let store = node::store(&config, &metrics).await?;
    let node = Node::start(&config, store, (&metrics, &lifecycle), resources)?;
    let generation = Generation::of(&node, Arc::clone(&config), node.services(&config)?);
    let user = UserId::local("doctor").expect("it is plain");
    let caller = Caller { email: Some("doctor@example.invalid".into()), ..user.into() };
    let mut reports = Vec::new();
    for (name, server) in &config.servers {
        reports.push((name.clone(), generation.report(&caller, server).await));
    }
    lifecycle.end_within(cleared).await;
    node.end().await;
    Ok(reports)
}
