//! `tollbridge token set|list|delete`.

use std::process::ExitCode;

/// The commands below `token`.
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    /// List.
    List,
}

impl Token {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        todo!()
    }
}
