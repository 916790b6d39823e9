//! The time of day, injected: expiry is decided against a [`Clock`], so that a test can say what time it is. And how
//! long to wait for somebody else's answer.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

/// In how many parts [`within`] waits.
const PARTS: u32 = 10;

/// As people write them.
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The day, as people write it: `3 May`, with its year unless that is the one of `now`.
    #[must_use]
    pub fn day(self, now: Self) -> String {
        let (text, now) = (self.to_string(), now.to_string());
        let mut parts = text.split(['-', 'T']);
        let [year, month, day] = [(); 3].map(|()| parts.next().unwrap_or_default());
        let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1)).unwrap_or(&MONTHS[0]);
        let day = day.trim_start_matches('0');
        if now.split('-').next() == Some(year) { format!("{day} {month}") } else { format!("{day} {month} {year}") }
    }
}

/// As RFC 3339 has it: `2026-11-20T05:06:07Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Counted in years that begin in March, so that a leap day is a year's last: era of 400 years, day and year of era.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let march = (5 * day + 2) / 153;
        let day = day - (153 * march + 2) / 5 + 1;
        let month = if march < 10 { march + 3 } else { march - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

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
    pub fn now(&self) -> UnixTime {
        UnixTime(self.since_1970().as_secs())
    }

    /// The same in milliseconds, for times that are shorter than a second matters to.
    #[must_use]
    pub fn now_millis(&self) -> u64 {
        u64::try_from(self.since_1970().as_millis()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one home of the system's clock")]
    fn since_1970(&self) -> Duration {
        match self {
            Self::System => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            Self::Fixed(seconds) => Duration::from_secs(seconds.load(Ordering::Relaxed)),
        }
    }
}

/// What `work` answers within `duration`, or nothing. What counts is time in which this process runs: it waits in parts,
/// and one that a busy machine draws out is still one. After each part what has arrived meanwhile is read, so that an
/// answer that is there is not taken for silence.
pub async fn within<T>(duration: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    for _ in 0..PARTS {
        if let Ok(answer) = timeout(duration / PARTS, &mut work).await {
            return Some(answer);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    #[test]
    fn a_day_has_its_year_where_that_is_another() {
        let [may, june, next] = [1_777_800_000, 1_781_000_000, 1_800_000_000].map(UnixTime);
        assert_eq!([may.day(may), may.day(june), may.day(next)], ["3 May", "3 May", "3 May 2026"]);
    }

    #[test]
    fn dates_are_the_calendar_s() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_795_151_167, "2026-11-20T05:06:07Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(UnixTime(seconds).to_string(), text);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_when_its_time_is_over() {
        let start = Instant::now();
        assert_eq!(within(SECOND, std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 1);
        assert_eq!(within(SECOND, sleep(SECOND / 2)).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_process_does_not_run_is_not_silence() {
        // Each step of the work is there at once, but the process is late for it.
        let work = async {
            for _ in 0..3 {
                advance(2 * SECOND).await;
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(within(SECOND, work).await, Some(()));
    }
}
