//! `tollbridge keygen`.

use std::process::ExitCode;

/// Arguments of `keygen`.
#[derive(Debug, clap::Args)]
pub struct Keygen {}

impl Keygen {
    /// Makes a key.
    #[must_use]
    pub fn run(self) -> ExitCode {
        todo!()
    }
}
