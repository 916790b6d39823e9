//! The same as the pages for programs: what is saved, and changes of it, as JSON over HTTP; and for operators, on a listener
//! of their own. `api/openapi.json` describes all of it.
//!
//! Invariants, beside those of the pages: values go in and never out; nothing is changed but what the caller says it
//! knows, or knows is not there; a browser's session is good for a change only with what a page elsewhere cannot send.

mod connections;
mod given;
mod operators;
mod precondition;
mod problem;
mod saved;
mod token;

use std::collections::BTreeMap;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::{Account, Refusal, Visit};
use crate::auth::{PeerAddr, Visitor, check_origin, only};
use crate::config::ServerName;
use crate::request_id::RequestId;
use crate::respond::{self, Body};
use crate::store::SavedBy;
use crate::tokens::By;

use problem::Problem;
use saved::Entry;
use token::Whose;

pub use operators::Operators;

/// What lines of the audit call a program that uses it.
const CLIENT: &str = "API";

/// The description of everything here. Source: `OpenAPI` 3.1.
const DESCRIPTION: &str = include_str!("api/openapi.json");

/// The header with which a browser proves that a page of ours sends a change.
const CSRF: HeaderName = HeaderName::from_static("x-tollbridge-csrf");

/// What that is made for, in place of the path of a form.
const CSRF_PATH: &str = "/api";

/// What a path below `/api/` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// `/api/v1/servers`: all servers that the caller may use, and what they have saved.
    Servers,
    /// `/api/v1/servers/{server}/token`: what they have saved for one.
    Token(&'a str),
    /// `/api/v1/servers/{server}/probe`: where values are tried and not saved.
    Probe(&'a str),
    /// `/api/v1/connections`: all servers at whose services the caller may sign in, and how that stands.
    Connections,
    /// `/api/v1/connections/{server}`: one, where a sign-in begins and ends what it gave.
    Connection(&'a str),
    /// `/api/v1/openapi.json`
    Description,
    /// Any other: nothing.
    Nowhere,
}

impl Operation<'_> {
    /// The methods that the path takes.
    fn methods(self) -> Result<&'static [Method], Refusal> {
        match self {
            Self::Servers | Self::Connections | Self::Description => Ok(&[Method::GET]),
            Self::Token(_) => Ok(token::METHODS),
            Self::Probe(_) => Ok(&[Method::POST]),
            Self::Connection(_) => Ok(&[Method::POST, Method::DELETE]),
            Self::Nowhere => Err(Refusal::NotFound),
        }
    }
}

impl Account {
    /// Answers a program; it never fails, and says so in the answer if something did.
    pub async fn perform(
        &self,
        operation: Operation<'_>,
        request: Request<Incoming>,
        peer: PeerAddr,
    ) -> Response<Body> {
        if let Some(id) = RequestId::current() {
            id.introduce(CLIENT);
        }
        let (head, body) = request.into_parts();
        let performed = self.try_to_perform(operation, &head, body, peer).await;
        performed.unwrap_or_else(|problem| self.answer_with(&problem, peer))
    }

    async fn try_to_perform(
        &self,
        operation: Operation<'_>,
        head: &Parts,
        body: Incoming,
        peer: PeerAddr,
    ) -> Result<Response<Body>, Problem> {
        check_origin(head, &self.config).map_err(Refusal::Host)?;
        check_method(head, operation.methods()?)?;
        match operation {
            Operation::Servers => self.list_servers(&self.visitor(head, peer).await?).await,
            Operation::Token(server) => {
                let visit = self.call(server, head, peer).await?;
                let server = &visit.server;
                self.perform_on_token(visit.whose(), Some(server), head, body).await
            }
            Operation::Probe(server) => {
                let visit = self.call(server, head, peer).await?;
                self.probe(&visit, head, body).await
            }
            Operation::Connections => self.list_connections(&self.visitor(head, peer).await?).await,
            Operation::Connection(server) => {
                let visit = self.call(server, head, peer).await?;
                self.perform_on_connection(&visit, head).await
            }
            Operation::Description => Ok(respond::json(StatusCode::OK, DESCRIPTION)),
            Operation::Nowhere => Err(Refusal::NotFound.into()),
        }
    }

    /// Who calls, about which server. A cookie alone, which a browser sends whoever makes it do so, changes nothing.
    async fn call(&self, server: &str, head: &Parts, peer: PeerAddr) -> Result<Visit, Problem> {
        let visit = self.visit(ServerName::parse(server), head, peer).await?;
        if visit.visitor.session.is_some() && head.method != Method::GET {
            self.check_token(only(&head.headers, &CSRF).unwrap_or_default(), &visit.visitor, CSRF_PATH)?;
        }
        Ok(visit)
    }

    /// `GET /api/v1/servers`
    async fn list_servers(&self, visitor: &Visitor) -> Result<Response<Body>, Problem> {
        let (saved, now) = (self.saved(&visitor.caller.user).await?, self.clock.now());
        let servers = self.config.servers.values().filter(|server| server.allows(&visitor.caller));
        let entries: Vec<_> = servers.map(|server| Entry::of((&self.config, server), &saved, now)).collect();
        let mut response = json(&BTreeMap::from([("servers", entries)]));
        if visitor.session.is_some() {
            let token = HeaderValue::try_from(self.form_token(visitor, CSRF_PATH));
            response.headers_mut().insert(CSRF, token.expect("base64url is ASCII"));
        }
        Ok(response)
    }

    fn answer_with(&self, problem: &Problem, peer: PeerAddr) -> Response<Body> {
        self.note_refusal((problem.status(), problem.is_bad_credential()), peer, problem);
        problem.respond()
    }
}

impl Visit {
    /// The visitor's own token for the server.
    fn whose(&self) -> Whose<'_> {
        let user = &self.visitor.caller.user;
        Whose { user, server: &self.server.name, by: By { caller: Some(user), how: SavedBy::Api } }
    }
}

fn check_method(head: &Parts, methods: &'static [Method]) -> Result<(), Refusal> {
    if methods.contains(&head.method) { Ok(()) } else { Err(Refusal::Method(methods)) }
}

fn json(document: &impl Serialize) -> Response<Body> {
    respond::json(StatusCode::OK, serde_json::to_vec(document).expect("names, numbers and times are JSON"))
}
