//! A container engine, by its client.

use std::fmt;
use std::path::PathBuf;

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
