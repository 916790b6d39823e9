//! Where the users of a server sign in, and the URL that leads them there. The one file that knows rmcp: it reads challenges,
//! looks for metadata in the order of the specification, chooses scopes and makes the URL. Every call of it is made by our
//! guarded client. What it would do with tokens is not used. Source: MCP 2026-07-28, basic/authorization.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use reqwest::Client;
use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationMetadata, OAuthClientConfig, OAuthHttpClient, OAuthHttpClientFuture,
    OAuthHttpRequest, StateStore, StoredAuthorizationState, WWWAuthenticateParams,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use super::service::{Fault, Service};
use crate::config::{HttpPlan, NamedService, OAuth, Plan, ResourceIndicator, Server};
use crate::http_client::guard::{CallError, GuardedClient};

/// How long looking for a service may take in all.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one call of it may take.
const CALL: Duration = Duration::from_secs(5);

/// The most calls that are made for one service.
const MOST_CALLS: usize = 24;

/// The one way of proving who has begun a sign-in. Source: RFC 7636.
const S256: &str = "S256";

/// What is being read when it cannot be used.
const METADATA: &str = "the metadata";

/// What a server is asked first, without a token: what it refuses says where to get one.
const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"tollbridge","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}}"#
);

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
    let calls = Arc::new(Calls { guarded: guarded.clone(), own, made: Mutex::default() });
    let looking = async {
        let client = Arc::clone(&calls) as Arc<dyn OAuthHttpClient>;
        let manager = AuthorizationManager::new_with_oauth_http_client(base.clone(), client).await;
        let mut manager = manager.map_err(|error| calls.fault(&error, &base))?;
        let metadata = match &oauth.service {
            NamedService::Endpoints { authorization, token, issuer } => {
                let (authorization, token) = (authorization.as_str(), token.as_str());
                metadata(json!({
                    "issuer": issuer, "authorization_endpoint": authorization, "token_endpoint": token,
                    "code_challenge_methods_supported": [S256],
                }))
            }
            NamedService::Issuer(issuer) => Some(calls.metadata_of(issuer).await?),
            NamedService::Found => {
                let challenge = match plan {
                    Some(plan) => challenge(servers, plan, &base).await?,
                    None => None,
                };
                let found = manager.resolve_metadata_from_challenge(challenge.as_deref()).await;
                let found = found.map_err(|error| calls.fault(&error, &base))?;
                found.source.is_discovered().then_some(found.metadata)
            }
        };
        let metadata = metadata.ok_or_else(|| calls.nothing_found(&base))?;
        let service = service(&metadata, oauth, guarded)?;
        manager.set_metadata(metadata);
        let begun = Arc::default();
        manager.set_state_store(Begins(Arc::clone(&begun)));
        let scopes = match &oauth.scopes[..] {
            [] => manager.select_initial_scopes(&[]).await,
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
        let unusable = || unusable(&self.service.authorization_endpoint, "this is no place to sign in");
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
        let named = [("resource", &resource), ("audience", &oauth.audience)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        url.query_pairs_mut().clear().extend_pairs(others).extend_pairs(named).extend_pairs(&oauth.authorize_params);
        Ok(Begun { url, state: begun.csrf_token, verifier: begun.pkce_verifier, resource })
    }
}

/// The challenge with which a server refuses who has no token, if it does.
async fn challenge(servers: &Client, plan: &HttpPlan, url: &Url) -> Result<Option<String>, Fault> {
    let fixed = plan.headers.iter().filter_map(|(name, value)| Some((name.clone(), value.fixed_text()?)));
    let fixed: HeaderMap = fixed.filter_map(|(name, text)| Some((name, text.try_into().ok()?))).collect();
    let request = servers.post(url.clone()).headers(fixed).header(CONTENT_TYPE, "application/json");
    let request = request.header(ACCEPT, "application/json, text/event-stream").timeout(CALL).body(INITIALIZE);
    let unavailable = || Fault::Unavailable { host: host(url) };
    let answer = request.send().await.map_err(|_| unavailable())?;
    match answer.status() {
        StatusCode::UNAUTHORIZED => {}
        status if status.is_server_error() => return Err(unavailable()),
        _ => return Ok(None),
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
    let methods = methods.into_iter().flatten().filter_map(|method| Some(method.as_str()?.to_owned()));
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
        if !Url::parse(endpoint).is_ok_and(|url| guarded.permits(&url)) {
            let named = service.issuer.as_deref().unwrap_or(endpoint);
            return Err(unusable(named, "it names an address that is not https, or not one to call"));
        }
    }
    let methods = metadata.code_challenge_methods_supported.iter().flatten();
    if !methods.into_iter().any(|method| method == S256) {
        return Err(unusable(&service.authorization_endpoint, "it does not offer S256, which protects who signs in"));
    }
    Ok(service)
}

fn metadata(members: Value) -> Option<AuthorizationMetadata> {
    serde_json::from_value(members).ok()
}

fn unusable(url: &str, why: &'static str) -> Fault {
    let host = Url::parse(url).map_or_else(|_| "the service".to_owned(), |url| host(&url));
    Fault::Metadata { step: METADATA, host, why }
}

/// The host of a URL, with its port.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The calls that are made for one service, within bounds.
struct Calls {
    guarded: GuardedClient,
    /// The server itself, which has been asked already.
    own: Option<Url>,
    made: Mutex<Made>,
}

/// What was called, and what has failed last.
#[derive(Default)]
struct Made {
    tried: Vec<Url>,
    failed: Option<Url>,
}

impl Calls {
    async fn get(&self, url: &Url) -> Result<Response<Vec<u8>>, CallError> {
        let request = Request::get(url.as_str()).header(ACCEPT, "application/json").body(Vec::new());
        self.call(request.map_err(|_| CallError::Blocked)?).await
    }

    async fn call(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, CallError> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| CallError::Blocked)?;
        if request.method() == Method::GET && self.own.as_ref() == Some(&url) {
            let mut nothing = Response::new(Vec::new());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            return Ok(nothing);
        }
        let count = {
            let mut made = self.made();
            made.tried.push(url.clone());
            made.tried.len()
        };
        let answer = if count > MOST_CALLS { Err(CallError::NoAnswer) } else { self.guarded.call(request, CALL).await };
        let is_failure = answer.as_ref().map_or(true, |answer| answer.status().is_server_error());
        if is_failure {
            self.made().failed = Some(url);
        }
        // Nothing is followed: what is elsewhere is not here.
        answer.map(|mut answer| {
            answer.headers_mut().remove(LOCATION);
            answer
        })
    }

    /// The metadata of an issuer that an operator named. Source: RFC 8414 section 3.1; `OpenID` Connect Discovery section 4.
    async fn metadata_of(&self, issuer: &str) -> Result<AuthorizationMetadata, Fault> {
        let none = || Fault::NoMetadata { tried: vec![issuer.to_owned()] };
        let base = Url::parse(issuer).map_err(|_| none())?;
        let path = base.path().trim_end_matches('/').to_owned();
        let candidates = [
            format!("/.well-known/oauth-authorization-server{path}"),
            format!("/.well-known/openid-configuration{path}"),
            format!("{path}/.well-known/openid-configuration"),
        ];
        for candidate in candidates {
            let mut url = base.clone();
            url.set_path(&candidate);
            let answer = self.get(&url).await.map_err(|_| self.failure(&base))?;
            if answer.status().is_server_error() {
                return Err(self.failure(&base));
            }
            let members = serde_json::from_slice(answer.body()).ok().filter(|_| answer.status() == StatusCode::OK);
            let Some(found) = members.and_then(metadata) else { continue };
            if found.issuer.as_deref() != Some(issuer) {
                return Err(unusable(issuer, "it is of another issuer"));
            }
            return Ok(found);
        }
        Err(self.nothing_found(&base))
    }

    /// What a failure of the library means. Its words may hold what others have said.
    fn fault(&self, error: &AuthError, base: &Url) -> Fault {
        let step = METADATA;
        match error {
            AuthError::PkceUnsupported => {
                Fault::Metadata { step, host: host(base), why: "it does not offer S256, which protects who signs in" }
            }
            AuthError::AuthorizationServerMismatch { expected_issuer, .. }
            | AuthError::AuthorizationServerMissingIssuer { expected_issuer } => {
                unusable(expected_issuer, "it is of another issuer")
            }
            _ if self.made().failed.is_some() => self.failure(base),
            _ => Fault::Metadata { step, host: host(base), why: "what it says does not fit the server" },
        }
    }

    /// That a call has failed: of a host that an operator named it is said that it does not answer, of any other that it
    /// cannot be used, whatever it is that listens there or does not.
    fn failure(&self, base: &Url) -> Fault {
        let failed = self.made().failed.clone();
        let other = failed.as_ref().map(host).filter(|other| *other != host(base));
        match other {
            Some(host) => Fault::Metadata { step: METADATA, host, why: "it cannot be read" },
            None => Fault::Unavailable { host: host(base) },
        }
    }

    fn nothing_found(&self, base: &Url) -> Fault {
        let tried: Vec<String> = self.made().tried.iter().map(Url::to_string).collect();
        Fault::NoMetadata { tried: if tried.is_empty() { vec![base.to_string()] } else { tried } }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OAuthHttpClient for Calls {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move { Ok(self.call(request.request).await?) })
    }
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
