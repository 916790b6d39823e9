//! What a server is started from, with holes for the user's token, and the same without.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{Confinement, ContainerLaunch, ContainerPlan, Template, TokenFile, TokenFilePlan, Transport};
use crate::secret::Secret;

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

/// An HTTP server to call, filled for one user.
pub struct HttpLaunch {
    /// Its URL.
    pub url: Secret,
    /// Headers to send; values are marked sensitive.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// How to speak to it.
    pub transport: Transport,
}
