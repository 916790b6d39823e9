//! Marks on Redis: a key each, which expires.

use std::time::Duration;

use super::{CommandBatch, Redis};
use crate::store::StoreError;

/// Counts one more, from the first on for `ARGV[1]` milliseconds. Answers how many there are, and for how much longer.
const COUNT: &str = "local count = redis.call('HINCRBY', KEYS[1], 'count', 1) \
    if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
    return {count, redis.call('PTTL', KEYS[1])}";

impl Redis {
    /// Marks a browser's session as ended for so long.
    pub(in crate::store) async fn mark_ended(&self, name: &str, lasts: Duration) -> Result<(), StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("SET").arg(self.mark(name)).arg(1).arg("EX").arg(lasts.as_secs()).ignore();
        self.link.ask(&batch, |()| Ok(())).await
    }

    /// Whether a browser's session is marked as ended.
    pub(in crate::store) async fn is_marked_ended(&self, name: &str) -> Result<bool, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("GET").arg(self.mark(name));
        self.link.ask(&batch, |[mark]: [Option<u8>; 1]| Ok(mark.is_some())).await
    }

    /// Counts one more, in so long from the first; how many there are, and for how much longer.
    pub(in crate::store) async fn count(&self, name: &str, time: Duration) -> Result<(u32, Duration), StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("EVAL").arg(COUNT).arg(1).arg(format!("{}:quota:{name}", self.prefix));
        batch.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.link.ask(&batch, |[(count, left)]: [(u32, u64); 1]| Ok((count, Duration::from_millis(left)))).await
    }

    /// The key of a mark of a browser's session. Those of clients' sessions have their user in braces.
    fn mark(&self, name: &str) -> String {
        format!("{}:ended:{name}", self.prefix)
    }
}
