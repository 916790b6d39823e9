//! Throttles log lines about a failure that goes on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often an event of one kind is logged at most.
const PAUSE: Duration = Duration::from_secs(5);

/// Lets an event be logged when it is of another kind than the one before, or that was long ago.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    kind: &'static str,
    logged: Instant,
    passed_over: u64,
}

impl LogThrottle {
    /// Whether an event of this kind is to be logged now; if so, how many before it were not.
    pub fn turn(&self, kind: &'static str) -> Option<u64> {
        self.turn_at(kind, Instant::now())
    }

    fn turn_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = last.as_mut().filter(|last| last.kind == kind && now - last.logged < PAUSE);
        if let Some(recent) = recent {
            recent.passed_over += 1;
            return None;
        }
        last.replace(Last { kind, logged: now, passed_over: 0 }).map_or(Some(0), |last| Some(last.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_every_few_seconds_with_how_often_it_was_not() {
        let (seldom, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(seldom.turn_at("timeout", start), Some(0));
        assert_eq!(seldom.turn_at("timeout", start), None);
        assert_eq!(seldom.turn_at("timeout", start + PAUSE / 2), None);
        assert_eq!(seldom.turn_at("timeout", start + PAUSE), Some(2));
        assert_eq!(seldom.turn_at("timeout", start + PAUSE), None);
        assert_eq!(seldom.turn_at("login", start + PAUSE), Some(1));
    }
}
