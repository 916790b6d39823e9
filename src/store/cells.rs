//! Cells: what lies by itself under a name of its own, is written only over what its writer has seen there, and may end
//! by itself. A sign-in that has begun, the right to call a service for a user, what a service knows this bridge as.
//!
//! Everything but a lease is sealed to its name. Correctness rests on the comparison of the sealed bytes, which a random
//! nonce makes unique, and never on a lease being held.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::record::Names;
use super::{Backend, StoreError, TokenStore};
use crate::config::ServerName;
use crate::keyring::{self, Keyring, Place, Purpose};
use crate::user::UserId;

/// How long a sign-in may take.
const FLOW: Duration = Duration::from_mins(10);
/// How long a lease lasts: longer than what is done under it.
pub const LEASE: Duration = Duration::from_secs(20);
/// What the names begin with of cells that never end.
const CLIENT: &str = "client:";

/// Which cell.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    /// A sign-in that has begun, by its state.
    Flow(&'a str),
    /// A sign-in by a code, the last that a user has begun for a server.
    Device(&'a UserId, &'a ServerName),
    /// Which registration is in use at an issuer, for a public URL.
    ClientOf(&'a str, &'a str),
    /// A registration, by its id.
    Client(&'a str),
}

/// What lay in a cell.
#[derive(Debug)]
pub struct Held {
    /// What was put into it.
    pub plain: Zeroizing<String>,
    name: String,
    sealed: Vec<u8>,
}

/// For whom something is done that only one may do at a time.
#[derive(Debug, Clone, Copy)]
pub enum LeaseOf<'a> {
    /// A user's connection.
    Connection(&'a UserId, &'a ServerName),
    /// Registering at an issuer, for a public URL.
    Registration(&'a str, &'a str),
}

/// The right to do it, until it is given back or over. It is a help, not a lock.
#[derive(Debug)]
pub struct Lease {
    name: String,
    owner: Vec<u8>,
}

/// What is sealed: the parts of the name, so that it can be moved to the name that another key gives, and the content.
#[derive(Serialize, Deserialize)]
struct Content<'a>(#[serde(borrow)] Vec<std::borrow::Cow<'a, str>>, #[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'a> Cell<'a> {
    fn label(self) -> &'static str {
        match self {
            Self::Flow(_) => "flow:",
            Self::Device(..) => "device:",
            Self::ClientOf(..) | Self::Client(_) => CLIENT,
        }
    }

    fn parts(self) -> Vec<&'a str> {
        match self {
            Self::Flow(state) => vec![state],
            Self::Device(user, server) => vec![user.issuer(), user.subject(), server.as_str()],
            Self::ClientOf(issuer, public_url) => vec!["of", issuer, public_url],
            Self::Client(id) => vec!["id", id],
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Flow(_) | Self::Device(..) => Purpose::Flow,
            Self::ClientOf(..) | Self::Client(_) => Purpose::Client,
        }
    }

    fn lasts(self) -> Option<Duration> {
        match self {
            Self::Flow(_) | Self::Device(..) => Some(FLOW),
            Self::ClientOf(..) | Self::Client(_) => None,
        }
    }

    fn names(self, keyring: &Keyring) -> Vec<String> {
        match self {
            Self::Device(user, server) => names_of_connection(keyring, self.label(), (user, server)),
            _ => names(keyring, self.label(), &self.parts()),
        }
    }
}

/// The names of a cell about a user's connection: in one slot of a cluster with its record.
fn names_of_connection(keyring: &Keyring, label: &str, (user, server): (&UserId, &ServerName)) -> Vec<String> {
    Names::of_user(keyring, user).iter().map(|hash| format!("{label}{{{hash}}}:{server}")).collect()
}

/// The names of one cell, that of the key that seals first.
fn names(keyring: &Keyring, label: &str, parts: &[&str]) -> Vec<String> {
    keyring.index(label, parts).map(|hash| format!("{label}{}", BASE64_URL_SAFE_NO_PAD.encode(hash))).collect()
}

