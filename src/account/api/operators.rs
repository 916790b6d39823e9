//! What operators do with the tokens of others, on a listener of their own and with a token of their own: a user's token for
//! a server, who has connected what, and what the audit says. Values go in and never out here, too.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use matchit::Params;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::problem::Problem;
use super::token::{self, Whose};
use super::{check_method, json};
use crate::account::{Account, Refusal};
use crate::audit::{StreamId, StreamLine};
use crate::auth::{Authenticator, PeerAddr};
use crate::config::ServerName;
use crate::request_id::RequestId;
use crate::respond::Body;
use crate::secret::Secret;
use crate::store::{ListPlace, Listing, SavedBy};
use crate::tokens::By;
use crate::user::{LOCAL_ISSUER, UserId};

/// What lines of the audit call whoever uses it.
const CLIENT: &str = "admin API";

/// What every path begins with.
const PREFIX: &str = "/api/v1/admin/";

/// The API of operators.
pub struct Operators {
    account: Arc<Account>,
    authenticator: Authenticator,
    table: matchit::Router<Route>,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy)]
enum Route {
    /// `users/{user}/servers/{server}/token`
    Token,
    /// `connections`
    Connections,
    /// `audit`
    Audit,
}

impl Route {
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Token => token::METHODS,
            Self::Connections | Self::Audit => &[Method::GET],
        }
    }

    /// What its query may name.
    fn parameter(self) -> &'static str {
        match self {
            Self::Token => "issuer",
            Self::Connections | Self::Audit => "after",
        }
    }
}

/// Some of what is saved.
#[derive(Serialize)]
struct Page<'a> {
    connections: Vec<Connection<'a>>,
    /// Those whose user or server cannot be told.
    unreadable: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    user: &'a str,
    issuer: &'a str,
    server: &'a str,
    /// Not of one that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_at: Option<String>,
}

/// Some lines of the audit.
#[derive(Serialize)]
struct Lines<'a> {
    lines: Vec<Line<'a>>,
    /// After which place to read on, once there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    line: &'a RawValue,
}

impl Operators {
    /// The API for whoever presents this token.
    #[must_use]
    pub fn new(account: Arc<Account>, token: &Secret) -> Self {
        let mut table = matchit::Router::new();
        for (path, route) in [
            ("users/{user}/servers/{server}/token", Route::Token),
            ("connections", Route::Connections),
            ("audit", Route::Audit),
        ] {
            table.insert(format!("{PREFIX}{path}"), route).expect("the path is well formed");
        }
        Self { account, authenticator: Authenticator::of_operators(token), table }
    }

