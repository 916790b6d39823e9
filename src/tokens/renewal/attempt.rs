//! One attempt to renew a token, under the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::audit::{Event, EventKind, Outcome};
use crate::clock::UnixTime;
use crate::config::Server;
use crate::lifecycle::Lifecycle;
use crate::metrics::Counter;
use crate::oauth::{NotRenewed, RENEWAL, Services, TokenAnswer, renewal_host};
use crate::secret::Credential;
use crate::store::{GrantState, LEASE, Over, Record, Revision, SignInReason, StoreError, Written};
use crate::tokens::connected::{SAVE_PAUSE, SAVES};
use crate::tokens::granted::{GIVING_BACK, Standing, is_of_same_grant, is_same_token, is_under_way};
use crate::tokens::{TokenError, TokenSource, Why};
use crate::user::UserId;

/// The pause after a failure that is not the user's, seconds: doubled from the first to the last.
const PAUSE: [u64; 2] = [1, 60];

/// The longest pause that a service may ask for, seconds.
const MAX_ASKED: u64 = 3600;

/// The longest that a service is left alone for what one record says, seconds.
pub(super) const MOST_PAUSE: u64 = MAX_ASKED + PAUSE[1] / 5;

/// What a lease must have left when what renews a token leaves this node: all that the call may take, and as much as
/// writing may.
const NEEDED: Duration = Duration::from_secs(RENEWAL.as_secs() + 4);

/// What it takes to renew tokens. Cloning it shares it.
#[derive(Clone)]
pub(in crate::tokens) struct Renewals {
    pub(in crate::tokens) services: Arc<Services>,
    /// A renewal goes on when whoever needed it has left: what the service gives must not be lost.
    pub(in crate::tokens) lifecycle: Lifecycle,
    /// Services that did not take the configured client for what it says it is.
    pub(in crate::tokens) client_refused: Counter,
}

impl std::fmt::Debug for Renewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewals(…)")
    }
}

/// What became of an attempt.
pub(super) enum Attempt {
    /// This is what is to be used.
    Done(Record),
    /// Somebody else has changed what there is: it is looked at again.
    Again,
    /// Somebody else is at it.
    Busy,
}

impl TokenSource {
    /// What is done under the lease, which was asked for at `since`.
    pub(super) async fn attempt(
        &self,
        renewals: &Renewals,
        (user, server): (&UserId, &Arc<Server>),
        refused: Option<&Credential>,
        since: Instant,
    ) -> Result<Attempt, TokenError> {
        let stored = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?;
        let mut record = stored.record;
        if self.judge(server, &record, refused)? == Standing::Good {
            return Ok(Attempt::Done(record));
        }
        // Somebody has failed since this request has looked.
        if let Some(wait) = self.pause(&record) {
            return Err(TokenError::Later(wait));
        }
        let now = self.clock.now();
        let Some(grant) = record.grant.as_mut() else { return Ok(Attempt::Again) };
        if is_under_way(grant, now) {
            return Ok(Attempt::Busy);
        }
        let pass = renewals.services.enter(grant).map_err(TokenError::Later)?;
        let attempt = crate::keyring::random_name();
        let before = std::mem::replace(&mut grant.state, GrantState::Refreshing { since: now.0, attempt });
        let Some(marked) = self.replace((user, server), &record, &stored.revision).await? else {
            return Ok(Attempt::Again);
        };
        let grant = record.grant.as_deref().expect("it has one");
        // A node that slept would spend the token a second time.
        let renewed = renewals.services.renew((server, grant), pass, since + LEASE - NEEDED).await;
        match renewed {
            Ok(answer) => self.keep(renewals, (user, server), (record, answer), marked).await,
            Err(why) => self.fail(renewals, (user, server), (record, before, why)).await,
        }
    }

