//! Reads the configuration anew while it is served: all of it is checked, then it is swapped. A file that is bad changes
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::Mutex;

use super::generation::Generation;
use super::node::Node;
use crate::account::Operators;
use crate::clock::{Clock, UnixTime};
use crate::config::{self, Change, Config, LoadOptions};
use crate::control::Answer;
use crate::keyring::Keyring;
use crate::oauth::Services;
use crate::server::{Server, Times};
use crate::store::StoreError;
use crate::swap::Swap;
use crate::telemetry::LogFilter;

/// What only a restart changes: the sockets, the place of the tokens, and where it is written down what becomes of them.
const FIXED: [&str; 4] = ["listen", "admin.listen", "tokenStore", "audit"];

/// What of that can be changed all the same.
const NOT_FIXED: &str = "tokenStore.keys";

/// Serves one configuration after the other.
pub(super) struct Reloader {
    pub(super) node: Node,
    server: Arc<Server>,
    served: Mutex<Served>,
    /// How long requests may go on once the bridge is to stop.
    grace: BlockingMutex<Duration>,
    wiring: Wiring,
}

/// What a configuration goes to, besides the node and the server.
pub(super) struct Wiring {
    /// Where it is read from.
    pub(super) file: PathBuf,
    pub(super) log_filter: LogFilter,
    /// Is told of each configuration before it is served.
    pub(super) tell: Box<dyn Fn(&Config) + Send + Sync>,
    pub(super) operators: Arc<Swap<Option<Operators>>>,
}

struct Served {
    generation: Generation,
    /// Since when the file is bad, if it is.
    bad_since: Option<UnixTime>,
}

/// A configuration that may be served.
struct Next {
    config: Arc<Config>,
    services: Arc<Services>,
    /// Other keys, if there are.
    keyring: Option<Keyring>,
}

impl Reloader {
    pub(super) fn new(node: Node, server: Arc<Server>, generation: Generation, wiring: Wiring) -> Self {
        let grace = BlockingMutex::new(generation.config.limits.shutdown_grace);
        Self { node, server, served: Mutex::new(Served { generation, bad_since: None }), grace, wiring }
    }

    /// Where the configuration is read from.
    pub(super) fn file(&self) -> &Path {
        &self.wiring.file
    }

    /// How long requests may go on once the bridge is to stop, as the configuration says that is served.
    pub(super) fn shutdown_grace(&self) -> Duration {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Upon each SIGHUP opens the file of the audit anew and reads the configuration anew.
    pub(super) async fn on_signal(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            self.reload().await;
        }
    }

    /// Opens the file of the audit anew, and serves what the file of the configuration says now, if nothing is wrong with
    /// it.
    pub(super) async fn reload(&self) -> Answer {
        self.node.audit.reopen();
        let mut served = self.served.lock().await;
        match self.next(&served.generation.config).await {
            Ok(next) => self.swap(&mut served, next),
            Err(why) => self.refuse(&mut served, &why),
        }
    }

    /// What a reload would do.
    pub(super) async fn compare(&self) -> Answer {
        let served = self.served.lock().await;
        match self.next(&served.generation.config).await {
            Ok(next) => {
                let lines = lines(&served.generation.config, &next);
                let count = count(lines.len());
                Answer {
                    is_good: true,
                    text: [vec![format!("a reload would change {count}")], lines].concat().join("\n"),
                }
            }
            Err(why) => Answer { is_good: false, text: format!("{why}\na reload would change nothing") },
        }
    }

