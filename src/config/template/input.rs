//! What a server is filled with.

use std::sync::Arc;

use crate::config::RequestValues;
use crate::secret::Credential;
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
