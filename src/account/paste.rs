//! The answer of a service that leads people back to their own machine alone, where nothing listens: they paste the address
//! at which their browser ended. It is judged as if it had come by itself.

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use url::Url;

use super::{Account, MAX_FORM, Refusal, Visit, change, page};
use crate::config::ServerName;
use crate::oauth::Callback;
use crate::respond::Body;

/// The field with the address.
const ADDRESS: &str = "address";

fn path(server: &ServerName) -> String {
    change::path(server) + "/paste"
}

impl Account {
    /// `POST /{server}/connect/paste`
    pub(super) async fn paste(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        if server.oauth.is_none() || !self.config.takes_paste_back(server) {
            return Err(Refusal::NotFound);
        }
        let form = self.form(head, body, (user, MAX_FORM)).await?;
        self.check_form(&form, &visit.visitor, &path(&server.name))?;
        let Some(answer) = Callback::pasted(form.get(ADDRESS), &self.config.redirect_uri(server)) else {
            self.metrics.refused(StatusCode::UNPROCESSABLE_ENTITY);
            return Ok(self.ask_for_address(&visit, None, StatusCode::UNPROCESSABLE_ENTITY));
        };
        self.answered(&visit, head, answer).await
    }

    /// The page that leads `to` the service and waits for what is pasted; without it, what was pasted was not the answer.
    pub(super) fn ask_for_address(&self, visit: &Visit, to: Option<&Url>, status: StatusCode) -> Response<Body> {
        let (visitor, server) = (&visit.visitor, &visit.server);
        let (form, redirect_uri) = (self.form_token(visitor, &path(&server.name)), self.config.redirect_uri(server));
        let to = to.map(|url| (url.as_str(), url.host_str().unwrap_or_default()));
        let html = page::paste(self.frame(Some(visitor)), server, &form, to, &redirect_uri);
        self.page(visitor, status, html)
    }
}
