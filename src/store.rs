//! Where users' tokens are kept: sealed records, found by a keyed hash of whose they are, never cached.
//!
//! A record is sealed to its issuer, subject, server, field and version, so one that was copied elsewhere does not
//! open there. A lookup has three answers and they never blur: what cannot be read is [`Lookup::Failed`], not absent.

mod backup;
mod cells;
mod embedded;
mod error;
mod listing;
mod marks;
mod messages;
mod notes;
mod rates;
mod record;
mod redis;
mod rotation;
mod session;
mod tokens;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{KeySource, SealingKey, ServerName, TokenStoreConfig, TokenStoreKind};
use crate::keyring::{KeyError, Keyring, RootKey};
use crate::metrics::{Counter, Gauge, Metrics};
use crate::user::UserId;

use self::redis::Redis;
use embedded::Embedded;
use notes::{Notes, Uses};
use rates::{Counted, Nodes, OwnCount};
use record::Names;
use session::Fields;

pub(crate) use self::redis::{CommandBatch, Message, RECONNECT, RedisClient};
pub use backup::{BackupError, Restored};
pub use cells::{Cell, Held, LEASE, Lease, LeaseOf};
pub use error::{Notice, SetupError, StoreError, Unusable};
pub use listing::{About, Entry, Granted, ListPlace, Listing, Overview};
pub use marks::Quota;
pub use messages::StoredMessage;
pub use rates::{CallKey, PRESENT, RateLimit, Rates, TooSoon};
pub use record::{
    ClientAuth, ClientKind, ClientOf, Grant, GrantState, Record, RecordKind, Revision, SavedBy, SignInReason,
};
pub use rotation::{KeyStatus, KeysStatus, LeftAlone, Retired, Rotated};
pub use session::{
    Listener, MAX_ENDED, MAX_SESSION, MAX_SESSIONS, MAX_SUBSCRIPTIONS, MAX_URI, SessionKey, SessionState,
    SessionStatus, SessionUpdate,
};
pub use tokens::{Lookup, Over, Removed, Stored, Written};

/// The store of users' tokens. Every call asks the backend: nothing is remembered in between.
#[derive(Debug)]
pub struct TokenStore {
    keyring: Arc<Keyring>,
    clock: Clock,
    backend: Backend,
    /// 1 while it refuses writes.
    refuses_writes: Gauge,
    /// Answers that no key of the ring opened.
    unopened: Counter,
    /// What this node has noted.
    uses: Uses,
    /// The calls that this node counts.
    own_count: OwnCount,
    /// The nodes that share the store.
    nodes: Nodes,
}

/// What holds the records. It sees names and sealed bytes only.
#[derive(Debug)]
enum Backend {
    Redis(Box<Redis>),
    Embedded(Embedded),
}

/// What was seen of a store that a bridge could use.
#[derive(Debug)]
pub struct Look {
    /// Whether there is anything yet; an embedded store is made when it is first needed.
    pub is_made: bool,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// What a backend found where a record should be.
struct Found {
    /// The sealed record, if there is one.
    record: Option<Vec<u8>>,
    /// A proof of every key that ever wrote here, by key id.
    proofs: Proofs,
    /// What is kept of the session, if one was asked for and has not been ended.
    session: Option<Fields>,
    /// Whether the call may be made that it is for.
    counted: Counted,
}

/// Sealed proofs by key id.
type Proofs = Vec<(String, Vec<u8>)>;

/// What a backend writes at once.
struct Write {
    /// Whose it is, sealed.
    owner: Vec<u8>,
    /// The sealed record.
    record: Vec<u8>,
    /// What is noted of it from now on.
    notes: Notes,
    /// The keys that sealed all this, and whatever else was sealed by who wrote it.
    proofs: Proofs,
    /// The sealed record over which it is written, if any, and over nothing else.
    there: Option<Vec<u8>>,
}

/// One user's records as a backend holds them.
struct Row {
    /// The keyed hash of whose they are.
    name: String,
    /// Whose they are, sealed.
    owner: Option<Vec<u8>>,
    /// Sealed records by server.
    records: Vec<(String, Vec<u8>)>,
}

impl Keyring {
    /// The ring of the configured keys, read from their files or texts: the first seals, all open.
    ///
    /// # Errors
    /// Names the first key that is missing, open to others, malformed, weak or a duplicate; never shows key material.
    pub fn load(keys: &[SealingKey]) -> Result<Self, KeyError> {
        let read = |key: &SealingKey| {
            let root = match &key.source {
                KeySource::File(path) => RootKey::from_file(path),
                KeySource::Value(text) => RootKey::from_text(text.expose()),
            };
            let root = root.map_err(|problem| KeyError::Key { id: key.id.clone(), problem })?;
            Ok((key.id.clone(), root))
        };
        Self::new(keys.iter().map(read).collect::<Result<_, _>>()?)
    }
}

impl TokenStore {
    /// Opens the configured store within a Tokio runtime. Redis is connected to when it is first asked, so a bridge
    /// starts while it is down; the embedded store is opened and checked here and now, which blocks.
    ///
    /// # Errors
    /// The URL is unusable; or the directory or database is open to others, corrupt or of a newer version.
    pub fn open(kind: &TokenStoreKind, keyring: Arc<Keyring>, clock: Clock) -> Result<Self, SetupError> {
        let backend = match kind {
            TokenStoreKind::Redis { url, prefix, timeout } => {
                Backend::Redis(Box::new(Redis::open(url, prefix, *timeout)?))
            }
            TokenStoreKind::Embedded { path, timeout } => Backend::Embedded(Embedded::open(path, *timeout)?),
        };
        Ok(Self::of(backend, keyring, clock))
    }

