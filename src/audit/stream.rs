//! The stream in the token store's Redis that lines are added to: `PREFIX:audit`, each line as the field `line`.
//! Source: redis.io, "Redis Streams".

use std::fmt;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::AuditStream;
use crate::secret::Secret;
use crate::store::{CommandBatch, RedisClient, SetupError, StoreError};

/// Lines that are added at once.
const AT_ONCE: usize = 100;

/// Lines that are read at once.
const PAGE: usize = 100;

/// The field of an entry that holds its line.
const FIELD: &str = "line";

/// The place of a line in the stream: milliseconds since 1970, and a number among those of the same millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64, u64);

/// A line of the stream.
#[derive(Debug)]
pub struct StreamLine {
    /// Where it is.
    pub id: StreamId,
    /// The line, without a line feed.
    pub line: String,
}

impl StreamId {
    /// The place that `text` names, as [`StreamId`] is shown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let (time, count) = text.split_once('-')?;
        Some(Self(number(time)?, number(count)?))
    }

    /// The first place after this one.
    fn next(self) -> Option<Self> {
        let Self(time, count) = self;
        count.checked_add(1).map(|count| Self(time, count)).or_else(|| Some(Self(time.checked_add(1)?, 0)))
    }
}

/// As Redis writes it: `1732266723000-0`.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// What the stream holds of a place: its name, and fields with their values.
type Entry = (String, Vec<(String, String)>);

/// A stream of bounded length and age.
#[derive(Debug)]
pub(super) struct StreamLog {
    link: RedisClient,
    key: String,
    bounds: AuditStream,
}

impl StreamLog {
    /// The stream in the Redis at `url`, where a command may take `timeout`; nothing is sent yet.
    pub(super) fn open(url: &Secret, prefix: &str, timeout: Duration, bounds: AuditStream) -> Result<Self, SetupError> {
        Ok(Self { link: RedisClient::open(url, timeout)?, key: format!("{prefix}:audit"), bounds })
    }

    /// Adds lines and lets go of those that are too many or too old. Answers how many are not known to be there.
    pub(super) async fn add(&self, lines: &[&str], now: UnixTime) -> (usize, Option<StoreError>) {
        let (mut lost, mut why) = (0, None);
        for lines in lines.chunks(AT_ONCE) {
            if let Err(error) = self.add_at_once(lines, now).await {
                (lost, why) = (lost + lines.len(), Some(error));
            }
        }
        (lost, why)
    }

    async fn add_at_once(&self, lines: &[&str], now: UnixTime) -> Result<(), StoreError> {
        let mut batch = CommandBatch::new();
        for line in lines {
            batch.cmd("XADD").arg(&self.key).arg("MAXLEN").arg(self.bounds.max_length);
            batch.arg("*").arg(FIELD).arg(line).ignore();
        }
        let oldest = now.0.saturating_sub(self.bounds.max_age.as_secs()) * 1000;
        batch.cmd("XTRIM").arg(&self.key).arg("MINID").arg(oldest).ignore();
        self.link.ask(&batch, |()| Ok(())).await
    }

    /// Some of the lines that come after this place, the oldest first. What others have added is left out.
    pub(super) async fn read(&self, after: Option<StreamId>) -> Result<Vec<StreamLine>, StoreError> {
        let first = match after.map(StreamId::next) {
            Some(None) => return Ok(Vec::new()),
            Some(Some(first)) => first.to_string(),
            None => "-".to_owned(),
        };
        let mut batch = CommandBatch::new();
        batch.cmd("XRANGE").arg(&self.key).arg(first).arg("+").arg("COUNT").arg(PAGE);
        let [entries]: [Vec<Entry>; 1] = self.link.ask(&batch, Ok).await?;
        let line = |(id, fields): Entry| {
            let (_, line) = fields.into_iter().find(|(field, _)| field == FIELD)?;
            Some(StreamLine { id: StreamId::parse(&id)?, line })
        };
        Ok(entries.into_iter().filter_map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_stream_is_two_numbers_and_has_a_next() {
        let next = |text: &str| StreamId::parse(text).and_then(StreamId::next).map(|next| next.to_string());
        assert_eq!(next("5-7").as_deref(), Some("5-8"));
        assert_eq!(next(&format!("5-{}", u64::MAX)).as_deref(), Some("6-0"));
        assert_eq!(next(&format!("{0}-{0}", u64::MAX)), None);
        for bad in ["", "-", "+", "$", "5", "5-", "-7", "+5-7", "5-7-9", " 5-7", "(5-7", "18446744073709551616-0"] {
            assert_eq!(StreamId::parse(bad), None, "{bad}");
        }
    }
}
