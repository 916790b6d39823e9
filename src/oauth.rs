//! The bridge as a client of services: where their users sign in, who the bridge is there, and what they give.
//!
//! Invariants: nothing is kept on a node between two steps; no address that a service names is called before it is
//! judged; no redirect is followed; a token goes to nobody but the service and the server that it was made for; nothing that a
//! service says stands in a page, an error or the log, but hosts and codes of the standard's.

// where, and who
mod client;
mod discovery;
mod inspection;
mod service;

// one sign-in
mod callback;
mod device;
mod flow;

// tokens
mod breaker;
mod form_post;
mod refresh;
mod token_response;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

use crate::clock::{Clock, UnixTime};
use crate::config::{Config, OAuth, Plan, Server, ServerName};
use crate::http_client::guard::{CALL, GuardedClient};
use crate::rate_limit::RateLimit;
use crate::secret::{Credential, Secret};
use crate::store::{
    Cell, ClientKind, ClientOf, Grant, GrantState, Record, RecordKind, SavedBy, StoreError, TokenStore,
};
use crate::user::UserId;

use breaker::Breakers;
pub use breaker::{Pass, Rest};
pub use callback::{Callback, CallbackAnswer};
use client::{Who, who};
pub use device::{Device, DeviceAnswer, DeviceCode, DeviceEnd};
pub use discovery::demanded_scopes;
use flow::Kept;
pub use flow::{Flow, NotTaken};
use form_post::{Caller, Posted, form_post};
pub use inspection::{Inspection, inspect};
pub(crate) use refresh::host_of as renewal_host;
pub use refresh::{NotRenewed, RENEWAL};
pub use service::{Fault, NO_HTTPS, NO_S256, OTHER_ISSUER, UNREADABLE};
use service::{Service, host_of};
use token_response::AnswerFault;
pub use token_response::TokenAnswer;

/// The most scopes that are asked for.
const MAX_SCOPES: usize = 256;

/// How long looking where a sign-in would lead may take.
const LOOK: Duration = Duration::from_secs(5);

/// How often a user may look in a row, and after which pause once more.
const LOOKS: u32 = 20;
const LOOKS_PAUSE: Duration = Duration::from_secs(6);

/// What keeps calls of services within bounds, whatever the configuration becomes. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct CallLimits {
    /// Which token endpoints are left alone for a while.
    breakers: Breakers,
    /// How often whoever looks at a page has it looked where they would be led.
    looks: Arc<RateLimit>,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { breakers: Breakers::default(), looks: Arc::new(RateLimit::new(LOOKS, LOOKS_PAUSE)) }
    }
}

/// What it takes to be a client of services; shared by all requests, and immutable.
pub struct Services {
    config: Arc<Config>,
    store: Arc<TokenStore>,
    clock: Clock,
    /// Calls servers, which an operator has named.
    servers: Client,
    /// Calls what services name, for a server each; they differ where an operator lets hosts through.
    guarded: BTreeMap<ServerName, GuardedClient>,
    limits: CallLimits,
}

/// What was asked for, where and as whom.
#[derive(Clone, Copy)]
struct AskedFor<'a> {
    service: &'a Service,
    client: &'a ClientOf,
    resource: Option<&'a str>,
    scopes: &'a [String],
}

/// Where a person would be led.
#[derive(Debug)]
pub struct Destination {
    /// The host on which they sign in.
    pub host: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Whether the bridge registers itself there.
    pub registers: bool,
    /// Whether they may sign in by a code, too.
    pub has_codes: bool,
}

