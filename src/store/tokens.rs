//! A user's record for a server: looked up for a request, read, saved and removed.
//!
//! Whoever changes a record says over what. Nothing is written over a record that does not open: it may be whole, and
//! the key or the version of tollbridge that reads it elsewhere.

use std::collections::BTreeMap;

use super::notes::Noted;
use super::rates::{CallKey, Counted, Rates, TooSoon};
use super::record::{self, Names, Record, Revision};
use super::session::SessionStatus;
use super::{Backend, Found, StoreError, TokenStore, Write};
use crate::config::ServerName;
use crate::secret::Secret;
use crate::user::UserId;

/// How often a record is written over whatever is there. After as many others were faster, somebody else's is kept.
const ATTEMPTS: usize = 16;

/// What the store knows of one user's record for one server.
#[derive(Debug)]
pub enum Lookup {
    /// The record, and a number that tells it from what was there before and will be.
    Found(Record, u64),
    /// The store answered: there is none.
    Absent,
    /// Nobody knows: the store could not be asked, or what it holds cannot be read.
    Failed(StoreError),
}

/// A record as it was read.
#[derive(Debug)]
pub struct Stored {
    /// What it holds. How it was saved is not said here where only a note says it; [`TokenStore::overview`] reads that.
    pub record: Record,
    /// Tells it from what will be there later.
    pub revision: Revision,
    /// The id of the key that sealed it.
    pub key_id: Box<str>,
}

/// Over what a record is written or removed.
#[derive(Debug, Clone, Copy)]
pub enum Over<'a> {
    /// Whatever is there.
    Anything,
    /// Nothing: there must be no record.
    Nothing,
    /// The record of this revision.
    This(&'a Revision),
}

/// What became of a record that was to be saved.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is saved, durably.
    Done(Revision),
    /// Something else is there than it was to be saved over: somebody was faster.
    Changed,
}

/// What became of a record that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// There was one.
    Gone,
    /// There was none.
    Absent,
    /// Something else is there than was to be removed: somebody was faster.
    Changed,
}

impl Lookup {
    fn of(found: Option<(Record, u64)>) -> Self {
        found.map_or(Self::Absent, |(record, mark)| Self::Found(record, mark))
    }
}

impl Over<'_> {
    fn holds(self, there: Option<&[u8]>) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => there.is_none(),
            Self::This(revision) => there.is_some_and(|sealed| Revision::of(sealed) == *revision),
        }
    }
}

impl TokenStore {
    /// The record of `user` for `server`, within the time that a question may take.
    pub async fn lookup(&self, user: &UserId, server: &ServerName) -> Lookup {
        let found = self.found(&self.names(user), server, |found| self.open_record((user, server), &found)).await;
        match found {
            Ok(found) => Lookup::of(found),
            Err(error) => Lookup::Failed(error),
        }
    }

    /// [`TokenStore::lookup`] for a call and [`TokenStore::status_for_call`] in one command, which counts the call too.
    ///
    /// # Errors
    /// It may not be made yet.
    pub async fn lookup_for_call(
        &self,
        call: &CallKey<'_>,
    ) -> Result<(Lookup, Result<Option<SessionStatus>, StoreError>), TooSoon> {
        self.count_on_this_node(call)?;
        let (names, session) = (self.names(call.user), call.session.map(|key| self.session_names(key)));
        let read = |mut found: Found| {
            if let Counted::TooSoon(too_soon) = found.counted {
                return Ok(Err(too_soon));
            }
            let record = self.open_record((call.user, call.server), &found)?;
            Ok(Ok((record, self.read_status(call, found.session.take())?, found.counted)))
        };
        let found = match &self.backend {
            Backend::Redis(redis) => redis.fetch(&names, (call.server, &call.rates), session.as_ref(), read).await,
            Backend::Embedded(embedded) => embedded.fetch(&names, call.server, session.as_ref(), read).await,
        };
        match found.inspect_err(|error| self.count_unopened(error)) {
            Ok(Ok((record, status, counted))) => {
                if counted == Counted::Not {
                    self.count_share(call)?;
                }
                Ok((Lookup::of(record), Ok(status)))
            }
            Ok(Err(too_soon)) => Err(too_soon),
            Err(error) if call.session.is_none() => Ok((Lookup::Failed(error), Ok(Some(SessionStatus::default())))),
            Err(error) => Ok((Lookup::Failed(error.clone()), Err(error))),
        }
    }

    /// The record that was found, and a number that tells it from others; nothing if there is none.
    fn open_record(
        &self,
        (user, server): (&UserId, &ServerName),
        found: &Found,
    ) -> Result<Option<(Record, u64)>, StoreError> {
        let Some(sealed) = &found.record else {
            // Without the key that wrote it, a record is not found either: that is not the same as none.
            return record::verify(&self.keyring, &found.proofs).map(|()| None);
        };
        Ok(Some((record::open(&self.keyring, user, server, sealed)?, record::mark(sealed))))
    }

