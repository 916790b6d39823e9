//! What a server is started from, with holes for the user's token, and the same without.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Config, Confinement, Engine, Template, Transport};
use crate::secret::{Credential, Secret};

/// What a server is launched from.
#[derive(Debug)]
pub enum Plan {
    /// A program that speaks MCP on stdin and stdout.
    Stdio(StdioPlan),
    /// A container whose program does.
    Container(ContainerPlan),
    /// A server elsewhere that speaks MCP over HTTP.
    Http(HttpPlan),
}

impl Plan {
    /// The name of the program that is started here, without its path.
    #[must_use]
    pub fn program(&self) -> Option<Cow<'_, str>> {
        let path = match self {
            Self::Stdio(plan) => &plan.program,
            Self::Container(plan) => &plan.client.program,
            Self::Http(_) => return None,
        };
        path.file_name().map(OsStr::to_string_lossy)
    }

    /// What is started here; nothing for a server elsewhere.
    #[must_use]
    pub fn process(&self) -> Option<&StdioPlan> {
        match self {
            Self::Stdio(plan) => Some(plan),
            Self::Container(plan) => Some(&plan.client),
            Self::Http(_) => None,
        }
    }
}

/// A program to start.
#[derive(Debug)]
pub struct StdioPlan {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<Template>,
    /// Its whole environment: the declared variables plus PATH, HOME, LANG and TMPDIR.
    pub env: Vec<(String, Template)>,
    /// Files that hold the user's token, and the variables that hold their paths.
    pub token_files: Vec<TokenFilePlan>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// What it may use.
    pub confinement: Confinement,
}

impl StdioPlan {
    /// Whether it is the same for all users and requests.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        let mut values = self.args.iter().chain(self.env.iter().map(|(_, value)| value));
        self.token_files.is_empty() && !values.any(Template::has_holes)
    }
}

/// A variable that holds the path of a file with the user's token.
#[derive(Debug)]
pub struct TokenFilePlan {
    /// The variable.
    pub variable: String,
    /// A directory in memory, in which the file is made.
    pub directory: PathBuf,
    /// What the file holds.
    pub content: Template,
}

/// A container to start.
#[derive(Debug)]
pub struct ContainerPlan {
    /// Its engine.
    pub engine: Arc<Engine>,
    /// Its image.
    pub image: Template,
    /// The engine's client: `run`, all options that are the same for every request, the image, its arguments.
    pub client: StdioPlan,
    /// Where among the arguments the options of one request belong.
    pub options_at: usize,
    /// The options that the bridge added to those that were written.
    pub added: Vec<String>,
    /// The options that say of which machine the image is, and how it is got: `pull` must be told the same.
    pub pull: Vec<String>,
    /// How many arguments were written: those of the program in the container, or those of the client.
    pub arguments: usize,
    /// How many arguments stand behind the image: those of the program in the container.
    pub behind_image: usize,
    /// What is run in place of the image's own entry point, if that is written.
    pub entrypoint: Option<Vec<String>>,
}

/// An HTTP server to call.
#[derive(Debug)]
pub struct HttpPlan {
    /// Its URL; holes only in path segments and query values.
    pub url: Template,
    /// `scheme://host[:port]` of the URL: no token changes it.
    pub origin: String,
    /// Headers to send.
    pub headers: Vec<(http::HeaderName, Template)>,
    /// How to speak to it.
    pub transport: Transport,
}

/// A launch plan without holes: made for one request, dropped and zeroed once it has been used.
pub enum Launch {
    /// A program to start.
    Stdio(StdioLaunch),
    /// A container to start.
    Container(ContainerLaunch),
    /// An HTTP server to call.
    Http(HttpLaunch),
}

/// A program to start, filled for one user. Its text is zeroed on drop.
pub struct StdioLaunch {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(String, Secret)>,
    /// Files to make before it starts, and the variables that hold their paths.
    pub token_files: Vec<TokenFile>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// What it may use.
    pub confinement: Confinement,
}

/// A [`TokenFilePlan`], filled for one user.
pub struct TokenFile {
    /// The variable.
    pub variable: String,
    /// A directory in memory, in which the file is made.
    pub directory: PathBuf,
    /// What the file holds.
    pub content: Secret,
}

/// What a server is given that was started from [`Server::early`](super::Server::early), once there is a request.
pub struct Late {
    /// The variables of its program that differ between users and requests.
    pub env: Vec<(String, Secret)>,
    /// What the user has saved: its secrets must not be seen in what the server says of itself.
    pub credential: Option<Credential>,
}

/// A variable that only a request knows, of a server that was started before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateName<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether every request has it: one may be served without what its user has not saved.
    pub is_sure: bool,
}

/// A container to start, filled for one user.
pub struct ContainerLaunch {
    /// Its engine.
    pub engine: Arc<Engine>,
    /// The engine's client.
    pub client: StdioLaunch,
    /// Where among the arguments the options of one request belong.
    pub options_at: usize,
}

/// An HTTP server to call, filled for one user.
pub struct HttpLaunch {
    /// Its URL.
    pub url: Secret,
    /// Headers to send; values are marked sensitive.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// How to speak to it.
    pub transport: Transport,
}

impl Config {
    /// Every engine that is used, once.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<Engine>> {
        let mut engines: Vec<Arc<Engine>> = Vec::new();
        for server in self.servers.values() {
            if let Plan::Container(plan) = &server.plan
                && !engines.contains(&plan.engine)
            {
                engines.push(Arc::clone(&plan.engine));
            }
        }
        engines
    }

    /// Every directory in which files with tokens are made, once.
    #[must_use]
    pub fn token_directories(&self) -> Vec<PathBuf> {
        let plans = self.servers.values().filter_map(|server| server.plan.process());
        let mut directories: Vec<_> =
            plans.flat_map(|plan| &plan.token_files).map(|file| file.directory.clone()).collect();
        directories.sort();
        directories.dedup();
        directories
    }
}
