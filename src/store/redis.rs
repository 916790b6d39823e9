//! The store on Redis or Valkey: one hash per user, one field per server, one round trip per lookup.
//!
//! Every command can be repeated without harm, so a lost connection costs one retry and no thought.

mod policy;
mod session;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    Client, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, ServerErrorKind,
    Value, from_redis_value,
};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::record::Names;
use super::session::Fields;
use super::{Found, Proofs, Row, SetupError, StoreError, Write};
use crate::config::ServerName;
use crate::secret::Secret;

/// A lookup, with everything it waits for.
const DEADLINE: Duration = Duration::from_millis(600);
/// One answer. Longer than any healthy Redis takes, shorter than a client's patience.
const RESPONSE: Duration = Duration::from_millis(250);
/// One attempt to connect.
const CONNECT: Duration = Duration::from_millis(500);
/// Between attempts to connect: back soon after an outage, without hammering.
const RECONNECT: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];
/// Before the one retry of a command whose connection was lost.
const RETRY: Duration = Duration::from_millis(10);
/// How long sent bytes may stay unacknowledged: a peer that vanished without a word is given up after this.
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);
/// How long an idle connection is trusted before the kernel asks the peer, and how often it asks.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];
/// Questions at once on the one connection; more wait, within the deadline.
const IN_FLIGHT: usize = 256;
/// The field that says whose hash it is; no server's name starts so.
const OWNER: &str = "@owner";
/// Keys per step of a listing.
const SCAN: usize = 200;

/// Removes a field, and the key with it when only its owner is left. Answers how many fields there were.
const REMOVE: &str = "local n = redis.call('HDEL', KEYS[1], ARGV[1]) \
    if redis.call('HLEN', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then \
    redis.call('DEL', KEYS[1]) end return n";

/// A store on Redis.
pub(super) struct Redis {
    client: Client,
    prefix: Box<str>,
    connection: RwLock<Numbered>,
    in_flight: Semaphore,
    desyncs: AtomicU64,
    /// Whether the eviction policy was seen and is a good one.
    policy_seen: AtomicBool,
}

/// The connection in use. A new number is a new connection, so that of many who saw the same one fail, one replaces it.
#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
}

impl Redis {
    /// The store at `url`; nothing is sent yet.
    pub(super) fn open(url: &Secret, prefix: &str) -> Result<Self, SetupError> {
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
            .set_user_timeout(UNACKNOWLEDGED);
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
            .map_err(|_| SetupError::Url("a part of it is malformed"))?;
        Ok(Self {
            connection: RwLock::new(Numbered { number: 0, manager: connect(&client) }),
            client,
            prefix: prefix.into(),
            in_flight: Semaphore::new(IN_FLIGHT),
            desyncs: AtomicU64::new(0),
            policy_seen: AtomicBool::new(false),
        })
    }

    /// What `read` makes of the record for `server` under the first of `names` that has one, and of a session.
    pub(super) async fn fetch<T>(
        &self,
        names: &Names,
        server: &ServerName,
        session: Option<&Names>,
        read: impl FnOnce(Found) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut pipe = Pipeline::new();
        if names.iter().len() > 1 {
            // A record that is moved from name to name meanwhile must not be missed under both.
            pipe.atomic();
        }
        for name in names.iter() {
            pipe.cmd("HGET").arg(self.tokens(name)).arg(server.as_str());
        }
        pipe.cmd("HGETALL").arg(self.proofs());
        if let Some(session) = session {
            self.ask_of_session(&mut pipe, session);
        }
        self.ask(&pipe, |mut answers: Vec<Value>| {
            let session = answers.split_off((names.iter().len() + 1).min(answers.len()));
            let session: Vec<Fields> = from_redis_value(Value::Array(session)).map_err(|_| StoreError::Shape)?;
            let proofs = from_redis_value(answers.pop().ok_or(StoreError::Shape)?).map_err(|_| StoreError::Shape)?;
            let records: Vec<Option<Vec<u8>>> =
                from_redis_value(Value::Array(answers)).map_err(|_| StoreError::Shape)?;
            read(Found { record: records.into_iter().flatten().next(), proofs, session: session.concat() })
        })
        .await
    }

