//! A server does not take what a service gave, although it should be good still.

use std::sync::Arc;

use super::granted::{Standing, holds, standing};
use super::{TokenError, TokenSource, credential};
use crate::config::Server;
use crate::secret::Credential;
use crate::store::SignInReason;
use crate::user::UserId;

/// How often what is there is read again, because somebody else has changed it.
const READS: usize = 5;

impl TokenSource {
    /// What takes the place of `refused`, with which a server was filled: what somebody else has got meanwhile, or what
    /// the service gives now. Nothing if it is not renewed at all, because no service gave it.
    ///
    /// # Errors
    /// There is nothing that would do, or nobody knows.
    pub async fn after_refusal(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        refused: &Credential,
    ) -> Result<Option<Credential>, TokenError> {
        for _ in 0..READS {
            let stored = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?;
            let Some(grant) = &stored.record.grant else { return Ok(None) };
            if grant.refresh_token.is_some() || !holds(&stored.record, refused) {
                let renewed = Box::pin(self.renewed((user, server), stored.record, Some(refused))).await?;
                return Ok(Some(credential(server, renewed)?.of_record(refused.mark())));
            }
            standing(server, &stored.record, self.clock.now())?;
            let ended = (stored.record, SignInReason::Rejected);
            if let Some(why) = self.end_sign_in((user, server), ended, &stored.revision).await? {
                return Err(why.into());
            }
        }
        Err(TokenError::Absent)
    }

    /// The server has refused `again` what took the place of what it had refused: its user must sign in again, unless
    /// there is something else by now.
    ///
    /// # Errors
    /// Says so, or that nobody knows.
    pub async fn refused_again(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        again: &Credential,
    ) -> Result<(), TokenError> {
        let stored = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?;
        let standing = standing(server, &stored.record, self.clock.now())?;
        if !holds(&stored.record, again) || standing == Standing::Over {
            return Ok(());
        }
        let ended = (stored.record, SignInReason::Refused);
        match self.end_sign_in((user, server), ended, &stored.revision).await? {
            Some(why) => Err(why.into()),
            None => Ok(()),
        }
    }
}
