//! `tollbridge check` and `tollbridge schema`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Let `$env` references that are unset or empty pass.
    #[arg(long)]
    allow_missing_env: bool,
}

impl Check {
    /// Reports every problem of the file at once, or what it would start.
    #[must_use]
    pub fn run(self) -> ExitCode {
        todo!()
    }
}

/// Prints the JSON Schema of the configuration file.
#[must_use]
pub fn schema() -> ExitCode {
    todo!()
}
