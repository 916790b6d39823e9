//! Commands that are sent together. The first one has an answer that no others have, so that answers are never taken for
//! those of other commands.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::Pipeline;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::errors::classify;
use crate::store::StoreError;

/// Commands for one round trip. The first is a `PING` with a number of its own: an answer that has slipped to another
/// command, an empty one above all, would else be believed.
pub(crate) struct CommandBatch {
    pipe: Pipeline,
    nonce: String,
}

impl CommandBatch {
    /// A batch of no commands yet.
    pub(crate) fn new() -> Self {
        let nonce = nonce();
        let mut pipe = redis::pipe();
        pipe.cmd("PING").arg(&nonce);
        Self { pipe, nonce }
    }

    /// What no other batch is called, however often this one is sent.
    pub(crate) fn name(&self) -> &str {
        &self.nonce
    }

    /// Sends it and answers what came back, one value per command that is not ignored.
    ///
    /// # Errors
    /// [`StoreError::Shape`] if what came back answers something else.
    pub(super) async fn put(&self, wire: &MultiplexedConnection) -> Result<Vec<Value>, StoreError> {
        let answers: Vec<Value> = self.pipe.query_async(&mut wire.clone()).await.map_err(|error| classify(&error))?;
        let mut answers = answers.into_iter();
        match answers.next() {
            Some(Value::BulkString(echo)) if echo == self.nonce.as_bytes() => Ok(answers.collect()),
            _ => Err(StoreError::Shape),
        }
    }
}

impl Deref for CommandBatch {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.pipe
    }
}

impl DerefMut for CommandBatch {
    fn deref_mut(&mut self) -> &mut Pipeline {
        &mut self.pipe
    }
}

impl fmt::Debug for CommandBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBatch({} commands)", self.pipe.len())
    }
}

/// A number that no other command has, of this process or another: it is not secret, only new.
fn nonce() -> String {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let mut first = [0; 8];
        aws_lc_rs::rand::fill(&mut first).expect("the system gives random bytes");
        AtomicU64::new(u64::from_ne_bytes(first))
    });
    format!("{:x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
