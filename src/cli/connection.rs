//! What it takes to begin and end connections from the command line, beside a running bridge or without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Stop;
use super::token::{nobody, unknown, user};
use super::token_store::{audit, load, open, tell_bridges};
use crate::audit::{Audit, Event, EventKind, Outcome};
use crate::clock::Clock;
use crate::config::{self, Config, LoadOptions, Server, TokenAdmin};
use crate::http_client;
use crate::lifecycle::Lifecycle;
use crate::metrics::Counter;
use crate::oauth::{CallLimits, Services};
use crate::store::{StoreError, Stored, TokenStore};
use crate::tokens::TokenSource;
use crate::user::{LOCAL_ISSUER, UserId};

/// What lines of the audit call these commands.
const CLIENT: &str = "tollbridge login";

/// How long what goes on in the background may take to end.
const ENDED: Duration = Duration::from_secs(15);

/// Whose connection, to which server.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// The server, a key of `mcpServers`.
    server: String,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The user, as the configured identity method names them.
    #[arg(long)]
    user: String,
    /// Who names the user: `local` for those whom the configuration names, else the identity provider's issuer.
    #[arg(long, default_value = LOCAL_ISSUER)]
    issuer: String,
}

/// A user's connection to a server.
pub(super) struct Connection {
    pub(super) user: UserId,
    pub(super) server: Arc<Server>,
    pub(super) config: Arc<Config>,
    pub(super) services: Arc<Services>,
    pub(super) tokens: TokenSource,
    admin: TokenAdmin,
    store: Arc<TokenStore>,
    audit: Audit,
    lifecycle: Lifecycle,
}

impl Connection {
    /// The one that the arguments name, of a server whose users sign in at a service.
    pub(super) async fn open(whose: &Whose) -> Result<Self, Stop> {
        let admin = load(&whose.config)?;
        let user = user(&whose.issuer, &whose.user)?;
        let config = Arc::new(load_what_is_set(&whose.config)?);
        let Some(server) = config.servers.get(whose.server.as_str()).map(Arc::clone) else {
            return Err(not_there(&admin, &config, &whose.server));
        };
        if server.oauth.is_none() {
            return Err(Stop::failed(format!("the users of {} do not sign in at a service", server.name)));
        }
        let store = Arc::new(open(&admin)?);
        store.check().await?;
        let http = http_client::build().map_err(Stop::failed)?;
        let services =
            Services::of(&config, &store, &http, &CallLimits::default(), Clock::System).map_err(Stop::failed)?;
        let (audit, lifecycle) = (audit(&admin)?, Lifecycle::default());
        let tokens = TokenSource::new(Arc::clone(&store), Clock::System, audit.clone());
        let tokens = tokens.renewed_by(Arc::clone(&services), lifecycle.clone(), Counter::default());
        Ok(Self { user, server, config, services, tokens, admin, store, audit, lifecycle })
    }

    /// Refuses a user whom nobody recognises.
    pub(super) fn check_user(&self) -> Result<(), Stop> {
        if self.admin.may_call(&self.user) {
            return Ok(());
        }
        Err(Stop::failed(format!("{}: nothing is saved", nobody(&self.admin, &self.user))))
    }

    /// What is saved now.
    pub(super) async fn saved(&self) -> Result<Option<Stored>, StoreError> {
        self.store.read(&self.user, &self.server.name).await
    }

    /// Writes down what came of a sign-in, or that it has begun.
    pub(super) fn note(&self, kind: EventKind, outcome: Outcome) {
        let (user, server) = (Some(&self.user), Some(&self.server.name));
        self.audit.note(&Event { user, server, client: Some(CLIENT), outcome, ..Event::of(kind) });
    }

    /// Tells running bridges that what is saved has changed.
    pub(super) async fn tell_bridges(&self) {
        tell_bridges(&self.admin, &self.store, (&self.user, &self.server.name)).await;
    }

    /// Waits until nothing goes on in the background.
    pub(super) async fn close(self) {
        self.lifecycle.tasks.close();
        // What is not done by then is ended without another word.
        let _ = timeout(ENDED, self.lifecycle.tasks.wait()).await;
        self.store.close().await;
        self.audit.flush().await;
    }
}

/// The configuration as far as its variables are set: an operator's shell has not the environment of the service.
pub(super) fn load_what_is_set(file: &Path) -> Result<Config, Stop> {
    let options = LoadOptions { allow_missing_env: true, ..LoadOptions::default() };
    config::load(file, &options).map_err(Stop::usage)
}

fn not_there(admin: &TokenAdmin, config: &Config, name: &str) -> Stop {
    if config.incomplete.iter().any(|server| server.as_str() == name) {
        return Stop::usage(format!("a variable that {name} needs is not set here"));
    }
    if config.disabled.iter().any(|server| server.as_str() == name) {
        return Stop::usage(format!("{name} is disabled"));
    }
    unknown(admin, name)
}
