//! Marks in the database: a row each, until its time is over.

use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{Embedded, seconds, session};
use crate::clock::UnixTime;
use crate::store::StoreError;

/// What the names of messages begin with.
const MESSAGE: &str = "message:";

impl Embedded {
    /// Marks a browser's session as ended for so long.
    pub(in crate::store) async fn mark_ended(
        &self,
        name: String,
        now: UnixTime,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.mark(ended(&name), now, lasts).await
    }

    /// Whether a browser's session is marked as ended.
    pub(in crate::store) async fn is_marked_ended(&self, name: String, now: UnixTime) -> Result<bool, StoreError> {
        let read = move |connection: &mut Connection| {
            let mut select = connection.prepare_cached("SELECT 1 FROM marks WHERE name = ?1 AND until > ?2")?;
            Ok(select.exists(params![ended(&name), seconds(now.0)])?)
        };
        self.reader.run(self.lookup, read).await
    }

    /// Counts one more, in so long from the first; how many there are, and for how much longer.
    pub(in crate::store) async fn count(
        &self,
        name: String,
        (now, time): (UnixTime, Duration),
    ) -> Result<(u32, Duration), StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            forget_what_is_over(&transaction, now)?;
            session::check_room(&transaction)?;
            let (count, until): (u32, i64) = transaction.query_row(
                "INSERT INTO marks (name, until, count) VALUES (?1, ?2, 1)
                 ON CONFLICT DO UPDATE SET count = min(count + 1, ?3) RETURNING count, until",
                params![format!("quota:{name}"), seconds(now.0 + time.as_secs()), u32::MAX],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            transaction.commit()?;
            Ok((count, Duration::from_secs(until.saturating_sub(seconds(now.0)).unsigned_abs())))
        };
        self.writer.run(self.write, write).await
    }

    /// Leaves a message for so long.
    pub(in crate::store) async fn leave_message(
        &self,
        message: String,
        now: UnixTime,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.mark(format!("{MESSAGE}{message}"), now, lasts).await
    }

    /// Has a mark of this name be there for so long.
    async fn mark(&self, name: String, now: UnixTime, lasts: Duration) -> Result<(), StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            forget_what_is_over(&transaction, now)?;
            let mark = params![name, seconds(now.0.saturating_add(lasts.as_secs()))];
            transaction.execute("REPLACE INTO marks (name, until, count) VALUES (?1, ?2, 1)", mark)?;
            Ok(transaction.commit()?)
        };
        self.writer.run(self.write, write).await
    }

    /// The messages that are left, unless nothing was written since the reader saw the database at `version`; and its version
    /// now, which means something to the same reader alone. Source: SQLite, PRAGMA `data_version`.
    pub(in crate::store) async fn messages(
        &self,
        version: Option<i64>,
        now: UnixTime,
    ) -> Result<Option<(i64, Vec<String>)>, StoreError> {
        let read = move |connection: &mut Connection| {
            let current: i64 = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
            if version == Some(current) {
                return Ok(None);
            }
            let mut select = connection.prepare_cached(
                "SELECT name FROM marks WHERE name >= 'message:' AND name < 'message;' AND until > ?1",
            )?;
            let names = select.query_map([seconds(now.0)], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            let messages = names.iter().filter_map(|name| name.strip_prefix(MESSAGE));
            Ok(Some((current, messages.map(str::to_owned).collect())))
        };
        self.reader.run(self.lookup, read).await
    }
}

fn ended(name: &str) -> String {
    format!("ended:{name}")
}

fn forget_what_is_over(transaction: &Transaction<'_>, now: UnixTime) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM marks WHERE until <= ?1", [seconds(now.0)]).map(drop)
}
