//! `tollbridge logout`: removes what a user's sign-in gave, and has the service take it back.

use std::process::ExitCode;

use super::Stop;
use super::connection::{Connection, Whose, given_back};
use super::token::say;
use super::token_store::{named, run};
use crate::tokens::Disconnected;

/// Arguments of `logout`.
#[derive(Debug, clap::Args)]
pub struct Logout {
    #[command(flatten)]
    whose: Whose,
}

impl Logout {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(run(self.sign_out()))
    }

    async fn sign_out(self) -> Result<(), Stop> {
        let connection = Connection::open(&self.whose).await?;
        let (user, server) = (named(&connection.user), connection.server.name.clone());
        let ended = connection.end().await.map_err(|error| Stop::failed(format!("{error}: nothing is removed")))?;
        if ended == Disconnected::Absent {
            return Err(Stop::failed(format!("{user} is not connected to {server}: nothing is removed")));
        }
        say(&format!("{user} is no longer connected to {server}{}", given_back(ended)))
    }
}
