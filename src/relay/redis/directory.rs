//! Which exchange listens as a key: what its node has written down for the others, for as long as it may last. The names
//! are keyed hashes and the addresses are sealed, so that Redis neither sees nor says where anything is.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Peers, Verdict};
use crate::keyring::{Place, Purpose};
use crate::relay::{Address, NotDelivered};
use crate::store::{CommandBatch, StoreError};

impl Peers {
    /// Lets the other nodes find `address` by `key` for `lifetime`, in place of what they found by it before.
    pub(in crate::relay) async fn announce(&self, key: &str, address: &Address, lifetime: Duration) -> Verdict {
        let name = self.names(key).next().expect("a ring is never empty");
        let sealed = self.keyring.seal(place(&parts(key)), address.to_string().as_bytes());
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52);
        let mut batch = CommandBatch::new();
        batch.cmd("SET").arg(name).arg(sealed).arg("PX").arg(lifetime).ignore();
        self.link.ask(&batch, |()| Ok(())).await.map_err(|_| NotDelivered::Failed)
    }

    /// Lets nobody find anything by `key` any more.
    pub(in crate::relay) async fn withdraw(&self, key: &str) -> Verdict {
        let mut batch = CommandBatch::new();
        batch.cmd("DEL").arg(self.names(key).collect::<Vec<_>>()).ignore();
        self.link.ask(&batch, |()| Ok(())).await.map_err(|_| NotDelivered::Failed)
    }

    /// What other nodes are found by `key`: the address that one of them has announced.
    pub(in crate::relay) async fn find(&self, key: &str) -> Result<Address, NotDelivered> {
        let mut batch = CommandBatch::new();
        for name in self.names(key) {
            batch.cmd("GET").arg(name);
        }
        let open = |found: Vec<Option<Vec<u8>>>| {
            let Some(sealed) = found.into_iter().flatten().next() else { return Ok(None) };
            let plain = self.keyring.open(place(&parts(key)), &sealed).map_err(StoreError::Sealed)?;
            Ok(str::from_utf8(&plain).ok().and_then(|address| address.parse().ok()))
        };
        let found = self.link.ask(&batch, open).await.map_err(|_| NotDelivered::Failed)?;
        found.ok_or(NotDelivered::Gone)
    }

    /// Under which names `key` stands, one per key of the ring, the active one's first.
    fn names(&self, key: &str) -> impl Iterator<Item = String> {
        let hashes = self.keyring.index("relay", &[key]);
        hashes.map(|hash| format!("{}:at:{}", self.prefix, BASE64_URL_SAFE_NO_PAD.encode(hash)))
    }
}

fn parts(key: &str) -> [&str; 3] {
    ["relay/1", "at", key]
}

fn place<'a>(parts: &'a [&'a str; 3]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}
