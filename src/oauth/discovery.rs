//! Where the users of a server sign in, and the URL that leads them there. The one file that knows rmcp: it reads challenges,
//! looks for metadata in the order of the specification, chooses scopes and makes the URL. Every call of it is made by our
//! guarded client. What it would do with tokens is not used. Source: MCP 2026-07-28, basic/authorization.

mod calls;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::Client;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, OAuthClientConfig, OAuthHttpClient, StateStore,
    StoredAuthorizationState, WWWAuthenticateParams,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use super::service::{Fault, NO_HTTPS, NO_S256, Service, host, is_address};
use super::token_response::proper_scopes;
use crate::config::{HttpPlan, NamedService, OAuth, OF_THE_PROTOCOL, Plan, ResourceIndicator, Server};
use crate::http_client::guard::GuardedClient;
use calls::{CALL, Calls};

/// How long looking for a service may take in all.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest URL that a person is led to, bytes: what browsers and proxies take.
const MAX_URL: usize = 8 << 10;

/// The one way of proving who has begun a sign-in. Source: RFC 7636.
const S256: &str = "S256";

/// How a client may show who it is, as far as the bridge can. Source: RFC 7591 section 2.
const AUTH_METHODS: [&str; 3] = ["none", "client_secret_basic", "client_secret_post"];

/// What a server is asked first, without a token: what it refuses says where to get one.
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"tollbridge","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}}"#
);

/// What a server is asked then that greets anybody: there may be more that is for nobody without a token.
const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}"#;

/// The header that names a session.
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Where a server's users sign in.
pub(super) struct Found {
    manager: AuthorizationManager,
    begun: Arc<Mutex<Option<StoredAuthorizationState>>>,
    /// Whether tokens can be asked for by the server's URL.
    has_resource: bool,
    pub(super) service: Service,
    pub(super) scopes: Vec<String>,
}

/// A sign-in that has begun.
pub(super) struct Begun {
    /// Where its person goes.
    pub(super) url: Url,
    /// Names it in the answer.
    pub(super) state: String,
    /// What only who has begun it knows.
    pub(super) verifier: String,
    /// For what tokens are asked.
    pub(super) resource: Option<String>,
}

/// Finds out where the users of `server` sign in. `servers` calls servers that an operator named, `guarded` all others.
///
/// # Errors
/// Says why they cannot.
pub(super) async fn find(
    (server, oauth): (&Server, &OAuth),
    servers: &Client,
    guarded: &GuardedClient,
) -> Result<Found, Fault> {
    let plan = match &server.plan {
        Plan::Http(plan) => Some(plan),
        Plan::Stdio(_) | Plan::Container(_) => None,
    };
    let own = plan.and_then(|plan| Url::parse(&plan.url.fixed_text()?).ok());
    let named = match &oauth.service {
        NamedService::Endpoints { authorization, .. } => Some(authorization.clone()),
        NamedService::Issuer(issuer) => Url::parse(issuer).ok(),
        NamedService::Found => None,
    };
    let base = own.clone().or(named).ok_or(Fault::NoMetadata { tried: Vec::new() })?;
    let calls = Arc::new(Calls::new(guarded, own));
    let looking = async {
        let client = Arc::clone(&calls) as Arc<dyn OAuthHttpClient>;
        let manager = AuthorizationManager::new_with_oauth_http_client(base.clone(), client).await;
        let mut manager = manager.map_err(|error| calls.fault(&error, &base))?;
        let metadata = match &oauth.service {
            NamedService::Endpoints { authorization, token, issuer } => {
                let (authorization, token) = (authorization.as_str(), token.as_str());
                serde_json::from_value(json!({
                    "issuer": issuer, "authorization_endpoint": authorization, "token_endpoint": token,
                    "code_challenge_methods_supported": [S256],
                }))
                .ok()
            }
            NamedService::Issuer(issuer) => Some(calls.metadata_of(issuer).await?),
            NamedService::Found => {
                let challenge = match plan {
                    Some(plan) => challenge(servers, plan, &base).await?,
                    None => None,
                };
                let found = manager.resolve_metadata_from_challenge(challenge.as_deref()).await;
                let found = found.map_err(|error| calls.fault(&error, &base))?;
                if found.source.is_discovered() {
                    calls.check_issuer(&found)?;
                }
                found.source.is_discovered().then_some(found.metadata)
            }
        };
        let metadata = metadata.ok_or_else(|| calls.nothing_found(&base))?;
        let service = service(&metadata, oauth, guarded)?;
        manager.set_metadata(metadata);
        let begun = Arc::default();
        manager.set_state_store(Begins(Arc::clone(&begun)));
        let scopes = match &oauth.scopes[..] {
            [] => proper_scopes(manager.select_initial_scopes(&[]).await.iter().map(String::as_str)),
            scopes => scopes.to_vec(),
        };
        Ok(Found { manager, begun, has_resource: plan.is_some(), service, scopes })
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| Err(Fault::Unavailable { host: host(&base) }))
}

