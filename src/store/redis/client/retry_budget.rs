//! How often commands may be retried: so rarely that what makes them fail is not made worse.

use std::sync::atomic::{AtomicU32, Ordering};

/// What one retry costs, in commands: one retry per ten.
const COST: u32 = 10;
/// What may be saved up: 100 retries, for the moment in which a connection with many commands is lost.
const MOST: u32 = 100 * COST;
/// What there is at the start: 20 retries.
const START: u32 = 20 * COST;

/// Retries that may still be made.
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(START))
    }

    /// A command is asked for the first time.
    pub(super) fn earn(&self) {
        let more = |saved: u32| (saved < MOST).then_some(saved + 1);
        let _enough = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a command may be asked again.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_fail_few_are_asked_again() {
        let retries = RetryBudget::new();
        let again = (0..1_000).filter(|_| {
            retries.earn();
            retries.spend()
        });
        assert_eq!(again.count(), 120);
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let retries = RetryBudget::new();
        (0..10_000).for_each(|_| retries.earn());
        assert_eq!((0..1_000).filter(|_| retries.spend()).count(), 100);
    }
}
