//! One server of `mcpServers`, as written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::oauth::OAuth;
use super::spares::Spares;
use super::text::{Object, PrivateDirectory, Rate, Size, Time, Value};
use crate::config::written::choices::{
    EngineKind, Listening, Protocol, Questions, SseServers, TaskKeeping, Transport, WithoutToken,
};

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
    /// Whether its tasks outlive its processes, so that a fresh one can be asked about them. Default: false.
    pub durable_tasks: Option<bool>,
    /// What becomes of tasks that do not. Default: `off`.
    pub tasks: Option<TaskKeeping>,
    /// How long the process of a task is held: 24h at most. Default: 30m.
    pub task_lease: Option<Time>,
    /// The users and groups (`group:NAME`) who may use it; for others it does not exist. Without it everybody may.
    pub allow: Option<Vec<Option<String>>>,
    /// Which of its tools they may use; the others are neither listed nor called. Without it all.
    pub tools: Option<Object<Tools>>,
    /// Whether requests need the user's own token. Follows from a `$userToken` in its fields.
    pub requires_user_token: Option<bool>,
    /// What becomes of the requests of a user who has saved no token. Default: `connect`.
    pub without_token: Option<WithoutToken>,
    /// How users sign in at the service, so that nobody pastes a token.
    pub oauth: Option<OAuth>,
    /// How a person gets a token.
    pub token_setup: Option<Object<TokenSetup>>,
    /// How what a person gives is tried before it is saved. Default: not at all.
    pub probe: Option<Probe>,
    /// How often each user may call it, for example `60/m`. Default: no limit.
    pub rate: Option<Rate>,
    /// How many of those calls may come at once. Default: the number of `rate`.
    pub burst: Option<usize>,
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
    /// By how much it leaves the processors to the bridge: 0 to 19 more than the bridge's own nice value. Default: 5.
    #[schemars(range(max = 19))]
    pub nice: Option<usize>,
    /// The user to run as: `UID`, `UID:GID`, or a range such as `20000-20999` of which each request gets one of its own.
    pub run_as: Option<String>,
    /// Whether each request gets an empty directory of its own as TMPDIR, and to work in unless `cwd` names another,
    /// removed afterwards, and what it may hold (true: 256MiB). Default: true unless there is a `cwd`.
    pub private_directory: Option<PrivateDirectory>,
    /// How many of it wait, started, for a request: a number, or an object. Without it none.
    pub spares: Option<Spares>,
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
    /// By name, what a person gives instead of one token: 1 to 16 values.
    pub fields: Option<BTreeMap<String, Option<Object<TokenField>>>>,
    /// How long a token is good from when it is saved, unless the person says otherwise: `1d` or more.
    pub expires: Option<Time>,
}

/// One of several values that a person gives; `<<NAME>>` stands for it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "tokenField")]
pub struct TokenField {
    /// What it is called towards people. Its name if it has none.
    pub label: Option<String>,
    /// Whether it must not be seen. Default: true.
    pub secret: Option<bool>,
    /// A regular expression that it must match.
    pub format: Option<String>,
    /// Where a person finds it, in a sentence.
    pub help: Option<String>,
}

/// How what a person gives is tried: `"tools/list"`, a call of a tool, or a request to the service.
#[derive(JsonSchema)]
#[schemars(untagged, rename = "probe")]
pub enum Probe {
    /// `tools/list`.
    Method(String),
    /// A call of a tool, or a request.
    Call(ProbeCall),
}

/// A call of a tool, or a GET request to the service.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename = "probeCall")]
pub struct ProbeCall {
    /// The tool of a fresh server that is called.
    pub tool: Option<String>,
    /// Its arguments.
    pub arguments: Option<serde_json::Value>,
    /// What is asked instead, with GET: an https URL of the service.
    pub url: Option<Value>,
    /// Headers to send to it.
    pub headers: Option<BTreeMap<String, Option<Value>>>,
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProbeVisitor)
    }
}

struct ProbeVisitor;

impl<'de> Visitor<'de> for ProbeVisitor {
    type Value = Probe;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"tools/list\", or an object with `tool` or `url`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Probe, E> {
        Ok(Probe::Method(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Probe, A::Error> {
        ProbeCall::deserialize(MapAccessDeserializer::new(map)).map(Probe::Call)
    }
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