impl Found {
    /// Begins a sign-in as the client `id`, whose answer comes to `redirect_uri`.
    ///
    /// # Errors
    /// The service cannot be used.
    pub(super) async fn begin(&mut self, oauth: &OAuth, id: &str, redirect_uri: &str) -> Result<Begun, Fault> {
        let unusable = || Fault::unusable(&self.service.authorization_endpoint, "this is no place to sign in");
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let client = OAuthClientConfig::new(id, redirect_uri);
        self.manager.configure_client(client).map_err(|_| unusable())?;
        let url = self.manager.get_authorization_url(&scopes).await.map_err(|_| unusable())?;
        let mut url = Url::parse(&url).map_err(|_| unusable())?;
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(unusable)?;
        let (resources, others): (Vec<_>, Vec<_>) =
            url.query_pairs().into_owned().partition(|(name, _)| name == "resource");
        let found = resources.into_iter().next_back().map(|(_, value)| value);
        let resource = match &oauth.resource {
            ResourceIndicator::Unsaid => None,
            ResourceIndicator::Named(resource) => Some(resource.clone()),
            ResourceIndicator::Found => found.filter(|found| self.has_resource && !found.is_empty()),
        };
        if !resource.as_deref().is_none_or(is_address) {
            return Err(unusable());
        }
        let named = [("resource", &resource), ("audience", &oauth.audience)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        url.query_pairs_mut().clear().extend_pairs(others).extend_pairs(named).extend_pairs(&oauth.authorize_params);
        if url.as_str().len() > MAX_URL {
            return Err(Fault::unusable(&self.service.authorization_endpoint, "what is to be asked there is too long"));
        }
        Ok(Begun { url, state: begun.csrf_token, verifier: begun.pkce_verifier, resource })
    }
}

/// The challenge with which a server refuses who has no token, if it does.
async fn challenge(servers: &Client, plan: &HttpPlan, url: &Url) -> Result<Option<String>, Fault> {
    let fixed = plan.headers.iter().filter_map(|(name, value)| Some((name.clone(), value.fixed_text()?)));
    let fixed: HeaderMap = fixed.filter_map(|(name, text)| Some((name, text.try_into().ok()?))).collect();
    let unavailable = || Fault::Unavailable { host: host(url) };
    let ask = async |message: &'static str, session: Option<&HeaderValue>| {
        let mut request = servers.post(url.clone()).headers(fixed.clone()).timeout(CALL).body(message);
        request =
            request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json, text/event-stream");
        if let Some(session) = session {
            request = request.header(SESSION_ID, session);
        }
        request.send().await.map_err(|_| unavailable())
    };
    let greeted = ask(INITIALIZE, None).await?;
    let answer = match greeted.status() {
        status if status.is_success() => {
            let session = greeted.headers().get(SESSION_ID);
            let listed = ask(LIST, session).await;
            if let Some(session) = session {
                // It may refuse that; then it ends the session when it likes.
                let ending = servers.delete(url.clone()).headers(fixed.clone()).header(SESSION_ID, session);
                let _ = ending.timeout(CALL).send().await;
            }
            listed.unwrap_or(greeted)
        }
        status if status.is_server_error() => return Err(unavailable()),
        _ => greeted,
    };
    if answer.status() != StatusCode::UNAUTHORIZED {
        return Ok(None);
    }
    let challenges: Vec<&str> =
        answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let leads_on = |challenge: &&&str| WWWAuthenticateParams::parse(challenge, url).resource_metadata_url.is_some();
    let best = challenges.iter().find(leads_on).or(challenges.first());
    Ok(best.map(|challenge| (*challenge).to_owned()))
}

