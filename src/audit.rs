//! Who did what with users' tokens, and when: a line of JSON per event, in a file or on stderr, in a Redis stream, or in
//! both. No line holds a secret in any form.
//!
//! What happens on the way of a request is pushed to a bounded queue and written by a thread of its own; a line for which
//! there is no room is counted and lost. A change of what is saved has two lines: one that is written before anything is
//! changed, and one with what came of it. A change with the first and without the second was cut off in between.

mod event;
mod file;
mod stream;
mod writer;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::{Clock, UnixTime, within};
use crate::config::{AuditConfig, AuditedUses, TokenStoreKind};
use crate::metrics::AuditCounts;
use crate::store::{SetupError, StoreError};

use event::Written;
use file::FileLog;
use stream::StreamLog;
use writer::Writer;

pub use event::{Event, EventKind, Outcome};
pub use stream::{StreamId, StreamLine};

/// How long a change waits for its line.
const PATIENCE: Duration = Duration::from_secs(5);

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Uses that a node remembers to have seen in a day; with more, each is a line.
const MAX_USES: usize = 1 << 16;

/// Writes down what happens, or nothing where the configuration has no `audit`. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Enabled>>);

#[derive(Debug)]
struct Enabled {
    writer: Writer,
    /// The stream that it writes to, if there is one.
    stream: Option<Arc<StreamLog>>,
    required: bool,
    /// The uses of the day, where only the first of each is a line.
    first_uses: Option<FirstUses>,
    clock: Clock,
}

/// Which users have used which server's token in the current day.
#[derive(Debug, Default)]
struct FirstUses {
    hasher: RandomState,
    /// The number of the day, and hashes of whose use and of what.
    seen: Mutex<(u64, HashSet<u64>)>,
}

/// Why nothing can be written down.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be used.
    #[error("`audit.file` cannot be written to: {0}")]
    File(io::Error),
    /// The token store's Redis cannot be used.
    #[error("`audit.redis`: {0}")]
    Redis(#[from] SetupError),
    /// There is no thread for it.
    #[error("nothing can be written down: {0}")]
    Thread(io::Error),
}

/// A change that must be written down before it is made could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the change could not be written down, so it was not made")]
pub struct Unwritten;

/// A change that has been written down and is under way. Dropping it says that nobody knows what came of it.
#[derive(Debug)]
#[must_use = "what came of the change is to be written down, too"]
pub struct Pending(Option<(Arc<Enabled>, Written)>);

impl Audit {
    /// Writes nothing down.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Writes to what `config` names, from within a Tokio runtime. `store` is the token store's kind.
    ///
    /// # Errors
    /// The file cannot be opened, Redis cannot be used, or there is no thread.
    pub fn open(
        config: Option<&AuditConfig>,
        store: Option<&TokenStoreKind>,
        counts: AuditCounts,
        clock: Clock,
    ) -> Result<Self, AuditError> {
        let Some(config) = config else { return Ok(Self::none()) };
        let file = config.file.clone().map(FileLog::open).transpose().map_err(AuditError::File)?;
        let stream = match (config.stream, store) {
            (Some(bounds), Some(TokenStoreKind::Redis { url, prefix, timeout })) => {
                Some(Arc::new(StreamLog::open(url, prefix, *timeout, bounds)?))
            }
            _ => None,
        };
        let sinks = (file, stream.clone());
        let writer = Writer::start(sinks, config.required, (Handle::current(), counts), clock.clone());
        let first_uses = (config.uses == AuditedUses::Daily).then(FirstUses::default);
        let writer = writer.map_err(AuditError::Thread)?;
        Ok(Self(Some(Arc::new(Enabled { writer, stream, required: config.required, first_uses, clock }))))
    }

    /// Whether anything is written down.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event down, some time soon: nobody waits for it.
    pub fn note(&self, event: &Event<'_>) {
        let Some(audit) = &self.0 else { return };
        let now = audit.clock.now();
        if audit.first_uses.as_ref().is_none_or(|uses| uses.admit(event, now)) {
            audit.writer.push(&event.describe(None).line(now, event.outcome), None);
        }
    }

