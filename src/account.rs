//! The pages where people connect their own accounts: what they have saved for which server, and the forms that change it;
//! and the same for programs.
//!
//! Invariants: GET changes nothing; nothing is changed for anybody but the person whom the page named; no page, header
//! or cookie holds what was sent; whatever an operator, a server or a user is called is text, which the templates
//! escape. Nothing is kept on a node, and nobody is told that something is saved before it is.

// what people read, and how it leaves
mod clients;
mod days;
mod page;
mod security_headers;
mod standing;
mod texts;

// what they send
mod change;
mod device;
mod form;
mod paste;
mod seen;
mod service;
mod sign_in;

// what becomes of a request that goes no further
mod refusal;

// programs
mod api;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{Span, field};

use crate::audit::{Audit, Event, EventKind, Outcome};
use crate::auth::{AuthError, Authenticator, PeerAddr, Visitor, check_host, only};
use crate::clock::Clock;
use crate::config::{Config, Server, ServerName};
use crate::keyring::Keyring;
use crate::limits::body::read_body;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::oauth::Services;
use crate::rate_limit::LogRateLimit;
use crate::request_id::RequestId;
use crate::respond::{self, Body};
use crate::store::{Overview, StoreError, TokenStore};
use crate::telemetry::LogThrottle;
use crate::tokens::{Prober, TokenSource};
use crate::user::UserId;

pub use api::{Operation, Operators};

use form::Form;
use page::{Frame, Who};
use refusal::Refusal;

/// The longest form of somebody who is known, bytes.
const MAX_FORM: usize = 64 << 10;

