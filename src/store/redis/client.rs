//! The client of Redis: how it connects, how long it may take, and what its errors mean without their words.
//!
//! Whoever needs Redis for something of its own opens a client of its own, so that none waits behind another's commands.

mod command_batch;
mod connection;
mod errors;
mod retry_budget;
mod server_state;
mod subscription;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2};
use redis::{Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, Value, from_redis_value};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::clock::within;
use crate::metrics::Counter;
use crate::secret::Secret;
use crate::store::{SetupError, StoreError};
use connection::Connection;
use retry_budget::RetryBudget;

pub(crate) use command_batch::CommandBatch;
pub(crate) use server_state::field;
pub(crate) use subscription::Message;

/// A connection on its way.
type Making<'a> = Pin<Box<dyn Future<Output = Result<Connection, StoreError>> + Send + 'a>>;

/// Between attempts to connect, the shortest and the longest: back soon after an outage, without hammering.
pub(crate) const RECONNECT: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];
/// How long a silent peer is waited for at least before it is taken to have vanished: a packet may be lost, and Redis
/// may be busy.
const VANISHED: Duration = Duration::from_secs(1);
/// How long an idle connection is trusted before the kernel asks the peer, and how often it asks.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];
/// Commands at once on the one connection; more wait, as part of their time.
const IN_FLIGHT: usize = 256;

/// One multiplexed connection, made when it is first used and made anew when it is lost, silent or spoiled.
pub(crate) struct RedisClient {
    client: Client,
    /// A command, with everything it waits for.
    timeout: Duration,
    attempt: RwLock<Arc<Attempt>>,
    in_flight: Semaphore,
    retries: RetryBudget,
    desyncs: Counter,
}

/// One attempt to connect, which all who need it share, and what became of it.
struct Attempt {
    /// How many attempts in a row led to nothing.
    failures: u32,
    not_before: Instant,
    made: OnceCell<Result<Connection, StoreError>>,
}

impl RedisClient {
    /// The link to `url`, where a command may take `timeout`; nothing is sent yet.
    pub(crate) fn open(url: &Secret, timeout: Duration) -> Result<Self, SetupError> {
        let parsed = redis::parse_redis_url(url.expose()).ok_or(SetupError::Url("it cannot be parsed"))?;
        if parsed.fragment().is_some() {
            return Err(SetupError::Url("certificates are always verified, so #insecure is refused"));
        }
        let info = parsed.into_connection_info().map_err(|_| SetupError::Url("a part of it is malformed"))?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // An error means that one was installed before, which is as good: there is only one in the program.
            let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(socket2::TcpKeepalive::new().with_time(KEEPALIVE[0]).with_interval(KEEPALIVE[1]))
            .set_user_timeout(vanished(timeout));
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
            .map_err(|_| SetupError::Url("a part of it is malformed"))?;
        Ok(Self {
            client,
            timeout,
            attempt: RwLock::new(Arc::new(Attempt::after(0))),
            in_flight: Semaphore::new(IN_FLIGHT),
            retries: RetryBudget::new(),
            desyncs: Counter::default(),
        })
    }