    /// The record of `user` for `server` with what a change needs to know of it; nothing if there is none.
    ///
    /// # Errors
    /// The store failed, or what it holds cannot be read: nobody knows.
    pub async fn read(&self, user: &UserId, server: &ServerName) -> Result<Option<Stored>, StoreError> {
        let read = |found: Found| {
            let Some(sealed) = found.record else {
                return record::verify(&self.keyring, &found.proofs).map(|()| None);
            };
            let record = record::open(&self.keyring, user, server, &sealed)?;
            let key_id = record::key_id(&sealed).ok_or(StoreError::Shape)?.into();
            Ok(Some(Stored { record, revision: Revision::of(&sealed), key_id }))
        };
        self.found(&self.names(user), server, read).await
    }

    /// Saves `record` as the one of `user` for `server`, durably, if what is there is what it may be saved `over`.
    ///
    /// # Errors
    /// The store failed, was written with a key that is not in the ring, or holds a record that cannot be read, which
    /// must be removed first.
    pub async fn save(
        &self,
        user: &UserId,
        server: &ServerName,
        record: &Record,
        over: Over<'_>,
    ) -> Result<Written, StoreError> {
        let keyring = self.keyring.snapshot();
        let names = Names::of_user(&keyring, user);
        for _ in 0..ATTEMPTS {
            let there = self.replaceable(&names, user, server).await?;
            if !over.holds(there.as_deref()) {
                break;
            }
            let sealed = record::seal(&keyring, user, server, record);
            let revision = Revision::of(&sealed);
            let noted = Noted::beside(record, self.notes(&names, server).await?.last_used);
            let write = Write {
                owner: record::seal_owner(&keyring, user, names.active()),
                record: sealed,
                notes: noted.seal(&keyring, names.active(), server),
                proofs: vec![record::prove(&keyring)],
                there,
            };
            if self.put(&names, server, write).await? {
                return Ok(Written::Done(revision));
            }
            if !matches!(over, Over::Anything) {
                break;
            }
        }
        Ok(Written::Changed)
    }

    /// Removes the record of `user` for `server` with what is noted of it. Over anything, it need not be readable.
    ///
    /// # Errors
    /// The store failed; or there is none to be seen, but the store was written with a key that is not in the ring.
    pub async fn remove(&self, user: &UserId, server: &ServerName, over: Over<'_>) -> Result<Removed, StoreError> {
        let names = self.names(user);
        let there = match over {
            Over::Anything => None,
            Over::Nothing | Over::This(_) => match self.found(&names, server, |found| Ok(found.record)).await? {
                Some(there) if over.holds(Some(&there)) => Some(there),
                Some(_) => return Ok(Removed::Changed),
                None => {
                    self.verify().await?;
                    return Ok(Removed::Absent);
                }
            },
        };
        let removed = match &self.backend {
            Backend::Redis(redis) => redis.remove(&names, server, there.as_deref()).await?,
            Backend::Embedded(embedded) => embedded.remove(names, server, there).await?,
        };
        if removed == Removed::Absent {
            self.verify().await?;
        }
        Ok(removed)
    }

    /// Six characters by which the values of two records of `user` for `server` are told apart where neither may be seen; the
    /// order of their fields makes no difference.
    #[must_use]
    pub fn fingerprint(&self, user: &UserId, server: &ServerName, fields: &[(Box<str>, Secret)]) -> String {
        let by_name: BTreeMap<&str, &str> = fields.iter().map(|(name, value)| (&**name, value.expose())).collect();
        let mut parts = vec![user.issuer(), user.subject(), server.as_str()];
        parts.extend(by_name.into_iter().flat_map(|(name, value)| [name, value]));
        self.keyring.fingerprint(&parts)
    }

    /// The sealed record that may be written over, if there is one.
    async fn replaceable(
        &self,
        names: &Names,
        user: &UserId,
        server: &ServerName,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |found: Found| {
            // What other keys wrote would neither be seen nor cleared, and their proof would be lost.
            record::verify(&self.keyring, &found.proofs)?;
            if let Some(sealed) = &found.record {
                record::open(&self.keyring, user, server, sealed).map_err(record::kept_because)?;
            }
            Ok(found.record)
        };
        self.found(names, server, read).await
    }

    /// What `read` makes of what is where the record for `server` should be.
    pub(super) async fn found<T>(
        &self,
        names: &Names,
        server: &ServerName,
        read: impl FnOnce(Found) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = match &self.backend {
            Backend::Redis(redis) => redis.fetch(names, (server, &Rates::default()), None, read).await,
            Backend::Embedded(embedded) => embedded.fetch(names, server, None, read).await,
        };
        found.inspect_err(|error| self.count_unopened(error))
    }

    /// Keys that are missing or wrong are for an operator to mend, and soon.
    pub(super) fn count_unopened(&self, error: &StoreError) {
        if matches!(error, StoreError::Sealed(_)) {
            self.unopened.inc();
        }
    }
}
