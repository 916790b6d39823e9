//! `tollbridge doctor`: what holds on this host. The checks are in `upstream::process::host_checks` and
//! `upstream::container::engine_checks`.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Stop, token_store};
use crate::config::{self, LoadOptions, TokenStoreConfig};
use crate::upstream::container::engine_checks;
use crate::upstream::process::cgroup::CgroupParent;
use crate::upstream::process::host_checks::{self, Finding, Verdict};
use crate::upstream::process::instance::resources::InstanceResources;
use crate::upstream::process::oom;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// As for `serve`.
    #[arg(long, value_name = "auto|off|DIRECTORY", default_value = "auto")]
    cgroup: CgroupParent,
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
        findings.extend(engine_checks::findings(&config));
        resources.remove();
        drop(held);
        findings.extend(config.token_store.iter().flat_map(store_findings));
        // A reader that left does not change the answer.
        let _ = print(&findings, &mut io::stdout().lock());
        let holds = findings.iter().all(|finding| matches!(finding.verdict, Verdict::Holds | Verdict::Weak));
        if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
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
