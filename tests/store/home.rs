//! A store's home: a server or a directory of its own, several handles on it, and a way past them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tempfile::TempDir;
use tollbridge::clock::{Clock, UnixTime};
use tollbridge::config::{KeySource, SealingKey, ServerName, TokenStoreKind};
use tollbridge::keyring::{Keyring, RootKey};
use tollbridge::secret::{Credential, Secret};
use tollbridge::store::{Lookup, Over, Record, RecordKind, Removed, SessionKey, StoreError, TokenStore, Written};
use tollbridge::user::UserId;

use crate::redis_server::RedisServer;

/// What every key of the Redis stores starts with: with characters that a pattern would misread.
pub(crate) const PREFIX: &str = "toll[b]ridge";
/// How long a store may take where a test is not about that: one that stalls with its machine is no outage.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where a store keeps its records.
pub(crate) enum Home {
    Redis(Box<RedisServer>),
    Embedded(TempDir),
}

impl Home {
    pub(crate) fn redis() -> Self {
        Self::Redis(Box::new(RedisServer::start(&[])))
    }

    pub(crate) fn embedded() -> Self {
        Self::Embedded(TempDir::new().unwrap())
    }

    /// What the configuration would say of it.
    pub(crate) fn kind(&self) -> TokenStoreKind {
        match self {
            Self::Redis(server) => redis_kind_within(PATIENCE, server.socket_url()),
            Self::Embedded(directory) => embedded_kind(directory.path().join("data")),
        }
    }

    /// A handle on the store, with a key ring of its own.
    pub(crate) fn open(&self, keys: &[Key]) -> TokenStore {
        self.open_at(keys, Clock::System)
    }

    /// A handle on the store with a clock.
    pub(crate) fn open_at(&self, keys: &[Key], clock: Clock) -> TokenStore {
        TokenStore::open(&self.kind(), Arc::new(ring(keys)), clock).unwrap()
    }

    /// The sealed record at a name, past the store.
    pub(crate) fn raw(&self, name: &str, server: &str) -> Option<Vec<u8>> {
        match self {
            Self::Redis(home) => home.raw(&["HGET", &redis_key(name), server]).unwrap(),
            Self::Embedded(_) => {
                let select = "SELECT record FROM tokens WHERE name = ?1 AND server = ?2";
                self.sqlite().query_row(select, [name, server], |row| row.get(0)).ok()
            }
        }
    }

    /// Puts a record at a name, past the store.
    pub(crate) fn put_raw(&self, name: &str, server: &str, record: &[u8]) {
        match self {
            Self::Redis(home) => {
                home.raw::<()>(&["HSET".as_bytes(), redis_key(name).as_bytes(), server.as_bytes(), record]).unwrap();
            }
            Self::Embedded(_) => {
                let replace = "REPLACE INTO tokens (name, server, record) VALUES (?1, ?2, ?3)";
                self.sqlite().execute(replace, rusqlite::params![name, server, record]).unwrap();
            }
        }
    }

