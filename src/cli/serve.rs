//! `tollbridge serve`: the supervisor, and below it the worker that serves.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::app::StopSignals;
use crate::config::Environment;
use crate::config::{self, LoadOptions};
use crate::server::Listener;
use crate::service_manager::ServiceManager;
use crate::supervisor::cleanup_plan::CleanupPlan;
use crate::sys;
use crate::telemetry::{self, FILTER_VARIABLE, Format, Logs};
use crate::upstream::process::cgroup::CgroupParent;
use crate::upstream::process::instance::resources::InstanceResources;
use crate::{app, config::Config, supervisor};

use super::{EXIT_USAGE, Stop};

/// How long what reads or removes files may go on once all else has ended.
const LAST_FILES: Duration = Duration::from_secs(1);

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Where each request's control group is made: in the bridge's own group if that was delegated to it, nowhere, or in
    /// a directory of the cgroup2 file system that the bridge may write to.
    #[arg(long, value_name = "auto|off|DIRECTORY", default_value = "auto")]
    cgroup: CgroupParent,
    /// What the supervisor made for this instance, or why there is none.
    #[arg(long, hide = true, num_args = 4, requires = "worker")]
    resources: Option<Vec<OsString>>,
    /// Run the worker itself, without a supervisor above it; the supervisor starts it so.
    #[arg(long, hide = true)]
    worker: bool,
}

/// What is said where nobody would serve the second socket.
const TOO_MANY_SOCKETS: &str = "the service manager hands over more than one socket; clients are served on one";

/// The form of the log.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Serve {
    /// Serves until a signal says to stop.
    #[must_use]
    pub fn run(self) -> ExitCode {
        sys::give_large_blocks_back();
        let filter = Environment::Process.read(FILTER_VARIABLE).and_then(|value| value.into_string().ok());
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let logs = match telemetry::init(filter.as_deref(), format) {
            Ok(logs) => logs,
            Err(error) => return Stop::exit(Err(Stop::usage(error))),
        };
        let manager = ServiceManager::of(|name| Environment::Process.read(name));
        if !self.worker {
            let (resources, held) = InstanceResources::create(&self.cgroup);
            let code = supervisor::run(self.worker_arguments(&resources), &manager);
            resources.remove();
            drop(held);
            return code;
        }
        supervisor::harden();
        if supervisor::is_supervised() {
            // Servers are of our session, and its terminal is the operator's alone.
            sys::leave_terminal();
        }
        StopSignals::block();
        let (resources, _held) = match self.resources.as_deref() {
            Some([directory, why_not, cgroup, why_none]) => {
                let known = InstanceResources { directory: known(directory, why_not), cgroup: known(cgroup, why_none) };
                (known, [None, None])
            }
            _ => InstanceResources::create(&self.cgroup),
        };
        match load(&self.config, &manager) {
            Ok(served) => serve(served, resources, (&logs, manager), self.config),
            Err(stop) => Stop::exit(Err(stop)),
        }
    }

    /// What the supervisor starts itself with.
    fn worker_arguments(&self, resources: &InstanceResources) -> Vec<OsString> {
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let mut arguments: Vec<OsString> =
            ["serve", "--log-format", format, "--worker", "--resources"].map(Into::into).into();
        for resource in [&resources.directory, &resources.cgroup] {
            arguments.extend(match resource {
                Ok(path) => [path.into(), OsString::new()],
                Err(why) => [OsString::new(), why.into()],
            });
        }
        arguments.extend(["--config".into(), self.config.clone().into()]);
        arguments
    }
}

/// A resource as `worker_arguments` writes it.
fn known(path: &OsString, why_not: &OsString) -> Result<PathBuf, String> {
    if path.is_empty() { Err(why_not.to_string_lossy().into_owned()) } else { Ok(path.into()) }
}

/// The configuration, and the socket on which clients are served, if a service manager has handed one over: who can reach
/// the bridge is decided by where that is bound.
fn load(file: &Path, manager: &ServiceManager) -> Result<(Config, Option<OwnedFd>), Stop> {
    let Some(socket) = supervisor::inherited_socket(manager) else {
        let config = config::load(file, &LoadOptions::default()).map_err(Stop::usage)?;
        return Ok((config, None));
    };
    if manager.sockets > 1 {
        return Err(Stop::usage(TOO_MANY_SOCKETS));
    }
    let bound = Listener::address_of(&socket).map_err(Stop::usage)?;
    let config = config::load_while_bound(file, &bound).map_err(Stop::usage)?;
    Ok((config, Some(socket)))
}

fn serve(
    (config, socket): (Config, Option<OwnedFd>),
    resources: InstanceResources,
    (logs, manager): (&Logs, ServiceManager),
    file: PathBuf,
) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    let cleanup_plan = Arc::new(Mutex::new(CleanupPlan::of(&config)));
    let known = Arc::clone(&cleanup_plan);
    let start = app::Start {
        file,
        resources,
        log_filter: logs.filter(),
        log_lines_dropped: logs.dropped(),
        tell: Box::new(move |config| hand_over(&known, config)),
        watchdog: supervisor::watched(&manager),
        socket,
        notify: Box::new(move |notice| match supervisor::is_supervised() {
            true if manager.is_there() => supervisor::notify(notice),
            true => {}
            false => manager.tell(notice),
        }),
    };
    let outcome = runtime.block_on(async { app::run(config, start, supervisor::orphaned()).await });
    // A file may be on its way that never comes.
    runtime.shutdown_timeout(LAST_FILES);
    if !supervisor::is_supervised() {
        cleanup_plan.lock().unwrap_or_else(PoisonError::into_inner).execute(false, || ());
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            if error.is_configuration() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Lets the supervisor know what to clear away with this configuration, too.
fn hand_over(plan: &Mutex<CleanupPlan>, config: &Config) {
    let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
    plan.add(config);
    if supervisor::is_supervised()
        && let Err(error) = plan.hand_over()
    {
        tracing::warn!(%error, "the supervisor cannot be told what to clear away");
    }
}
