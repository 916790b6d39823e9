//! Who the bridge is at a service: a client that an operator registered, one whose document the service reads, or one that
//! registers itself, once for all users and nodes. Source: RFC 7591; MCP 2026-07-28, basic/authorization/client-registration.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use zeroize::{Zeroize, Zeroizing};

use super::service::{Fault, Service, host_of};
use super::{Services, device};
use crate::config::{ClientAuthentication, Config, NamedService, OAuth, Registration as How, Server};
use crate::http_client::guard::CALL;
use crate::keyring::random_name;
use crate::secret::Secret;
use crate::store::{Cell, ClientAuth, ClientKind, ClientOf, Held, LeaseOf, Quota};

/// How long a node waits for another one to register, and how often it looks: at first, and at last.
const PATIENCE: Duration = Duration::from_secs(12);
const LOOK: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(200)];

/// The longest id, secret or other text of a registration that is kept, bytes.
const MAX_TEXT: usize = 4 << 10;

/// A registration as it is kept. It is not changed; another one takes its place, and this is kept for what was granted to it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    client_id: String,
    client_secret: Option<String>,
    auth: ClientAuth,
    redirect_uris: Vec<String>,
    /// When the secret ends; 0 is never.
    secret_expires_at: u64,
    /// By which the bridge may change or end it. Source: RFC 7592.
    access_token: Option<String>,
    uri: Option<String>,
    service: Service,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.client_secret.zeroize();
        self.access_token.zeroize();
    }
}

/// The registration that is in use at an issuer.
struct InUse {
    pointer: Held,
    /// Nothing where it cannot be found.
    registration: Option<Registration>,
}

/// How a service knows the bridge, as far as that is known without asking it.
pub(super) enum Who<'a> {
    /// As this.
    Known(ClientOf),
    /// As what it registers here.
    Registers(&'a str),
}

/// Who the bridge is at `service`, in the order of the specification.
///
/// # Errors
/// It is nobody there, or would not be safe.
pub(super) fn who<'a>(config: &Config, oauth: &OAuth, service: &'a Service) -> Result<Who<'a>, Fault> {
    if let Some(client) = &oauth.client {
        let auth = match oauth.client_auth {
            ClientAuthentication::None => ClientAuth::None,
            ClientAuthentication::Basic => ClientAuth::Basic,
            ClientAuthentication::Post => ClientAuth::Post,
            ClientAuthentication::Auto if client.secret.is_none() => ClientAuth::None,
            ClientAuthentication::Auto => with_secret(&service.auth_methods),
        };
        return Ok(Who::Known(ClientOf { id: client.id.clone(), kind: ClientKind::Configured, auth }));
    }
    if oauth.service == NamedService::Found && !service.answers_for_itself() {
        let why = "its tokens are given elsewhere, by somebody who may be somebody else; whoever runs this bridge can name \
                   its issuer";
        return Err(Fault::unusable(&service.authorization_endpoint, why));
    }
    let is_https = config.public_url.scheme() == "https";
    if service.reads_documents && is_https && matches!(oauth.registration, How::Auto | How::MetadataDocument) {
        let id = config.client_document_url();
        return Ok(Who::Known(ClientOf { id, kind: ClientKind::Document, auth: ClientAuth::None }));
    }
    match &service.registration_endpoint {
        Some(endpoint) if matches!(oauth.registration, How::Auto | How::Dynamic) => Ok(Who::Registers(endpoint)),
        _ => Err(Fault::NotKnown { host: host_of(&service.authorization_endpoint) }),
    }
}

impl Services {
    /// Who the bridge is at `service`; it registers itself there if it must.
    pub(super) async fn client(
        &self,
        (server, oauth): (&Server, &OAuth),
        service: &Service,
        is_anew: bool,
    ) -> Result<ClientOf, Fault> {
        match who(&self.config, oauth, service)? {
            Who::Known(client) => Ok(client),
            Who::Registers(endpoint) => self.registered((server, service), endpoint, is_anew).await,
        }
    }

    /// The secret of a client, if it has one.
    ///
    /// # Errors
    /// It is not there any more.
    pub(super) async fn secret_of(&self, client: &ClientOf, server: &Server) -> Result<Option<Secret>, Fault> {
        let gone = |is_registered| Fault::ClientRefused { host: client.id.clone(), is_registered };
        match &client.kind {
            _ if client.auth == ClientAuth::None => Ok(None),
            ClientKind::Document => Ok(None),
            ClientKind::Configured => {
                let configured = server.oauth.as_ref().and_then(|oauth| oauth.client.as_ref());
                let configured = configured.filter(|configured| configured.id == client.id).ok_or(gone(false))?;
                Ok(configured.secret.as_ref().map(|secret| Secret::new(secret.expose().to_owned())))
            }
            ClientKind::Registered(id) => {
                let held = self.store.look_into(Cell::Client(id)).await?.ok_or(gone(true))?;
                let mut kept: Registration = serde_json::from_str(&held.plain).map_err(|_| gone(true))?;
                Ok(kept.client_secret.take().map(Secret::new))
            }
        }
    }

