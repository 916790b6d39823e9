//! How often users may call. On Redis their calls are counted for all nodes, in the round trip that looks up the token;
//! with an embedded store there is one node, which counts them itself. While Redis does not count, each node allows its
//! share.
//!
//! What is counted is when a user would have made as many calls at the regular rate: one number for each rate, so that
//! nothing begins anew at the edge of a minute. A call that is refused changes nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::session::{Fields, SessionKey, SessionStatus, session_status};
use super::{Backend, StoreError, TokenStore};
use crate::config::{Rate, ServerName};
use crate::user::UserId;

/// How many rates are remembered before those that nobody is ahead of are looked for.
const REMEMBERED: usize = 1024;
/// For how long a Redis that has not counted is not asked only to count.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a node is to say that it is there.
pub const PRESENT: Duration = Duration::from_secs(5);

/// How often a user may call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Whichever servers.
    pub of_user: Option<Rate>,
    /// The server that is called.
    pub at_server: Option<Rate>,
}

/// A call of a user.
#[derive(Debug, Clone, Copy)]
pub struct CallKey<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// Of which server.
    pub server: &'a ServerName,
    /// The session that it is made in.
    pub session: Option<&'a SessionKey<'a>>,
    /// How often it may be made.
    pub rates: Rates,
}

/// A call that its user may not make yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many calls of this user{} in a short time; try again in {} s", .limit.of_what(), self.seconds())]
pub struct TooSoon {
    /// Which rate it does not keep; of two, the one that makes it wait longer.
    pub limit: RateLimit,
    /// When it may be made.
    pub wait: Duration,
}

/// What has a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// All calls of a user.
    OfUser,
    /// Those of one server.
    AtServer,
}

/// What a backend says of a call that it was to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// It may be made.
    Passed,
    /// Not yet.
    TooSoon(TooSoon),
    /// It did not count.
    Not,
}

/// What a node counts by itself: when each user would have called as often at the regular rate, in all and at each server.
/// Who is not ahead of that is forgotten.
#[derive(Debug, Default)]
pub(super) struct OwnCount(Mutex<Ahead>);

/// The nodes that share a store.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// How many there were last; 0 if nobody knows.
    count: AtomicU32,
    /// Whether anything depends on it.
    matter: AtomicBool,
}

#[derive(Debug, Default)]
struct Ahead {
    due: HashMap<(UserId, Option<ServerName>), Instant>,
    /// At how many those are forgotten that nobody is ahead of.
    look_at: usize,
    /// Until when Redis is not asked only to count.
    resting: Option<Instant>,
}

impl Rates {
    /// Each rate that there is.
    pub(super) fn each(&self) -> impl Iterator<Item = (RateLimit, Rate)> {
        let both = [(RateLimit::OfUser, self.of_user), (RateLimit::AtServer, self.at_server)];
        both.into_iter().filter_map(|(limit, rate)| Some((limit, rate?)))
    }

    /// Whether calls are counted at all.
    pub(super) fn is_any(&self) -> bool {
        *self != Self::default()
    }

    /// What one of so many nodes allows.
    fn shared_by(self, nodes: u32) -> Self {
        let share = |rate: Rate| Rate {
            interval: rate.interval.saturating_mul(nodes.max(1)),
            burst: (rate.burst / nodes.max(1)).max(1),
        };
        Self { of_user: self.of_user.map(share), at_server: self.at_server.map(share) }
    }
}

impl RateLimit {
    fn of_what(self) -> &'static str {
        match self {
            Self::OfUser => "",
            Self::AtServer => " to this server",
        }
    }
}

impl TooSoon {
    /// After how many seconds the call may be made: whole ones, at least one.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let more = u64::from(self.wait.subsec_nanos() > 0);
        (self.wait.as_secs() + more).max(1)
    }
}

