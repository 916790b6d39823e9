//! What a command says to the bridges that share its token store. With Redis it is published to them; with an embedded
//! store it is left in the database for a while, where the one bridge looks for it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::redis::Peers;
use super::{NodeId, NotDelivered, Relay};
use crate::config::TokenStoreKind;
use crate::store::{SetupError, StoredMessage, TokenStore};

/// How often a bridge looks into the database.
const LOOK: Duration = Duration::from_millis(500);

/// The bridges that share a token store with a command.
pub struct Nodes(Way);

/// How they are reached.
enum Way {
    Redis(Box<Peers>),
    Database(Arc<TokenStore>),
}

impl Nodes {
    /// Those that share `store`, which is of this kind. Nothing is sent yet.
    ///
    /// # Errors
    /// The URL is unusable.
    pub fn of(kind: &TokenStoreKind, store: &Arc<TokenStore>) -> Result<Self, SetupError> {
        Ok(Self(match kind {
            TokenStoreKind::Redis { url, prefix, timeout } => {
                let peers = Peers::open(url, prefix, *timeout, Arc::clone(store.keyring()), NodeId::random())?;
                Way::Redis(Box::new(peers))
            }
            TokenStoreKind::Embedded { .. } => Way::Database(Arc::clone(store)),
        }))
    }

    /// Leaves `payload` in every mailbox that has joined `topic`, as [`Relay::tell_topic`] does.
    ///
    /// # Errors
    /// They could not be told.
    pub async fn tell_topic(&self, topic: &str, payload: Bytes) -> Result<(), NotDelivered> {
        match &self.0 {
            Way::Redis(peers) => peers.tell_topic(topic, &payload).await,
            Way::Database(store) => store.leave_message(topic, &payload).await.map_err(|_| NotDelivered::Failed),
        }
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nodes(…)")
    }
}

impl Relay {
    /// Hears what commands leave in the database of `store`, for ever. What was left before is of no interest: nobody
    /// listened.
    pub async fn hear_commands(self, store: Arc<TokenStore>) {
        let (mut heard, mut version): (HashSet<String>, _) = (HashSet::new(), None);
        loop {
            // A database that cannot be read now is read later.
            if let Ok(Some((now, messages))) = store.messages(version).await {
                let is_new = |message: &&StoredMessage| version.is_some() && !heard.contains(&message.name);
                for message in messages.iter().filter(is_new) {
                    self.local.tell_topic(&message.topic, &message.payload);
                }
                (heard, version) = (messages.into_iter().map(|message| message.name).collect(), Some(now));
            }
            sleep(LOOK).await;
        }
    }
}
