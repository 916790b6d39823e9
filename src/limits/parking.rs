//! Servers that wait for their users' answers: so many for each user, and the newest always finds a place.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::user::UserId;

/// How many servers may wait for one user's answers.
const MAX_PARKED: usize = 4;

/// Who waits, for each user that anyone waits for, longest first.
#[derive(Debug, Default)]
pub(super) struct ParkingLot(Mutex<HashMap<UserId, VecDeque<Place>>>);

/// What tells a place from others: two tokens that are one.
#[derive(Debug)]
struct Place {
    number: Arc<()>,
    must_go: CancellationToken,
}

/// A place to wait; dropping it leaves it.
#[derive(Debug)]
pub struct Parked {
    lot: Arc<ParkingLot>,
    user: UserId,
    number: Arc<()>,
    must_go: CancellationToken,
}

impl ParkingLot {
    pub(super) fn enter(self: &Arc<Self>, user: &UserId) -> Parked {
        let (number, must_go) = (Arc::new(()), CancellationToken::new());
        let mut lot = self.lock();
        let waiting = lot.entry(user.clone()).or_default();
        waiting.push_back(Place { number: Arc::clone(&number), must_go: must_go.clone() });
        if waiting.len() > MAX_PARKED
            && let Some(longest) = waiting.pop_front()
        {
            longest.must_go.cancel();
        }
        Parked { lot: Arc::clone(self), user: user.clone(), number, must_go }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, VecDeque<Place>>> {
        // What is done under the lock leaves the map whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    /// Waits until the place is needed for another.
    pub async fn must_go(&self) {
        self.must_go.cancelled().await;
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut lot = self.lot.lock();
        if let Some(waiting) = lot.get_mut(&self.user) {
            waiting.retain(|place| !Arc::ptr_eq(&place.number, &self.number));
            if waiting.is_empty() {
                lot.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_gives_way_and_others_do_not() {
        let lot = Arc::new(ParkingLot::default());
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let bobs = lot.enter(&bob);
        let parked: Vec<_> = (0..=MAX_PARKED).map(|_| lot.enter(&alice)).collect();
        let gone: Vec<bool> = parked.iter().map(|place| place.must_go.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false, false, false]);
        assert!(!bobs.must_go.is_cancelled());
        drop((parked, bobs));
        assert!(lot.lock().is_empty());
    }
}
