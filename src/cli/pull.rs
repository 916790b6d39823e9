//! `tollbridge pull`: the images that servers are started from, ahead of the first request.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use super::Stop;
use crate::config::{self, Config, ContainerPlan, Environment, LoadOptions, Plan};

/// Variables of our own environment that say how to get to a registry. Podman's client does so itself; no container gets
/// them, and so no client that starts one.
const OF_REGISTRIES: [&str; 11] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Pull {
    /// Pulls every image once, and says so of each; what the engine says goes to stderr.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(match config::load(&self.config, &LoadOptions::default()) {
            Ok(config) => pull(&config),
            Err(problems) => Err(Stop::usage(problems)),
        })
    }
}

fn pull(config: &Config) -> Result<(), Stop> {
    let mut seen = BTreeSet::new();
    let mut failed = 0;
    for server in config.servers.values() {
        let Plan::Container(plan) = &server.plan else { continue };
        let image = plan.image.fixed_text().unwrap_or_default();
        let engine = &plan.engine;
        let how = (engine.program.clone(), engine.args.clone(), engine.env.clone(), plan.pull.clone());
        if !seen.insert((how, image.clone())) {
            continue;
        }
        let outcome = match pull_one(plan, &image) {
            Ok(()) => "pulled",
            Err(error) => {
                failed += 1;
                let _closed = writeln!(io::stderr(), "{image}: {error}");
                "FAILED"
            }
        };
        writeln!(io::stdout(), "{outcome} {image} (server {})", server.name).map_err(Stop::output)?;
    }
    if failed > 0 { Err(Stop::failed(format!("{failed} of {} images were not pulled", seen.len()))) } else { Ok(()) }
}

fn pull_one(plan: &ContainerPlan, image: &str) -> io::Result<()> {
    let engine = &plan.engine;
    let mut command = Command::new(&engine.program);
    command.args(&engine.args).args(["pull", "--quiet"]).args(&plan.pull).arg(image).env_clear();
    command.envs(OF_REGISTRIES.iter().filter_map(|name| Some((name, Environment::Process.read(name)?))));
    command.envs(engine.env.iter().map(|(name, value)| (name, value)));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the engine ended with {status}"))) }
}
