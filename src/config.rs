//! The configuration as meant: immutable, shared by every request, plain data only. `file` is the same as written.
//!
//! Loading goes from text to a tree with positions (`document`), to what was written (`read`, `file`), to what was
//! meant (`load` and the modules after it), with every problem collected on the way. At request time only `fill` is
//! left to do. No excerpt, no `Debug` and no error shows a value of the file or of a token.

// what was written, and what is wrong with it
mod document;
pub mod file;
mod mask;
mod path;
mod problem;
mod read;
mod units;

// what is meant
mod access;
mod hosts;
mod identity;
mod load;
mod servers;
mod token_store;
mod value;

// what is launched
mod arguments;
mod confinement;
mod container;
mod launch_plan;
mod plan;
mod program;

// holes for the user's token
mod fill;
mod hole;
mod template;
mod url_template;

#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::secret::Secret;
use crate::user::Caller;

pub use access::{Access, Allow, Tools};
pub use confinement::{Confinement, RunAs};
pub use container::{ContainerLaunch, ContainerPlan, Engine, EngineKind, TokenFile, TokenFilePlan};
pub use fill::{FillError, MAX_LAUNCH, MAX_VALUE};
pub use load::{LoadOptions, load, parse};
pub use plan::{HttpLaunch, HttpPlan, Launch, Plan, StdioLaunch, StdioPlan};
pub use problem::{Problem, Problems};
pub use template::{Source, Template};
pub use value::Environment;

/// Everything `tollbridge serve` needs to know, checked as a whole.
#[derive(Debug)]
pub struct Config {
    /// Where MCP clients are served.
    pub listen: Listen,
    /// The base URL that people and clients use; links in answers start with it.
    pub public_url: Url,
    /// Authorities (`host` or `host:port`) that a `Host` header may name; an entry without a port allows any port.
    pub allowed_hosts: Vec<String>,
    /// Origins (`scheme://host[:port]`) that an `Origin` header may name; the port `*` allows any port.
    pub allowed_origins: Vec<String>,
    /// How callers are recognised, tried in this order. Never empty.
    pub identity: Vec<IdentityMethod>,
    /// Where users' tokens are; `None` only if no server requires one.
    pub token_store: Option<TokenStoreConfig>,
    /// Sizes, times and counts that hold for every request.
    pub limits: Limits,
    /// Where health and metrics are served, if anywhere.
    pub admin: Option<SocketAddr>,
    /// The configured servers by name; disabled ones are left out.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// The names of the disabled ones.
    pub disabled: Vec<ServerName>,
    /// The names of those left out because a variable they need is not set; only with `allow_missing_env`.
    pub incomplete: Vec<ServerName>,
}

impl Config {
    /// The longest single thing that a client or a server may say, bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.servers.values().map(|server| server.process.line).fold(self.limits.body, usize::max)
    }

    /// Whether a `Host` header may say this.
    #[must_use]
    pub fn allows_host(&self, host: &str) -> bool {
        let name = without_port(host);
        self.allowed_hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
    }

    /// Whether an `Origin` header may say this.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        let name = without_port(origin);
        self.allowed_origins.iter().any(|allowed| {
            allowed.eq_ignore_ascii_case(origin)
                || allowed.strip_suffix(":*").is_some_and(|any_port| any_port.eq_ignore_ascii_case(name))
        })
    }
}

/// An authority or an origin without its port, if it names one. A bracketed IPv6 address keeps its colons.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TCP; port 0 asks the system for one.
    Tcp(SocketAddr),
    /// A unix socket, written `unix:/path`.
    Unix(PathBuf),
}

/// The name of a configured server: 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// The name, if it may be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        fits.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way to recognise a caller.
#[derive(Debug)]
pub enum IdentityMethod {
    /// `Authorization: Bearer …`, compared by its SHA-256.
    Bearer {
        /// The tokens that are good, each with whose it is.
        tokens: Vec<BearerToken>,
    },
    /// A header set by a reverse proxy that proves itself.
    TrustedHeader(TrustedHeader),
    /// Every caller is this user, in these groups; only on loopback.
    Local(Caller),
}