    /// The client that the bridge has registered, by whichever node; or registers now, unless another node does.
    async fn registered(
        &self,
        (server, service): (&Server, &Service),
        endpoint: &str,
        is_anew: bool,
    ) -> Result<ClientOf, Fault> {
        let issuer = service.issuer.as_deref().unwrap_or(&service.token_endpoint);
        let redirect_uri = self.config.redirect_uri(server);
        let before = if is_anew { self.in_use(issuer).await? } else { None };
        let is_the_same =
            |found: &InUse| before.as_ref().is_some_and(|before| before.pointer.plain == found.pointer.plain);
        let (deadline, mut look) = (Instant::now() + PATIENCE, LOOK[0]);
        while Instant::now() < deadline {
            let lease = self.store.lease(LeaseOf::Registration(issuer, self.config.public_url.as_str())).await?;
            let found = self.in_use(issuer).await?;
            let known = found.as_ref().filter(|found| !is_the_same(found));
            let known = known.and_then(|found| found.usable(service, &redirect_uri, self.clock.now().0));
            let done = match (known, &lease) {
                (Some(known), _) => Ok(Some(known)),
                (None, Some(_)) => self.register(server, (issuer, service), endpoint, (&redirect_uri, found)).await,
                (None, None) => Ok(None),
            };
            if let Some(lease) = lease {
                self.store.give_back(lease).await;
            }
            if let Some(done) = done? {
                return Ok(done);
            }
            sleep(look).await;
            look = (look * 2).min(LOOK[1]);
        }
        Err(Fault::Unavailable { host: host_of(endpoint) })
    }

    /// Which registration is in use.
    async fn in_use(&self, issuer: &str) -> Result<Option<InUse>, Fault> {
        let of = Cell::ClientOf(issuer, self.config.public_url.as_str());
        let Some(pointer) = self.store.look_into(of).await? else { return Ok(None) };
        let held = self.store.look_into(Cell::Client(&pointer.plain)).await?;
        let registration = held.and_then(|held| serde_json::from_str(&held.plain).ok());
        Ok(Some(InUse { pointer, registration }))
    }

    /// Registers the bridge in place of what was seen; nothing if another node was faster.
    async fn register(
        &self,
        server: &Server,
        (issuer, service): (&str, &Service),
        endpoint: &str,
        (redirect_uri, seen): (&str, Option<InUse>),
    ) -> Result<Option<ClientOf>, Fault> {
        // What is replaced is kept: neither who asks to be known anew nor a service that forgets may fill the store.
        if seen.is_some() && self.store.count(Quota::Registration, &[issuer, redirect_uri]).await?.is_some() {
            tracing::warn!(host = host_of(endpoint), "not registered anew: that was done too often within an hour");
            return Err(Fault::Unavailable { host: host_of(endpoint) });
        }
        let known = seen.as_ref().and_then(|seen| seen.registration.as_ref());
        let mut redirect_uris: Vec<String> = known.map(|known| known.redirect_uris.clone()).unwrap_or_default();
        redirect_uris.retain(|uri| uri != redirect_uri && self.is_redirect_uri(uri));
        redirect_uris.push(redirect_uri.to_owned());
        let auth = match &service.auth_methods[..] {
            methods if methods.iter().any(|method| method == "none") && !has_secret_method(methods) => ClientAuth::None,
            methods => with_secret(methods),
        };
        // Who is led back to the person's own machine is no web application. Source: OpenID Connect Registration section 2.
        let is_native = self.config.takes_paste_back(server) && redirect_uri.starts_with("http:");
        let asked = json!({
            "client_name": self.config.name, "client_uri": self.config.public_url,
            "application_type": if is_native { "native" } else { "web" },
            "redirect_uris": redirect_uris, "response_types": ["code"],
            "grant_types": grant_types(service.device_endpoint.is_some()), "token_endpoint_auth_method": name_of(auth),
        });
        let request =
            Request::post(endpoint).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        let unavailable = || Fault::Unavailable { host: host_of(endpoint) };
        let request = request.body(asked.to_string().into_bytes()).map_err(|_| unavailable())?;
        let answer = self.guarded(server).call(request, CALL).await.map_err(|error| Fault::of_call(error, endpoint))?;
        if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return Err(unavailable());
        }
        let mut registration = read(answer, auth).ok_or(Fault::NotKnown { host: host_of(endpoint) })?;
        registration.redirect_uris = redirect_uris;
        registration.service = service.clone();
        let id = random_name();
        let content = Zeroizing::new(serde_json::to_string(&registration).expect("text is JSON"));
        self.store.put_into(Cell::Client(&id), None, &content).await?;
        let of = Cell::ClientOf(issuer, self.config.public_url.as_str());
        let is_ours = self.store.put_into(of, seen.as_ref().map(|seen| &seen.pointer), &id).await?;
        tracing::info!(host = host_of(endpoint), "the bridge has registered itself at a service");
        Ok(is_ours.then(|| ClientOf {
            id: registration.client_id.clone(),
            kind: ClientKind::Registered(id),
            auth: registration.auth,
        }))
    }

    fn is_redirect_uri(&self, uri: &str) -> bool {
        let mut servers = self.config.servers.values().filter(|server| server.oauth.is_some());
        servers.any(|server| self.config.redirect_uri(server) == uri)
    }

    /// What a service that reads metadata documents finds at [`crate::config::Config::client_document_url`].
    #[must_use]
    pub fn client_document(&self) -> String {
        let servers = self.config.servers.values().filter(|server| server.oauth.is_some());
        // A service that knows no codes may refuse a client that does: where one is for them, the file says so.
        let has_codes = servers.clone().any(|server| server.oauth.as_ref().is_some_and(|oauth| oauth.device.is_some()));
        let redirect_uris: Vec<String> = servers.map(|server| self.config.redirect_uri(server)).collect();
        json!({
            "client_id": self.config.client_document_url(), "client_name": self.config.name,
            "client_uri": self.config.public_url, "application_type": "web", "redirect_uris": redirect_uris,
            "response_types": ["code"], "grant_types": grant_types(has_codes),
            "token_endpoint_auth_method": "none",
        })
        .to_string()
    }
}