    /// Writes down that a change is about to be made, and returns once that is done.
    ///
    /// # Errors
    /// It could not be, and `audit.required` says that it must.
    pub async fn before(&self, event: &Event<'_>) -> Result<Pending, Unwritten> {
        let Some(audit) = &self.0 else { return Ok(Pending(None)) };
        let change = event.describe(Some(&event::change_id()));
        if audit.write(&change.line(audit.clock.now(), Outcome::Begun)).await || !audit.required {
            return Ok(Pending(Some((Arc::clone(audit), change))));
        }
        // Perhaps it was written down after all.
        audit.writer.push(&change.line(audit.clock.now(), Outcome::Refused), None);
        Err(Unwritten)
    }

    /// A change that has been written down before, wherever that was ([`Pending::hand_on`]); nothing of one that has not been.
    pub fn go_on(&self, change: Option<&str>) -> Pending {
        let change = change.map(|change| Written(change.to_owned()));
        Pending(self.0.as_ref().map(Arc::clone).zip(change))
    }

    /// Some of the lines in the stream that come after this place, the oldest first; `None` if there is no stream.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn read(&self, after: Option<StreamId>) -> Option<Result<Vec<StreamLine>, StoreError>> {
        let stream = self.0.as_ref()?.stream.as_ref()?;
        Some(stream.read(after).await)
    }

    /// Opens the file anew: whoever rotates it has moved it away.
    pub fn reopen(&self) {
        if let Some(audit) = &self.0 {
            audit.writer.reopen();
        }
    }

    /// Returns once everything has been written, or could not be.
    pub async fn flush(&self) {
        if let Some(audit) = &self.0 {
            audit.write("").await;
        }
    }
}

impl Enabled {
    /// Whether the line has been written, and everything before it.
    async fn write(&self, line: &str) -> bool {
        let (told, written) = tokio::sync::oneshot::channel();
        self.writer.push(line, Some(told));
        within(PATIENCE, written).await.is_some_and(|written| written.unwrap_or(false))
    }
}

impl Pending {
    /// By which another task, on whichever node, goes on with the change; nothing where nothing is written down.
    #[must_use]
    pub fn hand_on(mut self) -> Option<String> {
        self.0.take().map(|(_, Written(change))| change)
    }

    /// Writes down what came of the change.
    pub async fn done(mut self, outcome: Outcome) {
        if let Some((audit, change)) = self.0.take() {
            audit.write(&change.line(audit.clock.now(), outcome)).await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((audit, change)) = self.0.take() {
            audit.writer.push(&change.line(audit.clock.now(), Outcome::Unknown), None);
        }
    }
}

impl FirstUses {
    /// Whether an event is to be written down: no use after the first of a day.
    fn admit(&self, event: &Event<'_>, now: UnixTime) -> bool {
        if event.kind != EventKind::TokenReleased {
            return true;
        }
        let (hash, today) = (self.hasher.hash_one((event.user, event.server)), now.0 / DAY);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != today {
            *seen = (today, HashSet::new());
        }
        seen.1.len() >= MAX_USES || seen.1.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerName;
    use crate::user::UserId;

    #[test]
    fn the_first_use_of_a_day_is_a_line_and_the_next_is_one_tomorrow() {
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let (notion, linear) = (ServerName::parse("notion").unwrap(), ServerName::parse("linear").unwrap());
        let uses = FirstUses::default();
        let admitted = |user, server, seconds| {
            uses.admit(
                &Event { user: Some(user), server: Some(server), ..Event::of(EventKind::TokenReleased) },
                UnixTime(seconds),
            )
        };
        assert!(admitted(&alice, &notion, 0) && admitted(&bob, &notion, 0) && admitted(&alice, &linear, 0));
        assert!(!admitted(&alice, &notion, DAY - 1));
        assert!(admitted(&alice, &notion, DAY));
        let set = Event { user: Some(&alice), ..Event::of(EventKind::TokenSet) };
        assert!(uses.admit(&set, UnixTime(DAY)) && uses.admit(&set, UnixTime(DAY)));
    }
}
