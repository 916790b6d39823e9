//! `tollbridge doctor`: what holds on this host. The checks are in `upstream::process::host_checks` and
//! `upstream::container::engine_checks`; what services say of themselves is in `sign_in`.

mod servers;
mod sign_in;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{Stop, token_store};
use crate::config::{self, Config, LoadOptions, TokenStoreConfig};
use crate::lifecycle::Lifecycle;
use crate::metrics::ProcessCounts;
use crate::upstream::container::{Containers, engine_checks};
use crate::upstream::process::cgroup::CgroupParent;
use crate::upstream::process::confinement::Confiner;
use crate::upstream::process::group::Spawner;
use crate::upstream::process::host_checks::{self, Finding, Verdict};
use crate::upstream::process::instance::resources::InstanceResources;
use crate::upstream::process::oom;
use crate::upstream::process::orphans::UntaggedChildren;
use crate::upstream::process::python_checks;
use crate::upstream::spares::{Starter, trial};

/// How long what is started here may take to be cleared away.
const CLEARED: Duration = Duration::from_secs(10);

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// As for `serve`.
    #[arg(long, value_name = "auto|off|DIRECTORY", default_value = "auto")]
    cgroup: CgroupParent,
    /// Start one spare of each server that has them, and say what it is worth: some seconds for each.
    #[arg(long)]
    spares: bool,
    /// Start each server once, without anybody's token, and say what it is and what it takes.
    #[arg(long, conflicts_with = "spares")]
    servers: bool,
}

impl Doctor {
    /// Says what holds, and ends with 1 if something does not that the configuration asks for.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let config = match config::load(&self.config, &LoadOptions::default()) {
            Ok(config) => config,
            Err(problems) => return Stop::exit(Err(Stop::usage(problems))),
        };
        // As the bridge does when it serves.
        oom::protect();
        let (resources, held) = InstanceResources::create(&self.cgroup);
        let mut findings = host_checks::findings(&config, &resources);
        findings.extend(python_checks::findings(&config));
        findings.extend(engine_checks::findings(&config));
        if self.spares {
            let impossible =
                |error: io::Error| vec![Finding { verdict: Verdict::Missing, text: format!("spares: {error}") }];
            findings.extend(try_spares(&config, &resources).unwrap_or_else(impossible));
        }
        let impossible =
            |what| move |stop: Stop| vec![Finding { verdict: Verdict::Missing, text: format!("{what}: {stop}") }];
        if self.servers {
            let again = config::load(&self.config, &LoadOptions::default()).map_err(Stop::usage);
            let found = again.and_then(|again| servers::findings(&config, again, resources));
            findings.extend(found.unwrap_or_else(impossible("servers")));
        } else {
            resources.remove();
        }
        drop(held);
        findings.extend(config.token_store.iter().flat_map(store_findings));
        findings.extend(sign_in::findings(&config).unwrap_or_else(impossible("sign-in")));
        // A reader that left does not change the answer.
        let _ = print(&findings, &mut io::stdout().lock());
        let holds = findings.iter().all(|finding| matches!(finding.verdict, Verdict::Holds | Verdict::Weak));
        if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What a spare of each server that has them is worth. Nothing is left of them.
fn try_spares(config: &Config, resources: &InstanceResources) -> io::Result<Vec<Finding>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let lifecycle = Lifecycle::default();
        let confiner = Confiner::new(resources, &lifecycle);
        let spawner = Spawner::new(&lifecycle, UntaggedChildren::End, confiner, ProcessCounts::default())?;
        let containers = Containers::new(config, &spawner, &lifecycle);
        let findings = trial::findings(config, &Starter { spawner: spawner.clone(), containers }).await;
        lifecycle.end_within(CLEARED).await;
        let _ = spawner.kill_everything();
        Ok(findings)
    })
}

/// What is to be known of the token store and its keys.
fn store_findings(settings: &TokenStoreConfig) -> Vec<Finding> {
    let finding = |verdict, text: &dyn fmt::Display| Finding { verdict, text: format!("token store: {text}") };
    match token_store::look(settings) {
        Err(stop) => vec![finding(Verdict::Missing, &stop)],
        Ok((looks, notices)) => {
            let weak = notices.iter().map(|notice| finding(Verdict::Weak, notice));
            std::iter::once(finding(Verdict::Holds, &looks)).chain(weak).collect()
        }
    }
}

fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for Finding { verdict, text } in findings {
        let verdict = match verdict {
            Verdict::Holds => "good",
            Verdict::Weak => "weak",
            Verdict::Missing => "MISSING",
            Verdict::Impossible => "IMPOSSIBLE",
        };
        writeln!(out, "{verdict:<10}  {text}")?;
    }
    Ok(())
}
