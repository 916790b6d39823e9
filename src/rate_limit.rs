//! How often something may happen for one source, in a table that never grows.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sources share cells by hash, and two that do are limited together.
const CELLS: usize = 4096;

/// Lets `burst` events of a source happen in a row, and after each `pause` one more.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    pause: Duration,
    /// One cell per source: when, in milliseconds since `start`, all its events will be forgotten.
    cells: Box<[AtomicU64]>,
    /// Keyed at random, so that nobody can choose whose cell to share.
    hash: RandomState,
    start: Instant,
}

impl RateLimit {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(burst: u32, pause: Duration) -> Self {
        let cells = std::iter::repeat_with(AtomicU64::default).take(CELLS).collect();
        Self { burst, pause, cells, hash: RandomState::new(), start: Instant::now() }
    }

    /// Counts one event of this source.
    ///
    /// # Errors
    /// Says when the next may happen, in a second at the earliest, if there were too many.
    pub fn count(&self, source: impl Hash) -> Result<(), Duration> {
        self.count_at(source, self.start.elapsed())
    }

    fn count_at(&self, source: impl Hash, now: Duration) -> Result<(), Duration> {
        let at = self.hash.hash_one(source) % CELLS as u64;
        let cell = &self.cells[usize::try_from(at).expect("it is below CELLS")];
        let (now, pause) = (millis(now), millis(self.pause));
        let full = now + pause * u64::from(self.burst);
        let counted = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |forgotten| {
            let next = forgotten.max(now) + pause;
            (next <= full).then_some(next)
        });
        counted
            .map(drop)
            .map_err(|forgotten| Duration::from_millis(forgotten + pause - full).max(Duration::from_secs(1)))
    }
}

/// Lines of the log that whoever is outside can cause: some of each source, with a count of those left out.
#[derive(Debug)]
pub struct LogRateLimit {
    limit: RateLimit,
    left_out: AtomicU64,
}

impl Default for LogRateLimit {
    fn default() -> Self {
        Self { limit: RateLimit::new(20, Duration::from_secs(1)), left_out: AtomicU64::default() }
    }
}

impl LogRateLimit {
    /// Whether this source may have another line; if so, how many have been left out since the last one of anybody.
    pub fn next(&self, source: impl Hash) -> Option<u64> {
        if self.limit.count(source).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 20;
    const PAUSE: Duration = Duration::from_secs(3);

    #[test]
    fn a_burst_is_let_pass_and_then_one_for_each_pause() {
        let limit = RateLimit::new(BURST, PAUSE);
        let start = Duration::from_hours(1);
        for _ in 0..BURST {
            assert_eq!(limit.count_at("a", start), Ok(()));
        }
        assert_eq!(limit.count_at("a", start), Err(PAUSE));
        assert_eq!(limit.count_at("a", start + PAUSE), Ok(()));
        assert_eq!(limit.count_at("a", start + PAUSE), Err(PAUSE));
        let later = start + PAUSE * (BURST + 2);
        assert!((0..BURST).all(|_| limit.count_at("a", later).is_ok()), "all is forgotten");
    }

    #[test]
    fn the_wait_is_never_less_than_a_second() {
        let limit = RateLimit::new(BURST, PAUSE);
        while limit.count_at("a", Duration::ZERO).is_ok() {}
        let wait = limit.count_at("a", PAUSE.saturating_sub(Duration::from_millis(1)));
        assert_eq!(wait, Err(Duration::from_secs(1)));
    }

    #[test]
    fn any_number_of_sources_needs_the_same_memory() {
        let limit = RateLimit::new(BURST, PAUSE);
        for source in 0..100_000 {
            let _ = limit.count(source);
        }
        assert_eq!(limit.cells.len(), CELLS);
    }

    #[test]
    fn lines_that_are_left_out_are_counted_in_the_next() {
        let lines = LogRateLimit { limit: RateLimit::new(2, Duration::from_hours(1)), left_out: AtomicU64::default() };
        let said: Vec<_> = (0..5).map(|_| lines.next("flood")).collect();
        assert_eq!(said, [Some(0), Some(0), None, None, None]);
        // Some of these may share the cell of the flood.
        assert!((0..100).any(|other| lines.next(other).is_some_and(|left_out| left_out >= 3)));
    }
}
