//! Containers, as they are configured and as they are started: through the command line of their engine.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, Plan, StdioLaunch, StdioPlan, Template};
use crate::secret::Secret;

/// Which container engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", rename = "engine")]
pub enum EngineKind {
    /// Docker, and what speaks its language.
    #[default]
    Docker,
    /// Podman.
    Podman,
}

impl EngineKind {
    /// The name of its client.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// A container engine, as its client is called: the same for `run` and for what clears away after it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Engine {
    /// The client, absolute.
    pub program: PathBuf,
    /// What stands before the command: which engine, where its configuration is.
    pub args: Vec<String>,
    /// The client's environment, without anything for a container.
    pub env: Vec<(String, String)>,
}

/// Shows the program alone: the rest is values.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.program.display())
    }
}

impl Engine {
    /// Whether the engine is on this machine, as far as its client's settings say: only then can what it knows of
    /// processes be compared with `/proc`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let remote = |name: &str| matches!(name, "DOCKER_CONTEXT" | "CONTAINER_CONNECTION");
        let host = |name: &str| matches!(name, "DOCKER_HOST" | "CONTAINER_HOST");
        self.args.is_empty()
            && self.env.iter().all(|(name, value)| !remote(name) && (!host(name) || value.starts_with("unix:")))
            && !self.has_chosen_context()
    }

    /// Whether somebody has chosen another engine for this user, by `docker context use`.
    fn has_chosen_context(&self) -> bool {
        let variable = |name: &str| self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value);
        let own = variable("DOCKER_CONFIG").map(PathBuf::from);
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let Some(file) = own.or_else(home).map(|directory| directory.join("config.json")) else { return false };
        let settings = std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        settings.is_some_and(|settings: serde_json::Value| {
            settings["currentContext"].as_str().is_some_and(|context| !matches!(context, "" | "default"))
        })
    }
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

/// The same, filled for one user.
pub struct TokenFile {
    /// The variable.
    pub variable: String,
    /// A directory in memory, in which the file is made.
    pub directory: PathBuf,
    /// What the file holds.
    pub content: Secret,
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
        let plans = self.servers.values().filter_map(|server| match &server.plan {
            Plan::Stdio(plan) => Some(plan),
            Plan::Container(plan) => Some(&plan.client),
            Plan::Http(_) => None,
        });
        let mut directories: Vec<_> =
            plans.flat_map(|plan| &plan.token_files).map(|file| file.directory.clone()).collect();
        directories.sort();
        directories.dedup();
        directories
    }
}