/// One static bearer token.
#[derive(Debug)]
pub struct BearerToken {
    /// Whose it is, with the groups they are in.
    pub caller: Caller,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
}

/// What makes an identity header count.
#[derive(Debug)]
pub struct TrustedHeader {
    /// The header that names the user, lower case.
    pub header: http::HeaderName,
    /// The issuer of those users.
    pub issuer: String,
    /// Peers that may set it.
    pub trusted_peers: Vec<IpNet>,
    /// Whether a peer on our unix socket may set it.
    pub trust_unix_socket: bool,
    /// The header by which the proxy proves itself, lower case.
    pub secret_header: http::HeaderName,
    /// What that header must hold.
    pub secret: Secret,
    /// Whether the user header may hold a comma.
    pub allow_comma: bool,
    /// The header that names the user's groups, lower case.
    pub groups_header: Option<http::HeaderName>,
}

/// The store that holds users' tokens.
#[derive(Debug)]
pub struct TokenStoreConfig {
    /// Which store.
    pub kind: TokenStoreKind,
    /// The sealing keys; the first seals, all open. Never empty.
    pub keys: Vec<SealingKey>,
}

/// A store to connect to.
#[derive(Debug)]
pub enum TokenStoreKind {
    /// SQLite in this directory: one node.
    Embedded {
        /// The directory that holds the database, created 0700 if missing.
        path: PathBuf,
        /// How long one question may take.
        timeout: Duration,
    },
    /// Redis or Valkey: any number of nodes.
    Redis {
        /// `redis://`, `rediss://` or `redis+unix://`, possibly with a password: a secret.
        url: Secret,
        /// What every key starts with.
        prefix: String,
        /// How long one question may take, with all its tries.
        timeout: Duration,
    },
}

impl TokenStoreKind {
    /// How long one question may take, if nobody says: longer than any healthy store near by takes, shorter than a
    /// client's patience.
    pub const TIMEOUT: Duration = Duration::from_millis(600);
}

/// One sealing key of the key ring.
#[derive(Debug)]
pub struct SealingKey {
    /// The id that travels with everything the key sealed: 1 to 32 of `A-Z a-z 0-9 _ -`.
    pub id: String,
    /// Where its 32 bytes are.
    pub source: KeySource,
}

/// Where a sealing key is kept.
#[derive(Debug)]
pub enum KeySource {
    /// A file, read at start.
    File(PathBuf),
    /// An environment variable's value, resolved at load.
    Value(Secret),
}

/// Sizes, times and counts that hold for every request.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest request body, bytes.
    pub body: usize,
    /// The longest time to read a request's header, and a connection's first.
    pub header_timeout: Duration,
    /// Connections at once; as many as descriptors allow if the operator does not say.
    pub connections: Option<usize>,
    /// Connections at once of one address; a part of all if the operator does not say.
    pub connections_per_address: Option<usize>,
    /// How long a connection may do nothing between requests.
    pub connection_idle: Duration,
    /// The longest pause within a request body.
    pub body_idle: Duration,
    /// The longest time that a request body may take in all.
    pub body_timeout: Duration,
    /// What requests may hold together, bytes; `None` is a part of what there is.
    pub memory: Option<usize>,
    /// How long the status line may wait for something to forward.
    pub commit_delay: Duration,
    /// The pause after which a stream gets a comment.
    pub keep_alive: Duration,
    /// How long a client may take no byte before its stream is cut.
    pub write_stall: Duration,
    /// How long running requests may go on after the first stop signal.
    pub shutdown_grace: Duration,
    /// How long a sealed session of a legacy client lasts.
    pub session_lifetime: Duration,
    /// Requests at once of one user.
    pub per_user: usize,
    /// Calls at once of one user whose server may come to wait for an answer.
    pub parked_per_user: usize,
    /// Long streams at once of one user.
    pub streams_per_user: usize,
    /// Long streams at once in all.
    pub streams_total: usize,
    /// Requests at once of one server.
    pub per_server: usize,
    /// Requests at once in all.
    pub total: usize,
    /// How long a request may wait for its turn.
    pub queue: Duration,
}

