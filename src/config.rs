//! The configuration as meant: immutable, shared by every request, plain data only. `written` is the file as written.
//!
//! Loading goes from text to a tree with positions, to what was written (both in `written`), to what was meant (`load`
//! and the modules after it), with every problem collected on the way. At request time only `template::fill` is left to
//! do. No excerpt, no `Debug` and no error shows a value of the file or of a token.

// the file as written, and what is wrong with it
mod written;

// from what is written to what is meant
mod access;
mod admin;
mod audit;
mod callers;
mod environment;
mod hosts;
mod identity;
mod limits;
mod listen;
mod literal_secret;
mod load;
mod name;
mod oauth;
mod outline;
mod probe;
mod rate;
mod request_header;
mod server_name;
mod servers;
mod slow_start;
mod spares;
mod tasks;
mod token_admin;
mod token_fields;
mod token_store;
mod value;

// what is launched
mod arguments;
mod confinement;
mod container;
mod plan;
mod program;
mod server_kinds;

// holes for what differs between users and requests
mod template;

#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::secret::Secret;
use crate::user::Caller;

pub use access::{Access, Allow, Tools};
pub use admin::AdminConfig;
pub use audit::{AuditConfig, AuditFile, AuditStream};
pub use confinement::{Confinement, RunAs};
pub use container::Engine;
pub use environment::Environment;
pub use limits::{Limits, ProcessLimits};
pub use listen::Listen;
pub use literal_secret::{named_argument, names_secret, why_secret};
pub use load::{LoadOptions, load, load_while_bound, parse};
pub use oauth::{ConfiguredClient, NamedService, OAuth, OF_THE_PROTOCOL, ResourceIndicator};
pub use outline::{Change, ChangeKind, Outline};
pub use plan::{
    ContainerLaunch, ContainerPlan, HttpLaunch, HttpPlan, Late, LateName, Launch, Plan, StdioLaunch, StdioPlan,
    TokenFile, TokenFilePlan,
};
pub use rate::Rate;
pub use request_header::{BadHeader, MAX_REQUEST_VALUE, RequestHeader, RequestValues};
pub use server_name::ServerName;
pub use spares::Spares;
pub use tasks::Tasks;
pub use template::fill::{FillError, MAX_LAUNCH};
pub use template::input::Inputs;
pub use template::{MAX_VALUE, Source, Template};
pub use token_admin::{TokenAdmin, load_token_admin};
pub use token_store::{KeySource, SealingKey, TokenStoreConfig, TokenStoreKind};
pub use written::choices::{
    AuditedUses, ClientAuthentication, EngineKind, EnvironmentCopies, Hold, Listening, Protocol, Questions,
    Registration, SseServers, Transport, WithoutToken,
};
pub use written::file;
pub use written::problem::{Problem, Problems};

/// Everything `tollbridge serve` needs to know, checked as a whole.
#[derive(Debug)]
pub struct Config {
    /// Where MCP clients are served.
    pub listen: Listen,
    /// Whether other processes may listen there in the same way.
    pub reuse_port: bool,
    /// What people call this bridge.
    pub name: String,
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
    /// Where operators are served, if anywhere.
    pub admin: Option<AdminConfig>,
    /// Where it is written down who did what with users' tokens, if anywhere.
    pub audit: Option<AuditConfig>,
    /// The configured servers by name; disabled ones are left out.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// The names of the disabled ones.
    pub disabled: Vec<ServerName>,
    /// The names of those left out because a variable they need is not set; only with `allow_missing_env`.
    pub incomplete: Vec<ServerName>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
    /// What the log shows, if the file says so.
    pub log_filter: Option<String>,
    /// What the file says, without its values.
    pub outline: Outline,
}

