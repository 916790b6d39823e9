//! What commands leave in the database of an embedded store for the bridge that has it open: a topic and a few bytes, sealed,
//! for a minute.

use std::time::Duration;

use bytes::Bytes;

use super::{Backend, StoreError, TokenStore};
use crate::keyring::{Keyring, Place, Purpose};

/// For how long it is there: a bridge looks far more often.
const LASTS: Duration = Duration::from_mins(1);

/// The place of what is left. Another version is another place.
const PLACE: Place<'static> = Place { purpose: Purpose::Route, parts: &["message/1"] };

/// Something that was left.
#[derive(Debug)]
pub struct StoredMessage {
    /// Tells it from all others.
    pub name: String,
    /// Whom it is for.
    pub topic: String,
    /// What is said.
    pub payload: Bytes,
}

impl TokenStore {
    /// Leaves `payload` for who hears of `topic`. Nobody looks for it in Redis.
    ///
    /// # Errors
    /// The store failed.
    pub async fn leave_message(&self, topic: &str, payload: &[u8]) -> Result<(), StoreError> {
        let Backend::Embedded(embedded) = &self.backend else { return Ok(()) };
        let length = (topic.len() as u64).to_be_bytes();
        let message = self.keyring.seal_text(PLACE, &[&length, topic.as_bytes(), payload].concat());
        embedded.leave_message(message, self.clock.now(), LASTS).await
    }

    /// All that has been left and is there still, unless nobody has written anything since the database was at `version`;
    /// and its version now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn messages(&self, version: Option<i64>) -> Result<Option<(i64, Vec<StoredMessage>)>, StoreError> {
        let Backend::Embedded(embedded) = &self.backend else { return Ok(None) };
        let read = embedded.messages(version, self.clock.now()).await?;
        Ok(read.map(|(version, sealed)| {
            let messages = sealed.into_iter().filter_map(|sealed| open(&self.keyring, sealed));
            (version, messages.collect())
        }))
    }
}

fn open(keyring: &Keyring, name: String) -> Option<StoredMessage> {
    let plain = keyring.open_text(PLACE, &name).ok()?;
    let (length, rest) = plain.split_first_chunk()?;
    let (topic, payload) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    let topic = str::from_utf8(topic).ok()?.to_owned();
    Some(StoredMessage { name, topic, payload: Bytes::copy_from_slice(payload) })
}
