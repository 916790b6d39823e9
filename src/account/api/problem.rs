//! Everything that can go wrong for a program, and the one match that says what it is told: a problem of a type that stays
//! the same, with a sentence. Source: RFC 9457.

use std::borrow::Cow;
use std::fmt;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::account::Refusal;
use crate::account::service::LATER;
use crate::auth::AuthError;
use crate::limits::body::BodyFault;
use crate::memory::Full;
use crate::respond::{self, Body};
use crate::tokens::TRIAL_DEADLINE;

/// What the type of each problem begins with.
const TYPE: &str = "urn:tollbridge:problem:";

/// Why a program gets nothing, or not what it asked for.
#[derive(Debug)]
pub(super) enum Problem {
    /// As a page would not be shown.
    Refused(Refusal),
    /// It cannot be read; what it must be.
    Malformed(&'static str),
    /// What was given cannot be saved.
    Invalid(Vec<Fault>),
    /// Nothing is saved.
    NoToken,
    /// The server takes no token of a user's.
    NeedsNoToken,
    /// The server's entry does not say how values are tried.
    NoProbe,
    /// Nobody can sign in at the service: the status, and why.
    NoSignIn(StatusCode, String),
    /// The user tries too much at once.
    Busy,
    /// Something else is there than the caller knows.
    Changed,
    /// The caller does not say what it knows.
    PreconditionRequired,
    /// It must be written down first, and could not be.
    Unaudited,
    /// No method of `identity` names this user.
    Nobody,
    /// There is no stream of the audit.
    NoStream,
}

/// What is wrong with one member of what was given.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    /// Where it stands. Source: RFC 6901, section 6.
    pub pointer: Cow<'static, str>,
    /// What is wrong, without the value.
    pub detail: Cow<'static, str>,
}

impl From<(&'static str, &'static str)> for Fault {
    fn from((pointer, detail): (&'static str, &'static str)) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

impl<R: Into<Refusal>> From<R> for Problem {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

/// What an answer says. Source: RFC 9457, section 3.1.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

/// A type of problem: its name, and what it is in a few words.
type Kind = (&'static str, &'static str);

const BAD_REQUEST: Kind = ("bad-request", "The request cannot be read");
const UNAUTHORIZED: Kind = ("unauthorized", "Nobody is known by this credential");
const FORBIDDEN: Kind = ("forbidden", "The request may not be made from there");
const NOT_FOUND: Kind = ("not-found", "There is nothing here");
const NO_TOKEN: Kind = ("no-token", "Nothing is saved");
const METHOD: Kind = ("method-not-allowed", "The path does not take this method");
const TIMEOUT: Kind = ("request-timeout", "The body did not arrive");
const NEEDS_NO_TOKEN: Kind = ("needs-no-token", "The server takes no token of yours");
const NO_PROBE: Kind = ("no-probe", "The server's values cannot be tried");
const UNREADABLE: Kind = ("unreadable", "What is saved cannot be read");
const CHANGED: Kind = ("changed", "Something else is there");
const TOO_LARGE: Kind = ("too-large", "The body is too long");
const MEDIA_TYPE: Kind = ("media-type", "The body is not JSON");
const INVALID_TOKEN: Kind = ("invalid-token", "What was given cannot be saved");
const PRECONDITION_REQUIRED: Kind = ("precondition-required", "The request does not say what it changes");
const TOO_MANY: Kind = ("too-many", "Too much at once");
const STORE: Kind = ("store", "The token store is not available");
const SERVICE: Kind = ("service", "Nobody can sign in at the service");
const AUDIT: Kind = ("audit", "The change could not be written down");
const UNAVAILABLE: Kind = ("unavailable", "The bridge is busy");

impl Problem {
    /// What the caller is told.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::Nobody | Self::NoStream => StatusCode::NOT_FOUND,
            Self::NeedsNoToken | Self::NoProbe => StatusCode::CONFLICT,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::NoSignIn(status, _) => *status,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unaudited => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether a credential was presented that is none.
    pub(super) fn is_bad_credential(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_bad_credential())
    }

