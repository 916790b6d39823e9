//! The store on Redis or Valkey: one hash per user, one field per server, one round trip per lookup.
//!
//! Every command can be repeated without harm, so a lost connection costs one retry and no thought.

mod cells;
mod client;
mod keys;
mod marks;
mod notes;
mod policy;
mod rates;
mod session;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use redis::{Value, from_redis_value};

use super::notes::fields;
use super::rates::Rates;
use super::record::Names;
use super::session::{SessionNames, Want};
use super::{Found, Proofs, Removed, Row, SetupError, StoreError, Write};
use crate::config::ServerName;
use crate::metrics::Counter;
use crate::secret::Secret;

pub(crate) use client::{CommandBatch, Message, RECONNECT, RedisClient};

/// The field that says whose hash it is; no server's name starts so.
const OWNER: &str = "@owner";
/// How long what was written for a try is kept.
const TRIED: Duration = Duration::from_mins(1);

/// The record of `ARGV[1]` in the first of the keys that has one: at one moment, so that a record that is moved from
/// name to name is not missed under both.
const READ: &str = "for _, key in ipairs(KEYS) do local record = redis.call('HGET', key, ARGV[1]) \
    if record then return record end end return false";

/// Saves the record of `ARGV[1]` under the first of the users' keys, clears it under the others, says by which keys of
/// the ring that was done, and notes what there is to note; 0 if what is there is not `ARGV[5]`, empty for nothing. What
/// is there already is saved: the answer that said so was lost. An hour of use that is noted already stays: it may have
/// been noted since the others were made.
const PUT: &str = "local half, there = (#KEYS - 1) / 2, false \
    for i = 2, half + 1 do there = there or redis.call('HGET', KEYS[i], ARGV[1]) end \
    if there == ARGV[4] then return 1 end \
    if (there or '') ~= ARGV[5] then return 0 end \
    for i = 10, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end \
    redis.call('HSET', KEYS[2], ARGV[2], ARGV[3], ARGV[1], ARGV[4]) \
    for i = 3, half + 1 do remove(KEYS[i]) end \
    redis.call('HDEL', KEYS[half + 2], ARGV[6]) \
    for i = half + 3, #KEYS do redis.call('HDEL', KEYS[i], ARGV[6], ARGV[8]) end \
    if ARGV[7] ~= '' then redis.call('HSET', KEYS[half + 2], ARGV[6], ARGV[7]) end \
    if ARGV[9] ~= '' then redis.call('HSETNX', KEYS[half + 2], ARGV[8], ARGV[9]) end \
    return 1";

/// Removes the record of `ARGV[1]` under every key, with its notes; -1 if it is not `ARGV[3]`, and that is not
/// [`ANYTHING`]. Answers how many there were.
const DELETE: &str = "local half, there, count = #KEYS / 2, false, 0 \
    for i = 1, half do there = there or redis.call('HGET', KEYS[i], ARGV[1]) end \
    if ARGV[3] ~= '*' and there ~= ARGV[3] then return -1 end \
    for i = 1, half do count = count + remove(KEYS[i]) end \
    for i = half + 1, #KEYS do redis.call('HDEL', KEYS[i], ARGV[4], ARGV[5]) end return count";

/// What a record is removed as if it is no matter what; no record is so short.
const ANYTHING: &[u8] = b"*";

/// Removes a field, and the key with it when only its owner, `ARGV[2]`, is left. Answers how many fields there were.
const REMOVE: &str = "local function remove(key) local n = redis.call('HDEL', key, ARGV[1]) \
    if redis.call('HLEN', key) == 1 and redis.call('HEXISTS', key, ARGV[2]) == 1 then \
    redis.call('DEL', key) end return n end ";

/// What lets a script write while Redis is over its `maxmemory`, from Redis 7 on: a token is small, and saving one does
/// not wait for room that others have taken. An older Redis takes it for a mistake and answers `ERR`.
const EVEN_WHEN_FULL: &str = "#!lua flags=allow-oom\n";

/// A store on Redis.
pub(super) struct Redis {
    link: RedisClient,
    prefix: Box<str>,
}

impl Redis {
    /// The store at `url`, where a command may take `timeout`; nothing is sent yet.
    pub(super) fn open(url: &Secret, prefix: &str, timeout: Duration) -> Result<Self, SetupError> {
        Ok(Self { link: RedisClient::open(url, timeout)?, prefix: prefix.into() })
    }

    /// What `read` makes of the record for `server` under the first of `names` that has one, and of a session; all of it is
    /// asked while a call is counted.
    pub(super) async fn fetch<T>(
        &self,
        names: &Names,
        (server, rates): (&ServerName, &Rates),
        session: Option<&SessionNames>,
        read: impl FnOnce(Found) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut batch = CommandBatch::new();
        self.ask_for_record(&mut batch, names, server);
        batch.cmd("HGETALL").arg(self.keys());
        if let Some(session) = session {
            self.ask_of_session(&mut batch, session, Want::SessionStatus);
        }
        self.ask_to_count(&mut batch, names, (server, rates));
        let read = |mut answers: Vec<Value>| {
            let counted = rates::take_counted(&mut answers, rates)?;
            let shape = |_| StoreError::Shape;
            let kept = answers.split_off(answers.len().min(2));
            let session = match session {
                Some(session) => session::kept(kept, session, Want::SessionStatus)?,
                None => None,
            };
            let (record, proofs) = from_redis_value(Value::Array(answers)).map_err(shape)?;
            read(Found { record, proofs, session, counted })
        };
        self.link.ask(&batch, read).await
    }

