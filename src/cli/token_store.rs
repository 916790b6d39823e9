//! The token store as commands reach it, and what is written down of what they do.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Stop;
use crate::audit::Audit;
use crate::bridge::tell_of_change;
use crate::clock::Clock;
use crate::config::{self, KeySource, LoadOptions, ServerName, TokenAdmin, TokenStoreConfig, TokenStoreKind};
use crate::metrics::AuditCounts;
use crate::relay::Nodes;
use crate::store::{Look, Notice, SetupError, StoreError, TokenStore, Unusable};
use crate::sys;
use crate::user::{LOCAL_ISSUER, UserId};

/// How long a store may take to be looked at.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs what asks the store. One thread is enough: a command asks for one thing after the other.
pub(super) fn run<T>(command: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Stop::failed)?.block_on(command)
}

/// What the configuration says of tokens.
pub(super) fn load(file: &Path) -> Result<TokenAdmin, Stop> {
    config::load_token_admin(file, &LoadOptions::default()).map_err(Stop::usage)
}

/// Opens the store, within a Tokio runtime.
pub(super) fn open(config: &TokenAdmin) -> Result<TokenStore, Stop> {
    let Some(settings) = &config.token_store else {
        return Err(Stop::usage("the configuration has no tokenStore"));
    };
    act_as_owner(settings)?;
    TokenStore::from_config(settings).map_err(Stop::from)
}

/// What writes down who changes tokens, within a Tokio runtime and once the store has been opened.
pub(super) fn audit(config: &TokenAdmin) -> Result<Audit, Stop> {
    let store = config.token_store.as_ref().map(|store| &store.kind);
    Audit::open(config.audit.as_ref(), store, AuditCounts::default(), Clock::System).map_err(Stop::failed)
}

/// The same where the store is not opened.
pub(super) fn audit_alone(config: &TokenAdmin) -> Result<Audit, Stop> {
    if let Some(settings) = &config.token_store {
        act_as_owner(settings)?;
    }
    audit(config)
}

/// Tells the running bridges that what `user` has saved for `server` has changed; says so if that could not be done.
pub(super) async fn tell_bridges(config: &TokenAdmin, store: &Arc<TokenStore>, of: (&UserId, &ServerName)) {
    let Some(settings) = &config.token_store else { return };
    let told = match Nodes::of(&settings.kind, store) {
        Ok(nodes) => tell_of_change(&nodes, of).await.is_ok(),
        Err(_) => false,
    };
    if !told {
        let warning = "the running bridges could not be told: streams that are open go on with what was saved before; \
                       every new request sees the change";
        // Whoever closed stderr does not want to know.
        let _closed = writeln!(io::stderr(), "{warning}");
    }
}

/// A user as the arguments name them.
pub(super) fn named(user: &UserId) -> String {
    match user.issuer() {
        LOCAL_ISSUER => user.subject().to_owned(),
        issuer => format!("{} (of {issuer})", user.subject()),
    }
}

/// The user whom the arguments name.
pub(super) fn user(issuer: &str, subject: &str) -> Result<UserId, Stop> {
    UserId::new(issuer, subject).map_err(Stop::usage)
}

/// That no server has this name, and which there are.
pub(super) fn unknown(config: &TokenAdmin, name: &str) -> Stop {
    let known: Vec<_> = config.servers.keys().map(ServerName::as_str).collect();
    Stop::usage(format!("no server is named {name:?}; the configuration has {}", known.join(", ")))
}

/// That nobody is recognised as `user`, and who may be.
pub(super) fn nobody(config: &TokenAdmin, user: &UserId) -> String {
    let known: Vec<String> = config.users.iter().map(named).collect();
    let others = config.issuers.iter().map(|issuer| format!("whomever the proxy names (--issuer {issuer})"));
    let known: Vec<String> = known.into_iter().chain(others).collect();
    format!("nobody is recognised as {}; the configuration knows {}", named(user), known.join(", "))
}

/// How well a bridge could use the store now, and what its operator should know. Nothing is made or changed.
pub(super) fn look(settings: &TokenStoreConfig) -> Result<(&'static str, Vec<Notice>), Stop> {
    act_as_owner(settings)?;
    run(async {
        match TokenStore::look(settings, PATIENCE).await {
            Ok(Look { is_made: true, notices }) => Ok(("it answers, and takes the sealing keys", notices)),
            Ok(Look { is_made: false, notices }) => Ok(("it is not there yet, and can be made", notices)),
            Err(Unusable::Setup(error)) => Err(error.into()),
            Err(Unusable::Store(error)) => Err(error.into()),
        }
    })
}

/// What belongs to whoever owns the store, if there is anything: its directory, or of a Redis the first key file.
pub(super) fn owned(settings: &TokenStoreConfig) -> Option<fs::Metadata> {
    match &settings.kind {
        // The links above it are the operator's, but nobody may point from it to somebody else's.
        TokenStoreKind::Embedded { path, .. } => path.ancestors().find_map(|path| fs::symlink_metadata(path).ok()),
        TokenStoreKind::Redis { .. } => settings.keys.iter().find_map(|key| match &key.source {
            KeySource::File(path) => fs::symlink_metadata(path).ok(),
            KeySource::Value(_) => None,
        }),
    }
}

/// Root becomes whoever owns the store, for good: what a service keeps private is its user's, who must be able to use
/// whatever is made there, and as root nothing of it is trusted.
fn act_as_owner(settings: &TokenStoreConfig) -> Result<(), Stop> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(owned) = owned(settings).filter(|owned| owned.uid() != 0) else { return Ok(()) };
    sys::become_user(owned.uid(), owned.gid()).map_err(|error| {
        Stop::failed(format!("root cannot act as user {}, who owns the token store: {error}", owned.uid()))
    })
}

impl From<SetupError> for Stop {
    fn from(error: SetupError) -> Self {
        if error.is_configuration() { Self::usage(error) } else { Self::failed(error) }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::failed(error)
    }
}