impl InUse {
    /// The client, if it may be used at `service` for this redirect URI now.
    fn usable(&self, service: &Service, redirect_uri: &str, now: u64) -> Option<ClientOf> {
        let found = self.registration.as_ref()?;
        let is_there = found.service.token_endpoint == service.token_endpoint
            && found.service.authorization_endpoint == service.authorization_endpoint;
        let is_good = found.secret_expires_at == 0 || found.secret_expires_at > now;
        let is_for = found.redirect_uris.iter().any(|uri| uri == redirect_uri)
            && (service.device_endpoint.is_none() || found.service.device_endpoint.is_some());
        (is_there && is_good && is_for).then(|| ClientOf {
            id: found.client_id.clone(),
            kind: ClientKind::Registered(self.pointer.plain.to_string()),
            auth: found.auth,
        })
    }
}

/// By what the bridge gets tokens, with codes that people enter or without.
fn grant_types(has_codes: bool) -> Vec<&'static str> {
    let mut types = vec!["authorization_code", "refresh_token"];
    types.extend(has_codes.then_some(device::GRANT));
    types
}

/// What a service registered, which was asked for this way of showing who the bridge is.
fn read(answer: Response<Vec<u8>>, asked: ClientAuth) -> Option<Registration> {
    if !answer.status().is_success() {
        return None;
    }
    let body = Zeroizing::new(answer.into_body());
    let members: Value = serde_json::from_slice(&body).ok()?;
    let is_text = |text: &&str| (1..=MAX_TEXT).contains(&text.len());
    let text = |name: &str| members[name].as_str().filter(is_text).map(str::to_owned);
    let client_secret = text("client_secret");
    let auth = match (&client_secret, members["token_endpoint_auth_method"].as_str()) {
        (None, _) | (_, Some("none")) => ClientAuth::None,
        (Some(_), Some("client_secret_post")) => ClientAuth::Post,
        (Some(_), Some("client_secret_basic")) => ClientAuth::Basic,
        (Some(_), _) if asked == ClientAuth::Post => ClientAuth::Post,
        (Some(_), _) => ClientAuth::Basic,
    };
    Some(Registration {
        client_id: text("client_id")?,
        client_secret: client_secret.filter(|_| auth != ClientAuth::None),
        auth,
        redirect_uris: Vec::new(),
        secret_expires_at: members["client_secret_expires_at"].as_u64().unwrap_or_default(),
        access_token: text("registration_access_token"),
        uri: text("registration_client_uri"),
        service: Service::default(),
    })
}

/// How a client with a secret shows it where these methods are taken. None said is one. Source: RFC 8414 section 2.
fn with_secret(methods: &[String]) -> ClientAuth {
    let takes = |name: &str| methods.iter().any(|method| method == name);
    if takes("client_secret_post") && !takes("client_secret_basic") { ClientAuth::Post } else { ClientAuth::Basic }
}

fn has_secret_method(methods: &[String]) -> bool {
    methods.iter().any(|method| method == "client_secret_basic" || method == "client_secret_post")
}

fn name_of(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::None => "none",
        ClientAuth::Basic => "client_secret_basic",
        ClientAuth::Post => "client_secret_post",
    }
}
