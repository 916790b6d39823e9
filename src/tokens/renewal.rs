//! A token that is about to expire is renewed on the path of a request, once for all nodes.
//!
//! A lease keeps most others from doing the same; what makes it right is that every write is over the very bytes that were
//! read. Before the service is called it is written down that it will be, so that a node that ends meanwhile leaves a mark;
//! what the service answers is durable before anybody uses it.

mod attempt;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::granted::{self, Standing};
use super::{TokenError, TokenSource, Why};
use crate::config::Server;
use crate::oauth::Rest;
use crate::request_id::RequestId;
use crate::secret::Credential;
use crate::store::{LeaseOf, Record};
use crate::user::UserId;
pub(super) use attempt::Renewals;
use attempt::{Attempt, MOST_PAUSE};

/// How long a request waits for a token that another one renews, and how often it looks: at first, and at last.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(200)];

/// When to come back after having waited for that long.
const LATER: Duration = Duration::from_secs(1);

impl TokenSource {
    /// `record`, or what takes its place: it is about to expire, has expired, or holds what the server has `refused`.
    pub(super) async fn renewed(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        record: Record,
        refused: Option<&Credential>,
    ) -> Result<Record, TokenError> {
        let (deadline, mut look, mut seen) = (Instant::now() + PATIENCE, LOOK[0], record);
        loop {
            if self.judge(server, &seen, refused)? == Standing::Good {
                return Ok(seen);
            }
            let attempt = match self.pause(&seen) {
                Some(wait) => Err(TokenError::Later(wait)),
                None => self.try_to_renew((user, server), refused, deadline).await,
            };
            // As it is by now: an attempt takes its time.
            let is_usable = self.judge(server, &seen, refused).is_ok_and(|standing| standing != Standing::Over);
            match attempt {
                Ok(Attempt::Done(record)) => return Ok(record),
                // Whoever has one that is good goes on with it, whatever keeps it from being renewed.
                Ok(Attempt::Busy) | Err(TokenError::Failed(_) | TokenError::Later(_)) if is_usable => return Ok(seen),
                Ok(Attempt::Again | Attempt::Busy) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return if is_usable { Ok(seen) } else { Err(TokenError::Later(LATER)) };
            }
            sleep(look).await;
            look = (look * 2).min(LOOK[1]);
            seen = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?.record;
        }
    }

    /// How what `record` holds stands now. What the server has refused is as if it had expired.
    fn judge(&self, server: &Server, record: &Record, refused: Option<&Credential>) -> Result<Standing, Why> {
        let standing = granted::standing(server, record, self.clock.now())?;
        Ok(if refused.is_some_and(|refused| granted::holds(record, refused)) { Standing::Over } else { standing })
    }

    /// How long the service that renews `record` is left alone, if it is. Whoever shows whether one is back that had been
    /// left alone by this node does not wait for what one record says.
    fn pause(&self, record: &Record) -> Option<Duration> {
        let grant = record.grant.as_ref()?;
        match self.renewals.as_ref()?.services.rest(grant) {
            Rest::Over => None,
            // To whole seconds, which is what is said.
            Rest::For(rest) => Some(Duration::from_secs(rest.as_secs() + 1)),
            Rest::None => {
                let wait = grant.next_try.0.saturating_sub(self.clock.now().0);
                // More was written by a clock that was ahead.
                (1..=MOST_PAUSE).contains(&wait).then(|| Duration::from_secs(wait))
            }
        }
    }

    /// Renews it if nobody else does at this moment.
    async fn try_to_renew(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        refused: Option<&Credential>,
        deadline: Instant,
    ) -> Result<Attempt, TokenError> {
        let Some(renewals) = self.renewals.clone() else { return Err(TokenError::Later(LATER)) };
        let (source, user, server, refused) = (self.clone(), user.clone(), Arc::clone(server), refused.cloned());
        let lifecycle = renewals.lifecycle.clone();
        let renewing = RequestId::handed_on(async move {
            // Before it is asked for: it lasts from some time after.
            let since = Instant::now();
            let Some(lease) = source.store.lease(LeaseOf::Connection(&user, &server.name)).await? else {
                return Ok(Attempt::Busy);
            };
            let done = source.attempt(&renewals, (&user, &server), refused.as_ref(), since).await;
            source.store.give_back(lease).await;
            done
        });
        // From the lease on: one whose asker has left would keep all others from it.
        match timeout_at(deadline, lifecycle.to_the_end(renewing)).await {
            Ok(done) => done.unwrap_or(Err(TokenError::Later(LATER))),
            Err(_) => Ok(Attempt::Busy),
        }
    }
}