    /// [`TokenStore::open`] with the key ring of the same configuration.
    ///
    /// # Errors
    /// As [`Keyring::load`] and [`TokenStore::open`].
    pub fn from_config(config: &TokenStoreConfig) -> Result<Self, SetupError> {
        Self::open(&config.kind, Arc::new(Keyring::load(&config.keys)?), Clock::System)
    }

    /// Whether a bridge could use the configured store now, and what its operator should know. Nothing is made or changed,
    /// and after `patience` a store counts as one that does not answer.
    ///
    /// # Errors
    /// As [`Keyring::load`], [`TokenStore::open`] and [`TokenStore::check`].
    pub async fn look(config: &TokenStoreConfig, patience: Duration) -> Result<Look, Unusable> {
        let keyring = Keyring::load(&config.keys).map_err(SetupError::from)?;
        if let TokenStoreKind::Embedded { path, timeout } = &config.kind {
            let proofs = Embedded::look(path, *timeout)?;
            record::verify(&keyring, proofs.as_deref().unwrap_or_default())?;
            return Ok(Look { is_made: proofs.is_some(), notices: Vec::new() });
        }
        let store = Self::open(&config.kind, Arc::new(keyring), Clock::System)?;
        let ask = async {
            store.check().await?;
            store.check_policy().await
        };
        let notices = tokio::time::timeout(patience, ask).await.unwrap_or(Err(StoreError::Timeout))?;
        Ok(Look { is_made: true, notices })
    }

    /// A store that lasts as long as the process and holds no more than 64 MiB: for sessions, where nothing has to be
    /// kept for longer.
    ///
    /// # Errors
    /// The system gives no thread or no memory.
    pub fn in_memory(keyring: Arc<Keyring>, clock: Clock) -> Result<Self, SetupError> {
        let backend = Backend::Embedded(Embedded::in_memory()?);
        Ok(Self::of(backend, keyring, clock))
    }

    fn of(backend: Backend, keyring: Arc<Keyring>, clock: Clock) -> Self {
        let (refuses_writes, unopened, uses, own_count, nodes) = Default::default();
        Self { keyring, clock, backend, refuses_writes, unopened, uses, own_count, nodes }
    }

    /// The same store, which shows in `metrics` what an operator should watch of it.
    #[must_use]
    pub fn counted(mut self, metrics: &Metrics) -> Self {
        self.refuses_writes = metrics.store_refuses_writes.clone();
        self.unopened = metrics.store_unopened.clone();
        if let Backend::Redis(redis) = &mut self.backend {
            redis.count_desyncs(metrics.store_desyncs.clone());
        }
        self
    }

    /// The keys that seal what is stored.
    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Whether the store answers now, was written with keys that are in the ring and may be trusted with tokens: for
    /// the start and for readiness.
    ///
    /// # Errors
    /// It does not, it was not, or it is none to trust with tokens.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.verify().await?;
        match &self.backend {
            Backend::Redis(redis) => redis.check_server_state().await,
            Backend::Embedded(_) => Ok(()),
        }
    }

    /// Whether the store takes writes now: writes something that says nothing.
    ///
    /// # Errors
    /// It does not, or could not be asked.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        let written = match &self.backend {
            Backend::Redis(redis) => redis.try_write().await,
            Backend::Embedded(embedded) => embedded.try_write().await,
        };
        let refused = matches!(written, Err(StoreError::Refused(_) | StoreError::Database(_)));
        self.refuses_writes.set(i64::from(refused));
        written
    }

    /// What an operator should hear when the bridge starts: that the store forgets when it restarts, or could not be
    /// asked about it. A store that is down is no error here.
    ///
    /// # Errors
    /// [`StoreError::is_misfit`]: it answers, and is none to trust with tokens.
    pub async fn check_policy(&self) -> Result<Vec<Notice>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.check_policy().await,
            Backend::Embedded(_) => Ok(Vec::new()),
        }
    }

    /// How often a reply did not belong to its command, so that the connection was dropped.
    #[must_use]
    pub fn desyncs(&self) -> u64 {
        match &self.backend {
            Backend::Redis(redis) => redis.desyncs(),
            Backend::Embedded(_) => 0,
        }
    }

    /// Brings everything into the one file that an operator may copy, as far as nobody else is at it; before the process
    /// ends.
    pub async fn close(&self) {
        if let Backend::Embedded(embedded) = &self.backend
            && let Err(error) = embedded.checkpoint().await
        {
            tracing::warn!(%error, "the write-ahead log of the token database could not be checkpointed");
        }
    }

    /// Whether the ring holds every key that wrote here.
    async fn verify(&self) -> Result<(), StoreError> {
        self.may_have(&self.keyring).await
    }

    /// Whether this ring, in place of the one that it has, holds every key that wrote here.
    ///
    /// # Errors
    /// It does not ([`StoreError::Sealed`]), or the store failed.
    pub async fn may_have(&self, keyring: &Keyring) -> Result<(), StoreError> {
        self.proofs(|proofs| record::verify(keyring, &proofs)).await
    }

    /// What `read` makes of the proofs of the keys that wrote here.
    async fn proofs<T>(&self, read: impl FnOnce(Proofs) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.proofs(read).await,
            Backend::Embedded(embedded) => embedded.proofs(read).await,
        }
    }

    /// Writes a record; whether what was there is what it is to be written over.
    async fn put(&self, names: &Names, server: &ServerName, write: Write) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.put(names, server, &write).await,
            Backend::Embedded(embedded) => embedded.put(names.clone(), server, write).await,
        }
    }

    fn names(&self, user: &UserId) -> Names {
        Names::of_user(&self.keyring, user)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({} records)", self.records.len())
    }
}