/// What it takes to answer people; shared by all requests, and immutable.
pub struct Account {
    /// The configuration.
    pub config: Arc<Config>,
    /// Says who is there.
    pub authenticator: Arc<Authenticator>,
    /// Changes what users have saved.
    pub tokens: TokenSource,
    /// Tries what they enter.
    pub prober: Arc<dyn Prober>,
    /// Where people sign in so that they need not paste one.
    pub services: Arc<Services>,
    /// Writes down who signs in and out.
    pub audit: Audit,
    /// Knows what they have saved, and who has signed out.
    pub store: Arc<TokenStore>,
    /// Says that it fails, if not at each request.
    pub store_failure_log: LogThrottle,
    /// Seals sessions of browsers and what is in their forms.
    pub keyring: Arc<Keyring>,
    /// Counts what requests hold.
    pub memory: Memory,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What the log says of requests that are refused.
    pub refusals: LogRateLimit,
    /// Says what time it is.
    pub clock: Clock,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page<'a> {
    /// `/account`: all servers.
    Overview,
    /// `/{server}/connect`: one server, where links lead.
    Connect(&'a str),
    /// `/{server}/connect/remove`: where what was saved for it is removed.
    Remove(&'a str),
    /// `/{server}/connect/start`: where a sign-in at its service begins.
    Start(&'a str),
    /// `/{server}/connect/paste`: where its answer is pasted that could not come back.
    Paste(&'a str),
    /// `/{server}/connect/device`: where a code is shown that is entered at the service.
    Device(&'a str),
    /// `/oauth/callback/{server}`: where the service's answer comes back.
    Callback(&'a str),
    /// `/oauth/client.json`: who this bridge is, for services that read it.
    ClientDocument,
    /// `/account/sign-in`
    SignIn,
    /// `/account/sign-out`
    SignOut,
    /// `/account/style.css`
    Style,
}

impl Page<'_> {
    /// The methods that the path takes.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Overview | Self::Style | Self::ClientDocument => &[Method::GET, Method::HEAD],
            // What the service has sent along is good once: for who asks for the page.
            Self::Callback(_) => &[Method::GET],
            Self::Connect(_) | Self::Device(_) | Self::SignIn => &[Method::GET, Method::HEAD, Method::POST],
            Self::Remove(_) | Self::Start(_) | Self::Paste(_) | Self::SignOut => &[Method::POST],
        }
    }

    /// The server that the page is about.
    fn server(self) -> Option<ServerName> {
        match self {
            Self::Connect(server)
            | Self::Remove(server)
            | Self::Start(server)
            | Self::Paste(server)
            | Self::Device(server)
            | Self::Callback(server) => ServerName::parse(server),
            Self::Overview | Self::SignIn | Self::SignOut | Self::Style | Self::ClientDocument => None,
        }
    }
}

/// Whose visit it is to which page.
struct Visit {
    visitor: Visitor,
    server: Arc<Server>,
    /// Whether its browser has gone to sign in at the server's service, and has not come back.
    is_unanswered: bool,
}

impl Account {
    /// Answers a request to a page; it never fails, and says so in the answer if something did.
    pub async fn answer(&self, page: Page<'_>, request: Request<Incoming>, peer: PeerAddr) -> Response<Body> {
        if let Some(request) = RequestId::current() {
            request.introduce("account page");
        }
        let (head, body) = request.into_parts();
        let mut response = match self.handle(page, &head, body, peer).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(page, &head, peer, &refusal),
        };
        security_headers::add(response.headers_mut());
        response
    }

    async fn handle(
        &self,
        page: Page<'_>,
        head: &Parts,
        body: Incoming,
        peer: PeerAddr,
    ) -> Result<Response<Body>, Refusal> {
        check_host(head, &self.config)?;
        if !page.methods().contains(&head.method) {
            return Err(Refusal::Method(page.methods()));
        }
        let posts = head.method == Method::POST;
        match page {
            Page::Style => Ok(respond::with_type(StatusCode::OK, HeaderValue::from_static("text/css"), page::STYLE)),
            Page::SignIn if posts => self.sign_in(head, body, peer).await,
            Page::SignIn => self.sign_in_page(head, peer).await,
            Page::SignOut => self.sign_out(head, body, peer).await,
            Page::Overview => self.overview(&self.visitor(head, peer).await?).await,
            Page::Connect(_) if posts => self.save(self.visit(page.server(), head, peer).await?, head, body).await,
            Page::Connect(_) => self.connect_page(&self.visit(page.server(), head, peer).await?, head).await,
            Page::Remove(_) => self.remove(self.visit(page.server(), head, peer).await?, head, body).await,
            Page::ClientDocument => Ok(self.client_document()),
            Page::Start(_) => self.start(self.visit(page.server(), head, peer).await?, head, body).await,
            Page::Device(_) if posts => {
                self.begin_by_code(self.visit(page.server(), head, peer).await?, head, body).await
            }
            Page::Device(_) => self.code_page(&self.visit(page.server(), head, peer).await?).await,
            Page::Paste(_) => self.paste(self.visit(page.server(), head, peer).await?, head, body).await,
            Page::Callback(_) => {
                let visit = self.visit(page.server(), head, peer).await.map_err(|refusal| match refusal {
                    // Who signs in now would come back without the answer.
                    Refusal::Nobody(AuthError::Missing) => Refusal::OtherBrowser,
                    refusal => refusal,
                })?;
                self.callback(&visit, head).await
            }
        }
    }

    /// Whether people sign in at the service of the server of this name.
    #[must_use]
    pub fn signs_in(&self, server: &str) -> bool {
        self.config.servers.get(server).is_some_and(|server| server.oauth.is_some())
    }

    /// Who is there. The session of a browser must not have been ended, on any node.
    async fn visitor(&self, head: &Parts, peer: PeerAddr) -> Result<Visitor, Refusal> {
        let visitor = self.authenticator.visitor(&peer, &head.headers, &self.keyring, self.clock.now())?;
        if let Some(session) = &visitor.session {
            let ended = self.store.is_ended(session.nonce()).await;
            if ended.map_err(|error| self.store_failed(&error, Refusal::NotKnown))? {
                return Err(AuthError::Missing.into());
            }
        }
        Span::current().record("user", field::display(&visitor.caller.user));
        Ok(visitor)
    }

    /// Who is there, for which server. What one may not use does not exist.
    async fn visit(&self, server: Option<ServerName>, head: &Parts, peer: PeerAddr) -> Result<Visit, Refusal> {
        let visitor = self.visitor(head, peer).await?;
        let server = server.and_then(|name| self.config.servers.get(&name));
        let server = server.filter(|server| server.allows(&visitor.caller)).ok_or(Refusal::NotFound)?;
        let is_unanswered = service::is_unanswered(head, &server.name);
        Ok(Visit { visitor, server: Arc::clone(server), is_unanswered })
    }

    /// The form of at most `longest` bytes that a page has sent, on behalf of `user`.
    async fn form(&self, head: &Parts, body: Incoming, (user, longest): (&UserId, usize)) -> Result<Form, Refusal> {
        form::check_sender(head, &self.config)?;
        let content_type = only(&head.headers, &CONTENT_TYPE).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::MediaType);
        }
        let share = self.memory.share(user, longest);
        let body: Bytes = read_body(body, longest, &self.config.limits, &share).await?;
        Form::parse(&body).ok_or(Refusal::Form)
    }

