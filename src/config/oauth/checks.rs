//! What of how users sign in cannot work, or is not safe.

use std::net::IpAddr;

use url::{Host, Url};

use super::{NamedService, OAuth};
use crate::config::hosts::is_loopback;
use crate::config::load::Loader;
use crate::config::written::choices::{ClientAuthentication, Registration};
use crate::config::written::path::Path;
use crate::config::{Plan, ServerName};

impl Loader<'_> {
    /// Whether what tells the server apart fits how its users sign in, if they do, and takes what the service gives.
    pub(in crate::config) fn check_oauth_of(
        &mut self,
        at: &Path,
        (oauth, plan): (Option<&OAuth>, Option<&Plan>),
        takes_token: bool,
    ) {
        if oauth.is_some() && !takes_token {
            let help = "put { \"$userToken\": \"<<token>>\" } where the token goes, for example in `env`";
            self.report_key(at, "the token that the service gives would go nowhere", help);
        }
        let Some((oauth, plan)) = oauth.zip(plan) else { return };
        let Plan::Http(plan) = plan else {
            if oauth.service == NamedService::Found {
                let help = "name its `issuer`, or `authorizationEndpoint` and `tokenEndpoint`";
                self.report(at, "a program cannot say where its users sign in", help);
            }
            return;
        };
        if plan.url.has_holes() {
            let help = "write the URL without placeholders; the token goes into a header";
            self.report(at, "where users sign in is asked before there is a token to put into the URL", help);
            return;
        }
        let origin = Url::parse(&plan.origin).ok();
        if let Some(url) = origin.filter(|url| needs_leave(url, &oauth.allow_hosts)) {
            let host = url.host_str().unwrap_or_default();
            let help = format!(
                "use https, or write \"oauth\": {{ \"allowHosts\": [\"{host}\"] }} if nobody listens in between"
            );
            self.report(at, "the server has a private address, or no TLS, and tokens would be sent there", help);
        }
    }

    /// The page, its cookie and the redirect need a URL that browsers and the service know.
    pub(super) fn check_public_url(&mut self, at: &Path, name: &ServerName) {
        let Some(url) = self.public_url.clone() else { return };
        let help = format!(
            "write \"publicUrl\": \"https://…\" at the top; the redirect URI is publicUrl/oauth/callback/{name} then"
        );
        if url.port() == Some(0) {
            self.report_key(at, "the redirect URI is not known while the port is not", help);
        } else if url.scheme() != "https" && !is_loopback(&url) {
            self.report_key(at, "nobody can sign in: browsers keep the bridge's cookies over https only", help);
        }
    }

    pub(super) fn check_oauth_client(&mut self, at: &Path, oauth: &OAuth) {
        let has_secret = oauth.client.as_ref().is_some_and(|client| client.secret.is_some());
        let lacks_variable = self.document.kind(&at.key("clientSecret")) != "nothing" && !has_secret;
        match (oauth.client_auth, has_secret) {
            (ClientAuthentication::None, true) => {
                self.report_key(
                    &at.key("clientAuth"),
                    "the secret would not be used",
                    "take `clientSecret` or this out",
                );
            }
            (ClientAuthentication::Basic | ClientAuthentication::Post, false)
                if oauth.client.is_some() && !lacks_variable =>
            {
                self.report_key(
                    &at.key("clientAuth"),
                    "there is no `clientSecret` to show",
                    "add it, or take this out",
                );
            }
            _ => {}
        }
        let at_registration = at.key("registration");
        match (oauth.registration, &oauth.client) {
            (Registration::Preregistered, None) => {
                self.report(&at_registration, "`clientId` is missing", "write the id that you were given");
            }
            (Registration::Dynamic | Registration::MetadataDocument, Some(_)) => {
                self.report(&at_registration, "a `clientId` is written, too", "take one of them out");
            }
            (Registration::MetadataDocument, None)
                if self.public_url.as_ref().is_some_and(|url| url.scheme() != "https") =>
            {
                self.report(
                    &at_registration,
                    "a service reads the document over https only",
                    "write an https `publicUrl`",
                );
            }
            _ => {}
        }
        if matches!(oauth.service, NamedService::Endpoints { .. }) && oauth.client.is_none() {
            let help = "register the bridge there, and write the id that you are given";
            self.report(at, "`clientId` is missing: endpoints alone do not say how to register", help);
        }
    }
}

/// Whether an operator must have let the host of `url` through for it to be called, and has not.
pub(super) fn needs_leave(url: &Url, allowed: &[String]) -> bool {
    let is_private = match url.host() {
        Some(Host::Ipv4(ip)) => is_not_public(ip.into()),
        Some(Host::Ipv6(ip)) => is_not_public(ip.into()),
        Some(Host::Domain(_)) | None => is_loopback(url),
    };
    let is_allowed = url.host_str().is_some_and(|host| allowed.iter().any(|other| other == host));
    (url.scheme() != "https" || is_private) && !is_allowed
}

fn is_not_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}
