//! Whether a token endpoint is called at all: after some failures of its own in a short time it is left alone for a while,
//! and then one call shows whether it is back. Known to this node alone, and of the endpoint alone: what belongs to a user
//! is not counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::service::host_of;

/// How many failures within which time are too many.
const FAILURES: usize = 5;
const WINDOW: Duration = Duration::from_secs(30);

/// How long an endpoint is left alone, to which up to two fifths of it are added, and from which a fifth is taken.
const REST: Duration = Duration::from_secs(30);

/// When to come back while the one call is under way that shows whether it is back.
const PROBING: Duration = Duration::from_secs(1);

/// The most endpoints that are known to fail.
const ENDPOINTS: usize = 1024;

/// What is known of the endpoints that fail. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Breakers(Arc<Mutex<BTreeMap<String, State>>>);

#[derive(Debug)]
enum State {
    /// It is called; when it failed of late.
    Closed(Vec<Instant>),
    /// It is left alone until then, and is then called once.
    Open(Instant),
    /// It is called once.
    HalfOpen,
}

/// Whether an endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is.
    None,
    /// It has been left alone for long enough: whoever calls first shows whether it is back.
    Over,
    /// It is not, for this long.
    For(Duration),
}

/// The right to call an endpoint. What came of it is to be said; dropping it says nothing of the endpoint.
#[derive(Debug)]
#[must_use = "what came of the call is to be said"]
pub struct Pass {
    breakers: Breakers,
    endpoint: String,
    is_probe: bool,
}

impl Breakers {
    /// Whether `endpoint` is called now.
    pub(super) fn rest(&self, endpoint: &str) -> Rest {
        rest(self.states().get(endpoint))
    }

    /// The right to call `endpoint` now.
    ///
    /// # Errors
    /// It is left alone, for this long.
    pub(super) fn enter(&self, endpoint: &str) -> Result<Pass, Duration> {
        let mut states = self.states();
        let is_probe = match rest(states.get(endpoint)) {
            Rest::For(rest) => return Err(rest),
            Rest::Over => states.insert(endpoint.to_owned(), State::HalfOpen).is_some(),
            Rest::None => false,
        };
        Ok(Pass { breakers: self.clone(), endpoint: endpoint.to_owned(), is_probe })
    }

    fn failed(&self, endpoint: &str) {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.duration_since(*at) < WINDOW;
        let mut states = self.states();
        if states.len() >= ENDPOINTS && !states.contains_key(endpoint) {
            states.retain(|_, state| !matches!(state, State::Closed(failures) if !failures.iter().any(is_recent)));
        }
        if states.len() >= ENDPOINTS && !states.contains_key(endpoint) {
            return;
        }
        let state = states.entry(endpoint.to_owned()).or_insert(State::Closed(Vec::new()));
        let State::Closed(failures) = state else { return };
        failures.retain(is_recent);
        failures.push(now);
        if failures.len() >= FAILURES {
            *state = opened(now);
            tracing::warn!(endpoint = host_of(endpoint), "a service fails, and is left alone for half a minute");
        }
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The endpoint answered, whatever it said.
    pub(super) fn answered(mut self) {
        if std::mem::take(&mut self.is_probe) {
            self.breakers.states().remove(&self.endpoint);
            tracing::info!(endpoint = host_of(&self.endpoint), "a service is back");
        }
    }

    /// The endpoint did not answer, or said that it cannot.
    pub(super) fn failed(mut self) {
        if std::mem::take(&mut self.is_probe) {
            self.breakers.states().insert(self.endpoint.clone(), opened(Instant::now()));
        } else {
            self.breakers.failed(&self.endpoint);
        }
    }
}

/// Nobody was called, or nothing is known of the endpoint by it: the next one may.
impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe {
            self.breakers.states().insert(self.endpoint.clone(), State::Open(Instant::now()));
        }
    }
}

fn rest(state: Option<&State>) -> Rest {
    match state {
        None | Some(State::Closed(_)) => Rest::None,
        Some(State::HalfOpen) => Rest::For(PROBING),
        Some(State::Open(until)) => match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Rest::Over,
            rest => Rest::For(rest),
        },
    }
}

/// Half a minute, and up to a fifth less or more, so that not all nodes come back at once.
fn opened(now: Instant) -> State {
    let mut random = [0];
    aws_lc_rs::rand::fill(&mut random).expect("the system gives random bytes");
    State::Open(now + REST * 4 / 5 + REST * 2 / 5 * u32::from(random[0]) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "https://a.example/token";

    fn fail(breakers: &Breakers, times: usize) {
        for _ in 0..times {
            breakers.enter(HERE).unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_half_a_minute_are_too_many() {
        let breakers = Breakers::default();
        fail(&breakers, FAILURES - 1);
        tokio::time::advance(WINDOW).await;
        fail(&breakers, FAILURES - 1);
        assert_eq!(breakers.rest(HERE), Rest::None, "the others are too long ago");
        // Answers of any kind count for nothing, and take nothing back.
        (0..100).for_each(|_| breakers.enter(HERE).unwrap().answered());
        (0..100).for_each(|_| drop(breakers.enter(HERE).unwrap()));
        assert_eq!(breakers.rest(HERE), Rest::None);
        fail(&breakers, 1);
        let Rest::For(rest) = breakers.rest(HERE) else { panic!("it is called") };
        assert!((REST * 4 / 5..=REST * 6 / 5).contains(&rest), "{rest:?}");
        assert!(breakers.enter(HERE).is_err());
        assert_eq!(breakers.rest("https://b.example/token"), Rest::None, "another one is not it");
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_shows_whether_it_is_back() {
        let breakers = Breakers::default();
        fail(&breakers, FAILURES);
        tokio::time::advance(REST * 6 / 5).await;
        assert_eq!(breakers.rest(HERE), Rest::Over);
        let probe = breakers.enter(HERE).unwrap();
        assert!(breakers.enter(HERE).is_err(), "one at a time");
        drop(probe);
        breakers.enter(HERE).unwrap().failed();
        assert!(matches!(breakers.rest(HERE), Rest::For(rest) if rest > PROBING), "it is left alone again");
        tokio::time::advance(REST * 6 / 5).await;
        breakers.enter(HERE).unwrap().answered();
        assert_eq!(breakers.rest(HERE), Rest::None);
        fail(&breakers, FAILURES - 1);
        assert_eq!(breakers.rest(HERE), Rest::None, "what was before is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_bounded_and_what_is_long_ago_makes_room() {
        let breakers = Breakers::default();
        for n in 0..2 * ENDPOINTS {
            breakers.enter(&format!("https://{n}.example/")).unwrap().failed();
        }
        assert_eq!(breakers.states().len(), ENDPOINTS);
        tokio::time::advance(WINDOW).await;
        breakers.enter(HERE).unwrap().failed();
        assert_eq!(breakers.states().len(), 1);
    }
}
