//! What the database holds of the sealing keys, and all that they sealed, in pages.

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Embedded, rows, seconds};
use crate::clock::UnixTime;
use crate::store::{Row, StoreError};

/// Users of one page.
const PAGE: u32 = 100;

impl Embedded {
    /// Some of all rows, and after which the next come, if there are more.
    pub(in crate::store) async fn page(&self, after: Option<String>) -> Result<(Vec<Row>, Option<String>), StoreError> {
        let read = move |connection: &mut Connection| {
            let page = "SELECT t.name, o.sealed, t.server, t.record FROM tokens t LEFT JOIN owners o USING (name)
                WHERE t.name IN (SELECT DISTINCT name FROM tokens WHERE name > ?1 ORDER BY 1 LIMIT ?2) ORDER BY 1";
            let mut select = connection.prepare_cached(page)?;
            let page = rows(select.query(params![after.unwrap_or_default(), PAGE])?, |_| true)?;
            let next = page.last().filter(|_| page.len() == PAGE as usize).map(|row| row.name.clone());
            Ok((page, next))
        };
        self.reader.run(self.write, read).await
    }

    /// When the records of which keys were sealed anew.
    pub(in crate::store) async fn rotations(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let read = |connection: &mut Connection| {
            let mut select = connection.prepare_cached("SELECT id, time FROM rotated")?;
            let rotations = select.query_map((), |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
            Ok(rotations.collect::<Result<_, _>>()?)
        };
        self.reader.run(self.lookup, read).await
    }

    /// Remembers that the records of these keys have been sealed anew.
    pub(in crate::store) async fn note_rotation(&self, ids: Vec<String>, now: UnixTime) -> Result<(), StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for id in ids {
                transaction.execute("REPLACE INTO rotated (id, time) VALUES (?1, ?2)", params![id, seconds(now.0)])?;
            }
            Ok(transaction.commit()?)
        };
        self.writer.run(self.write, write).await
    }

    /// Forgets a key whose proof is still this one; whether it was.
    pub(in crate::store) async fn forget_key(&self, id: String, proof: Vec<u8>) -> Result<bool, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let forgotten =
                transaction.execute("DELETE FROM keys WHERE id = ?1 AND proof = ?2", params![id, proof])? > 0;
            if forgotten {
                transaction.execute("DELETE FROM rotated WHERE id = ?1", [id])?;
            }
            transaction.commit()?;
            Ok(forgotten)
        };
        self.writer.run(self.write, write).await
    }
}
