//! The commands: `serve`, `check`, `reload`, `health`, `doctor`, `pull`, `import`, `schema`, `login`, `logout`, `status`, `token
//! set|list|delete|export|restore`, `keys status|rotate|retire`, `keygen`. Answers go to stdout, everything else to stderr. Exit codes: 0 done, 2 wrong arguments
//! or configuration, 1 anything else.

pub mod check;
mod connection;
pub mod doctor;
mod exec_as;
mod held;
pub mod import;
pub mod keygen;
pub mod keys;
pub mod login;
pub mod logout;
pub mod pull;
pub mod reload;
pub mod serve;
pub mod status;
pub mod token;
mod token_store;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::upstream::process::exec_as::EXEC_AS;
use crate::upstream::process::held::HELD;

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
    /// Tell running bridges to read their configuration anew: a bad file changes nothing.
    Reload(reload::Reload),
    /// Say whether the bridges on this host are ready for requests.
    Health(reload::Health),
    /// Say what holds on this host for the servers' processes: how they are ended, limited and kept apart.
    Doctor(doctor::Doctor),
    /// Pull the images of a configuration file, ahead of the requests that need them.
    Pull(pull::Pull),
    /// Make a configuration of the file of an MCP client, of mcp-front or of the catalogue of Docker.
    Import(import::Import),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Sign a user in at the service of a server.
    Login(login::Login),
    /// Remove what a user's sign-in gave, and have the service take it back.
    Logout(logout::Logout),
    /// Show who is connected to what: server, user, state, end, scopes, issuer and kind of client, a line each.
    Status(status::Status),
    /// Save, list, delete, back up and restore users' tokens.
    #[command(subcommand)]
    Token(token::Token),
    /// Show which sealing key seals what, seal everything with the first one, and let an old one go.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Make a sealing key or a bearer token.
    Keygen(keygen::Keygen),
}

/// Exit code for wrong arguments or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Why a command ends without having done what it was asked: what to say on stderr, and the exit code.
pub(crate) struct Stop {
    message: Box<dyn fmt::Display>,
    code: u8,
}

impl Stop {
    /// Wrong arguments or configuration.
    pub(crate) fn usage(message: impl fmt::Display + 'static) -> Self {
        Self { message: Box::new(message), code: EXIT_USAGE }
    }

    /// Anything else.
    pub(crate) fn failed(message: impl fmt::Display + 'static) -> Self {
        Self { message: Box::new(message), code: 1 }
    }

    /// The same, with more said about where.
    pub(crate) fn within(self, place: &'static str) -> Self {
        Self { message: Box::new(format!("{place}{self}")), code: self.code }
    }

    /// Stdout is closed or full.
    pub(crate) fn output(error: io::Error) -> Self {
        Self { message: Box::new(error), code: 1 }
    }

    /// Says why a command stopped, if it did, and with which code the program ends.
    pub(crate) fn exit(outcome: Result<(), Self>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(stop) => {
                // Whoever closed stderr does not want to know.
                let _closed = writeln!(io::stderr(), "{}", stop.to_string().trim_end());
                ExitCode::from(stop.code)
            }
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// All commands with their arguments, for what is written about them: man pages and completions.
#[must_use]
pub fn commands() -> clap::Command {
    Arguments::command()
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // On the path of requests, and none of an operator's commands.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(command) if command == EXEC_AS => return exec_as::run(arguments),
        Some(command) if command == HELD => return held::run(arguments),
        _ => {}
    }
    match Arguments::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Reload(reload) => reload.run(),
        Command::Health(health) => health.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Pull(pull) => pull.run(),
        Command::Import(import) => import.run(),
        Command::Schema => check::schema(),
        Command::Login(login) => login.run(),
        Command::Logout(logout) => logout.run(),
        Command::Status(status) => status.run(),
        Command::Token(token) => token.run(),
        Command::Keys(keys) => keys.run(),
        Command::Keygen(keygen) => keygen.run(),
    }
}
