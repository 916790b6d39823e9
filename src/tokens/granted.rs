//! What a service has given to its user is good for what it was made for; and it is given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::changes::{By, ChangeError};
use super::{TokenSource, Why, missing_fields};
use crate::clock::UnixTime;
use crate::config::{NamedService, OAuth, Plan, ResourceIndicator, Server};
use crate::secret::Credential;
use crate::store::{About, Grant, GrantState, LEASE, Over, Record, SignInReason, StoreError, Stored};
use crate::user::UserId;

/// How long giving back what a service gave may take in all.
pub(super) const GIVING_BACK: Duration = Duration::from_secs(10);

/// How often what is to be removed is read again, because it was renewed meanwhile.
const READS: usize = 5;

/// That a user must sign in again at the service of `server`, and why: one sentence.
#[must_use]
pub fn sign_in_ended(server: &Server, (reason, since): (SignInReason, UnixTime), now: UnixTime) -> String {
    let name = server.display_name();
    let day = since.day(now);
    let ended = format!("Your sign-in to {name} ended on {day} because");
    match reason {
        SignInReason::Rejected => format!("{ended} {name} withdrew it."),
        SignInReason::Lost => format!("{ended} an answer of the service was lost on its way."),
        SignInReason::Client => format!("{ended} {name} does not know this bridge any more as who it was."),
        SignInReason::Expired => format!("{ended} {name} gave it until then, and nothing that renews it."),
        SignInReason::Refused => format!("{ended} {name} refused what had just been renewed."),
        // When that was done, nobody knows.
        SignInReason::Changed => {
            format!("Your sign-in to {name} has ended because whoever runs this bridge has changed where you sign in.")
        }
    }
}

/// Whether both were given to the same account and client, for the same: so one may be renewed by what renews the other.
pub(super) fn is_same_account(before: &Grant, now: &Grant) -> bool {
    let is_known = now.subject.is_some() && now.issuer.is_some();
    is_known && !before.needs_sign_in() && before.subject == now.subject && is_alike(before, now)
}

/// Whether somebody is renewing it, as far as the clocks of nodes agree: a mark says so for as long as a lease lasts, also
/// where the lease itself was lost. Where an attempt has failed, a later time to try again stands beside its mark.
pub(super) fn is_under_way(grant: &Grant, now: UnixTime) -> bool {
    match grant.state {
        GrantState::Refreshing { since, .. } => grant.next_try.0 <= since && now.0.abs_diff(since) < LEASE.as_secs(),
        GrantState::Valid | GrantState::NeedsSignIn { .. } => false,
    }
}

/// Whether both may go back to one grant at the service, which it may take back as a whole.
pub(super) fn is_of_same_grant(one: &Grant, other: &Grant) -> bool {
    let is_other_account = one.subject.is_some() && other.subject.is_some() && one.subject != other.subject;
    !one.needs_sign_in() && !is_other_account && is_alike(one, other)
}

fn is_alike(one: &Grant, other: &Grant) -> bool {
    let of = |grant: &Grant| (grant.issuer.clone(), grant.client.clone(), grant.resource.clone());
    of(one) == of(other)
}

/// Whether two records hold the same token.
pub(super) fn is_same_token(one: &Record, other: &Record) -> bool {
    let (one, other) = (one.fields.first(), other.fields.first());
    matches!((one, other), (Some((_, one)), Some((_, other))) if one.matches(other.expose().as_bytes()))
}

/// Whether `record` holds what a server was filled with.
pub(super) fn holds(record: &Record, used: &Credential) -> bool {
    let (held, used) = (record.fields.first(), used.get(Credential::TOKEN));
    matches!((held, used), (Some((_, held)), Some(used)) if held.matches(used.expose().as_bytes()))
}

/// What became of a connection that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnected {
    /// There was none.
    Absent,
    /// It was one that a person had pasted.
    Removed,
    /// The service was asked to take back what it gave: whether it has confirmed that.
    GivenBack(bool),
}

impl TokenSource {
    /// Removes what `user` has saved for `server`, and then gives it back if a service gave it.
    ///
    /// # Errors
    /// Says why it is still there.
    pub async fn disconnect(
        &self,
        by: By<'_>,
        (user, server): (&UserId, &Arc<Server>),
        over: Over<'_>,
    ) -> Result<Disconnected, ChangeError> {
        self.count(by).await?;
        for read in 1.. {
            let granted = self.granted(user, server).await?;
            let granted = granted.filter(|stored| !matches!(over, Over::This(seen) if *seen != stored.revision));
            let seen = granted.as_ref().map_or(over, |stored| Over::This(&stored.revision));
            match self.remove_counted(by, (user, &server.name), seen).await {
                // A renewal was faster.
                Err(ChangeError::Changed) if matches!(over, Over::Anything) && read < READS => {}
                Err(error) => return Err(error),
                Ok(false) => return Ok(Disconnected::Absent),
                Ok(true) => return Ok(self.give_back(server, granted).await),
            }
        }
        Err(ChangeError::Changed)
    }

