//! Signing in at a service: the button, the way there and the answer that comes back by the browser.
//!
//! Nothing that a service says stands on a page. Who begins a sign-in, in which browser and for which server, is who must
//! come back with its answer; else nothing is used, kept or sent anywhere.

use std::sync::Arc;

use http::header::{HeaderName, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use url::Url;

use super::page::{self, SignInForm};
use super::sign_in::is_name;
use super::{Account, MAX_FORM, Refusal, Visit, change, with_cookie};
use crate::audit::{Event, EventKind, Outcome};
use crate::auth::{cookie, removed_cookie, set_cookie};
use crate::config::{Server, ServerName};
use crate::keyring::random_name;
use crate::oauth::{Callback, CallbackAnswer, Fault, Flow, NotTaken, add_scopes};
use crate::respond::{self, Body};
use crate::secret::Secret;
use crate::store::Quota;
use crate::tokens::NotConnected;
use crate::user::UserId;

/// By this a browser is known that has begun to sign in somewhere. It is made once, so that two tabs work.
const BROWSER: &str = "__Host-tb-browser";

/// The server at whose service a browser has last begun to sign in, until it comes back.
const BEGUN: &str = "__Host-tb-begun";

/// Leads on without a form: browsers hold what a form leads to, and all that follows, to `form-action`. Source: HTML,
/// section 4.2.5.3.
pub(super) const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// The field of the form that says that the bridge is to register itself anew.
const ANEW: &str = "anew";

/// When to try again with a service that does not answer, seconds.
pub(super) const LATER: u64 = 10;

/// A browser, by the name that its cookie has.
pub(super) struct Browser {
    name: String,
    is_new: bool,
}

impl Browser {
    /// The one that has sent this.
    pub(super) fn of(head: &Parts) -> Self {
        let known = cookie(&head.headers, BROWSER).filter(|name| is_name(name));
        Self { is_new: known.is_none(), name: known.unwrap_or_else(random_name) }
    }

    /// The answer that gives a browser its name that has none yet.
    pub(super) fn remember(self, response: Response<Body>) -> Response<Body> {
        if self.is_new { with_cookie(response, set_cookie(BROWSER, self.name)) } else { response }
    }
}

/// Whether the browser has begun to sign in at the service of this server, and has not come back.
pub(super) fn is_unanswered(head: &Parts, server: &ServerName) -> bool {
    cookie(&head.headers, BEGUN).is_some_and(|begun| begun == server.as_str())
}

/// Where a sign-in begins.
pub(super) fn start_path(server: &ServerName) -> String {
    change::path(server) + "/start"
}

/// Where a sign-in by a code begins, and is shown.
pub(super) fn device_path(server: &ServerName) -> String {
    change::path(server) + "/device"
}

impl Account {
    /// The form that begins a sign-in, with where it leads if that can be found out.
    pub(super) async fn sign_in_form(&self, visit: &Visit, is_needed: bool) -> Option<SignInForm> {
        visit.server.oauth.as_ref()?;
        let token = self.form_token(&visit.visitor, &start_path(&visit.server.name));
        let user = &visit.visitor.caller.user;
        let more = self.services.demanded(user, &visit.server).await;
        let is_needed = is_needed || !more.is_empty();
        let mut destination = if is_needed { self.services.destination(&visit.server, user).await } else { None };
        if let Some(found) = &mut destination {
            add_scopes(&mut found.scopes, &more);
        }
        let code_token = self.form_token(&visit.visitor, &device_path(&visit.server.name));
        Some(SignInForm { token, code_token, destination, is_unanswered: visit.is_unanswered })
    }

    /// `POST /{server}/connect/start`
    pub(super) async fn start(&self, visit: Visit, head: &Parts, body: Incoming) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        if server.oauth.is_none() {
            return Err(Refusal::NotFound);
        }
        let form = self.form(head, body, (user, MAX_FORM)).await?;
        self.check_form(&form, &visit.visitor, &start_path(&server.name))?;
        self.count_change(user).await?;
        let is_anew = form.get(ANEW) == "1";
        if is_anew {
            self.count(Quota::AskedRegistration, user).await?;
        }
        self.lead_there(&visit, head, is_anew).await
    }

    /// Counts what `user` begins as a change.
    pub(super) async fn count_change(&self, user: &UserId) -> Result<(), Refusal> {
        self.count(Quota::Change, user).await
    }

    async fn count(&self, quota: Quota, user: &UserId) -> Result<(), Refusal> {
        let counted = self.store.count(quota, &[user.issuer(), user.subject()]).await;
        match counted.map_err(|error| self.store_failed(&error, Refusal::NotKnown))? {
            Some(wait) => Err(Refusal::TooMany(wait)),
            None => Ok(()),
        }
    }

    /// Begins a sign-in and leads to the service.
    async fn lead_there(&self, visit: &Visit, head: &Parts, is_anew: bool) -> Result<Response<Body>, Refusal> {
        let browser = Browser::of(head);
        match self.begin(visit, Some(&browser), is_anew).await {
            Ok(url) => {
                let page = if self.config.takes_paste_back(&visit.server) {
                    self.ask_for_address(visit, Some(&url), StatusCode::OK)
                } else {
                    self.led_to(visit, &url)
                };
                let begun = set_cookie(BEGUN, visit.server.name.to_string());
                Ok(browser.remember(with_cookie(page, begun)))
            }
            Err(fault) => self.faulted(visit, fault),
        }
    }

    /// Begins a sign-in: where its person goes. Its answer is taken from this browser, if it is begun in one.
    pub(super) async fn begin(&self, visit: &Visit, browser: Option<&Browser>, is_anew: bool) -> Result<Url, Fault> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let browser = browser.map(|browser| browser.name.as_str());
        let url = self.services.begin(server, (user, browser), is_anew).await?;
        self.note(visit, EventKind::SignInBegun, Outcome::Begun);
        tracing::info!(%user, server = %server.name, host = url.host_str(), "a sign-in at a service has begun");
        Ok(url)
    }

    fn led_to(&self, visit: &Visit, url: &Url) -> Response<Body> {
        let frame = self.frame(Some(&visit.visitor));
        let html = page::lead(frame, &visit.server, url.as_str(), url.host_str().unwrap_or_default());
        let mut response = self.page(&visit.visitor, StatusCode::OK, html);
        let refresh = HeaderValue::try_from(format!("0; url={url}")).expect("a URL is ASCII");
        response.headers_mut().insert(REFRESH, refresh);
        response
    }

    /// `GET /oauth/callback/{server}`
    pub(super) async fn callback(&self, visit: &Visit, head: &Parts) -> Result<Response<Body>, Refusal> {
        if visit.server.oauth.is_none() {
            return Err(Refusal::NotFound);
        }
        let callback = Callback::read(head.uri.query().unwrap_or_default()).ok_or(Refusal::SignInEnded)?;
        self.answered(visit, head, callback).await
    }

    /// What becomes of a service's answer, however it came.
    pub(super) async fn answered(
        &self,
        visit: &Visit,
        head: &Parts,
        callback: Callback,
    ) -> Result<Response<Body>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let browser = cookie(&head.headers, BROWSER);
        let flow = match self.services.take(server, (user, browser.as_deref()), &callback).await {
            Ok(flow) => flow,
            Err(NotTaken::Ended) => return Err(Refusal::SignInEnded),
            Err(NotTaken::OtherBrowser) => return Err(Refusal::OtherBrowser),
            Err(NotTaken::OtherIssuer) => {
                self.note(visit, EventKind::SignInEnded, Outcome::Refused);
                return Err(Refusal::OtherIssuer);
            }
            Err(NotTaken::Store(error)) => return Err(self.store_failed(&error, Refusal::NotKnown)),
        };
        let said = match callback.answer {
            CallbackAnswer::Code(code) => match self.redeem(visit, flow, code).await? {
                Some(said) => said,
                None => return self.lead_there(visit, head, true).await,
            },
            CallbackAnswer::Error(Some("access_denied")) => {
                self.note(visit, EventKind::SignInEnded, Outcome::Refused);
                self.not_allowed(visit)
            }
            CallbackAnswer::Error(code) => {
                self.note(visit, EventKind::SignInEnded, Outcome::Failed);
                self.faulted(visit, flow.refused(code))?
            }
        };
        Ok(if visit.is_unanswered { with_cookie(said, removed_cookie(BEGUN)) } else { said })
    }

    /// Gets what the service gives for `code`, and saves it before anything else; nothing if the bridge must register itself
    /// anew first.
    async fn redeem(&self, visit: &Visit, flow: Flow, code: Secret) -> Result<Option<Response<Body>>, Refusal> {
        let (user, server) = (&visit.visitor.caller.user, &visit.server);
        let is_anew = flow.is_anew();
        let (services, asked) = (Arc::clone(&self.services), Arc::clone(server));
        let given = async move { services.redeem(&asked, &flow, &code).await };
        match self.tokens.connect((user, &server.name), given).await {
            Ok(()) => {}
            Err(NotConnected::Service(Fault::ClientRefused { is_registered: true, .. })) if !is_anew => {
                tracing::info!(server = %server.name, "a service has forgotten the bridge, which registers itself anew");
                return Ok(None);
            }
            Err(NotConnected::Service(fault)) => {
                self.note(visit, EventKind::SignInEnded, Outcome::Failed);
                return self.faulted(visit, fault).map(Some);
            }
            Err(NotConnected::Change(error)) => return Err(self.unchanged(error, Refusal::NotSaved)),
        }
        tracing::info!(%user, server = %server.name, "connected by signing in at the service");
        Ok(Some(self.connected(visit)))
    }

    /// What is said after what a service gave was saved.
    pub(super) fn connected(&self, visit: &Visit) -> Response<Body> {
        let name = visit.server.display_name();
        let sentence = format!("{name} is connected. You can go back to your application.");
        self.told(visit, StatusCode::OK, (&format!("{name} is connected"), &sentence))
    }

    /// What is said to who did not allow it.
    pub(super) fn not_allowed(&self, visit: &Visit) -> Response<Body> {
        let sentence = format!("{} is not connected. Nothing was changed.", visit.server.display_name());
        self.told(visit, StatusCode::OK, ("You did not allow it", &sentence))
    }

    /// What is said after what a service gave was removed.
    pub(super) fn disconnected(&self, visit: &Visit, is_confirmed: bool) -> Response<Body> {
        let name = visit.server.display_name();
        let sentence = if is_confirmed {
            format!("{name} is no longer connected, and has confirmed that it took it back.")
        } else {
            format!(
                "{name} is no longer connected here. It has not confirmed that it took it back: you can withdraw it there."
            )
        };
        self.told(visit, StatusCode::OK, (&format!("{name} is no longer connected"), &sentence))
    }

    /// A page that says one thing, with a button that leads to the page of the server.
    fn told(&self, visit: &Visit, status: StatusCode, (title, sentence): (&str, &str)) -> Response<Body> {
        let (frame, back) = (self.frame(Some(&visit.visitor)), change::path(&visit.server.name));
        self.page(&visit.visitor, status, page::told(&frame, (title, sentence), &back))
    }

    /// What a person is told who cannot sign in.
    pub(super) fn faulted(&self, visit: &Visit, fault: Fault) -> Result<Response<Body>, Refusal> {
        let (status, sentence) = self.judge(visit, fault)?;
        self.metrics.refused(status);
        let mut response = self.told(visit, status, ("Not connected", &sentence));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, LATER.into());
        }
        Ok(response)
    }

    /// The status and the sentence for a fault, which is logged.
    pub(super) fn judge(&self, visit: &Visit, fault: Fault) -> Result<(StatusCode, String), Refusal> {
        let fault = match fault {
            Fault::Store(error) => return Err(self.store_failed(&error, Refusal::NotKnown)),
            fault => fault,
        };
        let server = &visit.server;
        if let Fault::ClientRefused { is_registered: false, .. } = fault {
            self.metrics.oauth_client_refused.inc();
            tracing::error!(server = %server.name, %fault, "`oauth.clientId` or `clientSecret` is not what the service knows");
        } else {
            tracing::warn!(server = %server.name, %fault, "nobody can sign in at the service of a server");
        }
        Ok(sentence(server, &fault))
    }

    pub(super) fn note(&self, visit: &Visit, kind: EventKind, outcome: Outcome) {
        let (user, server) = (Some(&visit.visitor.caller.user), Some(&visit.server.name));
        self.audit.note(&Event { user, server, outcome, ..Event::of(kind) });
    }

    /// `GET /oauth/client.json`
    pub(super) fn client_document(&self) -> Response<Body> {
        respond::json(StatusCode::OK, self.services.client_document())
    }
}

