//! Whose tokens there are, for which servers since when: never the tokens.

use super::{Backend, Row, StoreError, TokenStore, record};
use crate::clock::UnixTime;
use crate::config::ServerName;
use crate::keyring::OpenError;
use crate::user::UserId;

/// A stored token, without the token.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub user: UserId,
    /// For which server.
    pub server: ServerName,
    /// When it was saved, or why it cannot be read.
    pub saved_at: Result<UnixTime, StoreError>,
}

/// What a store holds, without the tokens.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The tokens whose owner and server are known, by user and server.
    pub entries: Vec<Entry>,
    /// Records whose owner or server cannot be told: sealed by a key that is not in the ring, or not ours.
    pub unreadable: usize,
}

impl TokenStore {
    /// What is stored of `user`, or of everybody: names and dates, never tokens.
    ///
    /// # Errors
    /// The store failed. Records that cannot be read are listed or counted as such.
    pub async fn list(&self, user: Option<&UserId>) -> Result<Listing, StoreError> {
        let names = user.map(|user| self.names(user));
        let rows = match &self.backend {
            Backend::Redis(redis) => redis.rows(names.as_ref()).await?,
            Backend::Embedded(embedded) => embedded.rows(names).await?,
        };
        let mut listing = Listing::default();
        for row in rows {
            match user.cloned().map_or_else(|| self.owner(&row), Ok) {
                Ok(owner) => self.enlist(&owner, row, &mut listing),
                Err(_) => listing.unreadable += row.records.len(),
            }
        }
        listing.entries.sort_by(|a, b| (&a.user, &a.server).cmp(&(&b.user, &b.server)));
        listing.entries.dedup_by(|a, b| (&a.user, &a.server) == (&b.user, &b.server));
        Ok(listing)
    }

    /// Whose records `row` holds: says so itself, and lies at the name that only its owner has.
    fn owner(&self, row: &Row) -> Result<UserId, StoreError> {
        let sealed = row.owner.as_deref().ok_or(StoreError::Shape)?;
        let owner = record::open_owner(&self.keyring, &row.name, sealed)?;
        let names = self.names(&owner);
        if names.iter().any(|name| *name == row.name) {
            Ok(owner)
        } else {
            Err(StoreError::Sealed(OpenError::Tampered))
        }
    }

    fn enlist(&self, user: &UserId, row: Row, listing: &mut Listing) {
        for (server, sealed) in row.records {
            let Some(server) = ServerName::parse(&server) else {
                listing.unreadable += 1;
                continue;
            };
            let saved_at = record::open(&self.keyring, user, &server, &sealed).map(|record| record.saved_at);
            listing.entries.push(Entry { user: user.clone(), server, saved_at });
        }
    }
}