impl Services {
    /// The services of the configured servers. `servers` is the client that calls servers.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn of(
        config: &Arc<Config>,
        store: &Arc<TokenStore>,
        servers: &Client,
        limits: &CallLimits,
        clock: Clock,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let mut guarded: BTreeMap<ServerName, GuardedClient> = BTreeMap::new();
        let mut strict = None;
        for server in config.servers.values() {
            let Some(oauth) = &server.oauth else { continue };
            let client = match (&strict, oauth.allow_hosts.is_empty()) {
                (Some(strict), true) => GuardedClient::clone(strict),
                (None, true) => strict.insert(GuardedClient::new(&[])?).clone(),
                (_, false) => GuardedClient::new(&oauth.allow_hosts)?,
            };
            guarded.insert(server.name.clone(), client);
        }
        let (config, store) = (Arc::clone(config), Arc::clone(store));
        Ok(Arc::new(Self { config, store, clock, servers: servers.clone(), guarded, limits: limits.clone() }))
    }

    /// Where `user` would be led who connects to `server`; nothing if that cannot be found out now, or they have asked too
    /// often: each time a page is looked at, servers and services are called.
    pub async fn destination(&self, server: &Server, user: &UserId) -> Option<Destination> {
        self.limits.looks.count(user).ok()?;
        timeout(LOOK, self.find_destination(server)).await.ok()?.ok()
    }

    async fn find_destination(&self, server: &Server) -> Result<Destination, Fault> {
        let oauth = oauth(server);
        let found = discovery::find((server, oauth), &self.servers, self.guarded(server)).await?;
        let registers = matches!(who(&self.config, oauth, &found.service), Ok(Who::Registers(_)));
        let has_codes = found.service.device_endpoint.is_some();
        let host = host_of(&found.service.authorization_endpoint);
        Ok(Destination { host, scopes: found.scopes, registers, has_codes })
    }

    /// What `user` has allowed for `server` and what it demands besides, if it does.
    pub async fn demanded(&self, user: &UserId, server: &Server) -> Vec<String> {
        let stored = self.store.read(user, &server.name).await.ok().flatten();
        let grant = stored.and_then(|stored| stored.record.grant).filter(|grant| !grant.demanded.is_empty());
        grant.map(|grant| [grant.scopes, grant.demanded].concat()).unwrap_or_default()
    }

    /// Begins a sign-in of `user`: where to lead them. Its answer is taken from the browser that is known as `browser`; from
    /// any in which the user has signed in to the pages, where a program began it. With `is_anew` the bridge registers
    /// itself anew there, if it does so at all.
    ///
    /// # Errors
    /// Says why they cannot sign in.
    pub async fn begin(
        &self,
        server: &Server,
        (user, browser): (&UserId, Option<&str>),
        is_anew: bool,
    ) -> Result<Url, Fault> {
        let oauth = oauth(server);
        let mut found = discovery::find((server, oauth), &self.servers, self.guarded(server)).await?;
        add_scopes(&mut found.scopes, &self.demanded(user, server).await);
        let client = self.client((server, oauth), &found.service, is_anew).await?;
        let redirect_uri = self.config.redirect_uri(server);
        let begun = found.begin(oauth, &client.id, &redirect_uri).await?;
        let kept = Kept {
            user: [user.issuer().to_owned(), user.subject().to_owned()],
            server: server.name.to_string(),
            service: found.service,
            client,
            redirect_uri,
            verifier: begun.verifier,
            resource: begun.resource,
            scopes: found.scopes,
            browser: browser.map(flow::hashed),
            configured: flow::configured(server),
            is_anew,
        };
        let content = Zeroizing::new(serde_json::to_string(&kept).expect("text is JSON"));
        if !self.store.put_into(Cell::Flow(&begun.state), None, &content).await? {
            // A state of 128 random bits that is there already was made by somebody who has no randomness.
            return Err(StoreError::Shape.into());
        }
        Ok(begun.url)
    }

    /// Whether a sign-in with this state waits for its answer.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn awaits(&self, state: &str) -> Result<bool, StoreError> {
        Ok(self.store.look_into(Cell::Flow(state)).await?.is_some())
    }

    /// Takes the sign-in for `server` that is answered: nobody else goes on with it. It goes on waiting, and nothing of it is
    /// used, unless the answer comes from the user who began it, in the browser in which they did.
    ///
    /// # Errors
    /// Says why it is not taken, or of no use.
    pub async fn take(
        &self,
        server: &Server,
        (user, browser): (&UserId, Option<&str>),
        answer: &Callback,
    ) -> Result<Flow, NotTaken> {
        let flow = self.flow(&answer.state).await?;
        let flow = flow.filter(|flow| flow.is_for(server)).ok_or(NotTaken::Ended)?;
        if !flow.is_of(user, browser) {
            return Err(NotTaken::OtherBrowser);
        }
        // Of several answers at once one goes on.
        if !self.store.take(&flow.held).await? {
            return Err(NotTaken::Ended);
        }
        if !flow.is_answered_by(answer.issuer.as_deref()) {
            return Err(NotTaken::OtherIssuer);
        }
        if flow.is_current(server) { Ok(flow) } else { Err(NotTaken::Ended) }
    }

    /// The sign-in that an answer with this state is for, if there is one that has not been answered.
    async fn flow(&self, state: &str) -> Result<Option<Flow>, StoreError> {
        let Some(held) = self.store.look_into(Cell::Flow(state)).await? else { return Ok(None) };
        let kept = serde_json::from_str(&held.plain).map_err(|_| StoreError::Newer)?;
        Ok(Some(Flow { kept: Box::new(kept), held }))
    }

    /// What the service gives for `code`, as it is saved.
    ///
    /// # Errors
    /// Says why it gives nothing.
    pub async fn redeem(&self, server: &Server, flow: &Flow, code: &Secret) -> Result<Record, Fault> {
        let kept = &flow.kept;
        let secret = self.secret_of(&kept.client, server).await?;
        let caller = Caller { id: &kept.client.id, auth: kept.client.auth, secret: secret.as_ref() };
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &kept.redirect_uri),
            ("code_verifier", &kept.verifier),
        ];
        fields.extend(kept.resource.as_deref().map(|resource| ("resource", resource)));
        let endpoint = &kept.service.token_endpoint;
        let host = || host_of(endpoint);
        let unavailable = || Fault::Unavailable { host: host() };
        let pass = self.limits.breakers.enter(endpoint).map_err(|_| unavailable())?;
        let posted = form_post(self.guarded(server), endpoint, &caller, &fields, CALL).await;
        let answer = match posted {
            Ok(Posted::Answer(answer)) => answer,
            // That may be the doing of who brings the code: it keeps nobody else from the service.
            Ok(Posted::Later(_)) => return Err(unavailable()),
            Err(error) => {
                pass.failed();
                return Err(Fault::of_call(error, endpoint));
            }
        };
        pass.answered();
        match token_response::read(&Zeroizing::new(answer.into_body())) {
            Ok(answer) => {
                let Kept { service, client, scopes, .. } = &**kept;
                let resource = kept.resource.as_deref();
                Ok(self.record(server, AskedFor { service, client, resource, scopes }, answer))
            }
            Err(AnswerFault::Refused(Some("invalid_client"))) => {
                let is_registered = matches!(kept.client.kind, ClientKind::Registered(_));
                Err(Fault::ClientRefused { host: host(), is_registered })
            }
            Err(AnswerFault::Refused(code)) => Err(Fault::Refused { host: host(), code }),
            Err(AnswerFault::Unreadable) => {
                Err(Fault::Metadata { step: "the answer", host: host(), why: "it cannot be read" })
            }
        }
    }

    fn record(&self, server: &Server, asked: AskedFor<'_>, answer: TokenAnswer) -> Record {
        let now = self.clock.now();
        let grant = Grant {
            state: GrantState::Valid,
            refresh_token: answer.refresh_token,
            scopes: answer.scopes.unwrap_or_else(|| asked.scopes.to_vec()),
            resource: asked.resource.map(str::to_owned),
            issuer: asked.service.issuer.clone(),
            origin: match &server.plan {
                Plan::Http(plan) => Some(plan.origin.clone()),
                Plan::Stdio(_) | Plan::Container(_) => None,
            },
            client: asked.client.clone(),
            token_endpoint: asked.service.token_endpoint.clone(),
            revocation_endpoint: asked.service.revocation_endpoint.clone(),
            account: answer.account,
            subject: answer.subject,
            demanded: Vec::new(),
            step_ups: Vec::new(),
            failures: 0,
            next_try: UnixTime(0),
        };
        Record {
            kind: RecordKind::OAuth,
            saved_at: now,
            saved_by: Some(SavedBy::SignIn),
            expires_at: answer.expires_in.map(|seconds| UnixTime(now.0.saturating_add(seconds))),
            fields: vec![(Credential::TOKEN.into(), answer.access_token)],
            grant: Some(Box::new(grant)),
        }
    }

    fn guarded(&self, server: &Server) -> &GuardedClient {
        self.guarded.get(&server.name).expect("every server whose users sign in has a client")
    }
}

/// Adds those of `more` that are not there.
pub fn add_scopes(scopes: &mut Vec<String>, more: &[String]) {
    for scope in more {
        if scopes.len() < MAX_SCOPES && !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
}

fn oauth(server: &Server) -> &OAuth {
    server.oauth.as_ref().expect("only servers whose users sign in come here")
}
