//! What it takes to begin and end connections from the command line, beside a running bridge or without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Stop;
use super::token_store::{audit, load, nobody, open, tell_bridges, unknown, user};
use crate::audit::{Audit, Event, EventKind, Outcome};
use crate::clock::Clock;
use crate::config::{self, Config, LoadOptions, Server, ServerName, TokenAdmin};
use crate::http_client;
use crate::lifecycle::Lifecycle;
use crate::metrics::Counter;
use crate::oauth::{CallLimits, Services};
use crate::store::{Over, SavedBy, StoreError, Stored, TokenStore};
use crate::tokens::{By, ChangeError, Disconnected, TokenSource};
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
        Self::of((admin, config), user, server).await
    }

    /// The one of `user` to this server, if its users sign in at a service as far as `file` says.
    pub(super) async fn to(file: &Path, user: UserId, server: &ServerName) -> Result<Option<Self>, Stop> {
        let Ok(config) = load_what_is_set(file) else { return Ok(None) };
        let server = config.servers.get(server).filter(|server| server.oauth.is_some()).map(Arc::clone);
        let Some(server) = server else { return Ok(None) };
        Self::of((load(file)?, Arc::new(config)), user, server).await.map(Some)
    }

    async fn of((admin, config): (TokenAdmin, Arc<Config>), user: UserId, server: Arc<Server>) -> Result<Self, Stop> {
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

    /// Ends it, and has the service take back what it gave.
    pub(super) async fn end(self) -> Result<Disconnected, ChangeError> {
        let by = By { caller: None, how: SavedBy::Cli };
        let ended = self.tokens.disconnect(by, (&self.user, &self.server), Over::Anything).await;
        if ended.as_ref().is_ok_and(|ended| *ended != Disconnected::Absent) {
            self.tell_bridges().await;
        }
        self.close().await;
        ended
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

/// What became of what a service gave, as the end of a sentence.
pub(super) fn given_back(ended: Disconnected) -> &'static str {
    match ended {
        Disconnected::Absent | Disconnected::Removed => "",
        Disconnected::GivenBack(true) => "; the service has confirmed that it took it back",
        Disconnected::GivenBack(false) => "; the service has not confirmed that it took it back: withdraw it there",
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
