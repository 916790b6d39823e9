//! The way to Redis: how it is connected to, how long it may take, and what its errors mean without their words.
//!
//! Whoever needs Redis for something of its own opens a link of its own, so that none waits behind another's commands.

mod subscription;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    Client, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, ServerErrorKind,
};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::secret::Secret;
use crate::store::{SetupError, StoreError};

pub(crate) use subscription::Message;

/// Between attempts to connect: back soon after an outage, without hammering.
pub(crate) const RECONNECT: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];
/// Before the one retry of a command whose connection was lost.
const RETRY: Duration = Duration::from_millis(10);
/// How long a silent peer is waited for at least before it is taken to have vanished: a packet may be lost, and Redis
/// may be busy.
const VANISHED: Duration = Duration::from_secs(1);
/// How long an idle connection is trusted before the kernel asks the peer, and how often it asks.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];
/// Questions at once on the one connection; more wait, as part of their time.
const IN_FLIGHT: usize = 256;

/// One multiplexed connection, made when it is first used and made anew when it is lost.
pub(crate) struct Link {
    client: Client,
    /// A question, with everything it waits for.
    timeout: Duration,
    connection: RwLock<Numbered>,
    in_flight: Semaphore,
    desyncs: AtomicU64,
}

/// The connection in use. A new number is a new connection, so that of many who saw the same one fail, one replaces it.
#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
}

impl Link {
    /// The link to `url`, where a question may take `timeout`; nothing is sent yet.
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
            connection: RwLock::new(Numbered { number: 0, manager: connect(&client, timeout) }),
            client,
            timeout,
            in_flight: Semaphore::new(IN_FLIGHT),
            desyncs: AtomicU64::new(0),
        })
    }

    /// Sends `pipe` and reads the answer, in time. An answer that may be another question's drops the
    /// connection for everybody.
    pub(crate) async fn ask<A: FromRedisValue, T>(
        &self,
        pipe: &Pipeline,
        read: impl FnOnce(A) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let work = async {
            let _permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
            let (number, answer) = self.send(pipe).await?;
            read(answer).inspect_err(|error| self.judge(number, error))
        };
        timeout(self.timeout, work).await.unwrap_or(Err(StoreError::Timeout))
    }

    /// Sends `pipe`, again if the connection was lost meanwhile.
    async fn send<A: FromRedisValue>(&self, pipe: &Pipeline) -> Result<(u64, A), StoreError> {
        let mut first = true;
        loop {
            let Numbered { number, mut manager } = self.connection();
            let error = match pipe.query_async(&mut manager).await {
                Ok(answer) => return Ok((number, answer)),
                Err(error) => error,
            };
            let failure = classify(&error);
            self.judge(number, &failure);
            if !(first && failure == StoreError::Unreachable) {
                return Err(failure);
            }
            first = false;
            sleep(RETRY).await;
        }
    }

    /// Replaces the connection if `error` says that it is spoiled in a way that it would not notice itself.
    fn judge(&self, number: u64, error: &StoreError) {
        if error.is_desync() {
            self.desyncs.fetch_add(1, Ordering::Relaxed);
        }
        let stuck = match error {
            // Also what a login was answered with, which the connection manager would repeat for ever.
            StoreError::Refused(code) => matches!(&**code, "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "NOPERM"),
            error => *error == StoreError::Login || error.is_desync(),
        };
        if stuck {
            let mut current = self.connection.write().unwrap_or_else(PoisonError::into_inner);
            if current.number == number {
                *current = Numbered { number: number + 1, manager: connect(&self.client, self.timeout) };
            }
        }
    }

    fn connection(&self) -> Numbered {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often an answer did not belong to its question, so that the connection was dropped.
    pub(crate) fn desyncs(&self) -> u64 {
        self.desyncs.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(…)")
    }
}

/// One answer, of a question that may take `timeout`: a slow one leaves time for another try.
fn answer(timeout: Duration) -> Duration {
    timeout * 5 / 12
}

/// One attempt to connect, for a question that may take `timeout`: what comes after it has time too.
fn connecting(timeout: Duration) -> Duration {
    timeout * 5 / 6
}

/// How long sent bytes may stay unacknowledged before a peer that vanished without a word is given up: longer than a
/// question waits for it.
fn vanished(timeout: Duration) -> Duration {
    (timeout * 5 / 3).max(VANISHED)
}

/// A connection that is made when it is first used, and made anew when it is lost.
fn connect(client: &Client, timeout: Duration) -> ConnectionManager {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_min_delay(RECONNECT[0])
        .set_max_delay(RECONNECT[1])
        .set_connection_timeout(Some(connecting(timeout)))
        .set_response_timeout(Some(answer(timeout)))
        .set_pipeline_buffer_size(IN_FLIGHT);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
        .expect("no pushes are asked for, so none can be wrong")
}

/// The kind of an error, without the words of it.
fn classify(error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    match error.kind() {
        ErrorKind::Io => StoreError::Unreachable,
        ErrorKind::AuthenticationFailed => StoreError::Login,
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::ExecAbort) | ErrorKind::Extension => {
            let errors = error.clone().into_server_errors();
            refusal(errors.as_deref().and_then(<[_]>::first).map_or("ERR", |(_, error)| error.code()))
        }
        ErrorKind::Server(_) => refusal(error.code().unwrap_or("ERR")),
        _ => StoreError::Shape,
    }
}

fn refusal(code: &str) -> StoreError {
    match code {
        "WRONGTYPE" => StoreError::Shape,
        "WRONGPASS" => StoreError::Login,
        // Codes are one word in capitals; anything else is not a code and may be anything.
        code if code.len() <= 16 && code.bytes().all(|b| b.is_ascii_uppercase()) => StoreError::Refused(code.into()),
        _ => StoreError::Refused("ERR".into()),
    }
}
