//! The time of day, injected: expiry is decided against a [`Clock`], so that a test can say what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

/// Where the time of day comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// A test's: whatever was stored last, in seconds since 1970.
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// The time of day now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the system's clock")]
    pub fn now(&self) -> UnixTime {
        match self {
            Self::System => {
                UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
            }
            Self::Fixed(seconds) => UnixTime(seconds.load(Ordering::Relaxed)),
        }
    }
}