impl Config {
    /// The longest single thing that a client or a server may say, bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.servers.values().map(|server| server.process.line).fold(self.limits.body, usize::max)
    }

    /// Where a person saves their token for a server: names the server, and nobody.
    #[must_use]
    pub fn connect_link(&self, server: &ServerName) -> String {
        format!("{}/{server}/connect", self.public_url.as_str().trim_end_matches('/'))
    }

    /// Where a service sends people back to who have signed in there for a server. It is registered there exactly so.
    #[must_use]
    pub fn redirect_uri(&self, server: &Server) -> String {
        let written = server.oauth.as_ref().and_then(|oauth| oauth.redirect_uri.clone());
        written.unwrap_or_else(|| self.callback(&server.name))
    }

    /// Whether people who have signed in for a server are led elsewhere than to the bridge, and paste where that was.
    #[must_use]
    pub fn takes_paste_back(&self, server: &Server) -> bool {
        self.redirect_uri(server) != self.callback(&server.name)
    }

    fn callback(&self, server: &ServerName) -> String {
        format!("{}/oauth/callback/{server}", self.public_url.as_str().trim_end_matches('/'))
    }

    /// Where a service that reads them finds the document that says who this bridge is.
    #[must_use]
    pub fn client_document_url(&self) -> String {
        format!("{}/oauth/client.json", self.public_url.as_str().trim_end_matches('/'))
    }

    /// Whether users sign in at the service of any server.
    #[must_use]
    pub fn has_oauth(&self) -> bool {
        self.servers.values().any(|server| server.oauth.is_some())
    }

    /// What every path of a link on this host begins with: the path of `publicUrl`, without a slash at its end. It is
    /// empty or begins with exactly one.
    #[must_use]
    pub fn base_path(&self) -> String {
        let path = self.public_url.path().trim_matches('/');
        if path.is_empty() { String::new() } else { format!("/{path}") }
    }

    /// Where clients call the server.
    #[must_use]
    pub fn server_url(&self, server: &ServerName) -> String {
        format!("{}/{server}/mcp", self.public_url.as_str().trim_end_matches('/'))
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

/// One way to recognise a caller.
#[derive(Debug)]
pub enum IdentityMethod {
    /// `Authorization: Bearer …`, compared by its SHA-256.
    Bearer {
        /// The tokens that are good, each with whose it is.
        tokens: Vec<BearerToken>,
        /// Whose are left out because a variable is not set; only with `allow_missing_env`.
        incomplete: Vec<Caller>,
    },
    /// A header set by a reverse proxy that proves itself.
    TrustedHeader(TrustedHeader),
    /// Every caller is this user, in these groups; only on loopback.
    Local(Caller),
}

/// One bearer token.
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
    /// The header that gives the user's email address, lower case.
    pub email_header: Option<http::HeaderName>,
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
    /// What becomes of the requests of a user who has saved none.
    pub without_token: WithoutToken,
    /// How a person gets a token.
    pub token_setup: TokenSetup,
    /// How users sign in at its service, if they do.
    pub oauth: Option<OAuth>,
    /// Whether whoever is calling is named to it.
    pub names_user: bool,
    /// How what a person gives is tried before it is saved, if it is.
    pub probe: Option<Probe>,
    /// Headers of a request that go into it.
    pub request_headers: Vec<RequestHeader>,
    /// How often each user may call it.
    pub rate: Option<Rate>,
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
    /// Where its tasks are kept.
    pub tasks: Tasks,
    /// Who may use it, and which of its tools.
    pub access: Access,
    /// Those of it that wait for a request, if any do.
    pub spares: Option<Spares>,
}

impl Server {
    /// What people call it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.token_setup.display_name.as_deref().unwrap_or(self.name.as_str())
    }

    /// Whether a person may paste a token for it.
    #[must_use]
    pub fn takes_pasted_token(&self) -> bool {
        self.requires_user_token && self.oauth.as_ref().is_none_or(|oauth| oauth.also_token)
    }

    /// Whether calls of a user without a token lead to the page where one is saved, rather than to an error.
    #[must_use]
    pub fn leads_to_connecting(&self) -> bool {
        self.requires_user_token && self.without_token != WithoutToken::Error
    }
}

/// How what a person gives is tried before it is saved.
#[derive(Debug)]
pub enum Probe {
    /// A fresh server lists its tools.
    Tools,
    /// A fresh server's tool is called.
    Tool {
        /// Its name.
        name: String,
        /// Its arguments, as a JSON object.
        arguments: String,
    },
    /// A request to the service.
    Get(HttpPlan),
}

/// How a person gets a token for a server, as the operator tells it.
#[derive(Debug)]
pub struct TokenSetup {
    /// The service's name for people.
    pub display_name: Option<String>,
    /// What to do, in a sentence or two.
    pub instructions: Option<String>,
    /// Where the service explains it.
    pub help_url: Option<Url>,
    /// What a person gives, in this order; never empty. It is one unnamed token unless the operator says otherwise.
    pub fields: Vec<TokenField>,
    /// How long that is good from when it is saved, unless the person says otherwise.
    pub expires: Option<Duration>,
}

/// One value that a person gives.
#[derive(Debug)]
pub struct TokenField {
    /// Its name; that of an unnamed token is [`Credential::TOKEN`](crate::secret::Credential::TOKEN).
    pub name: Box<str>,
    /// What it is called towards people, if not by its name.
    pub label: Option<String>,
    /// Where a person finds it.
    pub help: Option<String>,
    /// Whether it must not be seen.
    pub is_secret: bool,
    /// What it looks like; checked when it is saved.
    pub format: Option<regex::Regex>,
}
