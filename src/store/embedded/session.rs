//! What is kept of sessions in the database: a row per session that anything is kept of, a row per field, and a row per
//! session that was ended.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Embedded, seconds};
use crate::clock::UnixTime;
use crate::store::StoreError;
use crate::store::session::{
    CLOCK_ERROR, Fields, LISTENER, MAX_ENDED, MAX_SESSION, MAX_SESSIONS, MAX_SUBSCRIPTIONS, Note, Overwrite, RESOURCE,
    SessionNames, Want, Written,
};

/// Pages of a database of bounded size that are left to ended sessions and tokens: 4 MiB.
const RESERVED_PAGES: i64 = 1024;

impl Embedded {
    /// What `read` makes of what is kept of the session; of nothing if it was ended.
    pub(in crate::store) async fn session<T>(
        &self,
        names: SessionNames,
        want: Want,
        read: impl FnOnce(Option<Fields>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(self.reader.run(self.lookup, move |connection| Ok(kept(connection, &names, want)?)).await?)
    }

    /// Writes a field under the active name, in place of the older ones, and forgets sessions that are over.
    pub(in crate::store) async fn note(
        &self,
        names: SessionNames,
        note: Note,
        now: UnixTime,
    ) -> Result<Written, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if is_ended(&transaction, &names)? {
                return Ok(Written::Ended);
            }
            forget_what_is_over(&transaction, now)?;
            check_room(&transaction)?;
            if !is_as_seen(&transaction, &names, &note)? || !has_room(&transaction, names.active().1, &note)? {
                return Ok(Written::Refused);
            }
            let (user, name) = names.active();
            let row = params![name, note.field, note.value];
            transaction.execute("REPLACE INTO fields (name, field, value) VALUES (?1, ?2, ?3)", row)?;
            for name in names.older() {
                transaction.execute("DELETE FROM fields WHERE name = ?1 AND field = ?2", params![name, note.field])?;
            }
            let until = names.expires.0.saturating_add(CLOCK_ERROR.as_secs());
            transaction.execute(
                "REPLACE INTO sessions (user, name, written, until)
                 VALUES (?1, ?2, (SELECT coalesce(max(written), 0) + 1 FROM sessions WHERE user = ?1), ?3)",
                params![user, name, seconds(until)],
            )?;
            evict(&transaction, user)?;
            let listener = listener(&transaction, &names)?;
            transaction.commit()?;
            Ok(Written::Kept(listener))
        };
        self.writer.run(self.write, write).await
    }

    /// Removes fields under every name.
    pub(in crate::store) async fn forget(
        &self,
        names: SessionNames,
        fields: Vec<String>,
    ) -> Result<Written, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if is_ended(&transaction, &names)? {
                return Ok(Written::Ended);
            }
            for (_, name) in names.pairs() {
                for field in &fields {
                    transaction.execute("DELETE FROM fields WHERE name = ?1 AND field = ?2", params![name, field])?;
                }
            }
            let listener = listener(&transaction, &names)?;
            transaction.commit()?;
            Ok(Written::Kept(listener))
        };
        self.writer.run(self.write, write).await
    }

    /// Ends a session and forgets it; the sealed address of its listener.
    pub(in crate::store) async fn revoke(
        &self,
        names: SessionNames,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let listener = listener(&transaction, &names)?;
            for (user, name) in names.pairs() {
                transaction.execute("DELETE FROM fields WHERE name = ?1", params![name])?;
                transaction.execute("DELETE FROM sessions WHERE user = ?1 AND name = ?2", params![user, name])?;
            }
            forget_what_is_over(&transaction, now)?;
            let ended = "REPLACE INTO ended (user, name, expires) VALUES (?1, ?2, ?3)";
            let (user, name) = names.active();
            transaction.execute(ended, params![user, name, seconds(names.expires.0)])?;
            let are_many = "SELECT count(*) > ?2 FROM ended WHERE user = ?1";
            if transaction.query_row(are_many, params![user, number(MAX_ENDED)], |row| row.get(0))? {
                let second = "SELECT expires FROM ended WHERE user = ?1 ORDER BY expires LIMIT 1 OFFSET 1";
                let all_before: i64 = transaction.query_row(second, [user], |row| row.get(0))?;
                transaction
                    .execute("DELETE FROM ended WHERE user = ?1 AND expires <= ?2", params![user, all_before])?;
                transaction.execute(ended, params![user, "", all_before])?;
            }
            transaction.commit()?;
            Ok(listener)
        };
        self.writer.run(self.write, write).await
    }
}

