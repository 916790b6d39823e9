//! The file as written. Every field is optional and every list element may be null, so that one misfit does not hide
//! the others (`read`); null itself is refused. What must be there and what goes together is checked when the file is
//! made into a [`super::Config`].

mod schema;
mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

pub use super::{EngineKind, Listening, Protocol, Questions, SseServers, Transport};
pub use schema::schema;
pub use text::{Object, PrivateDirectory, Size, Time, Value};

/// The configuration file of Tollbridge.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "configuration")]
pub struct File {
    /// Where this file's JSON Schema is, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// Where MCP clients are served: `IP:PORT` or `unix:/path`. Default: `127.0.0.1:8080`.
    pub listen: Option<Value>,
    /// The base URL that people and clients use. Default: made from `listen`.
    pub public_url: Option<Value>,
    /// What a `Host` header may name: `host` (any port) or `host:port`. Default: the host of `publicUrl`, and on a
    /// loopback `listen` also localhost, 127.0.0.1 and `[::1]`.
    pub allowed_hosts: Option<Vec<Option<String>>>,
    /// What an `Origin` header may name: `scheme://host[:port]`; the port `*` is any port. Default: the origin of
    /// `publicUrl`, and on a loopback `listen` also those of localhost, 127.0.0.1 and `[::1]`.
    pub allowed_origins: Option<Vec<Option<String>>>,
    /// How callers are recognised, tried in this order. Default on a loopback `listen`: everybody is the user `local`.
    #[schemars(with = "Option<Vec<Identity>>")]
    pub identity: Option<Vec<Json>>,
    /// Where users' tokens are kept.
    #[schemars(with = "Option<TokenStore>")]
    pub token_store: Option<Json>,
    /// Sizes, times and counts.
    pub limits: Option<Object<Limits>>,
    /// Health and metrics.
    pub admin: Option<Object<Admin>>,
    /// The MCP servers by name, as in the configuration of any MCP client.
    #[schemars(with = "BTreeMap<String, Server>")]
    pub mcp_servers: Option<BTreeMap<String, Json>>,
}

/// Health and metrics.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "admin")]
pub struct Admin {
    /// Where they are served: `IP:PORT`.
    #[schemars(required)]
    pub listen: Option<Value>,
}

/// A way to recognise callers. Only the schema is made from this type: `kind` is read by hand, so that errors keep
/// their place.
#[derive(JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename = "identity")]
pub enum Identity {
    /// `Authorization: Bearer …`.
    Bearer(Bearer),
    /// A header set by a reverse proxy that proves itself.
    TrustedHeader(TrustedHeader),
    /// Every caller is one user; only on loopback.
    Local(Local),
}

/// Static bearer tokens.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "bearer")]
pub struct Bearer {
    /// Read by hand.
    #[schemars(skip)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<String>,
    /// The issuer of these users. Default: `local`.
    pub issuer: Option<String>,
    /// The tokens that are good.
    #[schemars(required)]
    pub tokens: Option<Vec<Option<Object<BearerToken>>>>,
}

/// One static bearer token.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "bearerToken")]
pub struct BearerToken {
    /// Whose it is.
    #[schemars(required)]
    pub user: Option<String>,
    /// SHA-256 of the token, in hex or base64 (`tollbridge keygen` makes both).
    #[schemars(required)]
    pub sha256: Option<Value>,
    /// The groups that they are in.
    pub groups: Option<Vec<Option<String>>>,
}

/// A header set by a reverse proxy that proves itself.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "trustedHeader")]
pub struct TrustedHeader {
    /// Read by hand.
    #[schemars(skip)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<String>,
    /// The header that names the user.
    #[schemars(required)]
    pub header: Option<String>,
    /// The issuer of these users. Default: `local`.
    pub issuer: Option<String>,
    /// Networks (`10.0.0.0/8`), addresses, or `unix`, from which the header counts.
    #[schemars(required)]
    pub trusted_peers: Option<Vec<Option<String>>>,
    /// The header by which the proxy proves itself.
    #[schemars(required)]
    pub secret_header: Option<String>,
    /// What that header holds: at least 16 characters, best as `{ "$env": "NAME" }`.
    #[schemars(required)]
    pub secret: Option<Value>,
    /// Whether the user header may hold a comma. Default: false.
    pub allow_comma: Option<bool>,
    /// The header that names the user's groups, with commas between them.
    pub groups_header: Option<String>,
}

