//! The one way to change what users have saved, for pages, programs and operators alike: written down before it is done
//! and after.

use std::fmt;
use std::time::Duration;

use super::{Entered, TokenSource};
use crate::audit::{Event, EventKind, Outcome, Pending, Unwritten};
use crate::config::ServerName;
use crate::store::{Over, Quota, Record, Removed, Revision, SavedBy, StoreError, Written};
use crate::user::UserId;

/// Who changes what a user has saved.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The user themself; `None` for an operator, whose changes are not counted.
    pub caller: Option<&'a UserId>,
    /// By what they do it.
    pub how: SavedBy,
}

/// Who hears that what a user has saved has changed. Called once it is durable; must not wait.
pub trait ChangeListener: fmt::Debug + Send + Sync {
    /// What `user` has saved for `server` is new, or gone.
    fn changed(&self, user: &UserId, server: &ServerName);
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
    /// It must be written down first, and could not be.
    #[error(transparent)]
    Unaudited(#[from] Unwritten),
}

impl TokenSource {
    /// Saves what was `entered` as the values of this user for this server, durably, all of them or none.
    ///
    /// # Errors
    /// Says why nothing was saved.
    pub async fn save(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &ServerName),
        entered: Entered,
        over: Over<'_>,
    ) -> Result<Revision, ChangeError> {
        self.count(by).await?;
        self.write(by, (user, server), entered, over).await
    }

    /// Saves what was `entered`, which has been counted.
    pub(super) async fn write(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &ServerName),
        entered: Entered,
        over: Over<'_>,
    ) -> Result<Revision, ChangeError> {
        let kind = if entered.untried {
            EventKind::TokenSavedAnyway
        } else if self.audit.is_on() && self.is_there(user, server, over).await {
            EventKind::TokenReplaced
        } else {
            EventKind::TokenSet
        };
        let record = entered.into_record(self.clock.now(), by.how);
        self.save_record(by, kind, (user, server), &record, over).await
    }

    /// Saves `record`, and writes down before and after that it is.
    async fn save_record(
        &self,
        by: By<'_>,
        kind: EventKind,
        (user, server): (&UserId, &ServerName),
        record: &Record,
        over: Over<'_>,
    ) -> Result<Revision, ChangeError> {
        let change = self.begin(by, kind, (user, server), Some(record)).await?;
        let saved = match self.store.save(user, server, record, over).await {
            Ok(Written::Done(revision)) => Ok(revision),
            Ok(Written::Changed) => Err(ChangeError::Changed),
            Err(error) => Err(error.into()),
        };
        if saved.is_ok() {
            self.tell(user, server);
        }
        change.done(outcome(&saved)).await;
        saved
    }

    /// Removes what this user has saved for this server; whether there was something.
    ///
    /// # Errors
    /// Says why it is still there.
    pub async fn remove(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &ServerName),
        over: Over<'_>,
    ) -> Result<bool, ChangeError> {
        self.count(by).await?;
        self.remove_counted(by, (user, server), over).await
    }

    /// Removes it; the change has been counted.
    pub(super) async fn remove_counted(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &ServerName),
        over: Over<'_>,
    ) -> Result<bool, ChangeError> {
        let change = self.begin(by, EventKind::TokenRemoved, (user, server), None).await?;
        let removed = match self.store.remove(user, server, over).await {
            Ok(Removed::Gone) => Ok(true),
            Ok(Removed::Absent) => Ok(false),
            // The answer that said that it is gone was lost.
            Ok(Removed::Changed) if matches!(self.store.read(user, server).await, Ok(None)) => Ok(true),
            Ok(Removed::Changed) => Err(ChangeError::Changed),
            Err(error) => Err(error.into()),
        };
        if removed == Ok(true) {
            self.tell(user, server);
        }
        change.done(outcome(&removed)).await;
        removed
    }

    pub(super) fn tell(&self, user: &UserId, server: &ServerName) {
        if let Some(listener) = &self.listener {
            listener.changed(user, server);
        }
    }

    /// Counts a change of whoever is not an operator, before anything is written down of it: nobody fills a disk with what
    /// they are refused.
    pub(super) async fn count(&self, by: By<'_>) -> Result<(), ChangeError> {
        let Some(caller) = by.caller else { return Ok(()) };
        match self.store.count(Quota::Change, &[caller.issuer(), caller.subject()]).await? {
            Some(wait) => Err(ChangeError::TooMany(wait)),
            None => Ok(()),
        }
    }

    /// Whether something is there that would be saved over.
    pub(super) async fn is_there(&self, user: &UserId, server: &ServerName, over: Over<'_>) -> bool {
        match over {
            // What cannot be read is there, and the change itself says why it is not written over.
            Over::Anything => !matches!(self.store.read(user, server).await, Ok(None)),
            Over::Nothing => false,
            Over::This(_) => true,
        }
    }

    /// Writes down what is about to be done.
    pub(super) async fn begin(
        &self,
        by: By<'_>,
        kind: EventKind,
        (user, server): (&UserId, &ServerName),
        record: Option<&Record>,
    ) -> Result<Pending, Unwritten> {
        let record = record.filter(|_| self.audit.is_on());
        let fingerprint = record.map(|record| self.store.fingerprint(user, server, &record.fields));
        let key = self.store.keys().swap_remove(0);
        let event = Event {
            user: Some(user),
            server: Some(server),
            client: (by.how == SavedBy::Cli).then_some("tollbridge token"),
            key: record.and(Some(&key)),
            fingerprint: fingerprint.as_deref(),
            ..Event::of(kind)
        };
        self.audit.before(&event).await
    }
}

pub(super) fn outcome<T>(done: &Result<T, ChangeError>) -> Outcome {
    match done {
        Ok(_) => Outcome::Done,
        Err(ChangeError::Changed) => Outcome::Changed,
        Err(ChangeError::Store(_)) => Outcome::Failed,
        Err(ChangeError::TooMany(_) | ChangeError::Unaudited(_)) => Outcome::Refused,
    }
}
