//! `tollbridge logout`: removes what a user's sign-in gave, and has the service take it back.

use std::process::ExitCode;

use super::Stop;
use super::connection::{Connection, Whose};
use super::token::say;
use super::token_store::{named, run};
use crate::store::{Over, SavedBy};
use crate::tokens::{By, Disconnected};

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
        let by = By { caller: None, how: SavedBy::Cli };
        let ended = connection.tokens.disconnect(by, (&connection.user, &connection.server), Over::Anything).await;
        if ended.as_ref().is_ok_and(|ended| *ended != Disconnected::Absent) {
            connection.tell_bridges().await;
        }
        connection.close().await;
        let done = format!("{user} is no longer connected to {server}");
        match ended.map_err(|error| Stop::failed(format!("{error}: nothing is removed")))? {
            Disconnected::Absent => {
                Err(Stop::failed(format!("{user} is not connected to {server}: nothing is removed")))
            }
            Disconnected::Removed => say(&done),
            Disconnected::GivenBack(true) => say(&format!("{done}; the service has confirmed that it took it back")),
            Disconnected::GivenBack(false) => {
                say(&format!("{done}; the service has not confirmed that it took it back: withdraw it there"))
            }
        }
    }
}