impl TokenStore {
    /// The status of the session of a call that needs no token, as [`TokenStore::session_status`] answers it; an empty one
    /// of a call without a session. The call is counted in the same command.
    ///
    /// # Errors
    /// It may not be made yet.
    pub async fn status_for_call(
        &self,
        call: &CallKey<'_>,
    ) -> Result<Result<Option<SessionStatus>, StoreError>, TooSoon> {
        self.count_on_this_node(call)?;
        let redis = match &self.backend {
            Backend::Redis(redis) if call.rates.is_any() => redis,
            Backend::Redis(_) | Backend::Embedded(_) => {
                return Ok(match call.session {
                    Some(session) => self.session_status(session).await,
                    None => Ok(Some(SessionStatus::default())),
                });
            }
        };
        let by_itself = || self.count_share(call).map(|()| Ok(Some(SessionStatus::default())));
        let needs_answer = call.session.is_some();
        if !needs_answer && self.own_count.is_resting(Instant::now()) {
            return by_itself();
        }
        let (names, session) = (self.names(call.user), call.session.map(|key| self.session_names(key)));
        let read = |counted, fields| match counted {
            Counted::TooSoon(too_soon) => Ok(Err(too_soon)),
            Counted::Passed | Counted::Not => Ok(Ok((self.read_status(call, fields)?, counted))),
        };
        match redis.count_call(&names, (call.server, &call.rates), session.as_ref(), read).await {
            Ok(Err(too_soon)) => Err(too_soon),
            Ok(Ok((status, Counted::Not))) => self.count_share(call).map(|()| Ok(status)),
            Ok(Ok((status, _))) => Ok(Ok(status)),
            Err(error) if needs_answer => Ok(Err(error)),
            Err(_) => {
                self.own_count.rest(Instant::now());
                by_itself()
            }
        }
    }

    /// What `fields` say of the session of a call, if it has one.
    pub(super) fn read_status(
        &self,
        call: &CallKey<'_>,
        fields: Option<Fields>,
    ) -> Result<Option<SessionStatus>, StoreError> {
        let Some(session) = call.session else { return Ok(Some(SessionStatus::default())) };
        session_status(&self.keyring, session.nonce, fields)
    }

