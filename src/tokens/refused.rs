//! A server does not take what a service gave, although it should be good still.

use std::sync::Arc;
use std::time::Duration;

use super::granted::{Standing, holds, standing};
use super::{TokenError, TokenSource, credential};
use crate::config::Server;
use crate::oauth::add_scopes;
use crate::secret::Credential;
use crate::store::SignInReason;
use crate::user::UserId;

/// How often what is there is read again, because somebody else has changed it.
const READS: usize = 5;

/// How often in a day, in seconds, a user is asked for more.
const STEP_UPS: usize = 2;
const DAY: u64 = 86_400;

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

    /// The server demands these scopes, which its user has not allowed: whether they are asked for them. Nothing if no
    /// service gave what is there.
    ///
    /// # Errors
    /// Nobody knows.
    pub async fn demand(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        scopes: &[String],
    ) -> Result<Option<bool>, TokenError> {
        for _ in 0..READS {
            let mut stored = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?;
            let Some(grant) = stored.record.grant.as_mut() else { return Ok(None) };
            if scopes.iter().all(|scope| grant.demanded.contains(scope)) {
                return Ok(Some(true));
            }
            let now = self.clock.now().0;
            grant.step_ups.retain(|at| now.abs_diff(*at) < DAY);
            // What else is demanded before they have been there is of the same round.
            if grant.demanded.is_empty() {
                if grant.step_ups.len() >= STEP_UPS {
                    return Ok(Some(false));
                }
                grant.step_ups.push(now);
            }
            let asked = grant.demanded.len();
            add_scopes(&mut grant.demanded, scopes);
            if grant.demanded.len() == asked {
                return Ok(Some(true));
            }
            if self.replace((user, server), &stored.record, &stored.revision).await?.is_some() {
                return Ok(Some(true));
            }
        }
        Err(TokenError::Later(Duration::from_secs(1)))
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