/// Every caller is one user.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "local")]
pub struct Local {
    /// Read by hand.
    #[schemars(skip)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<String>,
    /// That user.
    #[schemars(required)]
    pub user: Option<String>,
    /// The groups that they are in.
    pub groups: Option<Vec<Option<String>>>,
}

/// Where users' tokens are kept. Only the schema is made from this type, as with [`Identity`].
#[derive(JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename = "tokenStore")]
pub enum TokenStore {
    /// SQLite in a directory: one node.
    Embedded(Embedded),
    /// Redis or Valkey: any number of nodes.
    Redis(Redis),
}

/// SQLite in a directory.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "embedded")]
pub struct Embedded {
    /// Read by hand.
    #[schemars(skip)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<String>,
    /// The directory; made if missing. Relative to this file.
    #[schemars(required)]
    pub path: Option<Value>,
    /// How long one question to the store may take: 100ms to 1m. Default: 600ms.
    pub timeout: Option<Time>,
    /// The sealing keys: the first seals, all open.
    #[schemars(required)]
    pub keys: Option<Vec<Option<Object<SealingKey>>>>,
}

/// Redis or Valkey.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "redis")]
pub struct Redis {
    /// Read by hand.
    #[schemars(skip)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<String>,
    /// `redis://`, `rediss://` or `redis+unix://`.
    #[schemars(required)]
    pub url: Option<Value>,
    /// What every key starts with. Default: `tollbridge`.
    pub prefix: Option<String>,
    /// How long one question to the store may take, with all its tries: 100ms to 1m. Default: 600ms.
    pub timeout: Option<Time>,
    /// The sealing keys: the first seals, all open.
    #[schemars(required)]
    pub keys: Option<Vec<Option<Object<SealingKey>>>>,
}

/// A sealing key: 32 random bytes (`tollbridge keygen`).
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "sealingKey")]
pub struct SealingKey {
    /// A name that travels with everything the key sealed: 1 to 32 of `A-Z a-z 0-9 _ -`.
    #[schemars(required)]
    pub id: Option<String>,
    /// The file that holds the key. Relative to this file.
    pub file: Option<Value>,
    /// The environment variable that holds the key: `{ "$env": "NAME" }`.
    pub value: Option<Value>,
}