    fn swap(&self, served: &mut Served, next: Next) -> Answer {
        let lines = lines(&served.generation.config, &next);
        let Next { config, services, keyring } = next;
        self.wiring.log_filter.change_to(config.log_filter.as_deref()).expect("it was checked with the configuration");
        (self.wiring.tell)(&config);
        if let Some(keyring) = keyring {
            self.node.keyring.replace_by(&keyring);
        }
        let generation = Generation::of(&self.node, Arc::clone(&config), services);
        self.server.connections.change_to(&config);
        self.server.times.store(Arc::new(Times::from(&config.limits)));
        self.server.routes.store(generation.routes());
        self.wiring.operators.store(Arc::new(generation.operators()));
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = config.limits.shutdown_grace;
        std::mem::replace(&mut served.generation, generation).retire();
        served.bad_since = None;
        let (status, fingerprint) = (&self.node.metrics.config, config.outline.fingerprint());
        status.bad_since.set(0);
        status.reloaded.inc();
        tracing::info!(config = fingerprint, changes = lines.len(), "reloaded");
        for line in &lines {
            tracing::info!("reloaded: {}", line.trim_start());
        }
        status.serve(fingerprint);
        let first = format!("reloaded: {} changed", count(lines.len()));
        Answer { is_good: true, text: [vec![first], lines].concat().join("\n") }
    }

    fn refuse(&self, served: &mut Served, why: &str) -> Answer {
        let since = *served.bad_since.get_or_insert_with(|| Clock::System.now());
        let status = &self.node.metrics.config;
        status.bad_since.set(i64::try_from(since.0).unwrap_or(i64::MAX));
        status.refused.inc();
        tracing::error!(%since, "not reloaded, the file is bad and nothing is changed: {why}");
        let text = format!("{why}\nnothing was changed; the configuration file is bad since {since}");
        Answer { is_good: false, text }
    }

    /// What the file says now, or why that cannot be served.
    async fn next(&self, old: &Config) -> Result<Next, String> {
        let file = self.wiring.file.clone();
        let read = move || {
            let config = config::load(&file, &LoadOptions::default()).map_err(|problems| problems.to_string())?;
            let store = config.token_store.as_ref();
            let keyring =
                store.map(|store| Keyring::load(&store.keys)).transpose().map_err(|error| error.to_string())?;
            Ok::<_, String>((Arc::new(config), keyring))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (config, keyring) = read.map_err(|error| error.to_string())??;
        if old.token_store.is_none() && keyring.is_some() {
            return Err("`tokenStore`: there was none at the start; restart to use it".to_owned());
        }
        let keyring = keyring.filter(|keyring| !keyring.is_same(&self.node.keyring));
        if let Some(keyring) = &keyring {
            self.check_keys(keyring).await?;
        }
        if let Some(impossible) = self.node.impossible(&config) {
            return Err(impossible);
        }
        let services = self.node.services(&config).map_err(|error| error.to_string())?;
        Ok(Next { config, services, keyring })
    }

    /// Whether these keys open what the store holds. A store that is down holds up nothing: it did not at the start.
    async fn check_keys(&self, keyring: &Keyring) -> Result<(), String> {
        match self.node.store.may_have(keyring).await {
            Err(error @ StoreError::Sealed(_)) => Err(format!("`tokenStore.keys`: {error}")),
            Err(error) => {
                tracing::warn!(%error, "whether the sealing keys are those of the token store is not known");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// What differs between two configurations, a line each.
fn lines(old: &Config, next: &Next) -> Vec<String> {
    let changes = old.outline.changes(&next.config.outline);
    let keys = changes.iter().all(|change| !change.path.starts_with(NOT_FIXED)) && next.keyring.is_some();
    let of_files = keys.then(|| format!("  {NOT_FIXED}: other keys, read from the same places"));
    changes.iter().map(line).chain(of_files).collect()
}

fn line(change: &Change) -> String {
    let is_at = |place: &str| {
        change.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let is_fixed = FIXED.into_iter().any(is_at) && !is_at(NOT_FIXED);
    format!("  {change}{}", if is_fixed { "; only a restart changes it" } else { "" })
}

fn count(changes: usize) -> String {
    match changes {
        0 => "nothing".to_owned(),
        1 => "1 thing".to_owned(),
        more => format!("{more} things"),
    }
}
