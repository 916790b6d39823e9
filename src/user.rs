//! Who a request belongs to: a user is the pair (issuer, subject), never an email address and never a bare name.

use std::fmt;
use std::sync::Arc;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The issuer of users whom the operator names in the configuration (bearer tokens, trusted headers, `local`).
pub const LOCAL_ISSUER: &str = "local";

/// The longest issuer or subject, in bytes.
pub const MAX_NAME: usize = 256;

/// One person or program, as (issuer, subject). Both are non-empty, NFC, without control characters and at most
/// [`MAX_NAME`] bytes; neither is ever case-folded. Cloning it shares both.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId {
    issuer: Arc<str>,
    subject: Arc<str>,
}

/// Who is calling: a user, and what else whoever recognised them vouches for. Groups decide what a user may use, an email
/// address goes into servers that want one; neither is a part of who the user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The names of their groups.
    pub groups: Arc<[String]>,
    /// Their email address.
    pub email: Option<Arc<str>>,
}

/// A caller of whom nothing else is known.
impl From<UserId> for Caller {
    fn from(user: UserId) -> Self {
        Self { user, groups: Arc::default(), email: None }
    }
}

/// Why a pair of names is no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    /// The issuer or the subject is empty or only white space.
    #[error("a user name must not be empty")]
    Empty,
    /// The issuer or the subject is over [`MAX_NAME`] bytes.
    #[error("a user name must not be longer than 256 bytes")]
    TooLong,
    /// The issuer or the subject holds a control character.
    #[error("a user name must not hold control characters")]
    Control,
}

impl UserId {
    /// The user `subject` as `issuer` names them.
    ///
    /// # Errors
    /// Says which rule of the type the names break.
    pub fn new(issuer: &str, subject: &str) -> Result<Self, InvalidUser> {
        Ok(Self { issuer: name(issuer)?, subject: name(subject)? })
    }

    /// The user `subject` among those whom the operator names in the configuration.
    ///
    /// # Errors
    /// As [`UserId::new`].
    pub fn local(subject: &str) -> Result<Self, InvalidUser> {
        Self::new(LOCAL_ISSUER, subject)
    }

    /// Who says so.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whom they mean.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// Shown as `subject@issuer` for logs; the parts never hold control characters.
impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.subject, self.issuer)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({self})")
    }
}

/// `text` if it may be an email address: visible text around one `@`, at most 254 bytes (RFC 5321, section 4.5.3.1.3).
#[must_use]
pub fn email(text: &str) -> Option<Arc<str>> {
    let is_visible = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    let (name, domain) = text.split_once('@')?;
    let fits = is_visible && !name.is_empty() && !domain.is_empty() && !domain.contains('@') && text.len() <= 254;
    fits.then(|| text.into())
}

fn name(text: &str) -> Result<Arc<str>, InvalidUser> {
    if text.trim().is_empty() {
        return Err(InvalidUser::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidUser::Control);
    }
    let name: Arc<str> = if is_nfc(text) { text.into() } else { text.nfc().collect::<String>().into() };
    if name.len() > MAX_NAME { Err(InvalidUser::TooLong) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_subject_of_two_issuers_is_two_users() {
        assert_ne!(UserId::new("a", "x").unwrap(), UserId::new("b", "x").unwrap());
    }

    #[test]
    fn names_are_normalised_but_never_case_folded() {
        assert_eq!(UserId::local("e\u{301}").unwrap(), UserId::local("\u{e9}").unwrap());
        assert_ne!(UserId::local("Alice").unwrap(), UserId::local("alice").unwrap());
    }

    #[test]
    fn an_email_address_has_a_name_and_a_domain() {
        for good in ["a@b", "alice+mcp@mail.example.com", "\u{e9}@example.com"] {
            assert_eq!(email(good).as_deref(), Some(good));
        }
        let long = format!("a@{}", "b".repeat(253));
        for bad in ["", "alice", "@b", "a@", "a@b@c", "a @b", "a@b\n", "a@b,c@ d", &long] {
            assert_eq!(email(bad), None, "{bad}");
        }
    }

    #[test]
    fn empty_long_and_control_names_are_no_users() {
        assert_eq!(UserId::local(" ").unwrap_err(), InvalidUser::Empty);
        assert_eq!(UserId::local("a\nb").unwrap_err(), InvalidUser::Control);
        assert_eq!(UserId::local(&"a".repeat(MAX_NAME + 1)).unwrap_err(), InvalidUser::TooLong);
    }
}