/// The scopes that a server demands in this answer, which the token that it was sent does not have. Source: RFC 6750
/// section 3.1; MCP 2026-07-28, basic/authorization, "Runtime Insufficient Scope Errors".
#[must_use]
pub fn demanded_scopes(headers: &HeaderMap, url: &Url) -> Option<Vec<String>> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut challenges = texts.map(|text| WWWAuthenticateParams::parse(text, url));
    let scope = challenges.find(WWWAuthenticateParams::is_insufficient_scope)?.scope?;
    super::token_response::scopes(&Value::String(scope))
}

/// What metadata says that matters, if all of it can be used.
fn service(metadata: &AuthorizationMetadata, oauth: &OAuth, guarded: &GuardedClient) -> Result<Service, Fault> {
    let other = |name: &str| metadata.additional_fields.get(name);
    let text = |name: &str| other(name).and_then(Value::as_str).map(str::to_owned);
    let says = |name: &str| other(name).and_then(Value::as_bool).unwrap_or_default();
    let methods = other("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    let methods = methods.into_iter().flatten().filter_map(Value::as_str);
    let methods = methods.filter(|method| AUTH_METHODS.contains(method)).map(str::to_owned);
    let revocation = oauth.revocation.as_ref().map(Url::to_string);
    let device = oauth.device.as_ref().map(Url::to_string);
    let service = Service {
        issuer: metadata.issuer.clone(),
        authorization_endpoint: metadata.authorization_endpoint.clone(),
        token_endpoint: metadata.token_endpoint.clone(),
        registration_endpoint: metadata.registration_endpoint.clone(),
        revocation_endpoint: revocation.or_else(|| text("revocation_endpoint")),
        device_endpoint: device.or_else(|| text("device_authorization_endpoint")),
        names_itself: says("authorization_response_iss_parameter_supported"),
        auth_methods: methods.collect(),
        reads_documents: says("client_id_metadata_document_supported"),
    };
    let needed = [&service.authorization_endpoint, &service.token_endpoint];
    let optional = [&service.registration_endpoint, &service.revocation_endpoint, &service.device_endpoint];
    for endpoint in needed.into_iter().chain(optional.into_iter().flatten()) {
        if !is_address(endpoint) || !Url::parse(endpoint).is_ok_and(|url| guarded.permits(&url)) {
            let named = service.issuer.as_deref().unwrap_or(endpoint);
            return Err(Fault::unusable(named, NO_HTTPS));
        }
    }
    if !Url::parse(&service.authorization_endpoint).is_ok_and(|url| can_be_asked(&url)) {
        return Err(Fault::unusable(
            &service.authorization_endpoint,
            "its page for signing in asks for something of its own",
        ));
    }
    let methods = metadata.code_challenge_methods_supported.iter().flatten();
    if !methods.into_iter().any(|method| method == S256) {
        return Err(Fault::unusable(&service.authorization_endpoint, NO_S256));
    }
    Ok(service)
}

/// Whether our question can be put there and is the only one: what stands in the URL already would be read in its place.
/// Source: RFC 6749 section 3.1.
fn can_be_asked(url: &Url) -> bool {
    let asks = |name: &str| name != "audience" && OF_THE_PROTOCOL.contains(&name);
    url.fragment().is_none() && !url.query_pairs().any(|(name, _)| asks(&name))
}

/// Takes what the library makes up for a sign-in, which is kept with the rest of it.
struct Begins(Arc<Mutex<Option<StoredAuthorizationState>>>);

type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, AuthError>> + Send + 'a>>;

impl StateStore for Begins {
    fn save<'a, 'b, 'c>(&'a self, _state: &'b str, begun: StoredAuthorizationState) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
    {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        Box::pin(async { Ok(()) })
    }

    fn load<'a, 'b, 'c>(&'a self, _state: &'b str) -> Stored<'c, Option<StoredAuthorizationState>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async { Ok(None) })
    }

    fn delete<'a, 'b, 'c>(&'a self, _state: &'b str) -> Stored<'c, ()>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async { Err(AuthError::AuthorizationRequired) })
    }
}
