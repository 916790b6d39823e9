//! A token that is about to expire is renewed on the path of a request, once for all nodes.
//!
//! A lease keeps most others from doing the same; what makes it right is that every write is over the very bytes that were
//! read. Before the service is called it is written down that it will be, so that a node that ends meanwhile leaves a mark;
//! what the service answers is durable before anybody uses it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::granted::{self, Standing};
use super::{TokenError, TokenSource, Why};
use crate::audit::{Event, EventKind, Outcome};
use crate::clock::UnixTime;
use crate::config::Server;
use crate::lifecycle::Lifecycle;
use crate::oauth::{NotRenewed, RENEWAL, Services, TokenAnswer, renewal_host};
use crate::secret::Credential;
use crate::store::{GrantState, LEASE, LeaseOf, Over, Record, Revision, SignInReason, StoreError, Written};
use crate::user::UserId;

/// How long a request waits for a token that another one renews, and how often it looks: at first, and at last.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(200)];

/// The pause after a failure that is not the user's, seconds: doubled from the first to the last.
const PAUSE: [u64; 2] = [1, 60];

/// What a lease must have left when the service is called: all that the call may take, and as much as writing may.
const NEEDED: Duration = Duration::from_secs(RENEWAL.as_secs() + 4);

/// How often what the service gave is tried to be saved where the store fails, with this between.
const SAVES: u32 = 40;
const SAVE_PAUSE: Duration = Duration::from_millis(250);

/// What it takes to renew tokens. Cloning it shares it.
#[derive(Clone)]
pub(super) struct Renewals {
    pub(super) services: Arc<Services>,
    /// A renewal goes on when whoever needed it has left: what the service gives must not be lost.
    pub(super) lifecycle: Lifecycle,
}

impl std::fmt::Debug for Renewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewals(…)")
    }
}

/// What became of an attempt.
enum Attempt {
    /// This is what is to be used.
    Done(Record),
    /// Somebody else has changed what there is: it is looked at again.
    Again,
}

impl TokenSource {
    /// `record`, which is about to expire or has, or what takes its place.
    pub(super) async fn renewed(
        &self,
        user: &UserId,
        server: &Arc<Server>,
        record: Record,
    ) -> Result<Record, TokenError> {
        let (deadline, mut look, mut seen) = (Instant::now() + PATIENCE, LOOK[0], record);
        loop {
            let is_good = match granted::standing(server, &seen, self.clock.now())? {
                Standing::Good => return Ok(seen),
                Standing::Due => true,
                Standing::Over => false,
            };
            let wait = seen.grant.as_ref().map_or(0, |grant| grant.next_try.0.saturating_sub(self.clock.now().0));
            let attempt = if wait == 0 { self.try_to_renew(user, server).await } else { Ok(None) };
            match attempt {
                Ok(Some(Attempt::Done(record))) => return Ok(record),
                // Whoever has one that is good goes on with it, whatever keeps it from being renewed.
                Ok(_) | Err(TokenError::Failed(_) | TokenError::Later(_)) if is_good => return Ok(seen),
                Ok(Some(Attempt::Again)) => {}
                Ok(None) if wait > 0 => return Err(TokenError::Later(Duration::from_secs(wait))),
                Ok(None) => {
                    sleep(look).await;
                    look = (look * 2).min(LOOK[1]);
                }
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(TokenError::Later(LOOK[1]));
            }
            seen = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?.record;
        }
    }

    /// Renews it if nobody else does at this moment.
    async fn try_to_renew(&self, user: &UserId, server: &Arc<Server>) -> Result<Option<Attempt>, TokenError> {
        let Some(renewals) = self.renewals.clone() else { return Err(TokenError::Later(LOOK[1])) };
        // Before it is asked for: it lasts from some time after.
        let since = Instant::now();
        let of = LeaseOf::Connection(user, &server.name);
        let Some(lease) = self.store.lease(of).await? else { return Ok(None) };
        let (source, user, server) = (self.clone(), user.clone(), Arc::clone(server));
        let (tell, told) = oneshot::channel();
        let lifecycle = renewals.lifecycle.clone();
        lifecycle.spawn(async move {
            let done = source.renew(&renewals.services, (&user, &server), since).await;
            source.store.give_back(lease).await;
            // Whoever asked may have left.
            let _ = tell.send(done);
        });
        told.await.unwrap_or(Err(TokenError::Later(LOOK[1]))).map(Some)
    }

    /// What is done under the lease, which was asked for at `since`.
    async fn renew(
        &self,
        services: &Services,
        (user, server): (&UserId, &Server),
        since: Instant,
    ) -> Result<Attempt, TokenError> {
        let stored = self.store.read(user, &server.name).await?.ok_or(TokenError::Absent)?;
        let mut record = stored.record;
        if granted::standing(server, &record, self.clock.now())? == Standing::Good {
            return Ok(Attempt::Done(record));
        }
        let Some(grant) = record.grant.as_mut() else { return Ok(Attempt::Again) };
        let attempt = crate::keyring::random_name();
        let before = std::mem::replace(&mut grant.state, GrantState::Refreshing { since: self.clock.now().0, attempt });
        let Some(marked) = self.replace((user, server), &record, &stored.revision).await? else {
            return Ok(Attempt::Again);
        };
        // A node that slept would spend the token a second time.
        if since.elapsed() + NEEDED > LEASE {
            set_state(&mut record, before);
            self.replace((user, server), &record, &marked).await?;
            return Ok(Attempt::Again);
        }
        let grant = record.grant.as_deref().expect("it has one");
        let renewed = services.renew(server, grant).await;
        let host = renewal_host(grant);
        self.note_renewal(user, server, renewed.is_ok());
        match renewed {
            Ok(answer) => self.keep(services, (user, server), (record, answer), &marked).await,
            Err(why) => {
                tracing::warn!(%user, server = %server.name, host, %why, "a token was not renewed");
                self.fail((user, server), (record, before), why, &marked).await
            }
        }
    }