    /// Saves what the service gave; it is used only then. What comes too late is given back.
    async fn keep(
        &self,
        renewals: &Renewals,
        (user, server): (&UserId, &Arc<Server>),
        (mut record, answer): (Record, TokenAnswer),
        mut marked: Revision,
    ) -> Result<Attempt, TokenError> {
        let now = self.clock.now();
        record.saved_at = now;
        record.expires_at = answer.expires_in.map(|seconds| UnixTime(now.0.saturating_add(seconds)));
        record.fields = vec![(Credential::TOKEN.into(), answer.access_token)];
        let grant = record.grant.as_mut().expect("it has one");
        let mark = std::mem::replace(&mut grant.state, GrantState::Valid);
        (grant.failures, grant.next_try) = (0, UnixTime(0));
        grant.refresh_token = answer.refresh_token.or(grant.refresh_token.take());
        if let Some(scopes) = answer.scopes {
            grant.scopes = scopes;
        }
        self.note_renewal((user, server), Outcome::Done);
        for _ in 0..SAVES {
            if let Ok(Some(_)) = self.replace((user, server), &record, &marked).await {
                tracing::info!(%user, server = %server.name, "a token was renewed");
                return Ok(Attempt::Done(record));
            }
            // Somebody else has written meanwhile; or this has, and the answer that said so was lost.
            match self.store.read(user, &server.name).await {
                // It may have been sealed anew with another key.
                Ok(Some(there)) if is_marked(&there.record, &mark) => marked = there.revision,
                Ok(Some(there)) if is_same_token(&there.record, &record) => return Ok(Attempt::Done(record)),
                Ok(there) => {
                    let there = there.map(|there| there.record);
                    give_back_late(renewals, server, record, there.as_ref());
                    return Ok(Attempt::Again);
                }
                Err(_) => {}
            }
            sleep(SAVE_PAUSE).await;
        }
        tracing::error!(%user, server = %server.name, "a token that was renewed could not be saved");
        Err(TokenError::Failed(StoreError::Timeout))
    }

    /// Writes down what a failure comes to: nothing but a pause, unless the service says that it is over.
    async fn fail(
        &self,
        renewals: &Renewals,
        of: (&UserId, &Arc<Server>),
        (mut record, before, why): (Record, GrantState, NotRenewed),
    ) -> Result<Attempt, TokenError> {
        let (user, server) = of;
        let host = record.grant.as_deref().map(renewal_host);
        tracing::warn!(%user, server = %server.name, host, %why, "a token was not renewed");
        let Some(there) = self.store.read(user, &server.name).await? else { return Ok(Attempt::Again) };
        if record.grant.as_deref().is_none_or(|grant| !is_marked(&there.record, &grant.state)) {
            return Ok(Attempt::Again);
        }
        let marked = &there.revision;
        let was_lost = matches!(before, GrantState::Refreshing { .. });
        // Whether an answer was lost is known from the mark, which then stays.
        if why != NotRenewed::Lost {
            set_state(&mut record, before);
        }
        let asked = match why {
            NotRenewed::Rejected if was_lost => return self.end(of, record, SignInReason::Lost, marked).await,
            NotRenewed::Rejected => return self.end(of, record, SignInReason::Rejected, marked).await,
            NotRenewed::Client { is_gone: true } => return self.end(of, record, SignInReason::Client, marked).await,
            NotRenewed::Late => {
                return self.replace(of, &record, marked).await.map(|_| Attempt::Again).map_err(Into::into);
            }
            NotRenewed::Store(error) => {
                self.replace(of, &record, marked).await?;
                return Err(error.into());
            }
            NotRenewed::Client { is_gone: false } => {
                renewals.client_refused.inc();
                tracing::error!(server = %server.name, "`oauth.clientId` or `clientSecret` is not what the service knows");
                None
            }
            NotRenewed::Later(after) => after,
            NotRenewed::Refused(_) | NotRenewed::Lost | NotRenewed::Unsent => None,
        };
        self.note_renewal(of, Outcome::Failed);
        let asked = asked.map_or(0, |asked| asked.as_secs());
        let grant = record.grant.as_mut().expect("it has one");
        let doubled = (PAUSE[0] << grant.failures.min(6)).min(PAUSE[1]);
        let pause = doubled.max(asked.min(MAX_ASKED)) + jitter(doubled);
        grant.failures = grant.failures.saturating_add(1);
        grant.next_try = UnixTime(self.clock.now().0 + pause);
        if self.replace(of, &record, marked).await?.is_none() {
            return Ok(Attempt::Again);
        }
        Err(TokenError::Later(Duration::from_secs(asked.max(pause))))
    }