    /// Counts a call where there is no other node.
    pub(super) fn count_on_this_node(&self, call: &CallKey<'_>) -> Result<(), TooSoon> {
        match &self.backend {
            Backend::Redis(_) => {
                if call.rates.is_any() {
                    self.nodes.matter.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            Backend::Embedded(_) if !call.rates.is_any() => Ok(()),
            Backend::Embedded(_) => self.own_count.count(call, &call.rates, Instant::now()),
        }
    }

    /// Counts a call that Redis has not counted, against the share of this node.
    pub(super) fn count_share(&self, call: &CallKey<'_>) -> Result<(), TooSoon> {
        let share = call.rates.shared_by(self.nodes.count.load(Ordering::Relaxed));
        self.own_count.count(call, &share, Instant::now())
    }

    /// Says to the other nodes that `node` is there, for three times [`PRESENT`], and hears how many there are: for its share
    /// of the rates while nobody can be asked. Nothing is said before a call was to be counted.
    ///
    /// # Errors
    /// Nobody can be asked now; the guess stays what it was.
    pub async fn note_node(&self, node: &str) -> Result<(), StoreError> {
        if let Backend::Redis(redis) = &self.backend
            && self.nodes.matter.load(Ordering::Relaxed)
        {
            self.nodes.count.store(redis.note_node(node, PRESENT * 3).await?, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl OwnCount {
    /// Counts a call that keeps all `rates`.
    fn count(&self, call: &CallKey<'_>, rates: &Rates, now: Instant) -> Result<(), TooSoon> {
        let mut ahead = self.lock();
        let mut due = Vec::new();
        let mut refused: Option<TooSoon> = None;
        for (limit, rate) in rates.each() {
            let server = (limit == RateLimit::AtServer).then(|| call.server.clone());
            let key = (call.user.clone(), server);
            let full = now + rate.full();
            let due_now = ahead.due.get(&key).map_or(now, |due| now.max(*due));
            // Further ahead is nobody, unless the rate was another: this call begins anew, with nothing left after it.
            let next = if due_now > full { full } else { due_now + rate.interval };
            let wait = next.saturating_duration_since(full);
            if wait > refused.map_or(Duration::ZERO, |refused| refused.wait) {
                refused = Some(TooSoon { limit, wait });
            }
            due.push((key, next));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for (key, next) in due {
            ahead.note(key, next, now);
        }
        Ok(())
    }

    fn rest(&self, now: Instant) {
        self.lock().resting = Some(now + PAUSE);
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.lock().resting.is_some_and(|until| now < until)
    }

    fn lock(&self) -> MutexGuard<'_, Ahead> {
        // What is done under the lock leaves the map whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    fn note(&mut self, key: (UserId, Option<ServerName>), due: Instant, now: Instant) {
        if self.due.len() >= self.look_at.max(REMEMBERED) && !self.due.contains_key(&key) {
            self.due.retain(|_, due| *due > now);
            self.due.shrink_to(REMEMBERED);
            // Who looks now has what it costs paid for by as many who have not looked.
            self.look_at = 2 * self.due.len();
        }
        self.due.insert(key, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(interval: Duration, burst: u32) -> Rate {
        Rate { interval, burst }
    }

    /// How many of a thousand calls at this moment pass, and what the next is told.
    fn passed(count: &OwnCount, (user, server): (&str, &str), rates: Rates, now: Instant) -> (usize, Option<TooSoon>) {
        let (user, server) = (UserId::local(user).unwrap(), ServerName::parse(server).unwrap());
        let call = CallKey { user: &user, server: &server, session: None, rates };
        let calls: Vec<_> = (0..1000).map(|_| count.count(&call, &rates, now)).collect();
        (calls.iter().filter(|call| call.is_ok()).count(), calls.last().unwrap().err())
    }

    #[test]
    fn a_burst_passes_and_then_one_after_each_interval_wherever_a_minute_begins() {
        let (count, now) = (OwnCount::default(), Instant::now());
        let rates = Rates { of_user: Some(rate(SECOND, 60)), at_server: None };
        let too_soon = |wait| Some(TooSoon { limit: RateLimit::OfUser, wait });
        assert_eq!(passed(&count, ("alice", "a"), rates, now), (60, too_soon(SECOND)));
        assert_eq!(passed(&count, ("alice", "b"), rates, now), (0, too_soon(SECOND)), "whichever servers");
        assert_eq!(passed(&count, ("bob", "a"), rates, now).0, 60, "others are others");
        let half = now + SECOND / 2;
        assert_eq!(passed(&count, ("alice", "a"), rates, half), (0, too_soon(SECOND / 2)));
        let mut all = 60;
        for later in 1..=600 {
            all += passed(&count, ("alice", "a"), rates, now + later * SECOND / 10).0;
        }
        assert_eq!(all, 120);
    }

    #[test]
    fn each_server_has_a_rate_of_its_own_and_a_refused_call_counts_nowhere() {
        let (count, now) = (OwnCount::default(), Instant::now());
        let rates = Rates { of_user: Some(rate(SECOND, 5)), at_server: Some(rate(10 * SECOND, 2)) };
        let at_server = TooSoon { limit: RateLimit::AtServer, wait: 10 * SECOND };
        assert_eq!(passed(&count, ("alice", "a"), rates, now), (2, Some(at_server)));
        assert_eq!(passed(&count, ("alice", "b"), rates, now), (2, Some(at_server)));
        assert_eq!(passed(&count, ("alice", "c"), rates, now).0, 1, "the fifth of the user");
        assert_eq!(at_server.seconds(), 10);
        assert_eq!(TooSoon { wait: Duration::from_millis(1), ..at_server }.seconds(), 1);
        assert_eq!(TooSoon { wait: Duration::from_millis(2001), ..at_server }.seconds(), 3);
    }

    #[test]
    fn the_shares_of_all_nodes_are_the_rate_and_none_is_nothing() {
        let rates = Rates { of_user: Some(rate(SECOND, 60)), at_server: Some(rate(SECOND, 1)) };
        let share = rates.shared_by(3);
        assert_eq!(share, Rates { of_user: Some(rate(3 * SECOND, 20)), at_server: Some(rate(3 * SECOND, 1)) });
        assert_eq!(rates.shared_by(0), rates);
    }

    #[test]
    fn whoever_has_another_rate_now_waits_no_longer_than_that_demands() {
        let (count, now) = (OwnCount::default(), Instant::now());
        let a_day = Rates { of_user: Some(rate(Duration::from_hours(24), 30)), at_server: None };
        assert_eq!(passed(&count, ("alice", "a"), a_day, now).0, 30);
        let a_second = Rates { of_user: Some(rate(SECOND, 2)), at_server: None };
        let too_soon = Some(TooSoon { limit: RateLimit::OfUser, wait: SECOND });
        assert_eq!(passed(&count, ("alice", "a"), a_second, now), (1, too_soon));
        assert_eq!(passed(&count, ("alice", "a"), a_second, now + SECOND), (1, too_soon));
    }

    #[test]
    fn who_is_not_ahead_is_forgotten() {
        let (count, now) = (OwnCount::default(), Instant::now());
        let rates = Rates { of_user: Some(rate(SECOND / 2, 1)), at_server: Some(rate(SECOND / 2, 1)) };
        for number in 0..20_000_u32 {
            let (user, later) = (UserId::local(&number.to_string()).unwrap(), now + number * Duration::from_millis(1));
            let server = ServerName::parse("a").unwrap();
            let call = CallKey { user: &user, server: &server, session: None, rates };
            assert_eq!(count.count(&call, &rates, later), Ok(()));
            assert!(count.lock().due.len() <= 4 * REMEMBERED);
        }
    }
}
