//! Cells on Redis: a key each, which may expire.

use std::time::Duration;

use super::{CommandBatch, Redis, escape};
use crate::store::StoreError;

/// Cells of one page, about.
const PAGE: usize = 100;

/// Writes `ARGV[2]` over `ARGV[1]`, empty for nothing, for `ARGV[3]` milliseconds, 0 for ever; 0 if something else is
/// there. What is there already is written: the answer that said so was lost.
const WRITE: &str = "local there = redis.call('GET', KEYS[1]) \
    if there == ARGV[2] then return 1 end \
    if (there or '') ~= ARGV[1] then return 0 end \
    if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) \
    else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 1";

/// Deletes `ARGV[1]`; 0 if something else is there.
const DELETE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])";

impl Redis {
    /// What lies in a cell.
    pub(in crate::store) async fn read_cell(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("GET").arg(self.cell(name));
        self.link.ask(&batch, |[value]: [Option<Vec<u8>>; 1]| Ok(value)).await
    }

    /// Writes over what is `there` and over nothing else; whether it did.
    pub(in crate::store) async fn write_cell(
        &self,
        name: &str,
        there: Option<&[u8]>,
        value: &[u8],
        lasts: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let mut batch = CommandBatch::new();
        let lasts = lasts.map_or(0, |lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        batch.cmd("EVAL").arg(WRITE).arg(1).arg(self.cell(name)).arg(there.unwrap_or_default()).arg(value).arg(lasts);
        self.link.ask(&batch, |[written]: [bool; 1]| Ok(written)).await
    }

    /// Deletes what is `there` and nothing else; whether it did.
    pub(in crate::store) async fn delete_cell(&self, name: &str, there: &[u8]) -> Result<bool, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("EVAL").arg(DELETE).arg(1).arg(self.cell(name)).arg(there);
        self.link.ask(&batch, |[deleted]: [bool; 1]| Ok(deleted)).await
    }

    /// All cells whose names begin with this. There are few: one or two for each service.
    pub(in crate::store) async fn cells(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let (before, mut after, mut cells) = (format!("{}:", self.prefix), "0".to_owned(), Vec::new());
        loop {
            let mut batch = CommandBatch::new();
            batch.cmd("SCAN").arg(&after).arg("MATCH").arg(format!("{}{prefix}*", escape(&before)));
            batch.arg("COUNT").arg(PAGE).arg("TYPE").arg("string");
            let [(next, keys)]: [(String, Vec<String>); 1] = self.link.ask(&batch, Ok).await?;
            for name in keys.iter().filter_map(|key| key.strip_prefix(&before)) {
                cells.extend(self.read_cell(name).await?.map(|value| (name.to_owned(), value)));
            }
            if next == "0" {
                return Ok(cells);
            }
            after = next;
        }
    }

    fn cell(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}
