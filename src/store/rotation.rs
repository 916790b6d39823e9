//! The sealing keys of a store: which records each of them seals, all records sealed anew with the first one, and a key
//! that seals nothing any more let go.
//!
//! Nothing is remembered between records, so a run that was ended anywhere is begun again, and several at once do each
//! other no harm. Each record is written over the bytes that were read and nothing else. Readers look under the names of
//! all keys in one command, so no request misses a record that is moved meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::record;
use super::session::CLOCK_ERROR;
use super::{Backend, Proofs, Row, StoreError, TokenStore, Write};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::user::UserId;

/// What became of the records of a store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// They are sealed with the first key now, and were not before.
    pub resealed: usize,
    /// They do not open and are left as they are.
    pub left_alone: usize,
}

/// A record that does not open and was left as it is.
#[derive(Debug)]
pub struct LeftAlone {
    /// The keyed hash under which it lies.
    pub name: String,
    /// Whose it should be, if that can be told.
    pub user: Option<UserId>,
    /// For which server it should be, as it is stored.
    pub server: String,
    /// Why.
    pub why: StoreError,
}

/// One sealing key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyStatus {
    /// Records that it seals.
    pub records: usize,
    /// Owners of records that it seals: one for each user who has any.
    pub owners: usize,
    /// Those of the records that do not open.
    pub unreadable: usize,
    /// What there is to prove that the key of the ring is the one that wrote here; nothing if none of that id did.
    pub proof: Option<Result<(), StoreError>>,
    /// When records that it had sealed were last sealed anew, and all that could be were.
    pub rotated_at: Option<UnixTime>,
}

/// The sealing keys of a store by their ids: those of the ring, and those that sealed anything in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeysStatus {
    /// The keys.
    pub keys: BTreeMap<String, KeyStatus>,
    /// Records that do not say by which key they were sealed.
    pub unknown: usize,
}

/// What became of a key that was to be let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// The store needs it no more: it may leave the ring.
    Done,
    /// It is the first of the ring.
    IsFirst,
    /// The store knows none of that id.
    Unknown,
    /// It seals this many records and owners.
    Needed(usize),
    /// The records that it sealed have not been sealed anew with another one since.
    NotRotated,
    /// Sessions that it sealed may last until then.
    SessionsUntil(UnixTime),
    /// Something was sealed with it meanwhile.
    Used,
}

/// A run over all records.
struct Run {
    /// When the next record may be sealed anew, if that is bounded.
    pace: Option<Interval>,
    resealed: usize,
    /// The names and servers of those that do not open.
    left_alone: HashSet<(String, String)>,
    /// The ids of the keys whose records were sealed anew.
    replaced: BTreeSet<String>,
}

impl KeyStatus {
    /// When the last session has ended that this key may have sealed, where sessions last for `lifetime`.
    #[must_use]
    pub fn sessions_end(&self, lifetime: Duration) -> Option<UnixTime> {
        Some(UnixTime(self.rotated_at?.0.saturating_add((lifetime + CLOCK_ERROR).as_secs())))
    }
}

