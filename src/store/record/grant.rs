//! What a record holds beside its access token that a service gave to its user: what renews it, and for what it was made.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::secret::Secret;

/// What a user granted to this bridge at a service. The access token is the record's value, and `expires_at` its end.
#[derive(Debug)]
pub struct Grant {
    /// How it stands.
    pub state: GrantState,
    /// What gets another access token, if the service gave it.
    pub refresh_token: Option<Secret>,
    /// What was granted, as far as the service says so; else what was asked for.
    pub scopes: Vec<String>,
    /// The resource that it was asked for. Source: RFC 8707.
    pub resource: Option<String>,
    /// Who issued it, where that is known.
    pub issuer: Option<String>,
    /// The origin of the server that it may be sent to, where it is elsewhere.
    pub origin: Option<String>,
    /// As which client it was granted to the bridge.
    pub client: ClientOf,
    /// Where it is renewed, and where it is given back.
    pub token_endpoint: String,
    /// Where it is given back. Source: RFC 7009.
    pub revocation_endpoint: Option<String>,
    /// Which account at the service it is, as the service names it to people.
    pub account: Option<String>,
    /// The same as the service knows it.
    pub subject: Option<String>,
    /// What its server demands besides, for which its user has not been asked yet.
    pub demanded: Vec<String>,
    /// When its user was last asked for more.
    pub step_ups: Vec<u64>,
    /// How often in a row it could not be renewed, for reasons that are not its user's.
    pub failures: u32,
    /// When it may be tried again, after such a failure.
    pub next_try: UnixTime,
}

impl Grant {
    /// Whether its user must sign in again.
    #[must_use]
    pub fn needs_sign_in(&self) -> bool {
        matches!(self.state, GrantState::NeedsSignIn { .. })
    }
}

/// How a grant stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GrantState {
    /// It may be used.
    Valid,
    /// Its refresh token is on its way to the service, or was when a node ended.
    Refreshing {
        /// Since when.
        since: u64,
        /// Which attempt it is.
        attempt: String,
    },
    /// Its user must sign in at the service again.
    NeedsSignIn {
        /// Why.
        reason: SignInReason,
        /// Since when.
        since: u64,
    },
}

/// Why a user must sign in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignInReason {
    /// The service withdrew it.
    Rejected,
    /// The answer of the service to an attempt to renew it was lost, and the service takes the old token no more.
    Lost,
    /// The service does not know the bridge any more as who it was.
    Client,
    /// It is for something else than what is configured now.
    Changed,
    /// It has expired, and the service gave nothing to renew it.
    Expired,
    /// The server does not take what the service has just renewed.
    Refused,
}

impl SignInReason {
    /// The reason as a word, one of [`crate::metrics::SIGN_IN_REASONS`]: for log fields and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Client => "client",
            Self::Changed => "changed",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

/// As which client something was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientOf {
    /// Its id at the service.
    pub id: String,
    /// How it came to be known there.
    pub kind: ClientKind,
    /// How it shows who it is.
    pub auth: ClientAuth,
}

/// How a client came to be known to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientKind {
    /// An operator registered it, and wrote it down.
    Configured,
    /// The service reads our metadata document. Source: draft-ietf-oauth-client-id-metadata-document.
    Document,
    /// The bridge registered itself. The registration of this id has the secret. Source: RFC 7591.
    Registered(String),
}

impl ClientKind {
    /// The kind as a word, as the configuration has it for how a client comes to be known.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Configured => "preregistered",
            Self::Document => "metadataDocument",
            Self::Registered(_) => "dynamic",
        }
    }
}

/// How a client shows who it is. Source: RFC 6749 section 2.3.1; RFC 7591 section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientAuth {
    /// It says who it is, and no more.
    None,
    /// With its secret in a header.
    Basic,
    /// With its secret in the form.
    Post,
}

/// As it is sealed within the second format.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Plain<'a> {
    state: GrantState,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    refresh_token: Option<Cow<'a, str>>,
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    client: ClientOf,
    token_endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation_endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    demanded: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    step_ups: Vec<u64>,
    failures: u32,
    next_try: u64,
}

impl<'a> Plain<'a> {
    pub(super) fn of(grant: &'a Grant) -> Self {
        Self {
            state: grant.state.clone(),
            refresh_token: grant.refresh_token.as_ref().map(|token| token.expose().into()),
            scopes: grant.scopes.clone(),
            resource: grant.resource.clone(),
            issuer: grant.issuer.clone(),
            origin: grant.origin.clone(),
            client: grant.client.clone(),
            token_endpoint: grant.token_endpoint.clone(),
            revocation_endpoint: grant.revocation_endpoint.clone(),
            account: grant.account.clone(),
            subject: grant.subject.clone(),
            demanded: grant.demanded.clone(),
            step_ups: grant.step_ups.clone(),
            failures: grant.failures,
            next_try: grant.next_try.0,
        }
    }

    pub(super) fn into_grant(self) -> Grant {
        Grant {
            state: self.state,
            refresh_token: self.refresh_token.map(|token| Secret::new(token.into_owned())),
            scopes: self.scopes,
            resource: self.resource,
            issuer: self.issuer,
            origin: self.origin,
            client: self.client,
            token_endpoint: self.token_endpoint,
            revocation_endpoint: self.revocation_endpoint,
            account: self.account,
            subject: self.subject,
            demanded: self.demanded,
            step_ups: self.step_ups,
            failures: self.failures,
            next_try: UnixTime(self.next_try),
        }
    }

    /// More than its JSON takes, bytes, where one byte of a text takes so many.
    pub(super) fn size(&self, escaped: usize) -> usize {
        let texts =
            [&self.resource, &self.issuer, &self.origin, &self.revocation_endpoint, &self.account, &self.subject];
        let texts = texts
            .into_iter()
            .flatten()
            .chain(&self.scopes)
            .chain(&self.demanded)
            .chain([&self.client.id, &self.token_endpoint]);
        let all: usize = texts.map(|text| 8 + text.len()).sum();
        1024 + 24 * self.step_ups.len() + escaped * (all + self.refresh_token.as_ref().map_or(0, |token| token.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SIGN_IN_REASONS;

    #[test]
    fn every_reason_is_counted() {
        use SignInReason::{Changed, Client, Expired, Lost, Refused, Rejected};
        assert_eq!([Rejected, Lost, Client, Changed, Expired, Refused].map(SignInReason::as_str), SIGN_IN_REASONS);
    }
}
