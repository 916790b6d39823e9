//! A sign-in that has begun: what must hold when its answer comes, sealed until then.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::service::{Fault, Service, host_of};
use crate::config::{Plan, Server};
use crate::store::{ClientOf, Held, StoreError};
use crate::user::UserId;

/// What is sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// Whose it is.
    pub(super) user: [String; 2],
    pub(super) server: String,
    pub(super) service: Service,
    /// As which client the bridge asked.
    pub(super) client: ClientOf,
    pub(super) redirect_uri: String,
    /// What only who has begun it knows. Source: RFC 7636.
    pub(super) verifier: String,
    pub(super) resource: Option<String>,
    pub(super) scopes: Vec<String>,
    /// A hash of what its browser is known by, if it was begun in one.
    pub(super) browser: Option<String>,
    /// Tells how the server was configured.
    pub(super) configured: String,
    /// Whether the bridge had registered itself anew for it.
    pub(super) is_anew: bool,
}

/// A sign-in that has begun and has not been answered.
#[derive(Debug)]
pub struct Flow {
    pub(super) kept: Box<Kept>,
    pub(super) held: Held,
}

impl Flow {
    /// Whether it was begun by this user, and in this browser if it was in one.
    pub(super) fn is_of(&self, user: &UserId, browser: Option<&str>) -> bool {
        let is_there = |begun: &String| browser.is_some_and(|browser| hashed(browser) == *begun);
        self.kept.user == [user.issuer(), user.subject()] && self.kept.browser.as_ref().is_none_or(is_there)
    }

    /// Whether it was begun for this server.
    pub(super) fn is_for(&self, server: &Server) -> bool {
        self.kept.server == server.name.as_str()
    }

    /// Whether the server is still what it was.
    pub(super) fn is_current(&self, server: &Server) -> bool {
        configured(server) == self.kept.configured
    }

    /// Whether an answer is from who was asked.
    pub(super) fn is_answered_by(&self, issuer: Option<&str>) -> bool {
        let service = &self.kept.service;
        super::callback::is_from(service.issuer.as_deref(), service.names_itself, issuer)
    }

    /// That the service has refused, by a code of the standard's or by another one.
    #[must_use]
    pub fn refused(&self, code: Option<&'static str>) -> Fault {
        Fault::Refused { host: host_of(&self.kept.service.authorization_endpoint), code }
    }

    /// Whether the bridge had registered itself anew for it.
    #[must_use]
    pub fn is_anew(&self) -> bool {
        self.kept.is_anew
    }
}

/// Why an answer to a sign-in is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// No sign-in waits for it.
    #[error("no sign-in waits for this answer")]
    Ended,
    /// Somebody else's does, or one in another browser.
    #[error("the sign-in was begun by somebody else, or in another browser")]
    OtherBrowser,
    /// It is not from who was asked. The sign-in has ended.
    #[error("the answer is from another issuer")]
    OtherIssuer,
    /// Nobody knows.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.server)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.verifier);
    }
}

/// What is kept of a browser's name.
pub(super) fn hashed(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// Tells how a server's users sign in, and where its tokens go. It shows no secret, and neither does what it is made of.
pub(super) fn configured(server: &Server) -> String {
    let url = match &server.plan {
        Plan::Http(plan) => plan.url.fixed_text(),
        Plan::Stdio(_) | Plan::Container(_) => None,
    };
    let Some(oauth) = &server.oauth else { return String::new() };
    let client = (oauth.client.as_ref().map(|client| &client.id), oauth.client_auth, oauth.registration);
    let asked = (&oauth.scopes, &oauth.resource, &oauth.audience, &oauth.authorize_params);
    let called = (&oauth.service, &oauth.revocation, &oauth.allow_hosts);
    hashed(&format!("{url:?} {client:?} {asked:?} {called:?}"))
}