    /// The names of all cells and what lies in them, past the store.
    pub(crate) fn cells(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Self::Redis(home) => {
                let keys: Vec<String> = home.raw(&["KEYS", "*"]).unwrap();
                let is_cell =
                    |name: &&str| ["flow:", "device:", "client:", "lease:"].iter().any(|l| name.starts_with(l));
                let names = keys.iter().filter_map(|key| key.strip_prefix(PREFIX)?.strip_prefix(':')).filter(is_cell);
                names.map(|name| (name.to_owned(), home.raw(&["GET", &format!("{PREFIX}:{name}")]).unwrap())).collect()
            }
            Self::Embedded(_) => {
                let connection = self.sqlite();
                let mut select = connection.prepare("SELECT name, value FROM cells").unwrap();
                let cells = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                cells.collect::<Result<_, _>>().unwrap()
            }
        }
    }

    /// Puts something into the cell that lies under a name, past the store.
    pub(crate) fn put_cell(&self, name: &str, value: &[u8]) {
        match self {
            Self::Redis(home) => {
                home.raw::<()>(&[b"SET", format!("{PREFIX}:{name}").as_bytes(), value, b"KEEPTTL"]).unwrap();
            }
            Self::Embedded(_) => {
                self.sqlite()
                    .execute("UPDATE cells SET value = ?2 WHERE name = ?1", rusqlite::params![name, value])
                    .unwrap();
            }
        }
    }

    /// The sealed note at a name, past the store.
    pub(crate) fn note(&self, name: &str, field: &str) -> Option<Vec<u8>> {
        match self {
            Self::Redis(home) => home.raw(&["HGET", &notes_key(name), field]).unwrap(),
            Self::Embedded(_) => {
                let select = "SELECT value FROM notes WHERE name = ?1 AND field = ?2";
                self.sqlite().query_row(select, [name, field], |row| row.get(0)).ok()
            }
        }
    }

    /// The fields of all notes at a name, past the store.
    pub(crate) fn notes(&self, name: &str) -> BTreeSet<String> {
        match self {
            Self::Redis(home) => home.raw(&["HKEYS", &notes_key(name)]).unwrap(),
            Self::Embedded(_) => {
                let connection = self.sqlite();
                let mut select = connection.prepare("SELECT field FROM notes WHERE name = ?1").unwrap();
                let fields = select.query_map([name], |row| row.get(0)).unwrap();
                fields.collect::<Result<_, _>>().unwrap()
            }
        }
    }

    /// Puts the level of each of two sessions where the other's was, past the store.
    pub(crate) fn swap_levels(&self, keys: &[Key], sessions: [&SessionKey<'_>; 2]) {
        let (ring, user) = (ring(keys), name(keys, sessions[0].user));
        let [one, other] = sessions.map(|SessionKey { user, nonce, .. }| {
            let hash = ring.index("session", &[user.issuer(), user.subject(), nonce]).next().unwrap();
            BASE64_URL_SAFE_NO_PAD.encode(hash)
        });
        match self {
            Self::Redis(home) => {
                let key = |name: &str| format!("{PREFIX}:session:{{{user}}}:{name}");
                let value = |name: &str| home.raw::<Vec<u8>>(&["HGET", &key(name), "level"]).unwrap();
                let (first, second) = (value(&one), value(&other));
                for (name, value) in [(&one, second), (&other, first)] {
                    home.raw::<()>(&["HSET".as_bytes(), key(name).as_bytes(), b"level", &value]).unwrap();
                }
            }
            Self::Embedded(_) => {
                let update = "UPDATE fields SET name = CASE name WHEN ?1 THEN 'x' || ?2 ELSE 'x' || ?1 END";
                self.sqlite().execute(update, [&one, &other]).unwrap();
                self.sqlite().execute("UPDATE fields SET name = substr(name, 2)", ()).unwrap();
            }
        }
    }

    /// Every byte that the store keeps.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let directory = match self {
            Self::Redis(home) => home.directory().to_owned(),
            Self::Embedded(directory) => directory.path().to_owned(),
        };
        let mut bytes = Vec::new();
        let mut left = vec![directory];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.is_file() {
                bytes.extend(std::fs::read(path).unwrap());
            }
        }
        bytes
    }

    fn sqlite(&self) -> rusqlite::Connection {
        let Self::Embedded(directory) = self else { panic!("not SQLite") };
        rusqlite::Connection::open(directory.path().join("data/tokens.db")).unwrap()
    }
}