    /// What a service gave to `user` for `server`, if it did and that opens: what does not cannot be given back.
    async fn granted(&self, user: &UserId, server: &Server) -> Result<Option<Stored>, StoreError> {
        let stored = match self.store.read(user, &server.name).await {
            Err(error) if !error.is_of_record() => return Err(error),
            stored => stored.ok().flatten(),
        };
        Ok(stored.filter(|stored| stored.record.grant.is_some() && server.oauth.is_some()))
    }

    async fn give_back(&self, server: &Arc<Server>, removed: Option<Stored>) -> Disconnected {
        let (Some(stored), Some(renewals)) = (removed, self.renewals.clone()) else { return Disconnected::Removed };
        let (record, server) = (stored.record, Arc::clone(server));
        let lifecycle = renewals.lifecycle.clone();
        // Whoever asked may have left.
        let given_back = lifecycle.to_the_end(async move {
            let (Some(grant), Some((_, token))) = (&record.grant, record.fields.first()) else { return false };
            timeout(GIVING_BACK, renewals.services.revoke(&server, grant, token)).await.unwrap_or(false)
        });
        Disconnected::GivenBack(given_back.await.unwrap_or(false))
    }
}

/// Why a user must sign in again at the service of `server` and since when, if they must by what is known of their record.
#[must_use]
pub fn must_sign_in(server: &Server, about: &About, now: UnixTime) -> Option<(SignInReason, UnixTime)> {
    let oauth = server.oauth.as_ref()?;
    let changed = Some((SignInReason::Changed, about.saved_at));
    let Some(grant) = &about.grant else { return changed.filter(|_| !oauth.also_token) };
    match &grant.state {
        GrantState::NeedsSignIn { reason, since } => Some((*reason, UnixTime(*since))),
        _ if !is_for(server, oauth, [&grant.issuer, &grant.resource, &grant.origin]) => changed,
        _ => {
            let end = about.expires_at.filter(|end| *end <= now && !grant.is_renewed);
            end.map(|end| (SignInReason::Expired, end))
        }
    }
}

/// How what a record holds stands, which was made for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be used.
    Good,
    /// The same, and it is time to renew it.
    Due,
    /// It has expired, and can be renewed.
    Over,
}

/// How what `record` holds stands, if it was made for `server` as it is configured now.
pub(super) fn standing(server: &Server, record: &Record, now: UnixTime) -> Result<Standing, Why> {
    let changed = Err(Why::SignIn(SignInReason::Changed, record.saved_at));
    match (&server.oauth, &record.grant) {
        (None, None) => check_end(record, now).map(|()| Standing::Good).map_err(|_| Why::Expired),
        // A token that a service gave goes nowhere but where it was made for.
        (None, Some(_)) => Err(Why::Incomplete(missing_fields(server, |_| false).unwrap_or_default())),
        (Some(oauth), None) if oauth.also_token => {
            check_end(record, now).map(|()| Standing::Good).map_err(|_| Why::Expired)
        }
        (Some(_), None) => changed,
        (Some(oauth), Some(grant)) => {
            if let GrantState::NeedsSignIn { reason, since } = &grant.state {
                return Err(Why::SignIn(*reason, UnixTime(*since)));
            }
            if !is_for(server, oauth, [&grant.issuer, &grant.resource, &grant.origin]) {
                return changed;
            }
            let is_renewed = grant.refresh_token.is_some();
            match (check_end(record, now), record.expires_at) {
                (Err(_), _) if is_renewed => Ok(Standing::Over),
                (Err(end), _) => Err(Why::SignIn(SignInReason::Expired, end)),
                (Ok(()), Some(end)) if is_renewed && now.0 >= end.0 - early(oauth, record, end) => Ok(Standing::Due),
                (Ok(()), _) => Ok(Standing::Good),
            }
        }
    }
}

/// How long before its end a token is renewed, seconds: half its life at most.
fn early(oauth: &OAuth, record: &Record, end: UnixTime) -> u64 {
    oauth.refresh_before.as_secs().min(end.0.saturating_sub(record.saved_at.0) / 2)
}

fn check_end(record: &Record, now: UnixTime) -> Result<(), UnixTime> {
    record.expires_at.filter(|end| *end <= now).map_or(Ok(()), Err)
}

/// Whether what was made for this issuer, resource and origin is for `server` as it is configured.
fn is_for(server: &Server, oauth: &OAuth, [made_by, made_for, sent_to]: [&Option<String>; 3]) -> bool {
    let origin = match &server.plan {
        Plan::Http(plan) => Some(plan.origin.as_str()),
        Plan::Stdio(_) | Plan::Container(_) => None,
    };
    let issuer = match &oauth.service {
        NamedService::Found => None,
        NamedService::Issuer(issuer) => Some(issuer),
        NamedService::Endpoints { issuer, .. } => issuer.as_ref(),
    };
    let is_issuer = issuer.is_none_or(|issuer| made_by.as_ref() == Some(issuer));
    let is_resource = match &oauth.resource {
        ResourceIndicator::Named(resource) => made_for.as_ref() == Some(resource),
        ResourceIndicator::Unsaid => made_for.is_none(),
        ResourceIndicator::Found => true,
    };
    sent_to.as_deref() == origin && is_issuer && is_resource
}