    /// What `user` has saved.
    async fn saved(&self, user: &UserId) -> Result<Vec<Overview>, Refusal> {
        self.store.overview(user).await.map_err(|error| self.store_failed(&error, Refusal::NotKnown))
    }

    /// `GET /account`
    async fn overview(&self, visitor: &Visitor) -> Result<Response<Body>, Refusal> {
        let saved = self.saved(&visitor.caller.user).await?;
        let servers = self.config.servers.values().filter(|server| server.allows(&visitor.caller));
        Ok(self.page(
            visitor,
            StatusCode::OK,
            page::account(self.frame(Some(visitor)), servers, (&saved, self.clock.now())),
        ))
    }

    /// What every page shows to this visitor.
    fn frame<'a>(&'a self, visitor: Option<&'a Visitor>) -> Frame<'a> {
        let who = visitor.map(|visitor| Who {
            user: &visitor.caller.user,
            sign_out: visitor.session.is_some().then(|| self.form_token(visitor, sign_in::SIGN_OUT)),
        });
        Frame { name: &self.config.name, base: self.config.base_path(), who }
    }

    /// A page for this visitor, whose session it renews if that is due.
    fn page(&self, visitor: &Visitor, status: StatusCode, html: String) -> Response<Body> {
        let response = respond::html(status, html);
        let session = visitor.session.as_ref();
        match session.and_then(|session| session.renewed(&self.keyring, self.clock.now())) {
            Some(cookie) => with_cookie(response, cookie),
            None => response,
        }
    }

    /// Leads on to a path of ours, which begins with a slash.
    fn see_other(&self, path: &str) -> Response<Body> {
        let mut response = respond::empty(StatusCode::SEE_OTHER);
        let location = HeaderValue::try_from(self.config.base_path() + path);
        response.headers_mut().insert(LOCATION, location.expect("a URL's path and names of servers are ASCII"));
        response
    }

    fn refuse(&self, page: Page<'_>, head: &Parts, peer: PeerAddr, refusal: &Refusal) -> Response<Body> {
        let is_nobody = matches!(refusal, Refusal::Nobody(AuthError::Missing));
        if is_nobody && head.method != Method::POST && self.authenticator.has_sign_in() {
            return self.see_other(&sign_in::path(page.server().as_ref()));
        }
        let refusal = if is_nobody && head.method == Method::POST { &Refusal::Stale } else { refusal };
        self.note_refusal((refusal.status(), refusal.is_bad_credential()), peer, refusal);
        let back = match (refusal, page.server()) {
            (Refusal::NotFound, _) | (_, None) => "/account".to_owned(),
            (_, Some(server)) => change::path(&server),
        };
        refusal.respond(&self.frame(None), &back)
    }

    /// Counts a request that goes no further, says why in the log, and writes down a credential that is none.
    fn note_refusal(&self, (status, is_bad_credential): (StatusCode, bool), peer: PeerAddr, why: &dyn fmt::Display) {
        if is_bad_credential {
            self.write_down_refusal();
        }
        self.metrics.refused(status);
        if let Some(left_out) = self.refusals.next((peer.source(), status)) {
            let left_out = Some(left_out).filter(|&lines| lines > 0);
            tracing::info!(status = status.as_u16(), left_out, why = %why, "account request refused");
        }
    }

    /// Writes down a credential that is none.
    fn write_down_refusal(&self) {
        self.audit.note(&Event { outcome: Outcome::Refused, ..Event::of(EventKind::Refused) });
    }

    fn store_failed(&self, error: &StoreError, refusal: Refusal) -> Refusal {
        self.metrics.store_failed(error.kind());
        if let Some(unsaid) = self.store_failure_log.turn(error.kind()) {
            tracing::error!(%error, unsaid, "the token store failed");
        }
        refusal
    }
}

/// Whether the request asks for this as its whole query.
fn asks(head: &Parts, query: &str) -> bool {
    head.uri.query() == Some(query)
}

/// The answer that also sets this cookie.
fn with_cookie(mut response: Response<Body>, cookie: HeaderValue) -> Response<Body> {
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}