/// Sizes, times and counts. Times and sizes are text with a unit.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "limits")]
pub struct Limits {
    /// The longest request body. Default: 4MiB.
    pub body: Option<Size>,
    /// The longest time to read a request's header. Default: 10s.
    pub header_timeout: Option<Time>,
    /// Connections at once. Default: what the limit on open files leaves beside `total` calls, at most 10000.
    pub connections: Option<usize>,
    /// Connections at once of one address (IPv4) or /64 (IPv6), except `trustedPeers`. Default: a quarter of `connections`.
    pub connections_per_address: Option<usize>,
    /// How long a connection may do nothing between requests. Default: 90s.
    pub connection_idle: Option<Time>,
    /// The longest pause within a request body. Default: 30s.
    pub body_idle: Option<Time>,
    /// The longest time that a request body may take in all. Default: 2m.
    pub body_timeout: Option<Time>,
    /// What requests may hold in the bridge's memory together. Default: a quarter of what there is, at most 1GiB.
    pub memory: Option<Size>,
    /// How long the status line may wait for something to forward. Default: 1s.
    pub commit_delay: Option<Time>,
    /// The pause after which a stream gets a comment. Default: 15s.
    pub keep_alive: Option<Time>,
    /// How long a client may take or acknowledge no byte before it is cut. Default: 30s.
    pub write_stall: Option<Time>,
    /// How long running requests may go on after the first stop signal. Default: 25s.
    pub shutdown_grace: Option<Time>,
    /// How long the session of a client of an older protocol lasts. Default: 24h.
    pub session_lifetime: Option<Time>,
    /// Requests at once of one user. Default: 32.
    pub per_user: Option<usize>,
    /// Calls at once of one user that may be parked. Default: 32.
    pub parked_per_user: Option<usize>,
    /// Long streams at once of one user; `perUser` of them may have a server. Default: 256.
    pub streams_per_user: Option<usize>,
    /// Long streams at once in all; `total` of them may have a server. Default: 2048.
    pub streams_total: Option<usize>,
    /// Requests at once of one server. Default: 256.
    pub per_server: Option<usize>,
    /// Requests at once in all. Default: 512.
    pub total: Option<usize>,
    /// How long a request may wait for its turn. Default: 2s.
    pub queue: Option<Time>,
    /// Default of every server's `startTimeout`: 30s.
    pub start_timeout: Option<Time>,
    /// Default of every server's `requestTimeout`: 5m.
    pub request_timeout: Option<Time>,
    /// Default of every server's `abandonedGrace`: 30s.
    pub abandoned_grace: Option<Time>,
    /// Default of every server's `eofGrace`: 2s.
    pub eof_grace: Option<Time>,
    /// Default of every server's `termGrace`: 2s.
    pub term_grace: Option<Time>,
    /// Default of every server's `parkLease`: 2m.
    pub park_lease: Option<Time>,
    /// Default of every server's `line`: 16MiB.
    pub line: Option<Size>,
}