    /// Asks `batch` and reads the answer, in time. An answer that may be another command's drops the
    /// connection for everybody.
    pub(crate) async fn ask<A: FromRedisValue, T>(
        &self,
        batch: &CommandBatch,
        read: impl FnOnce(A) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let work = async {
            let _permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
            let (attempt, answers) = self.send(batch).await?;
            let answer = from_redis_value(Value::Array(answers)).map_err(|_| StoreError::Shape);
            answer.and_then(read).inspect_err(|error| {
                self.judge(&attempt, error);
            })
        };
        within(self.timeout, work).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// Asks Redis what it is, and whether it said all of it.
    ///
    /// # Errors
    /// It could not be asked, may not be asked by this user, or is not one to trust with tokens.
    pub(crate) async fn look(&self) -> Result<bool, StoreError> {
        let attempt = self.attempt();
        let work = async { self.connection(&attempt).await?.look().await };
        let looked = within(self.timeout, work).await.unwrap_or(Err(StoreError::Timeout));
        looked.inspect_err(|error| {
            // A refusal says nothing about the connection.
            if !matches!(error, StoreError::Refused(_)) {
                self.judge(&attempt, error);
            }
        })
    }

    /// Sends `batch`, again if its connection was of no use and a new one may be.
    async fn send(&self, batch: &CommandBatch) -> Result<(Arc<Attempt>, Vec<Value>), StoreError> {
        self.retries.earn();
        let mut first = true;
        loop {
            let attempt = self.attempt();
            let asked = async { self.connection(&attempt).await?.ask(batch, answer(self.timeout)).await };
            let error = match asked.await {
                Ok(answers) => return Ok((attempt, answers)),
                Err(error) => error,
            };
            let replaced = self.judge(&attempt, &error);
            let curable = matches!(error, StoreError::Unreachable | StoreError::Timeout | StoreError::Replica);
            if !(first && replaced && curable && self.retries.spend()) {
                return Err(error);
            }
            first = false;
        }
    }

    /// Replaces the connection if `error` says that it is of no more use; whether it does.
    fn judge(&self, attempt: &Arc<Attempt>, error: &StoreError) -> bool {
        if error.is_desync() {
            self.desyncs.inc();
        }
        let spoiled = attempt.connected().is_none_or(|connection| connection.is_spoiled_by(error));
        if spoiled {
            let mut current = self.attempt.write().unwrap_or_else(PoisonError::into_inner);
            // Of many who saw the same one fail, one replaces it.
            if Arc::ptr_eq(&current, attempt) {
                *current = Arc::new(attempt.next());
            }
        }
        spoiled
    }

    fn attempt(&self) -> Arc<Attempt> {
        Arc::clone(&self.attempt.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection of `attempt`, which is made by the first who needs it.
    async fn connection<'a>(&self, attempt: &'a Attempt) -> Result<&'a Connection, StoreError> {
        let make = async || {
            sleep_until(attempt.not_before).await;
            // Rare, and large within each command, as a type too.
            let made: Making<'_> = Box::pin(Connection::make(&self.client, connecting(self.timeout)));
            made.await
        };
        attempt.made.get_or_init(make).await.as_ref().map_err(Clone::clone)
    }

    /// Counts in `counter` from now on how often an answer did not belong to its command.
    pub(crate) fn count_desyncs(&mut self, counter: Counter) {
        self.desyncs = counter;
    }

    /// How often an answer did not belong to its command, so that the connection was dropped.
    pub(crate) fn desyncs(&self) -> u64 {
        self.desyncs.get()
    }
}

impl Attempt {
    /// The attempt after so many in a row that led to nothing.
    fn after(failures: u32) -> Self {
        let pause = match failures {
            0 => Duration::ZERO,
            _ => (RECONNECT[0] * (1 << failures.min(8))).min(RECONNECT[1]),
        };
        Self { failures, not_before: Instant::now() + pause, made: OnceCell::new() }
    }

    /// The attempt that takes the place of this one.
    fn next(&self) -> Self {
        let was_good = self.connected().is_some_and(Connection::was_good);
        Self::after(if was_good { 0 } else { self.failures.saturating_add(1) })
    }

    fn connected(&self) -> Option<&Connection> {
        self.made.get()?.as_ref().ok()
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisClient(…)")
    }
}

/// One answer, of a command that may take `timeout`: a slow one leaves time for another try.
fn answer(timeout: Duration) -> Duration {
    timeout * 5 / 12
}

/// One attempt to connect, for a command that may take `timeout`: what comes after it has time too.
fn connecting(timeout: Duration) -> Duration {
    timeout * 5 / 6
}

/// How long sent bytes may stay unacknowledged before a peer that vanished without a word is given up: longer than a
/// command waits for it.
fn vanished(timeout: Duration) -> Duration {
    (timeout * 5 / 3).max(VANISHED)
}
