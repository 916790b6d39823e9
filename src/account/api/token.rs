//! What one user has saved for one server: shown, saved, removed and tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::precondition::Precondition;
use super::problem::Problem;
use super::saved::{Saved, etag};
use super::{given, json};
use crate::account::{Account, MAX_FORM, Refusal, Visit};
use crate::auth::only;
use crate::config::{Server, ServerName};
use crate::limits::body::read_body;
use crate::respond::{self, Body};
use crate::store::{Over, Overview, Revision};
use crate::tokens::{By, ChangeError, Disconnected, Entered, Probed};
use crate::user::UserId;

/// The methods that the path of a token takes.
pub(super) const METHODS: &[Method] = &[Method::GET, Method::PUT, Method::DELETE];

/// Whose token for which server it is, and by whom it is changed.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub user: &'a UserId,
    pub server: &'a ServerName,
    pub by: By<'a>,
}

impl Account {
    /// What one of [`METHODS`] asks for. `server` is the one that takes the token, if there is one still.
    pub(super) async fn perform_on_token(
        &self,
        whose: Whose<'_>,
        server: Option<&Arc<Server>>,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Problem> {
        match head.method {
            Method::GET => self.show_token(whose, server).await,
            Method::PUT => self.save_token(whose, server.ok_or(Refusal::NotFound)?, head, body).await,
            _ => self.remove_token(whose, server, head).await,
        }
    }

    async fn show_token(&self, whose: Whose<'_>, server: Option<&Arc<Server>>) -> Result<Response<Body>, Problem> {
        let saved = self.saved_for(whose).await?.ok_or_else(|| absent(server))?;
        if saved.about.is_err() {
            return Err(Refusal::Unreadable.into());
        }
        Ok(with_etag(json(&Saved::of(&saved)), &saved.revision))
    }

    async fn save_token(
        &self,
        whose: Whose<'_>,
        server: &Server,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Problem> {
        let precondition = Precondition::of_save(&head.headers)?;
        let entered = self.entered(whose.user, server, head, body).await?;
        let there = self.saved_for(whose).await?;
        let over = precondition.over(there.as_ref())?;
        let saved = self.tokens.save(whose.by, (whose.user, whose.server), entered, over).await;
        let revision = saved.map_err(|error| self.not_changed(error, Refusal::NotSaved))?;
        tracing::info!(user = %whose.user, server = %whose.server, "a token was saved with the API");
        let status = if matches!(over, Over::Nothing) { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        Ok(with_etag(respond::empty(status), &revision))
    }

    async fn remove_token(
        &self,
        whose: Whose<'_>,
        server: Option<&Arc<Server>>,
        head: &Parts,
    ) -> Result<Response<Body>, Problem> {
        let precondition = Precondition::of_removal(&head.headers)?;
        let there = self.saved_for(whose).await?;
        if there.is_none() && precondition == Precondition::Something {
            return Err(absent(server));
        }
        let over = precondition.over(there.as_ref())?;
        let removed = match server {
            Some(server) => {
                let ended = self.tokens.disconnect(whose.by, (whose.user, server), over).await;
                ended.map(|ended| ended != Disconnected::Absent)
            }
            None => self.tokens.remove(whose.by, (whose.user, whose.server), over).await,
        };
        if !removed.map_err(|error| self.not_changed(error, Refusal::NotRemoved))? {
            return Err(Problem::Changed);
        }
        tracing::info!(user = %whose.user, server = %whose.server, "a token was removed with the API");
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    /// `POST /api/v1/servers/{server}/probe`: values are tried and not saved.
    pub(super) async fn probe(&self, visit: &Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Problem> {
        let (caller, server, by) = (&visit.visitor.caller, &visit.server, visit.whose().by);
        if server.requires_user_token && server.probe.is_none() {
            return Err(Problem::NoProbe);
        }
        let entered = self.entered(&caller.user, server, head, body).await?;
        let probed = self.tokens.probe(&self.prober, by, (caller, server), &entered).await;
        match probed.map_err(|error| self.not_changed(error, Refusal::NotKnown))? {
            Probed::Good { shown } => Ok(json(&BTreeMap::from([("outcome", "good"), ("shown", &shown)]))),
            Probed::Refused { sentence } => Ok(json(&BTreeMap::from([("outcome", "refused"), ("detail", &sentence)]))),
            Probed::Unknown { sentence } => Ok(json(&BTreeMap::from([("outcome", "unknown"), ("detail", &sentence)]))),
            Probed::Busy => Err(Problem::Busy),
            Probed::NoProbe => Err(Problem::NoProbe),
        }
    }

    /// What is saved of this, if anything.
    async fn saved_for(&self, whose: Whose<'_>) -> Result<Option<Overview>, Problem> {
        Ok(self.saved(whose.user).await?.into_iter().find(|saved| saved.server == *whose.server))
    }

    /// The values in the body of a request.
    async fn entered(&self, user: &UserId, server: &Server, head: &Parts, body: Incoming) -> Result<Entered, Problem> {
        if !server.takes_pasted_token() {
            return Err(Problem::NeedsNoToken);
        }
        let content_type = only(&head.headers, &CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::MediaType.into());
        }
        let share = self.memory.share(user, MAX_FORM);
        let body: Bytes = read_body(body, MAX_FORM, &self.config.limits, &share).await?;
        given::read(&body, &server.token_setup, self.clock.now())
    }

    pub(super) fn not_changed(&self, error: ChangeError, refusal: Refusal) -> Problem {
        match error {
            ChangeError::Changed => Problem::Changed,
            ChangeError::Unaudited(error) => {
                tracing::error!(%error, "a change was refused");
                Problem::Unaudited
            }
            error => self.unchanged(error, refusal).into(),
        }
    }
}

/// Why nothing is there.
fn absent(server: Option<&Arc<Server>>) -> Problem {
    if server.is_some_and(|server| !server.requires_user_token) { Problem::NeedsNoToken } else { Problem::NoToken }
}

fn with_etag(mut response: Response<Body>, revision: &Revision) -> Response<Body> {
    let tag = HeaderValue::try_from(etag(revision)).expect("base64url in quotes is ASCII");
    response.headers_mut().insert(ETAG, tag);
    response
}
