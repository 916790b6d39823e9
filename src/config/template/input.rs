//! What a server is filled with.

use std::fmt;
use std::sync::Arc;

use crate::config::RequestValues;
use crate::secret::{Credential, Secret};
use crate::user::{Caller, UserId};

/// All that differs from user to user and from request to request.
#[derive(Debug)]
pub struct Inputs {
    /// Who is calling.
    pub user: UserId,
    /// Their email address, if whoever recognised them vouches for one.
    pub email: Option<Arc<str>>,
    /// What they saved for the server.
    pub credential: Option<Credential>,
    /// What headers of the request say.
    pub headers: RequestValues,
}

impl Inputs {
    /// For a request of `caller`.
    #[must_use]
    pub fn of(caller: &Caller, credential: Option<Credential>, headers: RequestValues) -> Self {
        Self { user: caller.user.clone(), email: caller.email.clone(), credential, headers }
    }
}

/// What one hole is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Input {
    /// A field of the user's credential.
    Field { name: Box<str>, is_secret: bool },
    /// The user's name.
    UserId,
    /// The user's email address.
    Email,
    /// The header of the request that has this place in [`Server::request_headers`](crate::config::Server).
    Header(usize),
}

impl Input {
    /// Its text; empty if there is none.
    pub(in crate::config) fn text<'a>(&self, inputs: &'a Inputs) -> &'a str {
        match self {
            Self::Field { name, .. } => {
                let value = inputs.credential.as_ref().and_then(|credential| credential.get(name));
                value.map_or("", Secret::expose)
            }
            Self::UserId => inputs.user.subject(),
            Self::Email => inputs.email.as_deref().unwrap_or_default(),
            Self::Header(place) => inputs.headers.values().nth(*place).unwrap_or_default(),
        }
    }
}

/// As it is called towards people.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { name, .. } if **name == *Credential::TOKEN => f.write_str("the token"),
            Self::Field { name, .. } => write!(f, "the field `{name}`"),
            Self::UserId => f.write_str("the user's name"),
            Self::Email => f.write_str("the user's email address"),
            Self::Header(_) => f.write_str("a header of the request"),
        }
    }
}