/// What a person reads of a fault, and its status.
fn sentence(server: &Server, fault: &Fault) -> (StatusCode, String) {
    let name = server.display_name();
    let ask = "Ask whoever runs this bridge.";
    match fault {
        Fault::Unavailable { host } => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{host} does not answer as it should now. What is connected goes on. Try again in a moment."),
        ),
        Fault::Metadata { step, host, why } => {
            (StatusCode::BAD_GATEWAY, format!("{step} of {host} cannot be used: {why}. Nothing was changed. {ask}"))
        }
        Fault::NoMetadata { tried } => {
            let tried = tried.join(", ");
            (StatusCode::BAD_GATEWAY, format!("{name} does not say where to sign in. Tried: {tried}. {ask}"))
        }
        Fault::NotKnown { .. } => (
            StatusCode::BAD_GATEWAY,
            format!("{name} lets only known applications in: ask whoever runs this bridge for a client id."),
        ),
        Fault::ClientRefused { .. } => {
            (StatusCode::BAD_GATEWAY, format!("{name} does not know this bridge as who it says it is. {ask}"))
        }
        Fault::Refused { code, .. } => {
            let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
            (StatusCode::BAD_GATEWAY, format!("{name} has refused{code}. Nothing was changed. Try again."))
        }
        Fault::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment.".to_owned()),
    }
}