/// What is kept of the session under all its names; nothing if it was ended.
pub(super) fn kept(connection: &Connection, names: &SessionNames, want: Want) -> rusqlite::Result<Option<Fields>> {
    if is_ended(connection, names)? {
        return Ok(None);
    }
    let [level, listener] = Want::STANDING;
    let mut select = connection
        .prepare_cached("SELECT field, value FROM fields WHERE name = ?1 AND (?2 OR field = ?3 OR field = ?4)")?;
    let mut fields = Vec::new();
    for (_, name) in names.pairs() {
        let rows = select
            .query_map(params![name, want == Want::All, level, listener], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            fields.push(row?);
        }
    }
    Ok(Some(fields))
}

fn is_ended(connection: &Connection, names: &SessionNames) -> rusqlite::Result<bool> {
    let mut select = connection
        .prepare_cached("SELECT 1 FROM ended WHERE user = ?1 AND (name = ?2 OR name = '' AND expires >= ?3) LIMIT 1")?;
    for (user, name) in names.pairs() {
        if select.exists(params![user, name, seconds(names.expires.0)])? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn held(connection: &Connection, name: &str, field: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut select = connection.prepare_cached("SELECT value FROM fields WHERE name = ?1 AND field = ?2")?;
    select.query_row(params![name, field], |row| row.get(0)).optional()
}

/// The first that any name has.
fn first(connection: &Connection, names: &SessionNames, field: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    let all = names.pairs().map(|(_, name)| held(connection, name, field));
    Ok(all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next())
}

fn listener(connection: &Connection, names: &SessionNames) -> rusqlite::Result<Option<Vec<u8>>> {
    first(connection, names, LISTENER)
}

fn is_as_seen(connection: &Connection, names: &SessionNames, note: &Note) -> rusqlite::Result<bool> {
    match &note.over {
        Overwrite::Anything => Ok(true),
        Overwrite::Only(seen) => Ok(first(connection, names, &note.field)? == *seen),
    }
}

/// Whether the session has room for one more subscription, if it is one.
fn has_room(connection: &Connection, name: &str, note: &Note) -> rusqlite::Result<bool> {
    if !note.field.starts_with(RESOURCE) {
        return Ok(true);
    }
    let beside_others = "SELECT coalesce(sum(field GLOB 'uri:*'), 0) < ?3 AND
        coalesce(sum(length(field) + length(value)), 0) <= ?4 FROM fields WHERE name = ?1 AND field <> ?2";
    let left = MAX_SESSION.saturating_sub(note.field.len() + note.value.len());
    let limits = params![name, note.field, number(MAX_SUBSCRIPTIONS), number(left)];
    connection.query_row(beside_others, limits, |row| row.get(0))
}

/// A database of bounded size keeps room for what is never refused.
pub(super) fn check_room(connection: &Connection) -> Result<(), StoreError> {
    let pages = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used = pages("page_count")? - pages("freelist_count")?;
    if used + RESERVED_PAGES > pages("max_page_count")? { Err(StoreError::Database("it is full")) } else { Ok(()) }
}

/// Forgets what is kept of those of a user's sessions that were written to least lately, over the most that they may be.
fn evict(transaction: &Transaction<'_>, user: &str) -> rusqlite::Result<()> {
    let least = "SELECT name FROM sessions WHERE user = ?1 ORDER BY written DESC LIMIT -1 OFFSET ?2";
    let most = params![user, number(MAX_SESSIONS)];
    transaction.execute(&format!("DELETE FROM fields WHERE name IN ({least})"), most)?;
    transaction.execute(&format!("DELETE FROM sessions WHERE user = ?1 AND name IN ({least})"), most)?;
    Ok(())
}

fn forget_what_is_over(transaction: &Transaction<'_>, now: UnixTime) -> rusqlite::Result<()> {
    let over = params![seconds(now.0)];
    transaction.execute("DELETE FROM fields WHERE name IN (SELECT name FROM sessions WHERE until <= ?1)", over)?;
    transaction.execute("DELETE FROM sessions WHERE until <= ?1", over)?;
    let ended = params![seconds(now.0.saturating_sub(CLOCK_ERROR.as_secs()))];
    transaction.execute("DELETE FROM ended WHERE expires < ?1", ended)?;
    Ok(())
}

/// A bound as SQLite keeps integers.
fn number(bound: usize) -> i64 {
    i64::try_from(bound).unwrap_or(i64::MAX)
}