    fn verdict(&self) -> (Kind, &str) {
        match self {
            Self::Refused(refusal) => refused(refusal),
            Self::Malformed(must) => (BAD_REQUEST, must),
            Self::Invalid(_) => (INVALID_TOKEN, "nothing was saved; `errors` says what is wrong with which member"),
            Self::NoToken => (NO_TOKEN, "this user has saved nothing for this server"),
            Self::NeedsNoToken => (NEEDS_NO_TOKEN, "this server needs no token of yours"),
            Self::NoProbe => (NO_PROBE, "the server's entry has no `probe`"),
            Self::NoSignIn(_, why) => (SERVICE, why),
            Self::Busy => (TOO_MANY, "two trials of this user are under way; try again when one has ended"),
            Self::Changed => (CHANGED, "what is saved is not what the precondition names; read it again"),
            Self::PreconditionRequired => (
                PRECONDITION_REQUIRED,
                "send If-Match with the ETag of what is there, or If-None-Match: * where nothing is",
            ),
            Self::Unaudited => (AUDIT, "nothing was changed: the audit cannot be written, and is required"),
            Self::Nobody => (NOT_FOUND, "nobody is recognised as this user; `issuer` says who names them"),
            Self::NoStream => (NOT_FOUND, "the audit has no stream in Redis; its file is on the host"),
        }
    }

    /// The answer.
    pub(super) fn respond(&self) -> Response<Body> {
        let ((name, title), detail) = self.verdict();
        let errors: &[Fault] = if let Self::Invalid(faults) = self { faults } else { &[] };
        let status = self.status();
        let document = Document { r#type: format!("{TYPE}{name}"), title, status: status.as_u16(), detail, errors };
        let document = serde_json::to_vec(&document).expect("text and numbers are JSON");
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = respond::with_type(status, content_type, document);
        match self {
            Self::Refused(refusal) => refusal.add_headers(response.headers_mut()),
            Self::Busy => {
                response.headers_mut().insert(RETRY_AFTER, TRIAL_DEADLINE.as_secs().into());
            }
            Self::NoSignIn(StatusCode::SERVICE_UNAVAILABLE, _) => {
                response.headers_mut().insert(RETRY_AFTER, LATER.into());
            }
            Self::Unaudited => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

fn refused(refusal: &Refusal) -> (Kind, &'static str) {
    match refusal {
        Refusal::Host(_) => (FORBIDDEN, "the Host or Origin header names no address of this bridge"),
        Refusal::Nobody(AuthError::TooMany { .. }) => (TOO_MANY, "too many bad credentials came from this address"),
        Refusal::Nobody(AuthError::Missing | AuthError::Bearer(_) | AuthError::TrustedHeader(_)) => {
            (UNAUTHORIZED, "present the credential that the bridge's operator gave you")
        }
        Refusal::NotFound => (NOT_FOUND, "no such path, or no such server for this user"),
        Refusal::Method(_) => (METHOD, "`Allow` lists the methods that it takes"),
        // Only pages are answered so.
        Refusal::SignInEnded | Refusal::OtherBrowser | Refusal::OtherIssuer => (FORBIDDEN, "sign in on the page"),
        Refusal::Sender | Refusal::Stale => (
            FORBIDDEN,
            "with a cookie, a change needs X-Tollbridge-CSRF as the list of servers gave it within the hour",
        ),
        Refusal::MediaType => (MEDIA_TYPE, "the Content-Type must be application/json"),
        Refusal::Form => (BAD_REQUEST, "the body cannot be read"),
        Refusal::Body(BodyFault::TooLong) => (TOO_LARGE, "a body may have 64 KiB"),
        Refusal::Body(BodyFault::Lost) => (TIMEOUT, "send it again"),
        Refusal::Body(BodyFault::NoMemory(Full::Exchange | Full::User)) => {
            (TOO_MANY, "no memory for another request of this user; try again in a moment")
        }
        Refusal::Body(BodyFault::NoMemory(Full::All)) => {
            (UNAVAILABLE, "no memory for another request; try again in a moment")
        }
        Refusal::TooMany(_) => (TOO_MANY, "a user may make 10 changes and trials a minute"),
        Refusal::Unreadable => (UNREADABLE, "it is not written over; remove it first, or ask the bridge's operator"),
        Refusal::NotKnown => (STORE, "nobody knows what is saved; try again in a moment"),
        Refusal::NotSaved => (STORE, "nothing was saved; try again in a moment"),
        Refusal::NotRemoved | Refusal::NotSignedOut => (STORE, "nothing was removed; try again in a moment"),
    }
}

/// For the log: nothing of what was sent.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            other => f.write_str(other.verdict().0.0),
        }
    }
}
