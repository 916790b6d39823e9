//! Cells in the database: a row each, which may end.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Embedded, seconds, session};
use crate::clock::UnixTime;
use crate::store::StoreError;

impl Embedded {
    /// What lies in a cell.
    pub(in crate::store) async fn read_cell(&self, name: String, now: UnixTime) -> Result<Option<Vec<u8>>, StoreError> {
        self.reader.run(self.lookup, move |connection| Ok(there(connection, &name, now)?)).await
    }

    /// Writes over what is there and over nothing else; whether it did.
    pub(in crate::store) async fn write_cell(
        &self,
        name: String,
        (over, value): (Option<Vec<u8>>, Vec<u8>),
        (now, lasts): (UnixTime, Option<Duration>),
    ) -> Result<bool, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM cells WHERE until <= ?1", [seconds(now.0)])?;
            session::check_room(&transaction)?;
            if there(&transaction, &name, now)? != over {
                return Ok(false);
            }
            let until = lasts.map(|lasts| seconds(now.0.saturating_add(lasts.as_secs())));
            let row = params![name, value, until];
            transaction.execute("REPLACE INTO cells (name, value, until) VALUES (?1, ?2, ?3)", row)?;
            transaction.commit()?;
            Ok(true)
        };
        self.writer.run(self.write, write).await
    }

    /// Deletes what is there and nothing else; whether it did.
    pub(in crate::store) async fn delete_cell(
        &self,
        name: String,
        value: Vec<u8>,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let write = move |connection: &mut Connection| {
            let is_it = "DELETE FROM cells WHERE name = ?1 AND value = ?2 AND (until IS NULL OR until > ?3)";
            Ok(connection.execute(is_it, params![name, value, seconds(now.0)])? > 0)
        };
        self.writer.run(self.write, write).await
    }

    /// All cells whose names begin with this.
    pub(in crate::store) async fn cells(&self, prefix: &'static str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = move |connection: &mut Connection| {
            let mut select = connection.prepare_cached("SELECT name, value FROM cells WHERE name GLOB ?1 || '*'")?;
            let cells = select.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(cells.collect::<Result<_, _>>()?)
        };
        self.reader.run(self.lookup, read).await
    }
}

fn there(connection: &Connection, name: &str, now: UnixTime) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT value FROM cells WHERE name = ?1 AND (until IS NULL OR until > ?2)")?
        .query_row(params![name, seconds(now.0)], |row| row.get(0))
        .optional()
}
