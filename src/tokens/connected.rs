//! What a service gives to who has signed in there: written down before it is asked for, and saved before anything else is
//! done with it, whoever may have left meanwhile.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::TokenSource;
use super::changes::{By, ChangeError, outcome};
use super::granted::{is_same_account, is_same_token};
use crate::audit::{EventKind, Outcome};
use crate::config::ServerName;
use crate::oauth::Fault;
use crate::request_id::RequestId;
use crate::store::{Over, Record, SavedBy, StoreError, Written};
use crate::user::UserId;

/// How often what a service gave is tried to be saved where the store fails, with this between.
pub(super) const SAVES: u32 = 40;
pub(super) const SAVE_PAUSE: Duration = Duration::from_millis(250);

/// Why a sign-in has come to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotConnected {
    /// The service gives nothing.
    #[error(transparent)]
    Service(#[from] Fault),
    /// What it gives is not saved, or was not asked for because it could not have been.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl TokenSource {
    /// Saves what a service gives to `user` for `server` when it is `asked`, durably, in place of whatever is there. It is
    /// asked once that has been written down, for what it gives it may give once.
    ///
    /// # Errors
    /// Says why nothing is saved.
    pub async fn connect(
        &self,
        (user, server): (&UserId, &ServerName),
        asked: impl Future<Output = Result<Record, Fault>> + Send + 'static,
    ) -> Result<(), NotConnected> {
        let unknown = || Err(ChangeError::Store(StoreError::Timeout).into());
        let Some(renewals) = &self.renewals else { return unknown() };
        let (source, user, server) = (self.clone(), user.clone(), server.clone());
        let (tell, told) = oneshot::channel();
        renewals.lifecycle.spawn(RequestId::handed_on(async move {
            // Whoever has signed in may have left.
            let _ = tell.send(source.obtain((&user, &server), asked).await);
        }));
        told.await.unwrap_or_else(|_| unknown())
    }

    async fn obtain(
        &self,
        (user, server): (&UserId, &ServerName),
        asked: impl Future<Output = Result<Record, Fault>>,
    ) -> Result<(), NotConnected> {
        let by = By { caller: None, how: SavedBy::SignIn };
        let replaces = self.audit.is_on() && self.is_there(user, server, Over::Anything).await;
        let kind = if replaces { EventKind::TokenReplaced } else { EventKind::TokenSet };
        let change = self.begin(by, kind, (user, server), None).await.map_err(ChangeError::from)?;
        let record = match asked.await {
            Ok(record) => record,
            Err(fault) => {
                change.done(Outcome::Failed).await;
                return Err(fault.into());
            }
        };
        let saved = self.save_granted((user, server), record).await;
        if saved.is_ok() {
            self.tell(user, server);
        }
        change.done(outcome(&saved)).await;
        Ok(saved?)
    }

    /// Saves what a service gave. How often its user was asked for more stays known; where it gave nothing that renews it, because it had done so before, what is there of the
    /// same account is kept.
    async fn save_granted(
        &self,
        (user, server): (&UserId, &ServerName),
        mut record: Record,
    ) -> Result<(), ChangeError> {
        let before = self.store.read(user, server).await.ok().flatten();
        if let (Some(grant), Some(mut before)) = (record.grant.as_mut(), before.and_then(|it| it.record.grant)) {
            grant.step_ups = std::mem::take(&mut before.step_ups);
            if grant.refresh_token.is_none() && is_same_account(&before, grant) {
                grant.refresh_token = before.refresh_token;
            }
        }
        let mut failed = None;
        for _ in 0..SAVES {
            if failed.is_some() {
                sleep(SAVE_PAUSE).await;
                // Perhaps it is there, and the answer that said so was lost.
                let there = self.store.read(user, server).await;
                if there.is_ok_and(|there| there.is_some_and(|there| is_same_token(&there.record, &record))) {
                    return Ok(());
                }
            }
            match self.store.save(user, server, &record, Over::Anything).await {
                Ok(Written::Done(_)) => return Ok(()),
                Ok(Written::Changed) => return Err(ChangeError::Changed),
                // What is there must not be written over, or the keys are missing: that does not pass.
                Err(error @ (StoreError::Newer | StoreError::Damaged | StoreError::Sealed(_))) => {
                    return Err(error.into());
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(StoreError::Timeout).into())
    }
}