    /// Writes down that the user must sign in again, over what was seen.
    async fn end(
        &self,
        of: (&UserId, &Arc<Server>),
        record: Record,
        reason: SignInReason,
        seen: &Revision,
    ) -> Result<Attempt, TokenError> {
        self.note_renewal(of, Outcome::Failed);
        match self.end_sign_in(of, (record, reason), seen).await? {
            Some(why) => Err(why.into()),
            None => Ok(Attempt::Again),
        }
    }

    /// Writes down over what was `seen` that what it grants is over: nothing if something else is there.
    pub(in crate::tokens) async fn end_sign_in(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        (mut record, reason): (Record, SignInReason),
        seen: &Revision,
    ) -> Result<Option<Why>, StoreError> {
        let now = self.clock.now();
        set_state(&mut record, GrantState::NeedsSignIn { reason, since: now.0 });
        if self.replace((user, server), &record, seen).await?.is_none() {
            return Ok(None);
        }
        tracing::warn!(%user, server = %server.name, reason = reason.as_str(), "a user must sign in at a service again");
        let (user, server) = (Some(user), Some(&server.name));
        self.audit.note(&Event { user, server, ..Event::of(EventKind::SignInNeeded) });
        Ok(Some(Why::SignIn(reason, now)))
    }

    /// Writes `record` over what was seen; nothing if something else is there.
    pub(in crate::tokens) async fn replace(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        record: &Record,
        seen: &Revision,
    ) -> Result<Option<Revision>, StoreError> {
        match self.store.save(user, &server.name, record, Over::This(seen)).await? {
            Written::Done(revision) => Ok(Some(revision)),
            Written::Changed => Ok(None),
        }
    }

    fn note_renewal(&self, (user, server): (&UserId, &Arc<Server>), outcome: Outcome) {
        let (user, server) = (Some(user), Some(&server.name));
        self.audit.note(&Event { user, server, outcome, ..Event::of(EventKind::TokenRenewed) });
    }
}

/// Gives back what came too late. Where something of the same grant is in its place, that is the access token alone: with
/// what renews it many services would take back what is in use.
fn give_back_late(renewals: &Renewals, server: &Arc<Server>, mut late: Record, there: Option<&Record>) {
    let grant = late.grant.as_mut().expect("it has one");
    if there.and_then(|there| there.grant.as_deref()).is_some_and(|there| is_of_same_grant(there, grant)) {
        grant.refresh_token = None;
    }
    let (services, server) = (Arc::clone(&renewals.services), Arc::clone(server));
    renewals.lifecycle.spawn(async move {
        let (Some(grant), Some((_, token))) = (&late.grant, late.fields.first()) else { return };
        let asked = timeout(GIVING_BACK, services.revoke(&server, grant, token)).await;
        let is_confirmed = asked.unwrap_or(false);
        tracing::info!(server = %server.name, is_confirmed, "a token that came too late was given back");
    });
}

/// Whether an attempt has left this mark there, which is no other's.
fn is_marked(record: &Record, mark: &GrantState) -> bool {
    record.grant.as_deref().is_some_and(|grant| grant.state == *mark)
}

fn set_state(record: &mut Record, state: GrantState) {
    record.grant.as_mut().expect("it has one").state = state;
}

/// Up to a fifth of a pause more, so that many do not come back at once.
fn jitter(pause: u64) -> u64 {
    let mut random = [0];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    pause * u64::from(random[0]) / (5 * 256)
}
