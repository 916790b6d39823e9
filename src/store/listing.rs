//! Whose tokens there are, for which servers since when: never the tokens.

use std::fmt;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::notes::Noted;
use super::record::Names;
use super::{Backend, ClientKind, Grant, GrantState, Revision, Row, SavedBy, StoreError, TokenStore, record};
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

/// Where a page of what a store holds ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlace(String);

/// As one word of letters, digits, `-` and `_`.
impl fmt::Display for ListPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What may be shown of a user's record for a server to its user.
#[derive(Debug, PartialEq, Eq)]
pub struct Overview {
    /// For which server.
    pub server: ServerName,
    /// Tells the record from what will be there later.
    pub revision: Revision,
    /// The hour in which the record was last used, if it was and that was noted.
    pub last_used: Option<UnixTime>,
    /// What the record says, or why it cannot be read.
    pub about: Result<About, StoreError>,
}

/// What a record says, without its values.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// When it was saved.
    pub saved_at: UnixTime,
    /// How it was saved, if that is known.
    pub saved_by: Option<SavedBy>,
    /// When the service stops taking its values, if that is known.
    pub expires_at: Option<UnixTime>,
    /// What is known of it where a service gave it to its user.
    pub grant: Option<Granted>,
    /// The names of its fields.
    pub fields: Vec<Box<str>>,
    /// As [`TokenStore::fingerprint`].
    pub fingerprint: String,
}

/// What may be shown of what a service gave to its user.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    /// How it stands.
    pub state: GrantState,
    /// Which account it is, as the service names it to people.
    pub account: Option<String>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// Whether the service gave what renews it.
    pub is_renewed: bool,
    /// Who issued it, where that is known.
    pub issuer: Option<String>,
    /// The resource that it was asked for.
    pub resource: Option<String>,
    /// The origin of the server that it may be sent to, where it is elsewhere.
    pub origin: Option<String>,
    /// How the client came to be known to which it was granted.
    pub client: ClientKind,
}

impl Granted {
    fn of(grant: &Grant) -> Self {
        Self {
            state: grant.state.clone(),
            account: grant.account.clone(),
            scopes: grant.scopes.clone(),
            is_renewed: grant.refresh_token.is_some(),
            issuer: grant.issuer.clone(),
            resource: grant.resource.clone(),
            origin: grant.origin.clone(),
            client: grant.client.kind.clone(),
        }
    }
}

impl TokenStore {
    /// What may be shown of all records of `user`, by server.
    ///
    /// # Errors
    /// The store failed, or was written with a key that is not in the ring: there may be more than could be seen.
    pub async fn overview(&self, user: &UserId) -> Result<Vec<Overview>, StoreError> {
        let names = self.names(user);
        let rows = self.rows(Some(&names)).await?;
        let held = self.held_notes(&names).await?;
        self.verify().await?;
        let mut all: Vec<Overview> = Vec::new();
        // Where two names have a record for the same server, the first counts, as in a lookup.
        for name in names.iter() {
            let records = rows.iter().filter(|row| row.name == *name).flat_map(|row| &row.records);
            for (server, sealed) in records {
                let Some(server) = ServerName::parse(server) else { continue };
                if all.iter().any(|seen| seen.server == server) {
                    continue;
                }
                let noted = Noted::open(&self.keyring, &held, &server);
                let opened = record::open(&self.keyring, user, &server, sealed);
                let about = opened.inspect_err(|error| self.count_unopened(error)).map(|record| About {
                    saved_at: record.saved_at,
                    saved_by: record.saved_by.or(noted.saved_by(record.saved_at)),
                    expires_at: record.expires_at,
                    grant: record.grant.as_deref().map(Granted::of),
                    fields: record.fields.iter().map(|(name, _)| name.clone()).collect(),
                    fingerprint: self.fingerprint(user, &server, &record.fields),
                });
                let (revision, last_used) = (Revision::of(sealed), noted.last_used);
                all.push(Overview { server, revision, last_used, about });
            }
        }
        all.sort_by(|one, other| one.server.cmp(&other.server));
        Ok(all)
    }

    /// What is stored of `user`, or of everybody: names and dates, never tokens.
    ///
    /// # Errors
    /// The store failed. Records that cannot be read are listed or counted as such.
    pub async fn list(&self, user: Option<&UserId>) -> Result<Listing, StoreError> {
        let names = user.map(|user| self.names(user));
        let rows = self.rows(names.as_ref()).await?;
        let mut listing = Listing::default();
        for row in rows {
            let owner = user.cloned().or_else(|| self.owner(&row).ok());
            self.enlist_row(owner.as_ref(), row, &mut listing);
        }
        listing.entries.sort_by(|a, b| (&a.user, &a.server).cmp(&(&b.user, &b.server)));
        listing.entries.dedup_by(|a, b| (&a.user, &a.server) == (&b.user, &b.server));
        Ok(listing)
    }

    /// Some of what is stored, by users, and after which place more of it comes, if there is more. Who follows to the end
    /// has seen everything that was there all the while; something may come twice.
    ///
    /// # Errors
    /// The store failed. Records that cannot be read are listed or counted as such.
    pub async fn list_page(&self, after: Option<ListPlace>) -> Result<(Listing, Option<ListPlace>), StoreError> {
        let (rows, next) = self.page(after.map(|ListPlace(after)| after)).await?;
        let mut listing = Listing::default();
        for row in rows {
            self.enlist_row(self.owner(&row).ok().as_ref(), row, &mut listing);
        }
        Ok((listing, next.map(ListPlace)))
    }

    /// The place that `text` names, as [`ListPlace`] is shown, if it may be one of this store.
    #[must_use]
    pub fn place(&self, text: &str) -> Option<ListPlace> {
        let is_one = match &self.backend {
            Backend::Redis(_) => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok(),
            Backend::Embedded(_) => {
                BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == SHA256_OUTPUT_LEN)
            }
        };
        is_one.then(|| ListPlace(text.to_owned()))
    }

    /// The records under `names`, or all of them.
    pub(super) async fn rows(&self, names: Option<&Names>) -> Result<Vec<Row>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.rows(names).await,
            Backend::Embedded(embedded) => embedded.rows(names.cloned()).await,
        }
    }

    /// Whose records `row` holds: says so itself, and lies at the name that only its owner has.
    pub(super) fn owner(&self, row: &Row) -> Result<UserId, StoreError> {
        let sealed = row.owner.as_deref().ok_or(StoreError::Shape)?;
        let owner = record::open_owner(&self.keyring, &row.name, sealed)?;
        let names = self.names(&owner);
        if names.iter().any(|name| *name == row.name) {
            Ok(owner)
        } else {
            Err(StoreError::Sealed(OpenError::Tampered))
        }
    }

    /// Adds the records of `user`, or of somebody who cannot be told.
    fn enlist_row(&self, user: Option<&UserId>, row: Row, listing: &mut Listing) {
        let Some(user) = user else {
            listing.unreadable += row.records.len();
            return;
        };
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
