//! What is kept of sessions in the database: a row per field, which counts until its time is over.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Embedded, seconds};
use crate::clock::UnixTime;
use crate::store::StoreError;
use crate::store::record::Names;
use crate::store::session::{Fields, MAX_SUBSCRIPTIONS, Note, RESOURCE, REVOKED};

impl Embedded {
    /// What `read` makes of what is kept of the session.
    pub(in crate::store) async fn session<T>(
        &self,
        names: Names,
        now: UnixTime,
        read: impl FnOnce(Fields) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(self.reader.run(self.lookup, move |connection| Ok(fields(connection, &names, now)?)).await?)
    }

    /// Writes a field under the active name, in place of the older ones, and forgets sessions that are over; whether
    /// there was room.
    pub(in crate::store) async fn note(&self, names: Names, note: Note, now: UnixTime) -> Result<bool, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM sessions WHERE until <= ?1", params![seconds(now.0)])?;
            if note.field.starts_with(RESOURCE) {
                let others = "SELECT count(*) FROM sessions WHERE name = ?1 AND field <> ?2 AND field GLOB 'uri:*'";
                let others: i64 =
                    transaction.query_row(others, params![names.active(), note.field], |row| row.get(0))?;
                if usize::try_from(others).is_ok_and(|others| others >= MAX_SUBSCRIPTIONS) {
                    return Ok(false);
                }
            }
            write_field(&transaction, &names, &note, now)?;
            for name in names.older().iter().filter(|_| note.field != REVOKED) {
                transaction
                    .execute("DELETE FROM sessions WHERE name = ?1 AND field = ?2", params![name, note.field])?;
            }
            transaction.commit()?;
            Ok(true)
        };
        self.writer.run(self.write, write).await
    }

    /// Writes a field under the active name if what it holds there is what was `seen`; whether it was.
    pub(in crate::store) async fn replace(
        &self,
        names: Names,
        seen: Option<Vec<u8>>,
        note: Note,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let select = "SELECT value FROM sessions WHERE name = ?1 AND field = ?2 AND until > ?3";
            let field = params![names.active(), note.field, seconds(now.0)];
            let holds: Option<Vec<u8>> = transaction.query_row(select, field, |row| row.get(0)).optional()?;
            if holds != seen {
                return Ok(false);
            }
            write_field(&transaction, &names, &note, now)?;
            transaction.commit()?;
            Ok(true)
        };
        self.writer.run(self.write, write).await
    }

    /// Removes fields under every name.
    pub(in crate::store) async fn forget(&self, names: Names, fields: Vec<String>) -> Result<(), StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for name in names.iter() {
                for field in &fields {
                    transaction.execute("DELETE FROM sessions WHERE name = ?1 AND field = ?2", params![name, field])?;
                }
            }
            Ok(transaction.commit()?)
        };
        self.writer.run(self.write, write).await
    }
}

/// What is kept of the session under all its names.
pub(super) fn fields(connection: &Connection, names: &Names, now: UnixTime) -> rusqlite::Result<Fields> {
    let mut select = connection.prepare_cached("SELECT field, value FROM sessions WHERE name = ?1 AND until > ?2")?;
    let mut fields = Vec::new();
    for name in names.iter() {
        let rows = select.query_map(params![name, seconds(now.0)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            fields.push(row?);
        }
    }
    Ok(fields)
}

fn write_field(connection: &Connection, names: &Names, note: &Note, now: UnixTime) -> rusqlite::Result<usize> {
    let until = seconds(now.0.saturating_add(note.lifetime.as_secs()).saturating_add(1));
    let row = params![names.active(), note.field, note.value, until];
    connection.execute("REPLACE INTO sessions (name, field, value, until) VALUES (?1, ?2, ?3, ?4)", row)
}
