//! What is noted beside records on Redis: one hash per user, beside that of the records.

use super::{CommandBatch, Redis};
use crate::config::ServerName;
use crate::store::StoreError;
use crate::store::notes::Held;
use crate::store::record::Names;

/// Writes the note `ARGV[2]` under the last key if one of the others has the record `ARGV[1]`: one that was removed
/// meanwhile gets no note.
const NOTE: &str = "for i = 1, #KEYS - 1 do if redis.call('HEXISTS', KEYS[i], ARGV[1]) == 1 then \
    redis.call('HSET', KEYS[#KEYS], ARGV[2], ARGV[3]) return 1 end end return 0";

impl Redis {
    /// What is noted under each of `names`.
    pub(in crate::store) async fn notes(&self, names: &Names) -> Result<Held, StoreError> {
        let mut batch = CommandBatch::new();
        for name in names.iter() {
            batch.cmd("HGETALL").arg(self.notes_key(name));
        }
        let read = |held: Vec<Vec<(String, Vec<u8>)>>| Ok(names.iter().cloned().zip(held).collect());
        self.link.ask(&batch, read).await
    }

    /// Writes a note of the record for `server` under the active name, if there is such a record.
    pub(in crate::store) async fn note_use(
        &self,
        names: &Names,
        server: &ServerName,
        field: &str,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        let mut batch = CommandBatch::new();
        let keys: Vec<String> =
            names.iter().map(|name| self.tokens(name)).chain([self.notes_key(names.active())]).collect();
        batch.cmd("EVAL").arg(NOTE).arg(keys.len()).arg(keys).arg(server.as_str()).arg(field).arg(sealed);
        self.link.ask(&batch, |[_noted]: [u8; 1]| Ok(())).await
    }

    /// The key of the notes of a user's records, in the same cluster slot.
    pub(super) fn notes_key(&self, name: &str) -> String {
        format!("{}:notes:{{{name}}}", self.prefix)
    }
}