    /// Writes a record and its owner under the active name, and clears the older ones, all at once.
    pub(super) async fn put(&self, names: &Names, server: &ServerName, write: &Write) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        let (key, proof) = &write.proof;
        pipe.cmd("HSET").arg(self.proofs()).arg(key).arg(proof).ignore();
        pipe.cmd("HSET").arg(self.tokens(names.active())).arg(OWNER).arg(&write.owner);
        pipe.arg(server.as_str()).arg(&write.record).ignore();
        for name in names.older() {
            self.remove(&mut pipe, name, server).ignore();
        }
        self.ask(&pipe, |()| Ok(())).await
    }

    /// Removes the record for `server` under every name; whether there was one.
    pub(super) async fn delete(&self, names: &Names, server: &ServerName) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for name in names.iter() {
            self.remove(&mut pipe, name, server);
        }
        self.ask(&pipe, |removed: Vec<u64>| Ok(removed.into_iter().sum::<u64>() > 0)).await
    }

    /// The records under `names`, or all of them.
    pub(super) async fn rows(&self, names: Option<&Names>) -> Result<Vec<Row>, StoreError> {
        if let Some(names) = names {
            return self.read(names.iter().cloned().collect()).await;
        }
        let (before, after) = (format!("{}:tokens:{{", self.prefix), "}");
        let mut rows = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("SCAN").arg(cursor).arg("MATCH").arg(format!("{}*{after}", escape(&before)));
            pipe.arg("COUNT").arg(SCAN).arg("TYPE").arg("hash");
            let [(next, keys)]: [(u64, Vec<String>); 1] = self.ask(&pipe, Ok).await?;
            let names = keys.iter().filter_map(|key| key.strip_prefix(&before)?.strip_suffix(after));
            // A scan may name a key twice.
            let names: Vec<String> = names.map(str::to_owned).filter(|name| seen.insert(name.clone())).collect();
            rows.extend(self.read(names).await?);
            if next == 0 {
                return Ok(rows);
            }
            cursor = next;
        }
    }

    /// What `verify` says to the proofs of the keys that wrote here.
    pub(super) async fn verify<T>(
        &self,
        verify: impl FnOnce(Proofs) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(self.proofs());
        self.ask(&pipe, |[proofs]: [Proofs; 1]| verify(proofs)).await
    }

    pub(super) fn desyncs(&self) -> u64 {
        self.desyncs.load(Ordering::Relaxed)
    }

    async fn read(&self, names: Vec<String>) -> Result<Vec<Row>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.cmd("HGETALL").arg(self.tokens(name));
        }
        self.ask(&pipe, |hashes: Vec<Vec<(String, Vec<u8>)>>| {
            let rows = names.into_iter().zip(hashes).map(|(name, mut records)| {
                let owner = records.iter().position(|(field, _)| field == OWNER).map(|at| records.swap_remove(at).1);
                Row { name, owner, records }
            });
            Ok(rows.filter(|row| !row.records.is_empty()).collect())
        })
        .await
    }

    /// Sends `pipe` and reads the answer, within the deadline. An answer that may be another question's drops the
    /// connection for everybody.
    async fn ask<A: FromRedisValue, T>(
        &self,
        pipe: &Pipeline,
        read: impl FnOnce(A) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let work = async {
            let _permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
            let (number, answer) = self.send(pipe).await?;
            read(answer).inspect_err(|error| self.judge(number, error))
        };
        timeout(DEADLINE, work).await.unwrap_or(Err(StoreError::Timeout))
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
                *current = Numbered { number: number + 1, manager: connect(&self.client) };
            }
        }
    }

    fn connection(&self) -> Numbered {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remove<'a>(&self, pipe: &'a mut Pipeline, name: &str, server: &ServerName) -> &'a mut Pipeline {
        pipe.cmd("EVAL").arg(REMOVE).arg(1).arg(self.tokens(name)).arg(server.as_str()).arg(OWNER)
    }

    /// The key of a user's records. The braces keep whatever is added beside it in the same cluster slot.
    fn tokens(&self, name: &str) -> String {
        format!("{}:tokens:{{{name}}}", self.prefix)
    }

    /// The key of the proofs of the keys that wrote here.
    fn proofs(&self) -> String {
        format!("{}:keys", self.prefix)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(…)")
    }
}

/// A connection that is made when it is first used, and made anew when it is lost.
fn connect(client: &Client) -> ConnectionManager {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_min_delay(RECONNECT[0])
        .set_max_delay(RECONNECT[1])
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
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

/// `text` so that a glob pattern means it literally.
fn escape(text: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
