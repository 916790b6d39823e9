//! What is noted beside a record: how it was saved, where its format cannot say that, and the hour of its last use.
//!
//! Notes lie apart from records, because earlier versions take whatever lies beside a record for another one. They are
//! worth less than records: one that does not open counts as none, and nobody waits for one to be written.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{self, Names, Record, SavedBy};
use super::{Backend, StoreError, TokenStore};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::{Keyring, Place, Purpose};
use crate::user::UserId;

/// How precisely the time of a use is kept, seconds.
const HOUR: u64 = 3600;
/// Uses that a node remembers to have noted in this hour; with one more it notes none until the next.
const MAX_USES: usize = 1 << 16;

/// Sealed notes of one record by their fields; none where there is nothing to note.
pub(super) type Notes = [(String, Option<Vec<u8>>); 2];

/// Sealed notes of one user as a backend holds them: the name under which they lie, and values by field.
pub(super) type Held = Vec<(String, Vec<(String, Vec<u8>)>)>;

/// What is noted of one record.
#[derive(Default)]
pub(super) struct Noted {
    /// How the record was saved that was saved at this time.
    saved: Option<(u64, SavedBy)>,
    /// The hour of the last use.
    pub(super) last_used: Option<UnixTime>,
}

/// Which uses this node has noted in the current hour.
#[derive(Debug, Default)]
pub(super) struct Uses {
    hasher: RandomState,
    /// The hour, and hashes of whose use and of which record.
    noted: Mutex<(u64, HashSet<u64>)>,
}

impl Noted {
    /// What is to be noted beside `record`, which was last used then.
    pub(super) fn beside(record: &Record, last_used: Option<UnixTime>) -> Self {
        Self { saved: record::unsaid(record).map(|how| (record.saved_at.0, how)), last_used }
    }

    /// What `held` says of the record for `server`.
    pub(super) fn open(keyring: &Keyring, held: &Held, server: &ServerName) -> Self {
        let mut noted = Self::default();
        for (name, values) in held {
            for (field, sealed) in values {
                if *field == saved(server) {
                    noted.saved = noted.saved.or(open(keyring, name, field, sealed));
                } else if *field == used(server) {
                    noted.last_used = noted.last_used.max(open(keyring, name, field, sealed).map(UnixTime));
                }
            }
        }
        noted
    }

    /// The same, sealed to lie at `name`.
    pub(super) fn seal(&self, keyring: &Keyring, name: &str, server: &ServerName) -> Notes {
        let [saved, used] = fields(server);
        let how = self.saved.map(|how| seal(keyring, name, &saved, &how));
        let hour = self.last_used.map(|hour| seal(keyring, name, &used, &hour.0));
        [(saved, how), (used, hour)]
    }

    /// How the record was saved that was saved at this time, if that is noted.
    pub(super) fn saved_by(&self, saved_at: UnixTime) -> Option<SavedBy> {
        self.saved.filter(|(time, _)| *time == saved_at.0).map(|(_, how)| how)
    }
}

impl Uses {
    /// Whether this is the first use of a record in the hour that this node sees.
    fn is_first(&self, (user, server, mark): (&UserId, &ServerName, u64), hour: UnixTime) -> bool {
        let hash = self.hasher.hash_one((user, server.as_str(), mark));
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.0 != hour.0 {
            *noted = (hour.0, HashSet::new());
        }
        noted.1.len() < MAX_USES && noted.1.insert(hash)
    }
}

impl TokenStore {
    /// Notes that the record of `user` for `server` that `mark` tells from others was used now: the hour, once. Not noting
    /// it is no failure, so nobody hears of one.
    pub async fn used(&self, user: &UserId, server: &ServerName, mark: u64) {
        let now = self.clock.now().0;
        let hour = UnixTime(now - now % HOUR);
        if !self.uses.is_first((user, server, mark), hour) {
            return;
        }
        if let Err(error) = self.note_use(user, server, hour).await {
            tracing::debug!(%error, "the last use of a token was not noted");
        }
    }

    async fn note_use(&self, user: &UserId, server: &ServerName, hour: UnixTime) -> Result<(), StoreError> {
        let names = self.names(user);
        // Another node may have noted it.
        if self.notes(&names, server).await?.last_used >= Some(hour) {
            return Ok(());
        }
        let field = used(server);
        let sealed = seal(&self.keyring, names.active(), &field, &hour.0);
        match &self.backend {
            Backend::Redis(redis) => redis.note_use(&names, server, &field, &sealed).await,
            Backend::Embedded(embedded) => embedded.note_use(names, server, field, sealed).await,
        }
    }

    /// What is noted of the record for `server`.
    pub(super) async fn notes(&self, names: &Names, server: &ServerName) -> Result<Noted, StoreError> {
        Ok(Noted::open(&self.keyring, &self.held_notes(names).await?, server))
    }

    /// What is noted of all records under `names`.
    pub(super) async fn held_notes(&self, names: &Names) -> Result<Held, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.notes(names).await,
            Backend::Embedded(embedded) => embedded.notes(names.clone()).await,
        }
    }
}

/// The fields of the notes of a record, in the order of [`Notes`].
pub(super) fn fields(server: &ServerName) -> [String; 2] {
    [saved(server), used(server)]
}

fn saved(server: &ServerName) -> String {
    format!("@saved/{server}")
}

fn used(server: &ServerName) -> String {
    format!("@used/{server}")
}

fn seal(keyring: &Keyring, name: &str, field: &str, value: &impl Serialize) -> Vec<u8> {
    let plain = serde_json::to_vec(value).expect("numbers and words are JSON");
    keyring.seal(Place { purpose: Purpose::Token, parts: &["note/1", name, field] }, &plain)
}

fn open<T: DeserializeOwned>(keyring: &Keyring, name: &str, field: &str, sealed: &[u8]) -> Option<T> {
    let plain = keyring.open(Place { purpose: Purpose::Token, parts: &["note/1", name, field] }, sealed).ok()?;
    serde_json::from_slice(&plain).ok()
}