/// An MCP server: a program (`command`), a container (`image`) or one elsewhere (`url`).
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "server")]
#[schemars(extend("oneOf" = [{ "required": ["command"] }, { "required": ["image"] }, { "required": ["url"] }]))]
pub struct Server {
    /// `stdio`, or `http`, `streamable-http` or `sse`; follows from `command`, `image` or `url`.
    #[serde(rename = "type")]
    pub kind: Option<ServerKind>,
    /// The program: a name found in PATH, or a path, relative to this file.
    pub command: Option<Value>,
    /// Its arguments; those of the program in the container, if it is one.
    pub args: Option<Vec<Option<Value>>>,
    /// Its environment. PATH, HOME, LANG and TMPDIR of a program come from the bridge unless they are named here; a
    /// container gets what is named here and nothing else.
    pub env: Option<BTreeMap<String, Option<Value>>>,
    /// Its working directory. Relative to this file.
    pub cwd: Option<Value>,
    /// Lets `<<token>>` stand in `args`, where it is visible in ps to every user of the machine. Default: false.
    pub allow_token_in_args: Option<bool>,
    /// The image of a container, which must have been pulled (`tollbridge pull`). With `command` it is an argument.
    pub image: Option<Value>,
    /// The container engine, by its command line. Default: `docker`.
    pub engine: Option<EngineKind>,
    /// The container's network, as `--network`. Default: the engine's own.
    pub network: Option<String>,
    /// Whether the container's file system can only be read, except for an empty `/tmp`. Default: false.
    pub read_only: Option<bool>,
    /// The user in the container, as `--user`. Default: the image's.
    pub user: Option<String>,
    /// Mounts, as `source:target` (read-only) or `source:target:rw`. A relative source starts at this file.
    pub mounts: Option<Vec<Option<String>>>,
    /// Options of the engine that would be refused, by their names, as in `--cap-add`: what they give to the container
    /// is given on purpose.
    pub allow_unsafe: Option<Vec<Option<String>>>,
    /// Whether the image must be named by its digest (`name@sha256:…`). Default: false.
    pub require_digest: Option<bool>,
    /// The URL of a server elsewhere.
    pub url: Option<Value>,
    /// Headers to send to it.
    pub headers: Option<BTreeMap<String, Option<Value>>>,
    /// How to speak to it. Default: `auto`.
    pub transport: Option<Transport>,
    /// The protocol era to speak with it. Default: `auto`.
    pub protocol: Option<Protocol>,
    /// What becomes of its questions to clients that cannot be asked in the middle of a call. Default: `park`.
    pub questions: Option<Questions>,
    /// When a stream on which a client listens has a server of its own. Default: `subscribed`.
    pub listen: Option<Listening>,
    /// For how long it runs behind HTTP+SSE. Default: `request`.
    pub sse: Option<SseServers>,
    /// How long it waits, parked, for the answer to a question. Default: 2m.
    pub park_lease: Option<Time>,
    /// The users and groups (`group:NAME`) who may use it; for others it does not exist. Without it everybody may.
    pub allow: Option<Vec<Option<String>>>,
    /// Which of its tools they may use; the others are neither listed nor called. Without it all.
    pub tools: Option<Object<Tools>>,
    /// Whether requests need the user's own token. Follows from a `$userToken` in its fields.
    pub requires_user_token: Option<bool>,
    /// How a person gets a token.
    pub token_setup: Option<Object<TokenSetup>>,
    /// From the start to the answer of `initialize`. Default: 30s.
    pub start_timeout: Option<Time>,
    /// From the start to the response, whatever progress is made. Default: 5m.
    pub request_timeout: Option<Time>,
    /// How long a call may go on when its client has gone; `0s` ends it at once. Default: 30s.
    pub abandoned_grace: Option<Time>,
    /// From closing stdin to SIGTERM. Default: 2s.
    pub eof_grace: Option<Time>,
    /// From SIGTERM to SIGKILL. Default: 2s.
    pub term_grace: Option<Time>,
    /// The longest message. Default: 16MiB.
    pub line: Option<Size>,
    /// The most memory of one request's processes together, where the host can hold them to it. Default: no limit.
    pub memory: Option<Size>,
    /// The most processors' worth of time that they use, for example 0.5. Default: no limit.
    pub cpus: Option<f64>,
    /// The most processes and threads that they may be. Default: no limit.
    pub pids: Option<usize>,
    /// How readily the kernel ends it when memory runs out, as `oom_score_adj`: 0 to 1000, and the bridge has less. Default:
    /// 500.
    #[schemars(range(max = 1000))]
    pub oom_score_adj: Option<usize>,
    /// The user to run as: `UID`, `UID:GID`, or a range such as `20000-20999` of which each request gets one of its own.
    pub run_as: Option<String>,
    /// Whether each request gets an empty directory of its own as TMPDIR, and to work in unless `cwd` names another,
    /// removed afterwards, and what it may hold (true: 256MiB). Default: true unless there is a `cwd`.
    pub private_directory: Option<PrivateDirectory>,
    /// Checked, but neither looked up nor served. Default: false.
    pub disabled: Option<bool>,
}

/// Which tools of a server may be used.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "tools")]
pub struct Tools {
    /// Names of tools, in which `*` stands for any characters. Without it all.
    pub allow: Option<Vec<Option<String>>>,
    /// The same of tools that may not be used, also where `allow` names them.
    pub deny: Option<Vec<Option<String>>>,
    /// By the name of a group: what its members may use instead.
    pub groups: Option<BTreeMap<String, Option<Object<ToolRule>>>>,
}

/// Which tools of a server the members of a group may use.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "toolRule")]
pub struct ToolRule {
    /// Names of tools, in which `*` stands for any characters. Without it all.
    pub allow: Option<Vec<Option<String>>>,
    /// The same of tools that may not be used, also where `allow` names them.
    pub deny: Option<Vec<Option<String>>>,
}

/// How a person gets a token for a server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "tokenSetup")]
pub struct TokenSetup {
    /// The service's name for people.
    pub display_name: Option<String>,
    /// What to do, in a sentence or two.
    pub instructions: Option<String>,
    /// Where the service explains it: https only.
    pub help_url: Option<String>,
    /// A regular expression that a token must match.
    pub token_format: Option<String>,
}

/// What a server is, as other clients' tables say it.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename = "serverType")]
pub enum ServerKind {
    /// A program.
    Stdio,
    /// A server elsewhere.
    Http,
    /// The same.
    StreamableHttp,
    /// One that speaks the HTTP+SSE transport of 2024-11-05.
    Sse,
}