impl TokenStore {
    /// Seals every record with the first key of the ring that is not yet sealed with it, no more than `rate` of them a
    /// second, and tells `tell` of each that does not open.
    ///
    /// # Errors
    /// The store failed, or was written with a key that is not in the ring. What was done stays, so it can be done again.
    pub async fn rotate(
        &self,
        rate: Option<NonZeroU32>,
        mut tell: impl FnMut(LeftAlone),
    ) -> Result<Rotated, StoreError> {
        let before = self.proofs(Ok).await?;
        record::verify(&self.keyring, &before)?;
        let period = |rate: NonZeroU32| (Duration::from_secs(1) / rate.get()).max(Duration::from_nanos(1));
        let mut pace = rate.map(|rate| interval(period(rate)));
        if let Some(pace) = &mut pace {
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut run = Run { pace, resealed: 0, left_alone: HashSet::new(), replaced: BTreeSet::new() };
        let mut after = None;
        loop {
            let (rows, next) = self.page(after).await?;
            for row in &rows {
                self.rotate_row(row, &mut run, &mut tell).await?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        run.resealed += self.rotate_cells().await?;
        self.note_rotation(&before, &run.replaced).await?;
        Ok(Rotated { resealed: run.resealed, left_alone: run.left_alone.len() })
    }

    async fn rotate_row(&self, row: &Row, run: &mut Run, tell: &mut impl FnMut(LeftAlone)) -> Result<(), StoreError> {
        let owner = self.owner(row);
        for (server, sealed) in &row.records {
            match self.is_current(&owner, row, server, sealed) {
                Ok(true) => {}
                Ok(false) => {
                    if let Some(pace) = &mut run.pace {
                        pace.tick().await;
                    }
                    run.replaced.extend(record::key_id(sealed).map(str::to_owned));
                    // If it was not there any more, somebody else wrote what is there now.
                    run.resealed += usize::from(self.reseal(&owner, server, sealed).await?);
                }
                // A page may repeat a row of another.
                Err(why) => {
                    if run.left_alone.insert((row.name.clone(), server.clone())) {
                        let user = owner.as_ref().ok().cloned();
                        tell(LeftAlone { name: row.name.clone(), user, server: server.clone(), why });
                    }
                }
            }
        }
        Ok(())
    }

    /// The ids of the keys of the ring, that of the one that seals first.
    #[must_use]
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.keyring.ids()
    }

    /// How many records each key seals, and what else is known of it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn key_status(&self) -> Result<KeysStatus, StoreError> {
        let mut status = KeysStatus::default();
        for id in self.keyring.ids() {
            status.keys.insert(id.as_ref().to_owned(), KeyStatus::default());
        }
        let mut after = None;
        loop {
            let (rows, next) = self.page(after).await?;
            for row in &rows {
                self.take_stock(row, &mut status);
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for id in self.keys_of_cells().await? {
            status.keys.entry(id).or_default().records += 1;
        }
        for (id, proof) in self.proofs(Ok).await? {
            let verified = record::verify(&self.keyring, &[(id.clone(), proof)]);
            status.keys.entry(id).or_default().proof = Some(verified);
        }
        for (id, time) in self.rotations().await? {
            if let Some(key) = status.keys.get_mut(&id) {
                key.rotated_at = Some(UnixTime(time));
            }
        }
        Ok(status)
    }

    /// Lets the key `id` go if nothing needs it, where sessions last for `lifetime`: without its proof the store is
    /// taken for one that it never wrote to, so that it may leave the ring of every node.
    ///
    /// # Errors
    /// The store failed.
    pub async fn retire(&self, id: &str, lifetime: Duration) -> Result<Retired, StoreError> {
        if *self.keyring.active_id() == *id {
            return Ok(Retired::IsFirst);
        }
        // Whoever seals with the key writes its proof anew, and first.
        let proof = self.proofs(Ok).await?.into_iter().find(|(proven, _)| proven == id);
        let mut status = self.key_status().await?;
        let (Some((_, proof)), Some(key)) = (proof, status.keys.remove(id)) else {
            return Ok(Retired::Unknown);
        };
        if key.records + key.owners > 0 {
            return Ok(Retired::Needed(key.records.max(key.owners)));
        }
        let Some(until) = key.sessions_end(lifetime) else { return Ok(Retired::NotRotated) };
        if self.clock.now() < until {
            return Ok(Retired::SessionsUntil(until));
        }
        let forgotten = match &self.backend {
            Backend::Redis(redis) => redis.forget_key(id, &proof).await?,
            Backend::Embedded(embedded) => embedded.forget_key(id.to_owned(), proof).await?,
        };
        Ok(if forgotten { Retired::Done } else { Retired::Used })
    }

    /// Whether a record opens where it lies and is sealed with the first key, with all that belongs to it.
    fn is_current(
        &self,
        owner: &Result<UserId, StoreError>,
        row: &Row,
        server: &str,
        sealed: &[u8],
    ) -> Result<bool, StoreError> {
        let user = owner.as_ref().map_err(Clone::clone)?;
        let server = ServerName::parse(server).ok_or(StoreError::Shape)?;
        record::open(&self.keyring, user, &server, sealed)?;
        let first = self.keyring.active_id();
        let first = Some(&*first);
        let of_owner = row.owner.as_deref().and_then(record::key_id);
        Ok(record::key_id(sealed) == first && of_owner == first && self.names(user).active() == row.name)
    }

    /// Seals a record that was read, and opens, with the first key and writes it under that key's name; whether it was
    /// still there.
    async fn reseal(
        &self,
        owner: &Result<UserId, StoreError>,
        server: &str,
        sealed: &[u8],
    ) -> Result<bool, StoreError> {
        let user = owner.as_ref().map_err(Clone::clone)?;
        let server = ServerName::parse(server).ok_or(StoreError::Shape)?;
        let names = self.names(user);
        let record = record::open(&self.keyring, user, &server, sealed)?;
        let noted = self.notes(&names, &server).await?;
        let write = Write {
            owner: record::seal_owner(&self.keyring, user, names.active()),
            record: record::seal(&self.keyring, user, &server, &record),
            notes: noted.seal(&self.keyring, names.active(), &server),
            proofs: vec![record::prove(&self.keyring)],
            there: Some(sealed.to_vec()),
        };
        self.put(&names, &server, write).await
    }

    /// Counts the records of `row` for the keys that seal them.
    fn take_stock(&self, row: &Row, status: &mut KeysStatus) {
        let owner = self.owner(row);
        if let Some(id) = row.owner.as_deref().and_then(record::key_id) {
            status.keys.entry(id.to_owned()).or_default().owners += 1;
        }
        for (server, sealed) in &row.records {
            let Some(id) = record::key_id(sealed) else {
                status.unknown += 1;
                continue;
            };
            let key = status.keys.entry(id.to_owned()).or_default();
            key.records += 1;
            if self.is_current(&owner, row, server, sealed).is_err() {
                key.unreadable += 1;
            }
        }
    }

    /// Remembers when the records of the keys `replaced`, and of those that were never replaced before, had been sealed
    /// anew.
    async fn note_rotation(&self, proofs: &Proofs, replaced: &BTreeSet<String>) -> Result<(), StoreError> {
        let noted = self.rotations().await?;
        let is_due = |id: &String| replaced.contains(id) || noted.iter().all(|(before, _)| before != id);
        let older = proofs.iter().map(|(id, _)| id).filter(|id| **id != *self.keyring.active_id());
        let ids: Vec<String> = older.filter(|id| is_due(id)).cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        match &self.backend {
            Backend::Redis(redis) => redis.note_rotation(&ids, now).await,
            Backend::Embedded(embedded) => embedded.note_rotation(ids, now).await,
        }
    }

    async fn rotations(&self) -> Result<Vec<(String, u64)>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.rotations().await,
            Backend::Embedded(embedded) => embedded.rotations().await,
        }
    }

    /// Some of all rows, and after which the next come, if there are more. What is stored all the while is seen.
    pub(super) async fn page(&self, after: Option<String>) -> Result<(Vec<Row>, Option<String>), StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.page(after).await,
            Backend::Embedded(embedded) => embedded.page(after).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::keyring::Keyring;
    use crate::secret::Secret;
    use crate::store::{Over, Record, SavedBy};

    #[tokio::test]
    async fn a_key_that_sealed_something_since_its_proof_was_read_is_not_forgotten() {
        let store = TokenStore::in_memory(Arc::new(Keyring::ephemeral()), Clock::System).unwrap();
        let Backend::Embedded(backend) = &store.backend else { unreachable!("it is in memory") };
        let (alice, notion) = (UserId::local("alice").unwrap(), ServerName::parse("notion").unwrap());
        let save = async || {
            let record = Record::token(UnixTime(0), SavedBy::Cli, Secret::new("ntn_1".to_owned()));
            store.save(&alice, &notion, &record, Over::Anything).await.unwrap();
            store.proofs(Ok).await.unwrap().remove(0)
        };
        let ((id, before), (_, now)) = (save().await, save().await);
        assert_eq!(backend.forget_key(id.clone(), before).await, Ok(false));
        assert_eq!(store.proofs(Ok).await.unwrap().len(), 1);
        assert_eq!(backend.forget_key(id, now).await, Ok(true));
        assert_eq!(store.proofs(Ok).await.unwrap().len(), 0);
    }
}
