//! Changes that count once enough replicas have them, so that a failover does not undo them.
//! Source: redis.io, "WAIT".

use redis::FromRedisValue;

use super::client::{CommandBatch, RedisClient};
use crate::config::RedisStore;
use crate::metrics::Counter;
use crate::store::{SetupError, StoreError};

/// A connection of its own: while replicas are waited for on it, nothing else is answered there.
pub(super) struct Durable {
    link: RedisClient,
    replicas: usize,
    /// How long they are waited for, milliseconds.
    patience: u128,
}

impl Durable {
    /// For the replicas that `store` asks for; what `link` counts is counted together.
    pub(super) fn open(store: &RedisStore, link: &RedisClient) -> Result<Self, SetupError> {
        let mut own = RedisClient::open(store)?;
        own.count_desyncs(link.desync_counter());
        // One answer may take 5/12 of the time of a command.
        Ok(Self { link: own, replicas: store.replicas, patience: (store.timeout / 3).as_millis() })
    }

    /// Asks `batch`, which is one command, and reads its answer once enough replicas have what it changed, and all before
    /// it: also what an attempt has changed whose answer was lost.
    ///
    /// # Errors
    /// [`StoreError::NotReplicated`] if they do not have it in time; it is changed all the same.
    pub(super) async fn ask<A: FromRedisValue, T>(
        &self,
        mut batch: CommandBatch,
        read: impl FnOnce(A) -> T,
    ) -> Result<T, StoreError> {
        batch.cmd("WAIT").arg(self.replicas).arg(self.patience);
        let read = |(answer, replicas): (A, usize)| {
            if replicas < self.replicas { Err(StoreError::NotReplicated) } else { Ok(read(answer)) }
        };
        self.link.ask(&batch, read).await
    }

    pub(super) fn count_desyncs(&mut self, counter: Counter) {
        self.link.count_desyncs(counter);
    }
}
