//! One connection, and what it shows of itself: whether answers come, and what Redis has become meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value};
use tokio::time::Instant;

use super::command_batch::CommandBatch;
use super::errors::classify;
use super::server_state;
use crate::clock::within;
use crate::store::StoreError;

/// Commands that may wait to be written.
const TO_WRITE: usize = 256;
/// How long what Redis is may be believed before it is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// So many commands in a row without an answer in time are silence, whatever else is answered.
const SILENCE: u32 = 2;

/// A connection to a Redis that was asked what it is.
pub(super) struct Connection {
    wire: MultiplexedConnection,
    /// How many commands were answered.
    answered: AtomicU64,
    /// How many in a row were not answered in time.
    unanswered: AtomicU32,
    /// Whether it was found silent.
    silent: AtomicBool,
    /// When Redis was asked last what it is; never again if it does not say.
    looked: Mutex<Option<Instant>>,
}

impl Connection {
    /// Connects, logs in and asks Redis what it is, all in `time`.
    pub(super) async fn make(client: &Client, time: Duration) -> Result<Self, StoreError> {
        // Deadlines are kept here, where a late answer is told from none.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(TO_WRITE);
        let work = async {
            let wire = client.get_multiplexed_async_connection_with_config(&config).await;
            let connection = Self {
                wire: wire.map_err(|error| classify(&error))?,
                answered: AtomicU64::new(0),
                unanswered: AtomicU32::new(0),
                silent: AtomicBool::new(false),
                looked: Mutex::new(Some(Instant::now())),
            };
            connection.look_if_it_says().await?;
            Ok(connection)
        };
        within(time, work).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// What Redis answers to `batch` in `time`; nothing if it is no longer what it was.
    pub(super) async fn ask(&self, batch: &CommandBatch, time: Duration) -> Result<Vec<Value>, StoreError> {
        let before = self.answered.load(Ordering::Relaxed);
        let work = async {
            if !self.is_to_be_looked_at() {
                return batch.put(&self.wire).await;
            }
            // One write, and one wait for both.
            let (status, answers) = tokio::join!(biased; self.look_if_it_says(), batch.put(&self.wire));
            status.and(answers)
        };
        let Some(answers) = within(time, work).await else {
            let none = self.answered.load(Ordering::Relaxed) == before;
            if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCE || none {
                self.silent.store(true, Ordering::Relaxed);
            }
            return Err(StoreError::Timeout);
        };
        if answers != Err(StoreError::Unreachable) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            self.unanswered.store(0, Ordering::Relaxed);
        }
        answers
    }

    /// Asks Redis what it is, and whether it said all of it.
    pub(super) async fn look(&self) -> Result<bool, StoreError> {
        server_state::look(&self.wire).await
    }

    /// Whether it ever answered a command.
    pub(super) fn was_good(&self) -> bool {
        self.answered.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing more is to be asked on it after `error`.
    pub(super) fn is_spoiled_by(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Timeout => self.silent.load(Ordering::Relaxed),
            StoreError::Unreachable
            | StoreError::Tls
            | StoreError::Login
            | StoreError::Replica
            | StoreError::Cluster
            | StoreError::Sentinel
            | StoreError::Evicts(_) => true,
            // What a new login or another server may cure.
            StoreError::Refused(code) => matches!(&**code, "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "NOPERM"),
            error => error.is_desync(),
        }
    }

    /// Asks Redis what it is, and never again if its user may not ask.
    async fn look_if_it_says(&self) -> Result<(), StoreError> {
        match self.look().await {
            Err(StoreError::Refused(code)) if *code == *"NOPERM" => {
                *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(())
            }
            looked => looked.map(drop),
        }
    }

    /// Whether it is time to ask what Redis is; of many who ask this at one moment, one is told so.
    fn is_to_be_looked_at(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.as_mut().is_some_and(|last| {
            let due = last.elapsed() >= LOOK_AGAIN;
            if due {
                *last = Instant::now();
            }
            due
        })
    }
}