/// A configured key: an id and its text.
pub(crate) type Key = (&'static str, String);

/// A new key.
pub(crate) fn key(id: &'static str) -> Key {
    (id, RootKey::random().to_text().to_string())
}

/// The ring of `keys`.
pub(crate) fn ring(keys: &[Key]) -> Keyring {
    let keys = keys
        .iter()
        .map(|(id, text)| SealingKey { id: (*id).to_owned(), source: KeySource::Value(Secret::new(text.clone())) });
    Keyring::load(&keys.collect::<Vec<_>>()).unwrap()
}

/// The name under which the first of `keys` keeps `user`'s records.
pub(crate) fn name(keys: &[Key], user: &UserId) -> String {
    let hash = ring(keys).index("tokens", &[user.issuer(), user.subject()]).next().unwrap();
    BASE64_URL_SAFE_NO_PAD.encode(hash)
}

/// The Redis key of a name.
pub(crate) fn redis_key(name: &str) -> String {
    format!("{PREFIX}:tokens:{{{name}}}")
}

/// The Redis key of the notes at a name.
fn notes_key(name: &str) -> String {
    format!("{PREFIX}:notes:{{{name}}}")
}

/// A configured Redis at `url` that may take what it may by default.
pub(crate) fn redis_kind(url: String) -> TokenStoreKind {
    redis_kind_within(TokenStoreKind::TIMEOUT, url)
}

/// A configured Redis at `url` that may take `timeout`.
pub(crate) fn redis_kind_within(timeout: Duration, url: String) -> TokenStoreKind {
    TokenStoreKind::Redis { url: Secret::new(url), prefix: PREFIX.to_owned(), timeout }
}

/// A configured directory.
pub(crate) fn embedded_kind(path: PathBuf) -> TokenStoreKind {
    TokenStoreKind::Embedded { path, timeout: PATIENCE }
}

/// A clock that a test sets.
pub(crate) fn fixed(seconds: u64) -> (Clock, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(seconds));
    (Clock::Fixed(time.clone()), time)
}

pub(crate) fn user(subject: &str) -> UserId {
    UserId::local(subject).unwrap()
}

pub(crate) fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// These values, saved then by nobody who says how.
pub(crate) fn record(saved_at: u64, values: &[(&str, &str)]) -> Record {
    let fields = values.iter().map(|(name, value)| ((*name).into(), secret(value))).collect();
    Record {
        kind: RecordKind::Fields,
        saved_at: UnixTime(saved_at),
        saved_by: None,
        expires_at: None,
        fields,
        grant: None,
    }
}

/// What most tests do with a store.
pub(crate) trait Tokens {
    /// Saves `token` over whatever is there.
    async fn set(&self, user: &UserId, server: &ServerName, token: &Secret) -> Result<(), StoreError>;
    /// The same, at that second.
    async fn set_at(&self, at: u64, user: &UserId, server: &ServerName, token: &Secret) -> Result<(), StoreError>;
    /// Removes whatever is there; whether there was anything.
    async fn delete(&self, user: &UserId, server: &ServerName) -> Result<bool, StoreError>;
}

impl Tokens for TokenStore {
    async fn set(&self, user: &UserId, server: &ServerName, token: &Secret) -> Result<(), StoreError> {
        self.set_at(Clock::System.now().0, user, server, token).await
    }

    async fn set_at(&self, at: u64, user: &UserId, server: &ServerName, token: &Secret) -> Result<(), StoreError> {
        let record = record(at, &[(Credential::TOKEN, token.expose())]);
        let written = self.save(user, server, &record, Over::Anything).await?;
        assert!(matches!(written, Written::Done(_)));
        Ok(())
    }

    async fn delete(&self, user: &UserId, server: &ServerName) -> Result<bool, StoreError> {
        Ok(self.remove(user, server, Over::Anything).await? == Removed::Gone)
    }
}

/// What a lookup answered, so that it can be compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Found(String),
    Absent,
    Failed(StoreError),
}

/// Looks up `subject`'s token for `name`.
pub(crate) async fn look(store: &TokenStore, user: &UserId, name: &str) -> Seen {
    match store.lookup(user, &server(name)).await {
        Lookup::Found(record, _) => Seen::Found(record.fields[0].1.expose().to_owned()),
        Lookup::Absent => Seen::Absent,
        Lookup::Failed(error) => Seen::Failed(error),
    }
}

/// What a lookup of `token` should answer.
pub(crate) fn found(token: &str) -> Seen {
    Seen::Found(token.to_owned())
}
