//! The calls that finding a service takes, within bounds, and what their failures mean.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, LOCATION};
use http::{Method, Request, Response, StatusCode};
use rmcp::transport::auth::{
    AuthError, AuthorizationMetadata, AuthorizationMetadataResolution, AuthorizationMetadataSource, OAuthHttpClient,
    OAuthHttpClientFuture, OAuthHttpRequest,
};
use serde::Deserialize;
use url::Url;

use super::super::service::{Fault, METADATA, NO_S256, OTHER_ISSUER, host};
use crate::http_client::guard::{CallError, GuardedClient};

/// How long one call of it may take.
pub(super) const CALL: Duration = Duration::from_secs(5);

/// The most calls that are made for one service.
const MOST_CALLS: usize = 24;

/// The longest address that is shown, bytes.
const MAX_SHOWN: usize = 256;

/// The calls that are made for one service, within bounds.
pub(super) struct Calls {
    guarded: GuardedClient,
    /// The server itself, which has been asked already.
    own: Option<Url>,
    made: Mutex<Made>,
}

/// What was called, what has failed last, and who was named.
#[derive(Default)]
struct Made {
    tried: Vec<Url>,
    failed: Option<(Url, CallError)>,
    named: Vec<String>,
}

impl Calls {
    pub(super) fn new(guarded: &GuardedClient, own: Option<Url>) -> Self {
        Self { guarded: guarded.clone(), own, made: Mutex::default() }
    }

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
        let answer = if count > MOST_CALLS { Err(CallError::TooLong) } else { self.guarded.call(request, CALL).await };
        match &answer {
            Ok(answer) if is_later(answer.status()) => self.made().failed = Some((url, CallError::NoAnswer)),
            Ok(answer) if answer.status() == StatusCode::OK => self.made().named.extend(named_in(answer.body())),
            Ok(_) => {}
            Err(error) => self.made().failed = Some((url, *error)),
        }
        // Nothing is followed: what is elsewhere is not here.
        answer.map(|mut answer| {
            answer.headers_mut().remove(LOCATION);
            answer
        })
    }

    /// The metadata of an issuer that an operator named. Source: RFC 8414 section 3.1; `OpenID` Connect Discovery section 4.
    pub(super) async fn metadata_of(&self, issuer: &str) -> Result<AuthorizationMetadata, Fault> {
        let none = || Fault::NoMetadata { tried: vec![issuer.to_owned()] };
        let base = Url::parse(issuer).map_err(|_| none())?;
        let [candidates @ .., _] = well_known(&base);
        for url in candidates {
            let answer = self.get(&url).await.map_err(|_| self.failure(&base))?;
            if is_later(answer.status()) {
                return Err(self.failure(&base));
            }
            let found = Some(answer.body()).filter(|_| answer.status() == StatusCode::OK);
            let Some(found) = found.and_then(|body| serde_json::from_slice::<AuthorizationMetadata>(body).ok()) else {
                continue;
            };
            if found.issuer.as_deref() != Some(issuer) {
                return Err(Fault::unusable(issuer, OTHER_ISSUER));
            }
            return Ok(found);
        }
        Err(self.nothing_found(&base))
    }

    /// What a failure of the library means. Its words may hold what others have said.
    pub(super) fn fault(&self, error: &AuthError, base: &Url) -> Fault {
        let step = METADATA;
        match error {
            AuthError::PkceUnsupported => Fault::Metadata { step, host: host(base), why: NO_S256 },
            AuthError::AuthorizationServerMismatch { expected_issuer, .. }
            | AuthError::AuthorizationServerMissingIssuer { expected_issuer } => {
                Fault::unusable(expected_issuer, OTHER_ISSUER)
            }
            _ if self.made().failed.is_some() => self.failure(base),
            _ => Fault::Metadata { step, host: host(base), why: "what it says does not fit the server" },
        }
    }

    /// Whether the metadata that was found is of the issuer that was asked for: one that a document of the server names, byte for
    /// byte, and in a place that is that issuer's. The library takes a document in a place of another kind at its word.
    /// Source: RFC 8414 section 3.3.
    pub(super) fn check_issuer(&self, found: &AuthorizationMetadataResolution) -> Result<(), Fault> {
        let made = self.made();
        let issuer = found.metadata.issuer.as_deref().unwrap_or_default();
        let is_named = found.source != AuthorizationMetadataSource::ProtectedResourceMetadata
            || made.named.iter().any(|named| named == issuer);
        let place = made.tried.last();
        let is_there = Url::parse(issuer).is_ok_and(|issuer| well_known(&issuer).iter().any(|url| place == Some(url)));
        if is_named && is_there {
            return Ok(());
        }
        Err(Fault::unusable(place.map_or("", Url::as_str), OTHER_ISSUER))
    }

    /// That a call has failed, which made the library give up.
    fn failure(&self, base: &Url) -> Fault {
        let failed = self.made().failed.clone();
        failed
            .map_or_else(|| Fault::Unavailable { host: host(base) }, |(url, error)| Fault::of_call(error, url.as_str()))
    }

    /// That nobody says where to sign in. Of addresses that are not the server's own the host alone is shown: what else
    /// stands in them somebody else wrote.
    pub(super) fn nothing_found(&self, base: &Url) -> Fault {
        let is_own = |url: &Url| url.origin() == base.origin() && url.as_str().len() <= MAX_SHOWN;
        let shown = |url: &Url| if is_own(url) { url.to_string() } else { host(url) };
        let mut tried: Vec<String> = self.made().tried.iter().map(shown).collect();
        tried.dedup();
        Fault::NoMetadata { tried: if tried.is_empty() { vec![shown(base)] } else { tried } }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the metadata of an issuer may lie, in order; the last for issuers with a path, whose hosts have one document.
/// Source: RFC 8414 section 3.1; `OpenID` Connect Discovery section 4.
fn well_known(issuer: &Url) -> [Url; 4] {
    let path = issuer.path().trim_end_matches('/');
    let paths = [
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
        format!("{path}/.well-known/openid-configuration"),
        "/.well-known/oauth-authorization-server".to_owned(),
    ];
    paths.map(|path| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    })
}

/// The authorization servers that a document names.
fn named_in(body: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Names {
        authorization_server: Option<String>,
        #[serde(default)]
        authorization_servers: Vec<String>,
    }
    let names = serde_json::from_slice(body).ok().map(|Names { authorization_server, authorization_servers }| {
        authorization_server.into_iter().chain(authorization_servers).collect()
    });
    names.unwrap_or_default()
}

/// Whether an answer says to come back later.
fn is_later(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || later.contains(&status)
}

impl OAuthHttpClient for Calls {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move { Ok(self.call(request.request).await?) })
    }
}
