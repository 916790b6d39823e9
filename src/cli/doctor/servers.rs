//! What `doctor --servers` says: each server is started once.

use std::fmt::Write as _;
use std::time::Duration;

use super::CLEARED;
use crate::app::server_reports;
use crate::bridge::ServerReport;
use crate::bridge::error::BridgeError;
use crate::cli::Stop;
use crate::cli::token_store::run;
use crate::config::{Config, Plan, Server};
use crate::upstream::process::host_checks::{Finding, Verdict};
use crate::upstream::process::instance::resources::InstanceResources;

/// From here on what a launcher takes before it starts the server is worth a word.
const SLOW: Duration = Duration::from_millis(100);

/// What each server turns out to be.
pub(super) fn findings(config: &Config, again: Config, resources: InstanceResources) -> Result<Vec<Finding>, Stop> {
    let reports = run(async { server_reports(again, resources, CLEARED).await.map_err(Stop::failed) })?;
    let findings = reports.into_iter().filter_map(|(name, report)| {
        let server = config.servers.get(&name)?;
        let (verdict, text) = match report {
            // Nobody's request has it.
            Err(BridgeError::Header(missing)) => (Verdict::Weak, format!("it was not started: {missing}")),
            Ok(report) => (Verdict::Holds, good(server, &report)),
            Err(error) if server.requires_user_token => {
                (Verdict::Weak, format!("{error}, with a made-up token: it may want a good one to start"))
            }
            Err(error) => (Verdict::Missing, error.to_string()),
        };
        Some(Finding { verdict, text: format!("server {name}: {text}") })
    });
    Ok(findings.collect())
}

fn good(server: &Server, report: &ServerReport) -> String {
    let ServerReport { name, version, tools, start, list, consumption } = report;
    let name = if name.is_empty() { "it" } else { name };
    let mut text = format!(
        "{name} speaks {version} and told of {tools} tools; it answered {:.2} s after its start, and listed them in {:.2} s",
        start.as_secs_f64(),
        list.as_secs_f64()
    );
    if let Some(taken) = consumption {
        let (processor, memory) = (taken.processor.as_secs_f64(), taken.memory.div_ceil(1 << 20));
        let _ = write!(text, "; {processor:.2} s of processor time, {memory} MiB");
        if let Some(launcher) = launcher(server).filter(|_| taken.last_start >= SLOW) {
            let _ =
                write!(text, "; {launcher} took {:.2} s of it before the server ran", taken.last_start.as_secs_f64());
        }
    }
    text
}

/// What looks for the server's program at each start, if something does.
fn launcher(server: &Server) -> Option<&str> {
    let Plan::Stdio(plan) = &server.plan else { return None };
    let name = plan.program.file_name()?.to_str()?;
    ["npx", "uvx"].into_iter().find(|launcher| *launcher == name)
}