/// A configured server: what to launch, with holes for the user's token.
#[derive(Debug)]
pub struct Server {
    /// Its key in `mcpServers`.
    pub name: ServerName,
    /// What it is.
    pub plan: Plan,
    /// Whether a request needs the user's token.
    pub requires_user_token: bool,
    /// How a person gets a token.
    pub token_setup: TokenSetup,
    /// Times and sizes of its processes.
    pub process: ProcessLimits,
    /// The protocol era to speak with it.
    pub protocol: Protocol,
    /// What becomes of its questions to clients that cannot be asked in the middle of a call.
    pub questions: Questions,
    /// When a stream on which a client listens has a server of its own.
    pub listen: Listening,
    /// For how long it runs behind HTTP+SSE.
    pub sse: SseServers,
    /// Who may use it, and which of its tools.
    pub access: Access,
}

/// For how long a server runs behind the HTTP+SSE of 2024-11-05.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "sse")]
pub enum SseServers {
    /// For a request, as elsewhere.
    #[default]
    Request,
    /// For as long as the stream is open: for a server of an older era whose state its client comes back to.
    Session,
}

/// When a stream on which a client listens has a server of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "listening")]
pub enum Listening {
    /// For as long as its client is subscribed to a resource. What the servers of calls say of changed lists goes out on
    /// it at any time.
    #[default]
    Subscribed,
    /// Always: for a server that watches something outside of itself and announces changed lists unasked.
    Always,
}

/// What becomes of the questions that a server of an older era asks in the middle of a call, when the client is of the
/// era that answers by calling again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "questions")]
pub enum Questions {
    /// The server waits, for `parkLease` at most, until the client calls again. What it did before is done once.
    #[default]
    Park,
    /// The server is ended, and the call begins anew with the answers. Right where doing it twice is harmless.
    Replay,
    /// The server is told that the client cannot be asked.
    Refuse,
}

/// The protocol era to speak with a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "protocol")]
pub enum Protocol {
    /// What it turns out to speak.
    #[default]
    Auto,
    /// Revisions with `initialize`.
    Legacy,
    /// Revisions without.
    Modern,
}

/// How to speak HTTP to a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "transport")]
pub enum Transport {
    /// What it turns out to speak.
    #[default]
    Auto,
    /// Streamable HTTP.
    Streamable,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

/// How a person gets a token for a server, as the operator tells it.
#[derive(Debug, Default)]
pub struct TokenSetup {
    /// The service's name for people.
    pub display_name: Option<String>,
    /// What to do, in a sentence or two.
    pub instructions: Option<String>,
    /// Where the service explains it.
    pub help_url: Option<Url>,
    /// What a token looks like; checked when one is saved.
    pub token_format: Option<regex::Regex>,
}

/// Times and sizes of one server's processes.
#[derive(Debug, Clone)]
pub struct ProcessLimits {
    /// From the spawn to the answer of `initialize`.
    pub start_timeout: Duration,
    /// From the spawn to the response, whatever progress is made.
    pub request_timeout: Duration,
    /// How long a legacy call may go on when its client has gone.
    pub abandoned_grace: Duration,
    /// From closing stdin to SIGTERM.
    pub eof_grace: Duration,
    /// From SIGTERM to SIGKILL.
    pub term_grace: Duration,
    /// How long a server that has asked its client something waits for the answer, when the client must call again.
    pub park_lease: Duration,
    /// The longest line on stdout, bytes.
    pub line: usize,
}
