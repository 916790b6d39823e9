//! The store of a single node: SQLite in a private directory, safe beside the command line in another process.
//!
//! One thread reads and one writes, each with its own connection, so that a lookup never waits for a write; the
//! write-ahead log shows every commit, of whichever process, to the next read.

mod cells;
mod files;
mod keys;
mod marks;
mod notes;
mod session;
mod worker;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::rates::Counted;
use super::record::Names;
use super::session::{SessionNames, Want};
use super::{Found, Proofs, Removed, Row, SetupError, StoreError, Write};
use crate::config::{ServerName, TokenStoreKind};
use worker::Worker;

/// What a write may take at least: it waits for the disk and for other processes' writes.
const WRITE: Duration = Duration::from_secs(5);

/// A store in a directory.
pub(super) struct Embedded {
    reader: Worker,
    writer: Worker,
    /// A lookup, with its wait for those before it.
    lookup: Duration,
    /// A write, with its wait for the disk and for other processes' writes.
    write: Duration,
}

impl Embedded {
    /// Opens the database in `directory`, made 0700 if missing, and checks that it is intact. A lookup may take
    /// `timeout`.
    pub(super) fn open(directory: &Path, timeout: Duration) -> Result<Self, SetupError> {
        let write = timeout.max(WRITE);
        // Who waited in vain for another process still has time to be told so.
        let busy = write * 3 / 5;
        let path = files::prepare(directory)?;
        let mut writer = files::connect(&path, busy)?;
        files::verify(&mut writer, &path)?;
        let reader = files::connect(&path, busy)?;
        reader.pragma_update(None, "query_only", true).map_err(|error| files::setup(&error, &path))?;
        let start = |name, connection| {
            Worker::start(name, connection).map_err(|error| SetupError::Io { path: path.clone(), kind: error.kind() })
        };
        let (reader, writer) = (start("store-read", reader)?, start("store-write", writer)?);
        Ok(Self { reader, writer, lookup: timeout, write })
    }

    /// The proofs of the keys that wrote to the database in `directory`, if there is one; nothing is made or changed.
    pub(super) fn look(directory: &Path, timeout: Duration) -> Result<Option<Proofs>, SetupError> {
        let Some(path) = files::find(directory)? else { return Ok(None) };
        let connection = files::connect(&path, timeout)?;
        let failed = |error| files::setup(&error, &path);
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
        files::examine(&connection, &path)?;
        proofs(&connection).map(Some).map_err(failed)
    }

    /// A database that is nowhere but in memory, of no more than 64 MiB.
    pub(super) fn in_memory() -> Result<Self, SetupError> {
        let only = Worker::start("store", files::in_memory()?)
            .map_err(|error| SetupError::Io { path: files::IN_MEMORY.into(), kind: error.kind() })?;
        Ok(Self { reader: only.clone(), writer: only, lookup: TokenStoreKind::TIMEOUT, write: WRITE })
    }

    /// What `read` makes of the record for `server` under the first of `names` that has one, and of a session.
    pub(super) async fn fetch<T>(
        &self,
        names: &Names,
        server: &ServerName,
        session: Option<&SessionNames>,
        read: impl FnOnce(Found) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (names, server) = (names.clone(), server.clone());
        let session = session.cloned();
        let select = move |connection: &mut Connection| {
            // One transaction: a record that is moved from name to name meanwhile must not be missed under both.
            let snapshot = connection.transaction()?;
            let record = record(&snapshot, &names, &server)?;
            let session = match &session {
                Some(names) => session::kept(&snapshot, names, Want::SessionStatus)?,
                None => None,
            };
            Ok(Found { record, proofs: proofs(&snapshot)?, session, counted: Counted::Passed })
        };
        read(self.reader.run(self.lookup, select).await?)
    }

    /// Writes a record, its owner and its notes under the active name, and clears the older ones, all at once; whether
    /// what was there is what it is to be written over.
    pub(super) async fn put(&self, names: Names, server: &ServerName, write: Write) -> Result<bool, StoreError> {
        let server = server.clone();
        let put = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let active = names.active();
            if record(&transaction, &names, &server)? != write.there {
                return Ok(false);
            }
            for proof in write.proofs {
                transaction.execute("REPLACE INTO keys (id, proof) VALUES (?1, ?2)", proof)?;
            }
            transaction.execute("REPLACE INTO owners (name, sealed) VALUES (?1, ?2)", params![active, write.owner])?;
            transaction.execute(
                "REPLACE INTO tokens (name, server, record) VALUES (?1, ?2, ?3)",
                params![active, server.as_str(), write.record],
            )?;
            remove(&transaction, names.older(), &server)?;
            notes::replace(&transaction, &names, &server, &write.notes)?;
            transaction.commit()?;
            Ok(true)
        };
        self.writer.run(self.write, put).await
    }

    /// Removes the record for `server` under every name, with its notes, if it is the one `there`.
    pub(super) async fn remove(
        &self,
        names: Names,
        server: &ServerName,
        there: Option<Vec<u8>>,
    ) -> Result<Removed, StoreError> {
        let server = server.clone();
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if there.is_some() && record(&transaction, &names, &server)? != there {
                return Ok(Removed::Changed);
            }
            let removed = remove(&transaction, names.iter(), &server)?;
            notes::clear(&transaction, &names, &server)?;
            transaction.commit()?;
            Ok(if removed > 0 { Removed::Gone } else { Removed::Absent })
        };
        self.writer.run(self.write, write).await
    }

    /// The records under `names`, or all of them.
    pub(super) async fn rows(&self, names: Option<Names>) -> Result<Vec<Row>, StoreError> {
        let read = move |connection: &mut Connection| {
            let is_wanted = |name: &str| names.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
            let mut select = connection.prepare_cached(
                "SELECT t.name, o.sealed, t.server, t.record FROM tokens t LEFT JOIN owners o USING (name) ORDER BY 1",
            )?;
            Ok(rows(select.query(())?, is_wanted)?)
        };
        self.reader.run(self.write, read).await
    }

    /// Writes what says nothing: a number in its header once more, which takes what any write takes.
    pub(super) async fn try_write(&self) -> Result<(), StoreError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            transaction.pragma_update(None, "user_version", version)?;
            Ok(transaction.commit()?)
        };
        self.writer.run(self.write, write).await
    }

    /// Takes the write-ahead log into the database, so that the one file holds everything.
    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        let checkpoint = |connection: &mut Connection| {
            // Answers whether somebody else kept it from being whole; who closes last then does it.
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?)
        };
        self.writer.run(self.write, checkpoint).await
    }

    /// What `read` makes of the proofs of the keys that wrote here.
    pub(super) async fn proofs<T>(&self, read: impl FnOnce(Proofs) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(self.reader.run(self.lookup, |connection| Ok(proofs(connection)?)).await?)
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded(…)")
    }
}