fn place<'a>(purpose: Purpose, parts: &'a [&'a str]) -> Place<'a> {
    Place { purpose, parts }
}

fn seal(keyring: &Keyring, purpose: Purpose, name: &str, (parts, content): (&[&str], &str)) -> Vec<u8> {
    let size = parts.iter().map(|part| part.len()).sum::<usize>() + content.len();
    let mut plain = Zeroizing::new(Vec::with_capacity(64 + 6 * size));
    let content = Content(parts.iter().map(|part| (*part).into()).collect(), content.into());
    serde_json::to_writer(&mut *plain, &content).expect("text is JSON");
    keyring.seal(place(purpose, &["1", name]), &plain)
}

impl TokenStore {
    /// What lies in `cell`, if something does.
    ///
    /// # Errors
    /// The store failed, or what lies there does not open: nobody knows.
    pub async fn look_into(&self, cell: Cell<'_>) -> Result<Option<Held>, StoreError> {
        let mut names = cell.names(&self.keyring);
        // What is moved under the first name while the others are looked under lies there by then.
        names.extend_from_within(..usize::from(names.len() > 1));
        for name in names {
            let Some(sealed) = self.read_cell(&name).await? else { continue };
            let plain = self.keyring.open(place(cell.purpose(), &["1", &name]), &sealed).map_err(StoreError::Sealed)?;
            let Content(_, content) = serde_json::from_slice(&plain).map_err(|_| StoreError::Newer)?;
            let plain = Zeroizing::new(content.into_owned());
            return Ok(Some(Held { plain, name, sealed }));
        }
        Ok(None)
    }

    /// Puts `content` into `cell` if what lies there is what was `seen`, or nothing where nothing was; whether it did.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn put_into(&self, cell: Cell<'_>, seen: Option<&Held>, content: &str) -> Result<bool, StoreError> {
        Ok(self.put_for(cell, seen, content, cell.lasts()).await?.is_some())
    }

    /// The same for as long as this; answers with what lies there then, if it did.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn put_for(
        &self,
        cell: Cell<'_>,
        seen: Option<&Held>,
        content: &str,
        lasts: Option<Duration>,
    ) -> Result<Option<Held>, StoreError> {
        let name = cell.names(&self.keyring).swap_remove(0);
        let sealed = seal(&self.keyring, cell.purpose(), &name, (&cell.parts(), content));
        let moved = seen.filter(|seen| seen.name != name);
        let there = seen.filter(|_| moved.is_none()).map(|seen| seen.sealed.clone());
        if !self.write_cell(name.clone(), there, sealed.clone(), lasts).await? {
            return Ok(None);
        }
        if let Some(older) = moved {
            self.take(older).await?;
        }
        Ok(Some(Held { plain: Zeroizing::new(content.to_owned()), name, sealed }))
    }

    /// Takes what was seen out of its cell; whether it still lay there. Of several who do at once, one has.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn take(&self, held: &Held) -> Result<bool, StoreError> {
        self.delete_cell(held.name.clone(), held.sealed.clone()).await
    }

    /// The right to do what only one may do at a time, if nobody else has it.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn lease(&self, of: LeaseOf<'_>) -> Result<Option<Lease>, StoreError> {
        let name = match of {
            LeaseOf::Connection(user, server) => {
                names_of_connection(&self.keyring, "lease:", (user, server)).swap_remove(0)
            }
            LeaseOf::Registration(issuer, url) => names(&self.keyring, "lease:", &[issuer, url]).swap_remove(0),
        };
        let mut owner = vec![0; 16];
        aws_lc_rs::rand::fill(&mut owner).expect("the system gives random bytes");
        let is_ours = self.write_cell(name.clone(), None, owner.clone(), Some(LEASE)).await?;
        Ok(is_ours.then_some(Lease { name, owner }))
    }

    /// Gives the right back, if it is still there. One that is not given back is over soon, so nobody hears of a failure.
    pub async fn give_back(&self, lease: Lease) {
        if let Err(error) = self.delete_cell(lease.name, lease.owner).await {
            tracing::debug!(%error, "a lease was not given back");
        }
    }

    /// Seals the cells that never end with the first key that are not yet; how many.
    pub(super) async fn rotate_cells(&self) -> Result<usize, StoreError> {
        let mut resealed = 0;
        for (name, sealed) in self.lasting_cells().await? {
            if keyring::key_id(&sealed) == Some(&self.keyring.active_id()) {
                continue;
            }
            // One that does not open is of no use to anybody: a new one is made when it is needed.
            let Ok(plain) = self.keyring.open(place(Purpose::Client, &["1", &name]), &sealed) else { continue };
            let Content(parts, content) = serde_json::from_slice(&plain).map_err(|_| StoreError::Newer)?;
            let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
            let to = names(&self.keyring, CLIENT, &parts).swap_remove(0);
            let anew = seal(&self.keyring, Purpose::Client, &to, (&parts, &content));
            // What lies there already is newer.
            resealed += usize::from(self.write_cell(to, None, anew, None).await?);
            self.delete_cell(name, sealed).await?;
        }
        Ok(resealed)
    }

    /// The ids of the keys that seal cells which never end.
    pub(super) async fn keys_of_cells(&self) -> Result<Vec<String>, StoreError> {
        let cells = self.lasting_cells().await?;
        Ok(cells.iter().filter_map(|(_, sealed)| keyring::key_id(sealed).map(str::to_owned)).collect())
    }

    async fn lasting_cells(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.cells(CLIENT).await,
            Backend::Embedded(embedded) => embedded.cells(CLIENT).await,
        }
    }

    async fn read_cell(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.read_cell(name).await,
            Backend::Embedded(embedded) => embedded.read_cell(name.to_owned(), self.clock.now()).await,
        }
    }

    async fn write_cell(
        &self,
        name: String,
        there: Option<Vec<u8>>,
        value: Vec<u8>,
        lasts: Option<Duration>,
    ) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.write_cell(&name, there.as_deref(), &value, lasts).await,
            Backend::Embedded(embedded) => {
                let now = self.clock.now();
                embedded.write_cell(name, (there, value), (now, lasts)).await
            }
        }
    }

    async fn delete_cell(&self, name: String, there: Vec<u8>) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.delete_cell(&name, &there).await,
            Backend::Embedded(embedded) => embedded.delete_cell(name, there, self.clock.now()).await,
        }
    }
}