    /// Writes a record, its owner and its notes under the active name, and clears the older ones, all at once; whether
    /// what was there is what it is to be written over.
    pub(super) async fn put(&self, names: &Names, server: &ServerName, write: &Write) -> Result<bool, StoreError> {
        let keys: Vec<String> = [self.keys()].into_iter().chain(self.records_and_notes(names)).collect();
        let ask = async |flags: &str| {
            let mut batch = CommandBatch::new();
            let script = [flags, REMOVE, PUT].concat();
            batch.cmd("EVAL").arg(script).arg(keys.len()).arg(&keys).arg(server.as_str()).arg(OWNER);
            batch.arg(&write.owner).arg(&write.record).arg(write.there.as_deref().unwrap_or_default());
            for (field, sealed) in &write.notes {
                batch.arg(field).arg(sealed.as_deref().unwrap_or_default());
            }
            batch.arg(&write.proofs);
            self.link.ask(&batch, |[saved]: [bool; 1]| Ok(saved)).await
        };
        match ask(EVEN_WHEN_FULL).await {
            Err(StoreError::Refused(code)) if *code == *"ERR" => ask("").await,
            result => result,
        }
    }

    /// Removes the record for `server` under every name, with its notes, if it is the one `there`.
    pub(super) async fn remove(
        &self,
        names: &Names,
        server: &ServerName,
        there: Option<&[u8]>,
    ) -> Result<Removed, StoreError> {
        let mut batch = CommandBatch::new();
        let keys: Vec<String> = self.records_and_notes(names).collect();
        batch.cmd("EVAL").arg([REMOVE, DELETE].concat()).arg(keys.len()).arg(&keys).arg(server.as_str()).arg(OWNER);
        batch.arg(there.unwrap_or(ANYTHING)).arg(&fields(server));
        let read = |[removed]: [i64; 1]| match removed {
            ..0 => Ok(Removed::Changed),
            0 => Ok(Removed::Absent),
            1.. => Ok(Removed::Gone),
        };
        self.link.ask(&batch, read).await
    }

    /// The records under `names`, or all of them.
    pub(super) async fn rows(&self, names: Option<&Names>) -> Result<Vec<Row>, StoreError> {
        if let Some(names) = names {
            return self.read(names.iter().cloned().collect()).await;
        }
        // What is sealed with another key meanwhile lies under another name then, where a look at all of it may have been
        // before: the second look finds it.
        let looks = if self.proofs(|proofs| Ok(proofs.len())).await? > 1 { 2 } else { 1 };
        let (mut rows, mut seen) = (Vec::new(), HashSet::new());
        for _ in 0..looks {
            let mut after = None;
            loop {
                let (page, next) = self.page(after).await?;
                for mut row in page {
                    row.records.retain(|(server, _)| seen.insert((row.name.clone(), server.clone())));
                    rows.extend(Some(row).filter(|row| !row.records.is_empty()));
                }
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(rows)
    }

    /// What `read` makes of the proofs of the keys that wrote here.
    pub(super) async fn proofs<T>(&self, read: impl FnOnce(Proofs) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("HGETALL").arg(self.keys());
        self.link.ask(&batch, |[proofs]: [Proofs; 1]| read(proofs)).await
    }

    /// Writes what says nothing and is gone soon.
    pub(super) async fn try_write(&self) -> Result<(), StoreError> {
        let mut batch = CommandBatch::new();
        let key = format!("{}:ready", self.prefix);
        batch.cmd("HSET").arg(&key).arg("written").arg(1).ignore();
        batch.cmd("PEXPIRE").arg(&key).arg(TRIED.as_millis()).ignore();
        self.link.ask(&batch, |()| Ok(())).await
    }

    pub(super) fn count_desyncs(&mut self, counter: Counter) {
        self.link.count_desyncs(counter);
    }

    pub(super) fn desyncs(&self) -> u64 {
        self.link.desyncs()
    }

    async fn read(&self, names: Vec<String>) -> Result<Vec<Row>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = CommandBatch::new();
        for name in &names {
            batch.cmd("HGETALL").arg(self.tokens(name));
        }
        self.link
            .ask(&batch, |hashes: Vec<Vec<(String, Vec<u8>)>>| {
                let rows = names.into_iter().zip(hashes).map(|(name, mut records)| {
                    let owner =
                        records.iter().position(|(field, _)| field == OWNER).map(|at| records.swap_remove(at).1);
                    Row { name, owner, records }
                });
                Ok(rows.filter(|row| !row.records.is_empty()).collect())
            })
            .await
    }

    /// Adds the command whose answer is the record for `server` under the first of `names` that has one.
    fn ask_for_record(&self, batch: &mut CommandBatch, names: &Names, server: &ServerName) {
        if names.older().is_empty() {
            batch.cmd("HGET").arg(self.tokens(names.active())).arg(server.as_str());
        } else {
            let keys: Vec<String> = names.iter().map(|name| self.tokens(name)).collect();
            batch.cmd("EVAL").arg(READ).arg(keys.len()).arg(keys).arg(server.as_str());
        }
    }

    /// The keys of a user's records under every name, then those of the notes.
    fn records_and_notes(&self, names: &Names) -> impl Iterator<Item = String> {
        names.iter().map(|name| self.tokens(name)).chain(names.iter().map(|name| self.notes_key(name)))
    }

    /// The key of a user's records. The braces keep whatever is added beside it in the same cluster slot.
    fn tokens(&self, name: &str) -> String {
        format!("{}:tokens:{{{name}}}", self.prefix)
    }

    /// The key of the proofs of the keys that wrote here.
    fn keys(&self) -> String {
        format!("{}:keys", self.prefix)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(…)")
    }
}

/// `text` so that a glob pattern means it literally.
fn escape(text: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
