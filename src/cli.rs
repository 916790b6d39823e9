//! The commands: `serve`, `check`, `schema`, `token set|list|delete`, `keygen`. Answers go to stdout, everything else
//! to stderr. Exit codes: 0 done, 2 wrong arguments or configuration, 1 anything else.

pub mod check;
pub mod keygen;
pub mod serve;
pub mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A stateless front for stdio MCP servers: one fresh server per request, each user with their own service token.
#[derive(Debug, Parser)]
#[command(name = "tollbridge", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MCP clients until SIGTERM or SIGINT.
    Serve(serve::Serve),
    /// Check a configuration file and show what it would start.
    Check(check::Check),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Save, list and delete users' tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Make a sealing key or a bearer token.
    Keygen(keygen::Keygen),
}

/// Exit code for wrong arguments or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Schema => check::schema(),
        Command::Token(token) => token.run(),
        Command::Keygen(keygen) => keygen.run(),
    }
}
