//! What is noted beside records in the database: a row per note.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Embedded, record};
use crate::config::ServerName;
use crate::store::StoreError;
use crate::store::notes::{Held, Notes, fields};
use crate::store::record::Names;

impl Embedded {
    /// What is noted under each of `names`.
    pub(in crate::store) async fn notes(&self, names: Names) -> Result<Held, StoreError> {
        let read = move |connection: &mut Connection| {
            let mut select = connection.prepare_cached("SELECT field, value FROM notes WHERE name = ?1")?;
            let mut held = Held::new();
            for name in names.iter() {
                let values = select.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
                held.push((name.clone(), values.collect::<Result<_, _>>()?));
            }
            Ok(held)
        };
        self.reader.run(self.lookup, read).await
    }

    /// Writes a note of the record for `server` under the active name, if there is such a record.
    pub(in crate::store) async fn note_use(
        &self,
        names: Names,
        server: &ServerName,
        field: String,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        let server = server.clone();
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // One that was removed meanwhile gets no note.
            if record(&transaction, &names, &server)?.is_some() {
                write(&transaction, names.active(), &field, &sealed)?;
            }
            Ok(transaction.commit()?)
        };
        self.writer.run(self.write, write).await
    }
}

/// Writes `notes` of the record for `server` under the active name, and clears whatever else was noted of it. An hour of
/// use that is there already stays: it may have been noted since `notes` were made.
pub(super) fn replace(
    connection: &Connection,
    names: &Names,
    server: &ServerName,
    notes: &Notes,
) -> rusqlite::Result<()> {
    let [(saved, how), (used, hour)] = notes;
    let there: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM notes WHERE name = ?1 AND field = ?2")?
        .query_row(params![names.active(), used], |row| row.get(0))
        .optional()?;
    clear(connection, names, server)?;
    for (field, sealed) in [(saved, how), (used, &there.or_else(|| hour.clone()))] {
        if let Some(sealed) = sealed {
            write(connection, names.active(), field, sealed)?;
        }
    }
    Ok(())
}

/// Clears what is noted of the record for `server` under all names.
pub(super) fn clear(connection: &Connection, names: &Names, server: &ServerName) -> rusqlite::Result<()> {
    for name in names.iter() {
        for field in fields(server) {
            connection.execute("DELETE FROM notes WHERE name = ?1 AND field = ?2", params![name, field])?;
        }
    }
    Ok(())
}

fn write(connection: &Connection, name: &str, field: &str, sealed: &[u8]) -> rusqlite::Result<()> {
    let row = params![name, field, sealed];
    connection.execute("REPLACE INTO notes (name, field, value) VALUES (?1, ?2, ?3)", row).map(drop)
}
