//! Days as people write them, and as browsers send them. All are days of UTC.

use std::time::Duration;

use cookie::time::format_description::well_known::Rfc3339;
use cookie::time::{Date, Month, OffsetDateTime};

use crate::clock::UnixTime;

/// How far away the end may be that somebody gives.
const FURTHEST: Duration = Duration::from_hours(10 * 366 * 24);

/// A day, as people write it.
pub(super) fn date(time: UnixTime) -> String {
    let date = moment(time).date();
    format!("{} {} {}", date.day(), date.month(), date.year())
}

/// The hour of a day.
pub(super) fn hour(time: UnixTime) -> String {
    format!("{}, {:02}:00 UTC", date(time), moment(time).hour())
}

/// The end of the day that a browser sends as `2027-03-01`, if it is to come and within ten years.
/// Source: HTML, section 2.3.5.2.
pub(super) fn end_of(day: &str, now: UnixTime) -> Option<UnixTime> {
    let mut parts = day.split('-');
    let year = parts.next()?.parse().ok()?;
    let month: u8 = parts.next()?.parse().ok()?;
    let day = parts.next()?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let end = date.next_day()?.midnight().assume_utc().unix_timestamp() - 1;
    let end = UnixTime(u64::try_from(end).ok()?);
    (is_near(end, now) && parts.next().is_none()).then_some(end)
}

/// The time that a program gives as `2027-03-01T12:00:00Z`, if it is to come and within ten years. Source: RFC 3339.
pub(super) fn time_of(text: &str, now: UnixTime) -> Option<UnixTime> {
    let end = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    Some(UnixTime(u64::try_from(end).ok()?)).filter(|end| is_near(*end, now))
}

fn is_near(end: UnixTime, now: UnixTime) -> bool {
    end > now && end.0 - now.0 <= FURTHEST.as_secs()
}

fn moment(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.0).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_hours_are_those_of_the_calendar() {
        let time = UnixTime(1_772_323_199);
        assert_eq!((date(time), hour(time)), ("28 February 2026".to_owned(), "28 February 2026, 23:00 UTC".to_owned()));
        assert_eq!(date(UnixTime(u64::MAX)), "1 January 1970");
    }

    #[test]
    fn a_time_that_is_to_come_is_read_whatever_its_offset() {
        let now = UnixTime(1_772_323_199);
        for time in ["2026-03-01T00:00:00Z", "2026-03-01T02:00:00+02:00", "2026-03-01T00:00:00.9Z"] {
            assert_eq!(time_of(time, now), Some(UnixTime(now.0 + 1)), "{time}");
        }
        for time in ["2026-02-28T23:59:59Z", "2036-12-31T00:00:00Z", "1960-01-01T00:00:00Z", "2026-03-01", "soon", ""] {
            assert_eq!(time_of(time, now), None, "{time}");
        }
    }

    #[test]
    fn a_day_that_is_to_come_lasts_until_its_last_second() {
        let now = UnixTime(1_772_323_199);
        for day in ["2026-02-28", "2026-03-01", "2028-02-29", "2036-02-27"] {
            let end = end_of(day, UnixTime(now.0 - 1));
            assert_eq!(end.map(|end| (end.0 + 1) % 86_400), Some(0), "{day}");
        }
        assert_eq!(end_of("2026-02-28", UnixTime(0)), None, "too far away");
        for day in ["2026-02-28", "2026-02-27", "2036-12-31", "2027-02-29", "2027-13-01", "2027-1", "x", "2027-01-01-1"]
        {
            assert_eq!(end_of(day, now), None, "{day}");
        }
    }
}
