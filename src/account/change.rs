//! The page of one server, and the two forms on it: one saves what its user pasted, the other removes what is saved.

use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::days;
use super::page::{self, Faults, Notice};
use super::{Account, MAX_FORM, Refusal, Visit, asks, with_cookie};
use crate::config::ServerName;
use crate::respond::Body;
use crate::store::{Over, SavedBy, StoreError};
use crate::tokens::{By, ChangeError, Disconnected, Entered, Probed, TRIAL_DEADLINE};

/// The query of the page after something was saved.
const SAVED: &str = "saved";

/// The query of the page after it was removed.
const REMOVED: &str = "removed";

/// What the name of each of the server's fields begins with in the form.
const FIELD: &str = "field-";

/// The field in which a person may say until when what they paste is good.
const EXPIRES: &str = "expires";

/// The field of the button that saves without a trial. Whoever presses it has pasted again: nothing is kept of what did not do.
const ANYWAY: &str = "anyway";

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
        if asks(head, SAVED) {
            let Some((saw, forgotten)) = self.seen(visit, head) else {
                return self.show(visit, StatusCode::OK, Some(Notice::Saved(None))).await;
            };
            let page = self.show(visit, StatusCode::OK, Some(Notice::Saved(Some(&saw)))).await?;
            return Ok(with_cookie(page, forgotten));
        }
        self.show(visit, StatusCode::OK, Some(Notice::Removed).filter(|_| asks(head, REMOVED))).await
    }

    /// `POST /{server}/connect`
    pub(super) async fn save(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let form = self.form(head, body, (user, MAX_FORM)).await?;
        let path = path(&server.name);
        self.check_form(&form, &visit.visitor, &path)?;
        if !server.takes_pasted_token() {
            return Ok(self.see_other(&path));
        }
        let given: Vec<(&str, &[u8])> = form.beginning_with(FIELD).collect();
        let (now, last_day) = (self.clock.now(), form.get(EXPIRES));
        let end = days::end_of(last_day, now);
        let is_no_day = end.is_none() && !last_day.is_empty();
        let entered = match Entered::parse(&server.token_setup, &given, now) {
            Ok(entered) if !is_no_day => {
                let untried = server.probe.is_some() && !form.get(ANYWAY).is_empty();
                Entered { expires_at: end.or(entered.expires_at), untried, ..entered }
            }
            parsed => {
                let faults = Faults { fields: parsed.err().unwrap_or_default(), is_no_day };
                return self.refused_entry(&visit, &faults).await;
            }
        };
        let probed = self.save_entered(&visit, entered).await?;
        if !probed.may_be_saved() {
            return self.not_good(&visit, &probed).await;
        }
        tracing::info!(%user, server = %server.name, "a token was saved on the page");
        let response = self.see_other(&format!("{path}?{SAVED}"));
        match probed {
            Probed::Good { shown } if !shown.is_empty() => Ok(with_cookie(response, self.keep_seen(&visit, &shown))),
            _ => Ok(response),
        }
    }

    /// Saves it, if the server's probe finds nothing against it, or need not.
    async fn save_entered(&self, visit: &Visit, entered: Entered) -> Result<Probed, Refusal> {
        let (caller, server, by) = (&visit.visitor.caller, &visit.server, Self::by(visit));
        let saved = if entered.untried {
            let saved = self.tokens.save(by, (&caller.user, &server.name), entered, Over::Anything).await;
            saved.map(|_| Probed::NoProbe)
        } else {
            self.tokens.save_if_good(&self.prober, by, (caller, server), entered).await
        };
        saved.map_err(|error| self.unchanged(error, Refusal::NotSaved))
    }

    /// `POST /{server}/connect/remove`
    pub(super) async fn remove(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let form = self.form(head, body, (user, MAX_FORM)).await?;
        self.check_form(&form, &visit.visitor, &remove_path(&server.name))?;
        let removed = self.tokens.disconnect(Self::by(&visit), (user, server), Over::Anything).await;
        let removed = removed.map_err(|error| self.unchanged(error, Refusal::NotRemoved))?;
        tracing::info!(%user, server = %server.name, "a token was removed on the page");
        if let Disconnected::GivenBack(is_confirmed) = removed {
            return Ok(self.disconnected(&visit, is_confirmed));
        }
        Ok(self.see_other(&format!("{}?{REMOVED}", path(&server.name))))
    }

    /// The page again, with what is wrong beside each field; all are empty.
    async fn refused_entry(&self, visit: &Visit, faults: &Faults) -> Result<Response<Body>, Refusal> {
        self.metrics.refused(StatusCode::UNPROCESSABLE_ENTITY);
        self.show(visit, StatusCode::UNPROCESSABLE_ENTITY, Some(Notice::Faults(faults))).await
    }

    /// The page again, with what the trial has shown; all fields are empty.
    async fn not_good(&self, visit: &Visit, probed: &Probed) -> Result<Response<Body>, Refusal> {
        let is_busy = *probed == Probed::Busy;
        let status = if is_busy { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNPROCESSABLE_ENTITY };
        self.metrics.refused(status);
        let mut response = self.show(visit, status, Some(Notice::NotGood(probed))).await?;
        if is_busy {
            response.headers_mut().insert(RETRY_AFTER, TRIAL_DEADLINE.as_secs().into());
        }
        Ok(response)
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
        let sign_in = self.sign_in_form(visit, !page::is_connected(server, saved)).await;
        let html = page::connect(self.frame(Some(visitor)), (&self.config, server), saved, (tokens, sign_in), notice);
        Ok(self.page(visitor, status, html))
    }

    fn by(visit: &Visit) -> By<'_> {
        By { caller: Some(&visit.visitor.caller.user), how: SavedBy::Page }
    }

    pub(super) fn unchanged(&self, error: ChangeError, refusal: Refusal) -> Refusal {
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
