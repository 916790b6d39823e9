//! The one way to change what users have saved, for pages, programs and operators alike.

use std::time::Duration;

use super::{Entered, TokenSource};
use crate::config::Server;
use crate::store::{Over, Quota, Removed, Revision, SavedBy, StoreError, Written};
use crate::user::UserId;

/// Who changes what a user has saved.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Who it is: the user themself, or an operator.
    pub caller: &'a UserId,
    /// By what they do it.
    pub how: SavedBy,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The caller has changed too much in the last minute.
    #[error("too many changes in a minute")]
    TooMany(Duration),
    /// Somebody else was faster.
    #[error("somebody else has changed it meanwhile")]
    Changed,
    /// The store failed, or holds what must not be written over.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TokenSource {
    /// Saves what was `entered` as the values of this user for this server, durably, all of them or none.
    ///
    /// # Errors
    /// Says why nothing was saved.
    pub async fn save(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &Server),
        entered: Entered,
        over: Over<'_>,
    ) -> Result<Revision, ChangeError> {
        self.count(by.caller).await?;
        let record = entered.into_record(self.clock.now(), by.how);
        match self.store.save(user, &server.name, &record, over).await? {
            Written::Done(revision) => Ok(revision),
            Written::Changed => Err(ChangeError::Changed),
        }
    }

    /// Removes what this user has saved for this server, if there is something.
    ///
    /// # Errors
    /// Says why it is still there.
    pub async fn remove(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &Server),
        over: Over<'_>,
    ) -> Result<(), ChangeError> {
        self.count(by.caller).await?;
        match self.store.remove(user, &server.name, over).await? {
            Removed::Gone | Removed::Absent => Ok(()),
            Removed::Changed => Err(ChangeError::Changed),
        }
    }

    async fn count(&self, caller: &UserId) -> Result<(), ChangeError> {
        match self.store.count(Quota::Change, &[caller.issuer(), caller.subject()]).await? {
            Some(wait) => Err(ChangeError::TooMany(wait)),
            None => Ok(()),
        }
    }
}
