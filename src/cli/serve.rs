//! `tollbridge serve`: the supervisor, and below it the worker that serves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::Environment;
use crate::config::{self, LoadOptions};
use crate::telemetry::{self, FILTER_VARIABLE, Format};
use crate::{app, config::Config};

use super::EXIT_USAGE;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Run the worker itself, without a supervisor above it; the supervisor starts it so.
    #[arg(long, hide = true)]
    worker: bool,
}

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
        self.work()
    }

    #[expect(clippy::print_stderr, reason = "there is no log yet")]
    fn work(self) -> ExitCode {
        let format = match self.log_format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        };
        let filter = Environment::Process.read(FILTER_VARIABLE).and_then(|value| value.into_string().ok());
        if let Err(error) = telemetry::init(filter.as_deref(), format) {
            eprintln!("tollbridge: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
        match load(&self.config) {
            Ok(config) => serve(config),
            Err(report) => {
                eprintln!("{report}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

fn load(file: &Path) -> Result<Config, String> {
    config::load(file, &LoadOptions::default()).map_err(|problems| problems.to_string())
}

fn serve(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(app::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}
