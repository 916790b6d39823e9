//! What is remembered for a time and says nothing to who reads it: that a browser's session was ended, and how often
//! something was done lately.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::session::CLOCK_ERROR;
use super::{Backend, StoreError, TokenStore};
use crate::clock::UnixTime;

/// How often something may be done in a time, over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Signing in from one source.
    SignIn,
    /// Changing what one user has saved.
    Change,
    /// Registering at one issuer for one server in place of what is registered, which is kept for what was granted to it.
    Registration,
    /// The same, because one user says that the service does not know the bridge.
    AskedRegistration,
}

impl Quota {
    /// How often.
    #[must_use]
    pub fn most(self) -> u32 {
        match self {
            Self::SignIn | Self::Registration => 20,
            Self::Change => 10,
            Self::AskedRegistration => 3,
        }
    }

    /// In what time, which begins with what is counted first.
    fn time(self) -> Duration {
        match self {
            Self::SignIn | Self::Change => Duration::from_mins(1),
            Self::Registration | Self::AskedRegistration => Duration::from_hours(1),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Change => "change",
            Self::Registration => "registration",
            Self::AskedRegistration => "asked-registration",
        }
    }
}

impl TokenStore {
    /// Marks the browser's session with this nonce as ended on every node, for as long as it could be presented: it
    /// expires at `until`.
    ///
    /// # Errors
    /// The store failed; the session may go on.
    pub async fn mark_ended(&self, nonce: &str, until: UnixTime) -> Result<(), StoreError> {
        let now = self.clock.now();
        let lasts = Duration::from_secs(until.0.saturating_sub(now.0)) + CLOCK_ERROR;
        match &self.backend {
            Backend::Redis(redis) => redis.mark_ended(&hash(nonce), lasts).await,
            Backend::Embedded(embedded) => embedded.mark_ended(hash(nonce), now, lasts).await,
        }
    }

    /// Whether the browser's session with this nonce was ended.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn is_ended(&self, nonce: &str) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Redis(redis) => redis.is_marked_ended(&hash(nonce)).await,
            Backend::Embedded(embedded) => embedded.is_marked_ended(hash(nonce), self.clock.now()).await,
        }
    }

    /// Counts one more of what `quota` bounds for whom `of` names; if that is over it, for how long it will be.
    ///
    /// # Errors
    /// The store failed: nobody knows.
    pub async fn count(&self, quota: Quota, of: &[&str]) -> Result<Option<Duration>, StoreError> {
        let parts = [&[quota.label()], of].concat();
        let name = self.keyring.index("quota", &parts).next().expect("a ring is never empty");
        let name = BASE64_URL_SAFE_NO_PAD.encode(name);
        let (count, left) = match &self.backend {
            Backend::Redis(redis) => redis.count(&name, quota.time()).await?,
            Backend::Embedded(embedded) => embedded.count(name, (self.clock.now(), quota.time())).await?,
        };
        Ok((count > quota.most()).then_some(left))
    }
}

/// The name of a mark. The nonce has 128 random bits, which nobody finds from it.
fn hash(nonce: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, nonce.as_bytes()))
}
