//! A user's token for a server, or exactly why there is none; and what may be saved as one.

use std::sync::Arc;

use regex::Regex;

use crate::config::Server;
use crate::secret::{Credential, Field, Secret};
use crate::store::{Lookup, Record, SessionKey, SessionStatus, StoreError, TokenStore};
use crate::user::UserId;

/// The longest token, bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Where a request's token comes from. Asks anew for every request.
#[derive(Debug, Clone)]
pub struct TokenSource {
    store: Arc<TokenStore>,
}

/// Why a request that needs a token goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The user has saved none for this server.
    #[error("no token is saved for this user and server")]
    Absent,
    /// Nobody knows whether the user has one.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why text cannot be a token. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Nothing, or nothing but white space.
    #[error("the token is empty")]
    Blank,
    /// Over [`MAX_TOKEN`] bytes.
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Holds a line break or another control character, or is not UTF-8.
    #[error("the token holds a line break or another control character, or is not UTF-8")]
    Control,
    /// Not what the server's `tokenFormat` describes.
    #[error("the token does not have the form that the server's tokenFormat describes")]
    Format,
}

impl TokenSource {
    /// The tokens in `store`.
    #[must_use]
    pub fn new(store: Arc<TokenStore>) -> Self {
        Self { store }
    }

    /// The token of `user` for `server`; none if the server needs none, in which case the store is not asked.
    ///
    /// # Errors
    /// The server needs a token and there is none, or nobody knows: [`TokenError`] says which.
    pub async fn access_token(&self, user: &UserId, server: &Server) -> Result<Option<Credential>, TokenError> {
        if !server.requires_user_token {
            return Ok(None);
        }
        found(self.store.lookup(user, &server.name).await)
    }

    /// [`TokenSource::access_token`] for the session's user, and the session's status, in one command to the store.
    pub async fn in_session(
        &self,
        server: &Server,
        session: &SessionKey<'_>,
    ) -> (Result<Option<Credential>, TokenError>, Result<Option<SessionStatus>, StoreError>) {
        if !server.requires_user_token {
            return (Ok(None), self.store.session_status(session).await);
        }
        let (token, status) = self.store.lookup_in_session(&server.name, session).await;
        (found(token), status)
    }
}

fn found(token: Lookup) -> Result<Option<Credential>, TokenError> {
    match token {
        Lookup::Found(record) => Ok(Some(credential(record))),
        Lookup::Absent => Err(TokenError::Absent),
        Lookup::Failed(error) => Err(TokenError::Failed(error)),
    }
}

/// The values of `record`. The record does not know which of them may be seen, so none may.
fn credential(record: Record) -> Credential {
    let fields = record.fields.into_iter().map(|(name, value)| Field { name, value, is_secret: true });
    Credential::new(fields.collect())
}

/// Takes what a person or a script gave as a token, byte for byte.
///
/// # Errors
/// It is blank, over [`MAX_TOKEN`] bytes, not text, holds control characters, or is not of the configured `format`.
pub fn parse(input: &[u8], format: Option<&Regex>) -> Result<Secret, InvalidToken> {
    if input.len() > MAX_TOKEN {
        return Err(InvalidToken::TooLong);
    }
    let text = str::from_utf8(input).map_err(|_| InvalidToken::Control)?;
    if text.chars().any(char::is_control) {
        return Err(InvalidToken::Control);
    }
    if text.trim().is_empty() {
        return Err(InvalidToken::Blank);
    }
    if format.is_some_and(|format| !format.is_match(text)) {
        return Err(InvalidToken::Format);
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(input: &[u8], format: Option<&str>) -> Result<String, InvalidToken> {
        let format = format.map(|format| Regex::new(format).unwrap());
        parse(input, format.as_ref()).map(|token| token.expose().to_owned())
    }

    #[test]
    fn a_token_is_kept_byte_for_byte() {
        for text in ["x", "ntn_1", " spaced ", "<<token>>", "$1 %s {{x}}", "p\u{e4}ss", &"x".repeat(MAX_TOKEN)] {
            assert_eq!(outcome(text.as_bytes(), None).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for blank in ["", " ", "\u{2003}"] {
            assert_eq!(outcome(blank.as_bytes(), None), Err(InvalidToken::Blank));
        }
        assert_eq!(outcome(&b"x".repeat(MAX_TOKEN + 1), None), Err(InvalidToken::TooLong));
        for control in [&b"a\nb"[..], b"a\r", b"\0", b"a\tb", b"\x7f", "\u{85}".as_bytes(), b"\xff"] {
            assert_eq!(outcome(control, None), Err(InvalidToken::Control), "{control:?}");
        }
    }

    #[test]
    fn a_configured_format_decides() {
        let format = Some("^(ntn|secret)_[A-Za-z0-9]+$");
        assert_eq!(outcome(b"ntn_1", format).unwrap(), "ntn_1");
        assert_eq!(outcome(b"xoxb-1", format), Err(InvalidToken::Format));
    }
}
