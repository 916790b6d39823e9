//! The file as written. Every field is optional and every list element may be null, so that one misfit does not hide
//! the others (`read`); null itself is refused. What must be there and what goes together is checked when the file is
//! made into a [`crate::config::Config`].

mod oauth;
mod schema;
mod server;
mod spares;
mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use super::choices::AuditedUses;

pub use oauth::{OAuth, OAuthFields, Resource};
pub(in crate::config) use schema::field_names;
pub use schema::schema;
pub use server::{Probe, ProbeCall, Server, ServerKind, TokenField, TokenSetup, ToolRule, Tools};
pub use spares::{SpareSettings, Spares};
pub use text::{Object, PrivateDirectory, Rate, RequestHeader, Size, Time, Value};

/// The configuration file of Tollbridge.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "configuration")]
pub struct File {
    /// Where this file's JSON Schema is, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// What people call this bridge: 1 to 64 characters. Default: `Tollbridge`.
    pub name: Option<String>,
    /// What the log shows: `error`, `warn`, `info`, `debug` or `trace`, or levels of parts, such as
    /// `info,tollbridge::upstream=debug`. Default: what the variable `TOLLBRIDGE_LOG` says.
    pub log_filter: Option<String>,
    /// Where MCP clients are served: `IP:PORT` or `unix:/path`. Default: `127.0.0.1:8080`.
    pub listen: Option<Value>,
    /// Whether another bridge may listen at the same port, which shares the connections: for an upgrade that refuses
    /// nothing. Default: `false`.
    pub reuse_port: Option<bool>,
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
    /// Health and metrics, and the API of operators.
    pub admin: Option<Object<Admin>>,
    /// Who did what with users' tokens.
    pub audit: Option<Object<Audit>>,
    /// The MCP servers by name, as in the configuration of any MCP client.
    #[schemars(with = "BTreeMap<String, Server>")]
    pub mcp_servers: Option<BTreeMap<String, Json>>,
}

/// Health and metrics, and the API of operators.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "admin")]
pub struct Admin {
    /// Where they are served: `IP:PORT`.
    #[schemars(required)]
    pub listen: Option<Value>,
    /// What operators present to use the API there: at least 22 characters, only as `{ "$env": "NAME" }`. Without it there
    /// is no such API.
    pub token: Option<Value>,
}

/// Who did what with users' tokens, and when: one line of JSON per event. It names a file, `redis`, or both.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "audit")]
pub struct Audit {
    /// The file that lines are added to, or `stderr`. Relative to this file.
    pub file: Option<Value>,
    /// The stream in the token store's Redis that lines are added to.
    pub redis: Option<Object<AuditStream>>,
    /// Whether each use of a token is a line, or the first of a day per user and server. Default: each.
    pub uses: Option<AuditedUses>,
    /// Whether a change of a token is refused when it cannot be written down. Default: false.
    pub required: Option<bool>,
}

/// A stream in the token store's Redis: `PREFIX:audit`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "auditStream")]
pub struct AuditStream {
    /// How many lines it keeps. Default: 100000.
    pub max_length: Option<usize>,
    /// How long it keeps a line. Default: 90d.
    pub max_age: Option<Time>,
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
    /// Their email address, for `<<user.email>>`.
    pub email: Option<String>,
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
    /// The header that gives the user's email address, for `<<user.email>>`.
    pub email_header: Option<String>,
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
    /// Their email address, for `<<user.email>>`.
    pub email: Option<String>,
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
    /// How long one command to the store may take: 100ms to 1m. Default: 600ms.
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
    /// How long one command to the store may take, with all its tries: 100ms to 1m. Default: 600ms.
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
    /// How long the bridge serves as ever after the first stop signal, while `/readyz` says 503: for whoever sends requests
    /// to hear of it. Default: `0s`.
    pub pre_stop_delay: Option<Time>,
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
    /// How often each user may call, whichever servers, for example `600/m`. Default: no limit.
    pub rate: Option<Rate>,
    /// How many of those calls may come at once. Default: the number of `rate`.
    pub burst: Option<usize>,
    /// Spares of all servers together. Default: 16.
    pub spares: Option<usize>,
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
    /// Default of every server's `taskLease`: 30m.
    pub task_lease: Option<Time>,
    /// Default of every server's `line`: 16MiB.
    pub line: Option<Size>,
}