/// The rows of names that are wanted, of lines with a name, its owner, a server and a record, by name.
fn rows(mut lines: rusqlite::Rows<'_>, is_wanted: impl Fn(&str) -> bool) -> rusqlite::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    while let Some(line) = lines.next()? {
        let name: String = line.get(0)?;
        if !is_wanted(&name) {
            continue;
        }
        let record = (line.get(2)?, line.get(3)?);
        match rows.last_mut().filter(|row| row.name == name) {
            Some(row) => row.records.push(record),
            None => rows.push(Row { name, owner: line.get(1)?, records: vec![record] }),
        }
    }
    Ok(rows)
}

/// The record for `server` under the first of `names` that has one.
fn record(connection: &Connection, names: &Names, server: &ServerName) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut select = connection.prepare_cached("SELECT record FROM tokens WHERE name = ?1 AND server = ?2")?;
    for name in names.iter() {
        let record = select.query_row(params![name, server.as_str()], |row| row.get(0)).optional()?;
        if record.is_some() {
            return Ok(record);
        }
    }
    Ok(None)
}

/// The proofs of the keys that wrote here.
fn proofs(connection: &Connection) -> rusqlite::Result<Proofs> {
    let mut select = connection.prepare_cached("SELECT id, proof FROM keys")?;
    select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Removes the record for `server` under each of `names`, and the owner where it was the last. How many there were.
fn remove<'a>(
    connection: &Connection,
    names: impl IntoIterator<Item = &'a String>,
    server: &ServerName,
) -> rusqlite::Result<usize> {
    let mut removed = 0;
    for name in names {
        removed +=
            connection.execute("DELETE FROM tokens WHERE name = ?1 AND server = ?2", params![name, server.as_str()])?;
        connection.execute(
            "DELETE FROM owners WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM tokens WHERE name = ?1)",
            params![name],
        )?;
    }
    Ok(removed)
}

/// `seconds` as SQLite keeps integers.
fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// The kind of an error, without the words of it.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Timeout,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            Some(ErrorCode::DiskFull) => Self::Database("the disk is full"),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::Database("it is read-only"),
            Some(ErrorCode::CannotOpen) => Self::Database("it cannot be opened"),
            Some(ErrorCode::SystemIoFailure) => Self::Database("the disk failed"),
            Some(_) => Self::Database("unexpectedly"),
            None => Self::Shape,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_database_that_takes_no_writes_says_so_and_is_read() {
        let home = tempfile::tempdir().unwrap();
        let store = Embedded::open(&home.path().join("data"), TokenStoreKind::TIMEOUT).unwrap();
        store.try_write().await.unwrap();
        let read_only =
            |only: bool| move |connection: &mut Connection| Ok(connection.pragma_update(None, "query_only", only)?);
        store.writer.run(WRITE, read_only(true)).await.unwrap();
        assert_eq!(store.try_write().await, Err(StoreError::Database("it is read-only")));
        assert_eq!(store.proofs(Ok).await, Ok(Vec::new()));
        store.writer.run(WRITE, read_only(false)).await.unwrap();
        store.try_write().await.unwrap();
    }

    #[tokio::test]
    async fn a_lookup_waits_for_those_before_it_as_long_as_it_may() {
        const LONG: Duration = Duration::from_mins(1);
        let home = tempfile::tempdir().unwrap();
        let open = |timeout| Embedded::open(&home.path().join("data"), timeout).unwrap();
        let (hasty, patient) = (open(Duration::from_millis(100)), open(LONG));
        let busy = |store: &Embedded| {
            let (go_on, until) = mpsc::channel::<()>();
            let reader = store.reader.clone();
            (go_on, async move { reader.run(LONG, move |_| Ok(until.recv().is_ok())).await })
        };
        let ((one_goes_on, one), (other_goes_on, other)) = (busy(&hasty), busy(&patient));
        let lookups = async {
            assert_eq!(hasty.proofs(Ok).await, Err(StoreError::Timeout));
            let mut lookup = std::pin::pin!(patient.proofs(Ok));
            // Longer than it may take by default.
            let waits = tokio::time::timeout(2 * TokenStoreKind::TIMEOUT, &mut lookup).await;
            assert!(waits.is_err(), "{waits:?}");
            drop((one_goes_on, other_goes_on));
            lookup.await
        };
        // In this order, which is also that of the lines before the threads.
        let (_, _, proofs) = tokio::join!(biased; one, other, lookups);
        assert_eq!(proofs, Ok(Vec::new()));
    }
}
