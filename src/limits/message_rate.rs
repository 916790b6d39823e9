//! The rate of messages that need no process: each user may send so many small messages at once and so many a second. Who sends
//! more is slowed down first and refused then, and a refusal takes as long as the longest wait: asking again at once
//! brings nothing, and costs others nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Exhausted, Refused};
use crate::user::UserId;

/// Between two messages of one user, in the long run: 200 a second. A long one counts as several.
const INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a message that counts as one.
const SHORT: usize = 16 << 10;
/// How far a user may be ahead of that: 400 messages. A client that connects says much at once.
const AHEAD: Duration = Duration::from_secs(2);
/// The longest wait; also that of who is refused.
const WAIT: Duration = Duration::from_millis(150);
/// Users that are remembered before those who are not ahead are looked for.
const USERS: usize = 1024;

/// How far each user is ahead. One who is not is forgotten.
#[derive(Debug, Default)]
pub(super) struct MessageRate(Mutex<Users>);

#[derive(Debug, Default)]
struct Users {
    /// When the user would have sent as much at the regular rate.
    due: HashMap<UserId, Instant>,
    /// At how many users those are forgotten who are not ahead.
    look_at: usize,
}

impl MessageRate {
    /// Lets one message of `user`, of so many bytes, pass after waiting for its turn.
    pub(super) async fn keep(&self, user: &UserId, bytes: usize) -> Result<(), Refused> {
        let wait = self.turn(user, bytes, Instant::now());
        sleep(wait.unwrap_or(WAIT)).await;
        wait.map(drop).ok_or(Refused { exhausted: Exhausted::Messages, retry_after: AHEAD })
    }

    /// How long a message of `user` waits for its turn; none comes soon enough for who is too far ahead.
    fn turn(&self, user: &UserId, bytes: usize, now: Instant) -> Option<Duration> {
        let count = u32::try_from(bytes / SHORT).unwrap_or(u32::MAX).saturating_add(1);
        let mut users = self.lock();
        let before = users.due.get(user).copied().unwrap_or(now).max(now);
        let due = before + INTERVAL.saturating_mul(count);
        // A message waits for those before it, not for its own length.
        let wait = (before + INTERVAL).saturating_duration_since(now + AHEAD);
        if wait > WAIT {
            return None;
        }
        users.note(user, due, now);
        Some(wait)
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        // What is done under the lock leaves the map whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    fn note(&mut self, user: &UserId, due: Instant, now: Instant) {
        if let Some(known) = self.due.get_mut(user) {
            *known = due;
            return;
        }
        if self.due.len() >= self.look_at.max(USERS) {
            self.due.retain(|_, due| *due > now);
            self.due.shrink_to(USERS);
            // Who looks now has what it costs paid for by as many who have not looked.
            self.look_at = 2 * self.due.len();
        }
        self.due.insert(user.clone(), due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::local(name).unwrap()
    }

    /// How many of a thousand messages at this moment pass, and how many of those at once.
    fn passed(rate: &MessageRate, name: &str, now: Instant) -> (usize, usize) {
        let turns: Vec<_> = (0..1000).filter_map(|_| rate.turn(&user(name), 100, now)).collect();
        (turns.len(), turns.iter().filter(|wait| wait.is_zero()).count())
    }

    #[test]
    fn who_sends_too_much_is_slowed_down_then_refused_and_nobody_else_is() {
        let (rate, now) = (MessageRate::default(), Instant::now());
        assert_eq!(passed(&rate, "alice", now), (430, 400));
        assert_eq!(passed(&rate, "bob", now), (430, 400));
        assert_eq!(passed(&rate, "alice", now + Duration::from_secs(1)), (200, 170));
        assert_eq!(passed(&rate, "alice", now + Duration::from_mins(1)), (430, 400));
        // The longest body that there may be by default passes, and stands for 257 messages.
        assert_eq!(rate.turn(&user("carol"), 4 << 20, now), Some(Duration::ZERO));
        assert_eq!(passed(&rate, "carol", now), (430 - 257, 400 - 257));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_takes_as_long_as_the_longest_wait() {
        let rate = MessageRate::default();
        while rate.turn(&user("alice"), 0, Instant::now()).is_some() {}
        let began = Instant::now();
        assert!(rate.keep(&user("alice"), 0).await.unwrap_err().exhausted.is_users_own());
        assert_eq!(began.elapsed(), WAIT);
        let began = Instant::now();
        assert_eq!(rate.keep(&user("bob"), 0).await, Ok(()));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn users_who_are_not_ahead_are_forgotten() {
        let (rate, now) = (MessageRate::default(), Instant::now());
        for number in 0..100_000_u32 {
            let later = now + number * Duration::from_millis(1);
            assert!(rate.turn(&user(&number.to_string()), 0, later).is_some());
            assert!(rate.lock().due.len() <= USERS);
        }
    }
}
