//! How the users of a server sign in at its service, as meant; and what of it cannot work.

mod checks;

use std::time::Duration;

use url::Url;

use super::hosts::is_loopback;
use super::load::{Loader, Zero};
use super::value::Setting;
use super::written::choices::{ClientAuthentication, PasteToo, Registration};
use super::written::file::{self, OAuthFields, Resource, Value};
use super::written::path::Path;
use super::{ServerName, TokenSetup};
use crate::secret::{Credential, Secret};
use checks::needs_leave;

/// How long before its end a token is renewed, unless the file says otherwise.
const REFRESH_BEFORE: Duration = Duration::from_mins(1);

/// What the protocol says by itself where a person signs in.
pub const OF_THE_PROTOCOL: [&str; 17] = [
    "access_token",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "request",
    "request_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// How the users of a server sign in at its service. What is not here is found out.
#[derive(Debug)]
pub struct OAuth {
    /// Where the service is, if the file says so.
    pub service: NamedService,
    /// Where tokens are given back, if the file says so.
    pub revocation: Option<Url>,
    /// Where sign-ins by a code begin, if the file says so.
    pub device: Option<Url>,
    /// A client that was registered by hand.
    pub client: Option<ConfiguredClient>,
    /// How it shows who it is.
    pub client_auth: ClientAuthentication,
    /// How the bridge becomes known there.
    pub registration: Registration,
    /// What was registered there, if it is not the bridge's own address.
    pub redirect_uri: Option<String>,
    /// What is asked for; empty for what the server and its service say.
    pub scopes: Vec<String>,
    /// For what tokens are asked.
    pub resource: ResourceIndicator,
    /// The same for services that call it `audience`.
    pub audience: Option<String>,
    /// Whether that is also said when a token is renewed.
    pub audience_on_refresh: bool,
    /// What else is said where a person signs in.
    pub authorize_params: Vec<(String, String)>,
    /// Hosts with private addresses, or without TLS, that may be called.
    pub allow_hosts: Vec<String>,
    /// How long before its end a token is renewed, half its lifetime at most.
    pub refresh_before: Duration,
    /// Whether a person may paste a token instead.
    pub also_token: bool,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedService {
    /// Where the server says.
    Found,
    /// Its metadata says so; exactly this is its name.
    Issuer(String),
    /// Here; it has a name if the file says so.
    Endpoints {
        /// Where a person signs in.
        authorization: Url,
        /// Where tokens are issued.
        token: Url,
        /// Its name.
        issuer: Option<String>,
    },
}

/// A client that was registered by hand.
#[derive(Debug)]
pub struct ConfiguredClient {
    /// Its id.
    pub id: String,
    /// Its secret, if it has one.
    pub secret: Option<Secret>,
}

/// For what tokens are asked. Source: RFC 8707.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceIndicator {
    /// For what the server says, or for its URL; for nothing, where it has none.
    Found,
    /// For this.
    Named(String),
    /// The service is not told.
    Unsaid,
}

impl Loader<'_> {
    /// How the users of the server at `at` sign in, if they do.
    pub(super) fn oauth(
        &mut self,
        at: &Path,
        (name, setup): (&ServerName, &TokenSetup),
        file: Option<file::OAuth>,
    ) -> Option<OAuth> {
        let written = match file? {
            file::OAuth::Found(true) => Box::<OAuthFields>::default(),
            file::OAuth::Found(false) => {
                self.report(at, "this says nothing", "take it out");
                return None;
            }
            file::OAuth::Written(written) => written,
        };
        self.check_public_url(at, name);
        if setup.fields.iter().any(|field| *field.name != *Credential::TOKEN) {
            let help = "take `tokenSetup.fields` out; <<token>> is what the service gives";
            self.report_key(at, "who signs in at the service gets one token", help);
        }
        Some(self.read_oauth(at, *written))
    }

    fn read_oauth(&mut self, at: &Path, written: OAuthFields) -> OAuth {
        let hosts = written.allow_hosts.unwrap_or_default().into_iter().enumerate();
        let hosts = hosts.filter_map(|(index, host)| self.host(&at.key("allowHosts").index(index), &host?));
        let allow_hosts: Vec<String> = hosts.collect();
        let ends = [
            ("authorizationEndpoint", written.authorization_endpoint),
            ("tokenEndpoint", written.token_endpoint),
            ("revocationEndpoint", written.revocation_endpoint),
            ("deviceEndpoint", written.device_endpoint),
        ];
        let [authorization, token, revocation, device] =
            ends.map(|(key, text)| text.map(|text| self.endpoint(&at.key(key), &text, &allow_hosts)));
        let issuer = written.issuer.filter(|issuer| self.is_issuer(&at.key("issuer"), issuer, &allow_hosts));
        let client = self.configured_client(at, written.client_id, written.client_secret);
        let service = match (authorization, token) {
            (Some(authorization), Some(token)) => match (authorization, token) {
                (Some(authorization), Some(token)) => NamedService::Endpoints { authorization, token, issuer },
                _ => NamedService::Found,
            },
            (None, None) => issuer.map_or(NamedService::Found, NamedService::Issuer),
            (one, _) => {
                let (has, lacks) = if one.is_some() { ("authorization", "token") } else { ("token", "authorization") };
                self.report(
                    &at.key(&format!("{has}Endpoint")),
                    format!("`{lacks}Endpoint` is missing beside it"),
                    "write both, or `issuer` alone",
                );
                NamedService::Found
            }
        };
        let oauth = OAuth {
            service,
            revocation: revocation.flatten(),
            device: device.flatten(),
            client,
            client_auth: written.client_auth.unwrap_or_default(),
            registration: written.registration.unwrap_or_default(),
            redirect_uri: written.redirect_uri.filter(|text| self.is_redirect_uri(&at.key("redirectUri"), text)),
            scopes: self.scopes(&at.key("scopes"), written.scopes.unwrap_or_default()),
            resource: self.resource(&at.key("resource"), written.resource),
            audience: written.audience.filter(|text| self.is_said(&at.key("audience"), text)),
            audience_on_refresh: written.audience_on_refresh.unwrap_or_default(),
            authorize_params: self.authorize_params(&at.key("authorizeParams"), written.authorize_params),
            allow_hosts,
            refresh_before: self.time(
                &at.key("refreshBefore"),
                written.refresh_before.as_ref(),
                REFRESH_BEFORE,
                Zero::Allowed,
            ),
            also_token: written.also == Some(PasteToo::Token),
        };
        self.check_oauth_client(at, &oauth);
        if oauth.audience_on_refresh && oauth.audience.is_none() {
            self.report_key(
                &at.key("audienceOnRefresh"),
                "there is no `audience` to say",
                "write `audience`, or take it out",
            );
        }
        oauth
    }

    fn configured_client(&mut self, at: &Path, id: Option<Value>, secret: Option<Value>) -> Option<ConfiguredClient> {
        let at_secret = at.key("clientSecret");
        let has_id = id.is_some();
        let id = self.setting(&at.key("clientId"), id);
        if matches!(secret, Some(Value::Plain(_))) {
            self.report(&at_secret, "a secret does not stand in this file", "write { \"$env\": \"NAME\" }");
            return None;
        }
        let has_secret = secret.is_some();
        let secret = self.setting(&at_secret, secret);
        if has_secret && !has_id {
            self.report(&at_secret, "`clientId` is missing beside it", "write the id that you were given, too");
        }
        let secret = match &secret {
            Setting::Known(text) => Some(Secret::new(text.to_string())),
            Setting::Absent | Setting::Unknown => None,
        };
        id.known().map(|id| ConfiguredClient { id: id.to_owned(), secret })
    }

    fn endpoint(&mut self, at: &Path, text: &str, allowed: &[String]) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| url.fragment().is_none());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        let Some(url) = url.filter(|url| url.username().is_empty() && url.password().is_none()) else {
            self.report(at, "this is not a URL to call", "write https://host/path");
            return None;
        };
        self.check_leave(at, &url, allowed);
        Some(url)
    }

    fn is_issuer(&mut self, at: &Path, text: &str, allowed: &[String]) -> bool {
        let url = Url::parse(text).ok().filter(|url| url.query().is_none() && url.fragment().is_none());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        let Some(url) = url else {
            self.report(at, "this is not the name of an issuer", "write https://host, as its metadata says it");
            return false;
        };
        self.check_leave(at, &url, allowed);
        true
    }

    /// A code goes over https, or stays on the machine. Source: RFC 8252 section 7.3.
    fn is_redirect_uri(&mut self, at: &Path, text: &str) -> bool {
        let url = Url::parse(text).ok().filter(|url| url.fragment().is_none() && url.username().is_empty());
        let is_safe = |url: &Url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(url);
        let is_one = url.is_some_and(|url| is_safe(&url));
        if !is_one {
            self.report(
                at,
                "nobody can be led there safely",
                "write what was registered: http://localhost:PORT/…, or https",
            );
        }
        is_one
    }

    fn check_leave(&mut self, at: &Path, url: &Url, allowed: &[String]) {
        if needs_leave(url, allowed) {
            let host = url.host_str().unwrap_or_default();
            let help = format!("use https, or add \"{host}\" to `allowHosts`");
            self.report(at, "this is a private address, or has no TLS", help);
        }
    }

    fn host(&mut self, at: &Path, text: &str) -> Option<String> {
        let url = Url::parse(&format!("http://{text}/")).ok();
        let host = url.as_ref().and_then(|url| Some((url.host_str()?, url.port(), url.path(), url.username())));
        match host {
            Some((host, None, "/", "")) if !text.ends_with('/') => Some(host.to_owned()),
            _ => {
                self.report(at, "this is not a host", "write its name or address alone, without a port");
                None
            }
        }
    }

    fn scopes(&mut self, at: &Path, written: Vec<Option<String>>) -> Vec<String> {
        let is_scope = |text: &str| {
            // RFC 6749 section 3.3
            !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        };
        let mut scopes = Vec::new();
        for (index, scope) in written.into_iter().enumerate().filter_map(|(index, scope)| Some((index, scope?))) {
            if is_scope(&scope) {
                scopes.push(scope);
            } else {
                self.report(&at.index(index), "this is not a scope", "write each by itself, without blanks and quotes");
            }
        }
        scopes
    }

    fn resource(&mut self, at: &Path, written: Option<Resource>) -> ResourceIndicator {
        match written {
            None => ResourceIndicator::Found,
            Some(Resource::Said(false)) => ResourceIndicator::Unsaid,
            Some(Resource::Named(text)) if Url::parse(&text).is_ok_and(|url| url.fragment().is_none()) => {
                ResourceIndicator::Named(text)
            }
            Some(_) => {
                self.report(
                    at,
                    "this names no resource",
                    "write its URL, false where the service refuses to be told, or nothing",
                );
                ResourceIndicator::Found
            }
        }
    }

    fn authorize_params(
        &mut self,
        at: &Path,
        written: Option<std::collections::BTreeMap<String, Option<String>>>,
    ) -> Vec<(String, String)> {
        let mut params = Vec::new();
        for (name, value) in written.unwrap_or_default() {
            let at = at.key(&name);
            if name.is_empty() || OF_THE_PROTOCOL.contains(&name.as_str()) {
                self.report_key(&at, "the bridge sets this parameter itself", "take it out");
            }
            params.extend(value.map(|value| (name, value)));
        }
        params
    }

    fn is_said(&mut self, at: &Path, text: &str) -> bool {
        if text.trim().is_empty() {
            self.report(at, "this must not be empty", "write it, or take it out");
        }
        !text.is_empty()
    }
}
