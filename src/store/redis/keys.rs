//! What Redis holds of the sealing keys, and all that they sealed, in pages.

use super::{CommandBatch, Redis, escape};
use crate::clock::UnixTime;
use crate::store::{Row, StoreError};

/// Users of one page, about.
const PAGE: usize = 100;

/// Forgets the key `ARGV[1]` if its proof is still `ARGV[2]`: whoever seals with it proves it anew.
const FORGET: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
    redis.call('HDEL', KEYS[1], ARGV[1]) redis.call('HDEL', KEYS[2], ARGV[1]) return 1";

impl Redis {
    /// Some of all rows, and after which the next come, if there are more. A row may come twice.
    pub(in crate::store) async fn page(&self, after: Option<String>) -> Result<(Vec<Row>, Option<String>), StoreError> {
        let (before, end) = (format!("{}:tokens:{{", self.prefix), "}");
        let mut batch = CommandBatch::new();
        batch.cmd("SCAN").arg(after.as_deref().unwrap_or("0")).arg("MATCH").arg(format!("{}*{end}", escape(&before)));
        batch.arg("COUNT").arg(PAGE).arg("TYPE").arg("hash");
        let [(next, keys)]: [(String, Vec<String>); 1] = self.link.ask(&batch, Ok).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(&before)?.strip_suffix(end));
        let rows = self.read(names.map(str::to_owned).collect()).await?;
        Ok((rows, (next != "0").then_some(next)))
    }

    /// When the records of which keys were sealed anew.
    pub(in crate::store) async fn rotations(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("HGETALL").arg(self.rotated());
        self.link.ask(&batch, |[rotations]: [Vec<(String, u64)>; 1]| Ok(rotations)).await
    }

    /// Remembers that the records of these keys have been sealed anew.
    pub(in crate::store) async fn note_rotation(&self, ids: &[String], now: UnixTime) -> Result<(), StoreError> {
        let mut batch = CommandBatch::new();
        let times: Vec<(&String, u64)> = ids.iter().map(|id| (id, now.0)).collect();
        batch.cmd("HSET").arg(self.rotated()).arg(times).ignore();
        self.link.ask(&batch, |()| Ok(())).await
    }

    /// Forgets a key whose proof is still this one; whether it was.
    pub(in crate::store) async fn forget_key(&self, id: &str, proof: &[u8]) -> Result<bool, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("EVAL").arg(FORGET).arg(2).arg(self.keys()).arg(self.rotated()).arg(id).arg(proof);
        self.link.ask(&batch, |[forgotten]: [bool; 1]| Ok(forgotten)).await
    }

    /// The key of when the records of which keys were sealed anew.
    fn rotated(&self) -> String {
        format!("{}:rotated", self.prefix)
    }
}
