//! Everything that can go wrong with a visit, and the one match that says what the person is told: a status and a page in
//! words, with a button that leads back. Programs are told in `api/problem`.

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::page::{self, Frame};
use super::texts::{self, Message};
use crate::auth::{AuthError, HostFault};
use crate::limits::body::BodyFault;
use crate::memory::Full;
use crate::respond::{self, Body};

/// Why a visit goes no further. The text is for the log and holds nothing that was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The request is for another host.
    #[error("{0}")]
    Host(#[from] HostFault),
    /// Nobody, or somebody else.
    #[error("{0}")]
    Nobody(#[from] AuthError),
    /// No such server, or none for this user.
    #[error("no such server")]
    NotFound,
    /// The path takes these methods alone.
    #[error("method")]
    Method(&'static [Method]),
    /// No page of ours sent this.
    #[error("the form was not sent by a page of ours")]
    Sender,
    /// The form was not made for this person in this session, or too long ago.
    #[error("the form is stale")]
    Stale,
    /// It is no form by its content type.
    #[error("content type")]
    MediaType,
    /// What it holds is no form.
    #[error("the form cannot be read")]
    Form,
    /// It is too long, did not come, or finds no memory.
    #[error("{0:?}")]
    Body(BodyFault),
    /// Too many changes, or attempts to sign in.
    #[error("too many in a minute")]
    TooMany(Duration),
    /// What is saved cannot be read, and is not written over.
    #[error("what is saved cannot be read")]
    Unreadable,
    /// No sign-in at a service waits for this answer.
    #[error("no sign-in waits for this answer")]
    SignInEnded,
    /// Somebody else's sign-in waits for this answer, or one in another browser.
    #[error("the sign-in was begun by somebody else, or in another browser")]
    OtherBrowser,
    /// The answer is not from the service that was asked.
    #[error("the answer is from another issuer")]
    OtherIssuer,
    /// The store did not say what there is.
    #[error("the token store failed: nothing is shown")]
    NotKnown,
    /// The store did not save it.
    #[error("the token store failed: nothing is saved")]
    NotSaved,
    /// The store did not remove it.
    #[error("the token store failed: nothing is removed")]
    NotRemoved,
    /// The store did not end the session.
    #[error("the token store failed: the session goes on")]
    NotSignedOut,
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        Self::Body(fault)
    }
}

impl Refusal {
    /// What the browser is told.
    pub(super) fn status(&self) -> StatusCode {
        self.verdict().0
    }

    fn verdict(&self) -> (StatusCode, Message) {
        match self {
            Self::Host(_) => (StatusCode::FORBIDDEN, texts::WRONG_HOST),
            Self::Nobody(AuthError::TooMany { .. })
            | Self::TooMany(_)
            | Self::Body(BodyFault::NoMemory(Full::Exchange | Full::User)) => {
                (StatusCode::TOO_MANY_REQUESTS, texts::TOO_MANY)
            }
            Self::Nobody(AuthError::Missing | AuthError::Bearer(_) | AuthError::TrustedHeader(_)) => {
                (StatusCode::UNAUTHORIZED, texts::NOBODY)
            }
            Self::NotFound => (StatusCode::NOT_FOUND, texts::NOT_FOUND),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, texts::NO_PAGE),
            Self::Sender => (StatusCode::FORBIDDEN, texts::SENDER),
            Self::Stale => (StatusCode::FORBIDDEN, texts::STALE),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, texts::NO_FORM),
            Self::Form => (StatusCode::BAD_REQUEST, texts::NO_FORM),
            Self::Body(BodyFault::TooLong) => (StatusCode::PAYLOAD_TOO_LARGE, texts::TOO_LONG),
            Self::Body(BodyFault::Lost) => (StatusCode::REQUEST_TIMEOUT, texts::LOST),
            Self::Body(BodyFault::NoMemory(Full::All)) | Self::NotKnown => {
                (StatusCode::SERVICE_UNAVAILABLE, texts::NOT_NOW)
            }
            Self::SignInEnded => (StatusCode::BAD_REQUEST, texts::SIGN_IN_OVER),
            Self::OtherBrowser => (StatusCode::FORBIDDEN, texts::OTHER_BROWSER),
            Self::OtherIssuer => (StatusCode::BAD_REQUEST, texts::OTHER_ISSUER),
            Self::Unreadable => (StatusCode::SERVICE_UNAVAILABLE, texts::UNREADABLE),
            Self::NotSaved => (StatusCode::SERVICE_UNAVAILABLE, texts::NOT_SAVED),
            Self::NotRemoved => (StatusCode::SERVICE_UNAVAILABLE, texts::NOT_REMOVED),
            Self::NotSignedOut => (StatusCode::SERVICE_UNAVAILABLE, texts::NOT_SIGNED_OUT),
        }
    }

    /// Whether a credential was presented that is none.
    pub(super) fn is_bad_credential(&self) -> bool {
        matches!(self, Self::Nobody(AuthError::Bearer(_) | AuthError::TrustedHeader(_)))
    }

    /// After how many seconds to try again, where that may help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooMany(wait) | Self::Nobody(AuthError::TooMany { retry_after: wait }) => Some(wait.as_secs().max(1)),
            Self::Body(BodyFault::NoMemory(_))
            | Self::NotKnown
            | Self::Unreadable
            | Self::NotSaved
            | Self::NotRemoved
            | Self::NotSignedOut => Some(1),
            _ => None,
        }
    }

    /// The refusal as a page, whose button leads `back`.
    pub(super) fn respond(&self, frame: &Frame<'_>, back: &str) -> Response<Body> {
        let (status, message) = self.verdict();
        let mut response = respond::html(status, page::message(frame, message, back));
        self.add_headers(response.headers_mut());
        response
    }

    /// What the headers of an answer say of it.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Self::Nobody(error) = self
            && let Some(challenge) = error.challenge()
        {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Self::Method(methods) = self {
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            headers.insert(ALLOW, HeaderValue::try_from(methods.join(", ")).expect("names of methods are ASCII"));
        }
    }
}
