//! Signing in with a bearer token, once for each browser, and out again.
//!
//! Where a request already says who is there, nobody signs in. The form is bound to a cookie of its own, so that nobody
//! is signed in as somebody else by a page elsewhere.

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::page::{self, SignInFault};
use super::{Account, MAX_FORM, Refusal, form, with_cookie};
use crate::audit::{Event, EventKind};
use crate::auth::{AuthError, BrowserSession, PeerAddr, cookie, set_cookie};
use crate::config::ServerName;
use crate::keyring::random_name;
use crate::respond::{self, Body};
use crate::store::Quota;
use crate::user::UserId;

/// Where people sign in.
const SIGN_IN: &str = "/account/sign-in";

/// Where they sign out.
pub(super) const SIGN_OUT: &str = "/account/sign-out";

/// The cookie to which the form is bound.
const FORM_COOKIE: &str = "__Host-tollbridge-form";

/// The field with the name of the server whose page comes next.
const TO: &str = "to";

/// The field with the token.
const TOKEN: &str = "token";

/// The longest form of somebody who is not known yet, bytes: more than any bearer token and its form's own take.
const MAX_SIGN_IN: usize = 8 << 10;

/// Where people sign in who want to see the page of this server, or of all.
pub(super) fn path(to: Option<&ServerName>) -> String {
    to.map_or_else(|| SIGN_IN.to_owned(), |server| format!("{SIGN_IN}?{TO}={server}"))
}

/// The page that comes next: of a server of this name, or of all.
fn next(to: Option<&ServerName>) -> String {
    to.map_or_else(|| "/account".to_owned(), super::change::path)
}

impl Account {
    /// `GET /account/sign-in`
    pub(super) async fn sign_in_page(&self, head: &Parts, peer: PeerAddr) -> Result<Response<Body>, Refusal> {
        let query = head.uri.query().unwrap_or_default();
        let to = query.strip_prefix(TO).and_then(|rest| rest.strip_prefix('=')).and_then(ServerName::parse);
        match self.visitor(head, peer).await {
            Ok(_) => Ok(self.see_other(&next(to.as_ref()))),
            Err(Refusal::Nobody(AuthError::Missing)) if self.authenticator.has_sign_in() => {
                Ok(self.ask_for_token(head, to.as_ref(), StatusCode::OK, None))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// `POST /account/sign-in`. A good token is taken whatever else came from its source. A bad one is counted for all nodes,
    /// unless this node has refused too many from there already: then nothing is written.
    pub(super) async fn sign_in(
        &self,
        head: &Parts,
        body: Incoming,
        peer: PeerAddr,
    ) -> Result<Response<Body>, Refusal> {
        let form = self.form(head, body, (&nobody(), MAX_SIGN_IN)).await?;
        let now = self.clock.now();
        let bound = cookie(&head.headers, FORM_COOKIE).ok_or(Refusal::Stale)?;
        if !form::is_good(&self.keyring, &[&bound, SIGN_IN], now, form.get(form::TOKEN)) {
            return Err(Refusal::Stale);
        }
        let to = ServerName::parse(form.get(TO));
        let fault = match self.authenticator.sign_in(&peer, form.get(TOKEN).trim(), now) {
            Ok(session) => {
                self.write_down(EventKind::SignIn, &session);
                return Ok(with_cookie(self.see_other(&next(to.as_ref())), session.cookie(&self.keyring)));
            }
            Err(AuthError::Bearer(fault)) => fault,
            Err(error) => return Err(error.into()),
        };
        let source = peer.source().map_or_else(|| "unix".to_owned(), |source| source.to_string());
        let counted = self.store.count(Quota::SignIn, &[&source]).await;
        if let Some(wait) = counted.map_err(|error| self.store_failed(&error, Refusal::NotKnown))? {
            return Err(Refusal::TooMany(wait));
        }
        self.metrics.refused(StatusCode::UNAUTHORIZED);
        self.write_down_refusal();
        tracing::info!(why = %fault, "sign-in refused");
        Ok(self.ask_for_token(head, to.as_ref(), StatusCode::UNAUTHORIZED, Some(SignInFault)))
    }

    /// `POST /account/sign-out`
    pub(super) async fn sign_out(
        &self,
        head: &Parts,
        body: Incoming,
        peer: PeerAddr,
    ) -> Result<Response<Body>, Refusal> {
        let visitor = self.visitor(head, peer).await?;
        let form = self.form(head, body, (&visitor.caller.user, MAX_FORM)).await?;
        self.check_form(&form, &visitor, SIGN_OUT)?;
        let Some(session) = &visitor.session else { return Ok(self.see_other("/account")) };
        let ended = self.store.mark_ended(session.nonce(), session.expires()).await;
        ended.map_err(|error| self.store_failed(&error, Refusal::NotSignedOut))?;
        self.write_down(EventKind::SignOut, session);
        Ok(with_cookie(self.see_other(SIGN_IN), BrowserSession::removed()))
    }

    fn write_down(&self, kind: EventKind, session: &BrowserSession) {
        let user = session.user();
        self.audit.note(&Event { user: user.as_ref(), ..Event::of(kind) });
    }

    fn ask_for_token(
        &self,
        head: &Parts,
        to: Option<&ServerName>,
        status: StatusCode,
        fault: Option<SignInFault>,
    ) -> Response<Body> {
        let known = cookie(&head.headers, FORM_COOKIE).filter(|name| is_name(name));
        let bound = known.clone().unwrap_or_else(random_name);
        let form = form::seal(&self.keyring, &[&bound, SIGN_IN], self.clock.now());
        let response = respond::html(status, page::sign_in(self.frame(None), to, &form, fault));
        if known.is_some() { response } else { with_cookie(response, set_cookie(FORM_COOKIE, bound)) }
    }
}

/// Whether [`random_name`] may have made it.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == random_name().len() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whose part of the memory forms are that come from nobody yet: all of them together may hold what one user may.
fn nobody() -> UserId {
    UserId::new("sign-in", "sign-in").expect("both are plain")
}
