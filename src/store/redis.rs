//! The store on Redis or Valkey: one hash per user, one field per server, one round trip per lookup.
//!
//! Every command can be repeated without harm, so a lost connection costs one retry and no thought.

mod link;
mod policy;
mod session;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::{Pipeline, Value, from_redis_value};

use super::record::Names;
use super::session::Fields;
use super::{Found, Proofs, Row, SetupError, StoreError, Write};
use crate::config::ServerName;
use crate::secret::Secret;

pub(crate) use link::{Link, Message, RECONNECT};

/// The field that says whose hash it is; no server's name starts so.
const OWNER: &str = "@owner";
/// Keys per step of a listing.
const SCAN: usize = 200;

/// Removes a field, and the key with it when only its owner is left. Answers how many fields there were.
const REMOVE: &str = "local n = redis.call('HDEL', KEYS[1], ARGV[1]) \
    if redis.call('HLEN', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then \
    redis.call('DEL', KEYS[1]) end return n";

/// A store on Redis.
pub(super) struct Redis {
    link: Link,
    prefix: Box<str>,
    /// Whether the eviction policy was seen and is a good one.
    policy_seen: AtomicBool,
}

impl Redis {
    /// The store at `url`, where a question may take `timeout`; nothing is sent yet.
    pub(super) fn open(url: &Secret, prefix: &str, timeout: Duration) -> Result<Self, SetupError> {
        Ok(Self { link: Link::open(url, timeout)?, prefix: prefix.into(), policy_seen: AtomicBool::new(false) })
    }

    /// What `read` makes of the record for `server` under the first of `names` that has one, and of a session.
    pub(super) async fn fetch<T>(
        &self,
        names: &Names,
        server: &ServerName,
        session: Option<&Names>,
        read: impl FnOnce(Found) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut pipe = Pipeline::new();
        if names.iter().len() > 1 {
            // A record that is moved from name to name meanwhile must not be missed under both.
            pipe.atomic();
        }
        for name in names.iter() {
            pipe.cmd("HGET").arg(self.tokens(name)).arg(server.as_str());
        }
        pipe.cmd("HGETALL").arg(self.proofs());
        if let Some(session) = session {
            self.ask_of_session(&mut pipe, session);
        }
        let read = |mut answers: Vec<Value>| {
            let shape = |_| StoreError::Shape;
            let session = answers.split_off((names.iter().len() + 1).min(answers.len()));
            let session: Vec<Fields> = from_redis_value(Value::Array(session)).map_err(shape)?;
            let proofs = from_redis_value(answers.pop().ok_or(StoreError::Shape)?).map_err(shape)?;
            let records: Vec<Option<Vec<u8>>> = from_redis_value(Value::Array(answers)).map_err(shape)?;
            read(Found { record: records.into_iter().flatten().next(), proofs, session: session.concat() })
        };
        self.link.ask(&pipe, read).await
    }

    /// Writes a record and its owner under the active name, and clears the older ones, all at once.
    pub(super) async fn put(&self, names: &Names, server: &ServerName, write: &Write) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        let (key, proof) = &write.proof;
        pipe.cmd("HSET").arg(self.proofs()).arg(key).arg(proof).ignore();
        pipe.cmd("HSET").arg(self.tokens(names.active())).arg(OWNER).arg(&write.owner);
        pipe.arg(server.as_str()).arg(&write.record).ignore();
        for name in names.older() {
            self.remove(&mut pipe, name, server).ignore();
        }
        self.link.ask(&pipe, |()| Ok(())).await
    }

    /// Removes the record for `server` under every name; whether there was one.
    pub(super) async fn delete(&self, names: &Names, server: &ServerName) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for name in names.iter() {
            self.remove(&mut pipe, name, server);
        }
        self.link.ask(&pipe, |removed: Vec<u64>| Ok(removed.into_iter().sum::<u64>() > 0)).await
    }

    /// The records under `names`, or all of them.
    pub(super) async fn rows(&self, names: Option<&Names>) -> Result<Vec<Row>, StoreError> {
        if let Some(names) = names {
            return self.read(names.iter().cloned().collect()).await;
        }
        let (before, after) = (format!("{}:tokens:{{", self.prefix), "}");
        let mut rows = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SCAN").arg(cursor).arg("MATCH").arg(format!("{}*{after}", escape(&before)));
            pipe.arg("COUNT").arg(SCAN).arg("TYPE").arg("hash");
            let [(next, keys)]: [(u64, Vec<String>); 1] = self.link.ask(&pipe, Ok).await?;
            let names = keys.iter().filter_map(|key| key.strip_prefix(&before)?.strip_suffix(after));
            // A scan may name a key twice.
            let names: Vec<String> = names.map(str::to_owned).filter(|name| seen.insert(name.clone())).collect();
            rows.extend(self.read(names).await?);
            if next == 0 {
                return Ok(rows);
            }
            cursor = next;
        }
    }

    /// What `verify` says to the proofs of the keys that wrote here.
    pub(super) async fn verify<T>(
        &self,
        verify: impl FnOnce(Proofs) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(self.proofs());
        self.link.ask(&pipe, |[proofs]: [Proofs; 1]| verify(proofs)).await
    }

    pub(super) fn desyncs(&self) -> u64 {
        self.link.desyncs()
    }

    async fn read(&self, names: Vec<String>) -> Result<Vec<Row>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.cmd("HGETALL").arg(self.tokens(name));
        }
        self.link
            .ask(&pipe, |hashes: Vec<Vec<(String, Vec<u8>)>>| {
                let rows = names.into_iter().zip(hashes).map(|(name, mut records)| {
                    let owner =
                        records.iter().position(|(field, _)| field == OWNER).map(|at| records.swap_remove(at).1);
                    Row { name, owner, records }
                });
                Ok(rows.filter(|row| !row.records.is_empty()).collect())
            })
            .await
    }

    fn remove<'a>(&self, pipe: &'a mut Pipeline, name: &str, server: &ServerName) -> &'a mut Pipeline {
        pipe.cmd("EVAL").arg(REMOVE).arg(1).arg(self.tokens(name)).arg(server.as_str()).arg(OWNER)
    }

    /// The key of a user's records. The braces keep whatever is added beside it in the same cluster slot.
    fn tokens(&self, name: &str) -> String {
        format!("{}:tokens:{{{name}}}", self.prefix)
    }

    /// The key of the proofs of the keys that wrote here.
    fn proofs(&self) -> String {
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
