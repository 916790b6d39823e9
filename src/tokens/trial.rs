//! What a person gives is tried before it is saved.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{By, ChangeError, Entered, TokenSource};
use crate::config::Server;
use crate::store::Over;
use crate::user::Caller;

/// How long a trial may take in all.
pub const TRIAL_DEADLINE: Duration = Duration::from_secs(20);

/// What came of a trial, in words for who entered what was tried, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It did.
    Good {
        /// The beginning of what was answered.
        shown: String,
    },
    /// The service refused it, or it does not fit where it goes.
    Refused {
        /// Who refused it, or why it does not fit.
        sentence: String,
    },
    /// Nobody knows: it could not be tried, or the answer says nothing of it.
    Unknown {
        /// Why.
        sentence: String,
    },
    /// The user tries too much at once.
    Busy,
    /// The server's entry does not say how.
    NoProbe,
}

impl Probed {
    /// Whether what was tried may be saved without asking whoever entered it.
    #[must_use]
    pub fn may_be_saved(&self) -> bool {
        matches!(self, Self::Good { .. } | Self::NoProbe)
    }
}

/// Tries what users enter. It is the bridge, which pages and programs must not know.
pub trait Prober: Send + Sync {
    /// Tries what `caller` entered for `server`, as the server's entry says, and writes down that it was tried. It takes
    /// [`TRIAL_DEADLINE`] at most. Whoever asks may leave: what was started is ended all the same.
    fn probe(
        self: Arc<Self>,
        caller: &Caller,
        server: &Arc<Server>,
        entered: &Entered,
    ) -> Pin<Box<dyn Future<Output = Probed> + Send>>;
}

impl TokenSource {
    /// Tries what was `entered` and saves nothing. It counts as a change.
    ///
    /// # Errors
    /// The caller has changed or tried too much, or the store does not say.
    pub async fn probe(
        &self,
        prober: &Arc<dyn Prober>,
        by: By<'_>,
        (caller, server): (&Caller, &Arc<Server>),
        entered: &Entered,
    ) -> Result<Probed, ChangeError> {
        self.count(by).await?;
        Ok(Arc::clone(prober).probe(caller, server, entered).await)
    }

    /// Tries what was `entered` and saves it, over whatever there is, if nothing speaks against that. Both are one change.
    ///
    /// # Errors
    /// Says why it was not tried, or why nothing was saved although it may be.
    pub async fn save_if_good(
        &self,
        prober: &Arc<dyn Prober>,
        by: By<'_>,
        (caller, server): (&Caller, &Arc<Server>),
        entered: Entered,
    ) -> Result<Probed, ChangeError> {
        let outcome = self.probe(prober, by, (caller, server), &entered).await?;
        if outcome.may_be_saved() {
            self.write(by, (&caller.user, &server.name), entered, Over::Anything).await?;
        }
        Ok(outcome)
    }
}
