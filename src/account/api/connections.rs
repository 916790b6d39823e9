//! What a user has connected by signing in at services: listed, begun and ended.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{Method, Response};
use serde::Serialize;

use super::problem::Problem;
use super::saved::{SignIn, word};
use super::{Visit, json};
use crate::account::service::Browser;
use crate::account::standing::Standing;
use crate::account::{Account, Refusal};
use crate::auth::Visitor;
use crate::clock::UnixTime;
use crate::config::{Config, Server};
use crate::respond::Body;
use crate::store::{Over, Overview};
use crate::tokens::{ChangeError, Disconnected};

/// How a server at whose service its users sign in stands with one of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    server: &'a str,
    display_name: &'a str,
    /// Where a person connects it.
    connect_url: String,
    status: &'static str,
    #[serde(flatten)]
    sign_in: Option<SignIn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(flatten)]
    granted: Option<Granted<'a>>,
}

/// What may be shown of what a service gave.
#[derive(Serialize)]
struct Granted<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    client: &'static str,
}

impl<'a> Connection<'a> {
    fn of((config, server): (&Config, &'a Server), saved: &'a [Overview], now: UnixTime) -> Self {
        let saved = saved.iter().find(|saved| saved.server == server.name);
        let about = saved.and_then(|saved| saved.about.as_ref().ok());
        let granted = about.and_then(|about| about.grant.as_ref()).map(|grant| Granted {
            account: grant.account.as_deref(),
            scopes: &grant.scopes,
            issuer: grant.issuer.as_deref(),
            client: grant.client.as_str(),
        });
        Self {
            server: server.name.as_str(),
            display_name: server.display_name(),
            connect_url: config.connect_link(&server.name),
            status: word(Standing::of(server, saved.map(|saved| (saved, now)))),
            sign_in: SignIn::of(server, saved, now),
            connected_at: about.map(|about| about.saved_at.to_string()),
            expires_at: about.and_then(|about| about.expires_at).map(|end| end.to_string()),
            granted,
        }
    }
}

impl Account {
    /// `GET /api/v1/connections`
    pub(super) async fn list_connections(&self, visitor: &Visitor) -> Result<Response<Body>, Problem> {
        let (saved, now) = (self.saved(&visitor.caller.user).await?, self.clock.now());
        let servers = self.config.servers.values().filter(|server| server.oauth.is_some());
        let servers = servers.filter(|server| server.allows(&visitor.caller));
        let connections: Vec<_> = servers.map(|server| Connection::of((&self.config, server), &saved, now)).collect();
        Ok(json(&BTreeMap::from([("connections", connections)])))
    }

    /// `POST` and `DELETE /api/v1/connections/{server}`
    pub(super) async fn perform_on_connection(&self, visit: &Visit, head: &Parts) -> Result<Response<Body>, Problem> {
        if visit.server.oauth.is_none() {
            return Err(Refusal::NotFound.into());
        }
        if head.method == Method::POST {
            self.begin_connection(visit, head).await
        } else {
            self.end_connection(visit).await
        }
    }

    /// Begins a sign-in. A program has no browser: the person who goes there must have signed in to the pages as this user.
    async fn begin_connection(&self, visit: &Visit, head: &Parts) -> Result<Response<Body>, Problem> {
        self.count_change(&visit.visitor.caller.user).await?;
        let browser = visit.visitor.session.is_some().then(|| Browser::of(head));
        match self.begin(visit, browser.as_ref(), false).await {
            Ok(url) => {
                let response = json(&BTreeMap::from([("authorizationUrl", url.as_str())]));
                Ok(match browser {
                    Some(browser) => browser.remember(response),
                    None => response,
                })
            }
            Err(fault) => {
                let (status, sentence) = self.judge(visit, fault)?;
                Err(Problem::NoSignIn(status, sentence))
            }
        }
    }

    /// Removes what was saved, and asks the service to take back what it gave.
    async fn end_connection(&self, visit: &Visit) -> Result<Response<Body>, Problem> {
        let whose = visit.whose();
        let ended = self.tokens.disconnect(whose.by, (whose.user, &visit.server), Over::Anything).await;
        let ended = ended.map_err(|error| match error {
            // Renewals were faster again and again.
            ChangeError::Changed => Refusal::NotRemoved.into(),
            error => self.not_changed(error, Refusal::NotRemoved),
        })?;
        if ended == Disconnected::Absent {
            return Err(Problem::NoToken);
        }
        tracing::info!(user = %whose.user, server = %whose.server, "disconnected with the API");
        Ok(json(&BTreeMap::from([("revoked", ended == Disconnected::GivenBack(true))])))
    }
}
