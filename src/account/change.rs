//! The page of one server, and the two forms on it: one saves what its user pasted, the other removes what is saved.

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::days;
use super::page::{self, Faults, Notice};
use super::{Account, Refusal, Visit, asks};
use crate::config::ServerName;
use crate::respond::Body;
use crate::store::{Over, SavedBy, StoreError};
use crate::tokens::{By, ChangeError, Entered};

/// The query of the page after something was saved.
const SAVED: &str = "saved";

/// The query of the page after it was removed.
const REMOVED: &str = "removed";

/// What the name of each of the server's fields begins with in the form.
const FIELD: &str = "field-";

/// The field in which a person may say until when what they paste is good.
const EXPIRES: &str = "expires";

/// Where the page of a server is, and where its form leads.
pub(super) fn path(server: &ServerName) -> String {
    format!("/{server}/connect")
}

fn remove_path(server: &ServerName) -> String {
    path(server) + "/remove"
}

impl Account {
    /// `GET /{server}/connect`
    pub(super) async fn connect_page(&self, visit: &Visit, head: &Parts) -> Result<Response<Body>, Refusal> {
        let notice = [(SAVED, Notice::Saved), (REMOVED, Notice::Removed)];
        let notice = notice.into_iter().find(|(query, _)| asks(head, query)).map(|(_, notice)| notice);
        self.show(visit, StatusCode::OK, notice).await
    }

    /// `POST /{server}/connect`
    pub(super) async fn save(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let form = self.form(head, body, user).await?;
        let path = path(&server.name);
        self.check_form(&form, &visit.visitor, &path)?;
        if !server.requires_user_token {
            return Ok(self.see_other(&path));
        }
        let given: Vec<(&str, &[u8])> = form.beginning_with(FIELD).collect();
        let (now, last_day) = (self.clock.now(), form.get(EXPIRES));
        let end = days::end_of(last_day, now);
        let is_no_day = end.is_none() && !last_day.is_empty();
        let entered = match Entered::parse(&server.token_setup, &given, now) {
            Ok(entered) if !is_no_day => Entered { expires_at: end.or(entered.expires_at), ..entered },
            parsed => {
                let faults = Faults { fields: parsed.err().unwrap_or_default(), is_no_day };
                return self.refused_entry(&visit, &faults).await;
            }
        };
        let saved = self.tokens.save(Self::by(&visit), (user, &server.name), entered, Over::Anything).await;
        saved.map_err(|error| self.unchanged(error, Refusal::NotSaved))?;
        tracing::info!(%user, server = %server.name, "a token was saved on the page");
        Ok(self.see_other(&format!("{path}?{SAVED}")))
    }

    /// `POST /{server}/connect/remove`
    pub(super) async fn remove(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let form = self.form(head, body, user).await?;
        self.check_form(&form, &visit.visitor, &remove_path(&server.name))?;
        let removed = self.tokens.remove(Self::by(&visit), (user, &server.name), Over::Anything).await;
        removed.map_err(|error| self.unchanged(error, Refusal::NotRemoved))?;
        tracing::info!(%user, server = %server.name, "a token was removed on the page");
        Ok(self.see_other(&format!("{}?{REMOVED}", path(&server.name))))
    }

    /// The page again, with what is wrong beside each field; all are empty.
    async fn refused_entry(&self, visit: &Visit, faults: &Faults) -> Result<Response<Body>, Refusal> {
        self.metrics.refused(StatusCode::UNPROCESSABLE_ENTITY);
        self.show(visit, StatusCode::UNPROCESSABLE_ENTITY, Some(Notice::Faults(faults))).await
    }

    async fn show(
        &self,
        visit: &Visit,
        status: StatusCode,
        notice: Option<Notice<'_>>,
    ) -> Result<Response<Body>, Refusal> {
        let (visitor, server) = (&visit.visitor, &visit.server);
        let saved = self.saved(&visitor.caller.user).await?.into_iter().find(|saved| saved.server == server.name);
        let tokens = [path(&server.name), remove_path(&server.name)].map(|path| self.form_token(visitor, &path));
        let saved = saved.as_ref().map(|saved| (saved, self.clock.now()));
        let html = page::connect(self.frame(Some(visitor)), (&self.config, server), saved, tokens, notice);
        Ok(self.page(visitor, status, html))
    }

    fn by(visit: &Visit) -> By<'_> {
        By { caller: &visit.visitor.caller.user, how: SavedBy::Page }
    }

    fn unchanged(&self, error: ChangeError, refusal: Refusal) -> Refusal {
        match error {
            ChangeError::TooMany(wait) => Refusal::TooMany(wait),
            ChangeError::Changed => refusal,
            ChangeError::Store(error @ (StoreError::Newer | StoreError::Damaged)) => {
                self.store_failed(&error, Refusal::Unreadable)
            }
            ChangeError::Store(error) => self.store_failed(&error, refusal),
            ChangeError::Unaudited(error) => {
                tracing::error!(%error, "a change was refused");
                refusal
            }
        }
    }
}
