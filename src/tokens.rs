//! stub
use crate::config::Server;
use crate::secret::Secret;
use crate::store::{Lookup, StoreError, TokenStore};
use crate::user::UserId;
use std::sync::Arc;
/// s
pub struct TokenSource(Option<Arc<TokenStore>>);
/// e
pub enum TokenError {
    /// a
    Absent,
    /// f
    Failed(StoreError),
}
impl TokenSource {
    /// n
    pub fn new(s: Option<Arc<TokenStore>>) -> Self {
        Self(s)
    }
    /// a
    pub async fn access_token(&self, user: &UserId, server: &Server) -> Result<Option<Secret>, TokenError> {
        if !server.requires_user_token {
            return Ok(None);
        }
        match self.0.as_ref().unwrap().lookup(user, &server.name).await {
            Lookup::Found(s) => Ok(Some(s)),
            Lookup::Absent => Err(TokenError::Absent),
            Lookup::Failed(e) => Err(TokenError::Failed(e)),
        }
    }
}
