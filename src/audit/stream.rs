//! The stream in the token store's Redis that lines are added to: `PREFIX:audit`, each line as the field `line`.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::config::AuditStream;
use crate::secret::Secret;
use crate::store::{CommandBatch, RedisClient, SetupError, StoreError};

/// Lines that are added at once.
const AT_ONCE: usize = 100;

/// A stream of bounded length and age.
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
            batch.arg("*").arg("line").arg(line).ignore();
        }
        let oldest = now.0.saturating_sub(self.bounds.max_age.as_secs()) * 1000;
        batch.cmd("XTRIM").arg(&self.key).arg("MINID").arg(oldest).ignore();
        self.link.ask(&batch, |()| Ok(())).await
    }
}
