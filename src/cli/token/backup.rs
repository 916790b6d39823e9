//! `tollbridge token export|restore`: a backup of the tokens on stdout, and back from stdin.

use std::io::{self, Write};
use std::path::Path;

use super::{audit, load, open};
use crate::audit::{Event, EventKind, Outcome};
use crate::cli::Stop;
use crate::store::BackupError;

/// Writes every token to stdout, sealed as it is stored.
pub(super) async fn export(config: &Path) -> Result<(), Stop> {
    let store = open(&load(config)?)?;
    let (tokens, left_out) = store.export(&mut io::stdout().lock()).await?;
    if left_out > 0 {
        return Err(Stop::failed(format!(
            "{tokens} tokens are in the backup; {left_out} records have no owner and are not"
        )));
    }
    say(&format!("{tokens} tokens are in the backup, sealed; keep the sealing keys elsewhere"))
}

/// Saves the tokens of a backup that is read from stdin, except where the store has newer ones.
pub(super) async fn restore(config: &Path) -> Result<(), Stop> {
    let config = load(config)?;
    let store = open(&config)?;
    let event = Event { client: Some("tollbridge token restore"), ..Event::of(EventKind::TokensRestored) };
    let change = audit(&config)?.before(&event).await.map_err(Stop::failed)?;
    let outcome = store.restore(io::stdin().lock()).await;
    change.done(if outcome.is_ok() { Outcome::Done } else { Outcome::Failed }).await;
    store.close().await;
    let done = outcome?;
    say(&format!(
        "{} tokens restored; {} were there already; {} kept as they are, which are newer or cannot be read",
        done.restored, done.unchanged, done.kept
    ))?;
    if done.unreadable > 0 {
        return Err(Stop::failed(format!(
            "{} tokens of the backup cannot be read and are not restored",
            done.unreadable
        )));
    }
    Ok(())
}

/// Says on stderr what was done: stdout may be the backup.
fn say(text: &str) -> Result<(), Stop> {
    writeln!(io::stderr(), "{text}").map_err(Stop::output)
}

impl From<BackupError> for Stop {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Key(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
