//! How often something may be done: `rate` and `burst`.

use std::time::Duration;

use super::load::Loader;
use super::written::file;
use super::written::path::Path;
use super::written::units;

/// The longest time after which as many as `burst` may be done at once again.
const MAX_FULL: Duration = Duration::from_hours(366 * 24);

/// The shortest time from one to the next.
const MIN_INTERVAL: Duration = Duration::from_micros(100);

/// How often something may be done: so many at once, and then one after each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// From one to the next in the long run: whole microseconds, 100 of them at least.
    pub interval: Duration,
    /// How many may be done at once; never zero.
    pub burst: u32,
}

impl Rate {
    /// How long whoever has done as many as may be at once has to wait until as many may be again: a year at most.
    #[must_use]
    pub fn full(&self) -> Duration {
        self.interval.saturating_mul(self.burst)
    }
}

impl Loader<'_> {
    /// What `rate` and `burst` of the object at `at` say; nothing if there is no `rate`.
    pub(super) fn rate(&mut self, at: &Path, rate: Option<&file::Rate>, burst: Option<usize>) -> Option<Rate> {
        let (at_rate, at_burst) = (at.key("rate"), at.key("burst"));
        let burst = burst.map(|burst| self.count(&at_burst, Some(burst), burst));
        let Some(file::Rate(text)) = rate else {
            if burst.is_some() && self.document.kind(&at_rate) == "nothing" {
                let help = "add \"rate\": \"60/m\", or take it out";
                self.report_key(&at_burst, "this belongs to a `rate`, and there is none", help);
            }
            return None;
        };
        let (count, period) = match units::rate(text) {
            Ok((0, _)) => {
                self.report(&at_rate, "this must be more than zero", "write a larger number, or leave it out");
                return None;
            }
            Ok(rate) => rate,
            Err(help) => {
                self.report(&at_rate, "this is not a rate", help);
                return None;
            }
        };
        if u128::from(count) * MIN_INTERVAL.as_micros() > period.as_micros() {
            self.report(&at_rate, "no bridge takes so many", "write 10000/s or less, or leave it out");
            return None;
        }
        let micros = (period.as_micros() + u128::from(count / 2)) / u128::from(count);
        let interval = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let (burst, at) = burst.map_or((count, &at_rate), |burst| (burst as u64, &at_burst));
        let burst = u32::try_from(burst).ok();
        let rate = burst.map(|burst| Rate { interval, burst }).filter(|rate| rate.full() <= MAX_FULL);
        if rate.is_none() {
            let message = "it would take more than a year until as many may be done at once again";
            self.report(at, message, "write a smaller number, or leave it out");
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{server, try_server};
    use super::*;

    fn rate(fields: &Value) -> Option<Rate> {
        let mut written = json!({ "url": "http://127.0.0.1:1/mcp" });
        written.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        server(&written).rate
    }

    #[test]
    fn a_rate_is_an_interval_and_as_many_at_once_as_its_number() {
        let of = |seconds, burst| Some(Rate { interval: Duration::from_secs(seconds), burst });
        assert_eq!(rate(&json!({})), None, "off by default");
        assert_eq!(rate(&json!({ "rate": "60/m" })), of(1, 60));
        assert_eq!(rate(&json!({ "rate": "60 / m", "burst": 5 })), of(1, 5));
        assert_eq!(rate(&json!({ "rate": "1/d" })), of(86_400, 1));
        assert_eq!(rate(&json!({ "rate": "10000/s" })).unwrap().interval, MIN_INTERVAL);
        assert_eq!(rate(&json!({ "rate": "7/s" })).unwrap().interval, Duration::from_micros(142_857));
    }

    #[test]
    fn absurd_rates_are_refused_and_none_is_too_large_to_be_counted() {
        for (fields, problem) in [
            (r#""rate": "60""#, "this is not a rate"),
            (r#""rate": "60/min""#, "this is not a rate"),
            (r#""rate": "-1/s""#, "this is not a rate"),
            (r#""rate": "99999999999999999999/s""#, "this is not a rate"),
            (r#""rate": "0/s""#, "this must be more than zero"),
            (r#""rate": "18446744073709551615/d""#, "no bridge takes so many"),
            (r#""rate": "10001/s", "burst": 1"#, "no bridge takes so many"),
            (r#""rate": "1/s", "burst": 0"#, "this must be more than zero"),
            (r#""rate": "1/d", "burst": 367"#, "more than a year"),
            (r#""rate": "1/s", "burst": 18446744073709551615"#, "more than a year"),
            (r#""burst": 5"#, "this belongs to a `rate`, and there is none"),
        ] {
            let refused = try_server(&format!(r#"{{ "url": "http://127.0.0.1:1/mcp", {fields} }}"#)).unwrap_err();
            assert!(refused.to_string().contains(problem), "{fields}: {refused}");
        }
    }
}
