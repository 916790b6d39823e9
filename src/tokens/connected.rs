//! What a service gives to who has signed in there: written down before it is asked for, and saved before anything else is
//! done with it, whoever may have left meanwhile.

use std::time::Duration;

use tokio::time::sleep;

use super::TokenSource;
use super::changes::{By, ChangeError, outcome};
use super::granted::{is_same_account, is_same_token, is_under_way};
use crate::audit::{EventKind, Outcome, Pending, Unwritten};
use crate::config::ServerName;
use crate::oauth::Fault;
use crate::request_id::RequestId;
use crate::store::{Grant, Over, Record, SavedBy, StoreError, Written};
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
        let obtaining = RequestId::handed_on(async move { source.obtain((&user, &server), asked).await });
        // Whoever has signed in may have left.
        renewals.lifecycle.to_the_end(obtaining).await.unwrap_or_else(unknown)
    }

    async fn obtain(
        &self,
        (user, server): (&UserId, &ServerName),
        asked: impl Future<Output = Result<Record, Fault>>,
    ) -> Result<(), NotConnected> {
        let change = self.begin_to_connect((user, server)).await.map_err(ChangeError::from)?;
        match asked.await {
            Ok(record) => Ok(self.finish_connecting((user, server), record, change).await?),
            Err(fault) => {
                change.done(Outcome::Failed).await;
                Err(fault.into())
            }
        }
    }

    /// Writes down that what a service gives is about to be saved.
    pub(super) async fn begin_to_connect(&self, (user, server): (&UserId, &ServerName)) -> Result<Pending, Unwritten> {
        let by = By { caller: None, how: SavedBy::SignIn };
        let replaces = self.audit.is_on() && self.is_there(user, server, Over::Anything).await;
        let kind = if replaces { EventKind::TokenReplaced } else { EventKind::TokenSet };
        self.begin(by, kind, (user, server), None).await
    }

    /// Saves what a service gave, in place of whatever is there, and writes down what came of that change.
    pub(super) async fn finish_connecting(
        &self,
        (user, server): (&UserId, &ServerName),
        record: Record,
        change: Pending,
    ) -> Result<(), ChangeError> {
        let saved = self.save_granted((user, server), record).await;
        if saved.is_ok() {
            self.tell(user, server);
        }
        change.done(outcome(&saved)).await;
        saved
    }

    /// Saves what a service gave, over what was read. How often its user was asked for more stays known; where it gave nothing
    /// that renews it, because the service had done so before, what is there of the same account is kept.
    async fn save_granted(
        &self,
        (user, server): (&UserId, &ServerName),
        mut record: Record,
    ) -> Result<(), ChangeError> {
        let is_renewed = record.grant.as_ref().is_some_and(|grant| grant.refresh_token.is_some());
        let mut failed = None;
        for tries in 0..SAVES {
            if failed.is_some() {
                sleep(SAVE_PAUSE).await;
            }
            let saved = match self.store.read(user, server).await {
                // The answer that said so was lost.
                Ok(Some(there)) if is_same_token(&there.record, &record) => return Ok(()),
                // What renews it is just being exchanged for another.
                Ok(Some(there)) if !is_renewed && tries < SAVES / 2 && self.is_renewing(&there.record) => {
                    Err(StoreError::Timeout)
                }
                Ok(there) => {
                    let (before, revision) = there.map(|there| (there.record.grant, there.revision)).unzip();
                    if let Some(grant) = &mut record.grant {
                        take_over(grant, before.flatten(), is_renewed);
                    }
                    let over = revision.as_ref().map_or(Over::Nothing, Over::This);
                    self.store.save(user, server, &record, over).await
                }
                // It is not written over, and saving says why.
                Err(StoreError::Shape | StoreError::Sealed(_)) => {
                    self.store.save(user, server, &record, Over::Anything).await
                }
                Err(error) => Err(error),
            };
            match saved {
                Ok(Written::Done(_)) => return Ok(()),
                // Somebody was faster, perhaps with what renews it.
                Ok(Written::Changed) => failed = None,
                // What is there must not be written over, or the keys are missing: that does not pass.
                Err(error @ (StoreError::Newer | StoreError::Damaged | StoreError::Sealed(_))) => {
                    return Err(error.into());
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(StoreError::Timeout).into())
    }

    fn is_renewing(&self, record: &Record) -> bool {
        record.grant.as_ref().is_some_and(|grant| is_under_way(grant, self.clock.now()))
    }
}

/// Takes over from what was there `before` how often its user was asked for more and, unless the service gave what renews it,
/// what does so of the same account.
fn take_over(grant: &mut Grant, before: Option<Box<Grant>>, is_renewed: bool) {
    grant.step_ups = before.as_ref().map(|before| before.step_ups.clone()).unwrap_or_default();
    if !is_renewed {
        let before = before.filter(|before| is_same_account(before, grant));
        grant.refresh_token = before.and_then(|before| before.refresh_token);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::Audit;
    use crate::clock::{Clock, UnixTime};
    use crate::keyring::Keyring;
    use crate::secret::{Credential, Secret};
    use crate::store::{ClientAuth, ClientKind, ClientOf, GrantState, RecordKind, TokenStore};

    fn granted(access_token: &str, refresh_token: Option<&str>) -> Record {
        let client = ClientOf { id: "c".to_owned(), kind: ClientKind::Configured, auth: ClientAuth::None };
        let grant = Grant {
            state: GrantState::Valid,
            refresh_token: refresh_token.map(|token| Secret::new(token.to_owned())),
            scopes: Vec::new(),
            resource: None,
            issuer: Some("https://as.example".to_owned()),
            origin: None,
            client,
            token_endpoint: "https://as.example/token".to_owned(),
            revocation_endpoint: None,
            account: None,
            subject: Some("7".to_owned()),
            demanded: Vec::new(),
            step_ups: Vec::new(),
            failures: 0,
            next_try: UnixTime(0),
        };
        Record {
            kind: RecordKind::OAuth,
            saved_at: UnixTime(0),
            saved_by: Some(SavedBy::SignIn),
            expires_at: None,
            fields: vec![(Credential::TOKEN.into(), Secret::new(access_token.to_owned()))],
            grant: Some(Box::new(grant)),
        }
    }

    /// A service that gives what renews a token once per account, and another one each time it is used.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_sign_in_beside_renewals_keeps_what_renews_it_and_is_not_the_one_of_before() {
        let store = TokenStore::in_memory(Arc::new(Keyring::ephemeral()), Clock::System).unwrap();
        let source = TokenSource::new(Arc::new(store), Clock::System, Audit::none());
        let (user, server) = (UserId::local("alice").unwrap(), ServerName::parse("s").unwrap());
        source.store.save(&user, &server, &granted("a", Some("0")), Over::Nothing).await.unwrap();
        let renewing = async {
            let (mut last, mut vanished) = (0, 0);
            for n in 1..300 {
                let there = source.store.read(&user, &server).await.unwrap().unwrap();
                let held = there.record.grant.unwrap().refresh_token.unwrap().expose().parse::<u32>().unwrap();
                vanished += u32::from(held != last);
                let renewed = granted(&format!("renewed {n}"), Some(&n.to_string()));
                let saved = source.store.save(&user, &server, &renewed, Over::This(&there.revision)).await.unwrap();
                last = if matches!(saved, Written::Done(_)) { n } else { held };
            }
            vanished
        };
        let signing_in = async {
            for n in 0..100 {
                source.save_granted((&user, &server), granted(&format!("signed in {n}"), None)).await.unwrap();
            }
        };
        let (vanished, ()) = tokio::join!(renewing, signing_in);
        assert_eq!(vanished, 0);
    }

    #[tokio::test]
    async fn a_sign_in_waits_for_what_a_renewal_gets_in_place_of_what_renews_it() {
        let clock = Clock::System;
        let store = TokenStore::in_memory(Arc::new(Keyring::ephemeral()), clock.clone()).unwrap();
        let source = TokenSource::new(Arc::new(store), clock.clone(), Audit::none());
        let (user, server) = (UserId::local("alice").unwrap(), ServerName::parse("s").unwrap());
        let mut marked = granted("a", Some("spent"));
        marked.grant.as_mut().unwrap().state = GrantState::Refreshing { since: clock.now().0, attempt: String::new() };
        source.store.save(&user, &server, &marked, Over::Nothing).await.unwrap();
        let there = source.store.read(&user, &server).await.unwrap().unwrap();
        let renewing = async {
            // Meanwhile the sign-in looks at least once.
            sleep(SAVE_PAUSE).await;
            let renewed = granted("renewed", Some("fresh"));
            let saved = source.store.save(&user, &server, &renewed, Over::This(&there.revision)).await.unwrap();
            assert!(matches!(saved, Written::Done(_)), "it is not written over");
        };
        let (saved, ()) = tokio::join!(source.save_granted((&user, &server), granted("signed in", None)), renewing);
        saved.unwrap();
        let record = source.store.read(&user, &server).await.unwrap().unwrap().record;
        assert_eq!(record.grant.unwrap().refresh_token.unwrap().expose(), "fresh");
    }
}