    /// Whether a path is one of its own.
    #[must_use]
    pub fn has(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    /// Answers an operator; it never fails, and says so in the answer if something did.
    pub async fn answer(&self, request: Request<Incoming>, peer: PeerAddr) -> Response<Body> {
        let id = RequestId::of(request.headers(), peer.ip());
        id.introduce(CLIENT);
        let (head, body) = request.into_parts();
        let answering = async {
            let performed = self.perform(&head, body, peer).await;
            performed.unwrap_or_else(|problem| self.account.answer_with(&problem, peer))
        };
        id.answer(peer, Box::pin(answering)).await
    }

    async fn perform(&self, head: &Parts, body: Incoming, peer: PeerAddr) -> Result<Response<Body>, Problem> {
        self.authenticator.authenticate(&peer, &head.headers)?;
        let found = self.table.at(head.uri.path()).map_err(|_| Refusal::NotFound)?;
        let route = *found.value;
        check_method(head, route.methods())?;
        let parameter = parameter(head, route.parameter())?;
        match route {
            Route::Token => self.perform_on_token(&found.params, parameter.as_deref(), head, body).await,
            Route::Connections => self.connections(parameter.as_deref()).await,
            Route::Audit => self.audit(parameter.as_deref()).await,
        }
    }

    /// `GET|PUT|DELETE /api/v1/admin/users/{user}/servers/{server}/token?issuer=`. What is saved for a server that is no longer
    /// configured, or for a user whom nobody recognises any more, can be seen and removed.
    async fn perform_on_token(
        &self,
        params: &Params<'_, '_>,
        issuer: Option<&str>,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Problem> {
        let user = user(params.get("user").unwrap_or_default(), issuer.unwrap_or(LOCAL_ISSUER))?;
        let server = params.get("server").and_then(ServerName::parse).ok_or(Refusal::NotFound)?;
        let config = &self.account.config;
        if head.method == Method::PUT && !config.may_call(&user) {
            return Err(Problem::Nobody);
        }
        let whose = Whose { user: &user, server: &server, by: By { caller: None, how: SavedBy::Api } };
        self.account.perform_on_token(whose, config.servers.get(&server), head, body).await
    }

    /// `GET /api/v1/admin/connections?after=`
    async fn connections(&self, after: Option<&str>) -> Result<Response<Body>, Problem> {
        const AFTER: Problem = Problem::Malformed("`after` must be the `next` of an answer");
        let store = &self.account.store;
        let after: Option<ListPlace> = after.map(|text| store.place(text).ok_or(AFTER)).transpose()?;
        let page = store.list_page(after).await;
        let (listing, next) = page.map_err(|error| self.account.store_failed(&error, Refusal::NotKnown))?;
        Ok(json(&Page::of(&listing, next.as_ref())))
    }

    /// `GET /api/v1/admin/audit?after=`
    async fn audit(&self, after: Option<&str>) -> Result<Response<Body>, Problem> {
        const AFTER: Problem = Problem::Malformed("`after` must be the `id` of a line");
        let after = after.map(|text| StreamId::parse(text).ok_or(AFTER)).transpose()?;
        let lines = self.account.audit.read(after).await.ok_or(Problem::NoStream)?;
        let lines = lines.map_err(|error| self.account.store_failed(&error, Refusal::NotKnown))?;
        Ok(json(&Lines::of(&lines, after)))
    }
}

impl<'a> Page<'a> {
    fn of(listing: &'a Listing, next: Option<&ListPlace>) -> Self {
        let connections = listing.entries.iter().map(|entry| Connection {
            user: entry.user.subject(),
            issuer: entry.user.issuer(),
            server: entry.server.as_str(),
            saved_at: entry.saved_at.as_ref().ok().map(ToString::to_string),
        });
        Self { connections: connections.collect(), unreadable: listing.unreadable, next: next.map(ToString::to_string) }
    }
}

impl<'a> Lines<'a> {
    fn of(lines: &'a [StreamLine], after: Option<StreamId>) -> Self {
        let next = lines.last().map(|line| line.id).or(after).map(|id| id.to_string());
        // What is no JSON was not added by a bridge.
        let line =
            |line: &'a StreamLine| Some(Line { id: line.id.to_string(), line: serde_json::from_str(&line.line).ok()? });
        Self { lines: lines.iter().filter_map(line).collect(), next }
    }
}

/// The user whom a segment of a path names, which may hold any character with an escape.
fn user(segment: &str, issuer: &str) -> Result<UserId, Problem> {
    const USER: Problem = Problem::Malformed("no user has this name, or the issuer has none");
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| USER)?;
    UserId::new(issuer, &name).map_err(|_| USER)
}

/// The only parameter that the query may have, if it has it.
fn parameter(head: &Parts, name: &str) -> Result<Option<String>, Problem> {
    const QUERY: Problem = Problem::Malformed("the query has a parameter that this path does not take, or takes once");
    let mut parameters = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    match (parameters.next(), parameters.next()) {
        (None, _) => Ok(None),
        (Some((given, value)), None) if given == name && !value.contains(char::REPLACEMENT_CHARACTER) => {
            Ok(Some(value.into_owned()))
        }
        _ => Err(QUERY),
    }
}