    /// Saves what the service gave; it is used only then. What comes too late is given back.
    async fn keep(
        &self,
        services: &Services,
        (user, server): (&UserId, &Server),
        (mut record, answer): (Record, TokenAnswer),
        marked: &Revision,
    ) -> Result<Attempt, TokenError> {
        let now = self.clock.now();
        record.saved_at = now;
        record.expires_at = answer.expires_in.map(|seconds| UnixTime(now.0.saturating_add(seconds)));
        record.fields = vec![(Credential::TOKEN.into(), answer.access_token)];
        let grant = record.grant.as_mut().expect("it has one");
        grant.state = GrantState::Valid;
        (grant.failures, grant.next_try) = (0, UnixTime(0));
        grant.refresh_token = answer.refresh_token.or(grant.refresh_token.take());
        if let Some(scopes) = answer.scopes {
            grant.scopes = scopes;
        }
        for _ in 0..SAVES {
            match self.replace((user, server), &record, marked).await {
                Ok(Some(_)) => {
                    tracing::info!(%user, server = %server.name, "a token was renewed");
                    return Ok(Attempt::Done(record));
                }
                Ok(None) => {
                    let token = &record.fields[0].1;
                    services.revoke(server, record.grant.as_ref().expect("it has one"), token).await;
                    return Ok(Attempt::Again);
                }
                // The answer that it was saved may have been lost: then somebody has it, and that is this.
                Err(_) => sleep(SAVE_PAUSE).await,
            }
            if let Ok(Some(there)) = self.store.read(user, &server.name).await
                && there.record.fields[0].1.matches(record.fields[0].1.expose().as_bytes())
            {
                return Ok(Attempt::Done(record));
            }
        }
        tracing::error!(%user, server = %server.name, "a token that was renewed could not be saved");
        Err(TokenError::Failed(StoreError::Timeout))
    }

    /// Writes down what a failure comes to: nothing but a pause, unless the service says that it is over.
    async fn fail(
        &self,
        (user, server): (&UserId, &Server),
        (mut record, before): (Record, GrantState),
        why: NotRenewed,
        marked: &Revision,
    ) -> Result<Attempt, TokenError> {
        let now = self.clock.now();
        let was_lost = matches!(before, GrantState::Refreshing { .. });
        let over = match &why {
            NotRenewed::Rejected if was_lost => Some(SignInReason::Lost),
            NotRenewed::Rejected => Some(SignInReason::Rejected),
            NotRenewed::Client { is_registered: true } => Some(SignInReason::Client),
            NotRenewed::Client { is_registered: false } => {
                tracing::error!(server = %server.name, "`oauth.clientId` or `clientSecret` is not what the service knows");
                None
            }
            NotRenewed::Later(_) | NotRenewed::Lost | NotRenewed::Store(_) => None,
        };
        if let Some(reason) = over {
            set_state(&mut record, GrantState::NeedsSignIn { reason, since: now.0 });
            if self.replace((user, server), &record, marked).await?.is_none() {
                return Ok(Attempt::Again);
            }
            let (user, server) = (Some(user), Some(&server.name));
            self.audit.note(&Event { user, server, ..Event::of(EventKind::SignInNeeded) });
            return Err(Why::SignIn(reason, now).into());
        }
        // Whether an answer was lost is known from the mark, which then stays.
        if why != NotRenewed::Lost {
            set_state(&mut record, before);
        }
        let grant = record.grant.as_mut().expect("it has one");
        let doubled = PAUSE[0] << grant.failures.min(6);
        let asked = if let NotRenewed::Later(Some(after)) = why { after } else { 0 };
        let pause = doubled.min(PAUSE[1]).max(asked.min(PAUSE[1])) + jitter(doubled);
        grant.failures = grant.failures.saturating_add(1);
        grant.next_try = UnixTime(now.0 + pause);
        if self.replace((user, server), &record, marked).await?.is_none() {
            return Ok(Attempt::Again);
        }
        Err(TokenError::Later(Duration::from_secs(asked.max(pause))))
    }

    /// Writes `record` over what was seen; nothing if something else is there.
    async fn replace(
        &self,
        (user, server): (&UserId, &Server),
        record: &Record,
        seen: &Revision,
    ) -> Result<Option<Revision>, StoreError> {
        match self.store.save(user, &server.name, record, Over::This(seen)).await? {
            Written::Done(revision) => Ok(Some(revision)),
            Written::Changed => Ok(None),
        }
    }

    fn note_renewal(&self, user: &UserId, server: &Server, is_done: bool) {
        let (user, server) = (Some(user), Some(&server.name));
        let outcome = if is_done { Outcome::Done } else { Outcome::Failed };
        self.audit.note(&Event { user, server, outcome, ..Event::of(EventKind::TokenRenewed) });
    }
}

fn set_state(record: &mut Record, state: GrantState) {
    record.grant.as_mut().expect("it has one").state = state;
}

/// Up to a fifth of a pause more, so that many do not come back at once.
fn jitter(pause: u64) -> u64 {
    let mut random = [0];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    pause.min(PAUSE[1]) * u64::from(random[0]) / (5 * 256)
}
