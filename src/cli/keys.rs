//! `tollbridge keys status|rotate|retire`: the sealing keys of the token store, beside running bridges.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::Stop;
use super::token_store::{audit, load, named, open, run};
use crate::audit::{Audit, Event, EventKind, Outcome, Pending};
use crate::store::{KeyStatus, LeftAlone, Retired};

/// The commands below `keys`.
#[derive(Debug, clap::Subcommand)]
pub enum Keys {
    /// Show how many tokens each sealing key seals, and until when sessions may need it.
    Status {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Seal every token with the first key of `tokenStore.keys`, while bridges run. Can be repeated, also after it was
    /// killed.
    Rotate {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The most tokens to seal in a second. Default: as many as the store takes.
        #[arg(long, value_name = "N")]
        rate: Option<NonZeroU32>,
    },
    /// Let a key go that seals nothing any more, so that it may be taken out of `tokenStore.keys`.
    Retire {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The key's id.
        id: String,
    },
}

impl Keys {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(run(async {
            match self {
                Self::Status { config } => status(&config).await,
                Self::Rotate { config, rate } => rotate(&config, rate).await,
                Self::Retire { config, id } => retire(&config, id).await,
            }
        }))
    }
}

async fn status(config: &Path) -> Result<(), Stop> {
    let config = load(config)?;
    let store = open(&config)?;
    let mut status = store.key_status().await?;
    let mut stdout = io::stdout().lock();
    // Those of the ring in its order, then those that are missing in it.
    let ring = store.keys();
    for (place, id) in ring.iter().enumerate() {
        let key = status.keys.remove(&**id).unwrap_or_default();
        let place = if place == 0 { KeyPlace::First } else { KeyPlace::Older };
        describe(&mut stdout, (id, place), &key, config.session_lifetime).map_err(Stop::output)?;
    }
    for (id, key) in &status.keys {
        describe(&mut stdout, (id, KeyPlace::Missing), key, config.session_lifetime).map_err(Stop::output)?;
    }
    if status.unknown > 0 {
        return Err(Stop::failed(format!(
            "{} more are damaged or not from tollbridge: nobody can tell which key they need",
            counted(status.unknown, "record")
        )));
    }
    Ok(())
}

/// Where `tokenStore.keys` has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyPlace {
    /// It is the first.
    First,
    /// It comes after that.
    Older,
    /// It is not there, and something needs it.
    Missing,
}

/// One line: the key's id, what it is for, what it seals, whether it is the right key, and until when sessions may need it,
/// between tabs.
fn describe(out: &mut impl Write, who: (&str, KeyPlace), key: &KeyStatus, lifetime: Duration) -> io::Result<()> {
    let (id, place) = who;
    let purpose = match place {
        KeyPlace::First => "seals what is saved now",
        KeyPlace::Older => "opens what it sealed before",
        KeyPlace::Missing => "is missing in tokenStore.keys",
    };
    let (tokens, users) = (counted(key.records, "token"), counted(key.owners, "user"));
    write!(out, "{id}\t{purpose}\tseals {tokens} of {users}")?;
    if key.unreadable > 0 {
        write!(out, ", {} of them cannot be read", key.unreadable)?;
    }
    match (&key.proof, place) {
        (None, _) => write!(out, "\thas never sealed anything here")?,
        (Some(Ok(())), _) => write!(out, "\tis the right key")?,
        (Some(Err(_)), KeyPlace::Missing) => write!(out, "\tadd it again, or the tokens it seals stay closed")?,
        (Some(Err(_)), _) => write!(out, "\tis the WRONG key: another one of this id sealed what is here")?,
    }
    match (place, key.sessions_end(lifetime)) {
        (KeyPlace::First, _) => writeln!(out),
        (_, Some(end)) => writeln!(out, "\tsessions may need it until {end}"),
        (_, None) => writeln!(out, "\tsessions may need it: run `tollbridge keys rotate`"),
    }
}

/// A number of things.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

async fn rotate(config: &Path, rate: Option<NonZeroU32>) -> Result<(), Stop> {
    let config = load(config)?;
    let store = open(&config)?;
    let first = store.keys().swap_remove(0);
    let change = begin(&audit(&config)?, EventKind::KeyRotated, &first).await?;
    let mut stdout = io::stdout().lock();
    let mut written = Ok(());
    let done = store.rotate(rate, |left| written = describe_left_alone(&mut stdout, &left)).await;
    change.done(if done.is_ok() { Outcome::Done } else { Outcome::Failed }).await;
    store.close().await;
    let done = done?;
    written.map_err(Stop::output)?;
    writeln!(stdout, "sealed {} with {first}", counted(done.resealed, "token")).map_err(Stop::output)?;
    if done.left_alone > 0 {
        let left = counted(done.left_alone, "record");
        return Err(Stop::failed(format!("left as they are, because they cannot be read: {left}")));
    }
    Ok(())
}

/// Writes down that something is about to be done with a key.
async fn begin(audit: &Audit, kind: EventKind, key: &str) -> Result<Pending, Stop> {
    let event = Event { key: Some(key), client: Some("tollbridge keys"), ..Event::of(kind) };
    audit.before(&event).await.map_err(Stop::failed)
}

/// One line: whose, for which server, why, between tabs. Where nobody can tell whose it is, the name under which it lies.
fn describe_left_alone(out: &mut impl Write, left: &LeftAlone) -> io::Result<()> {
    let whose = left.user.as_ref().map_or_else(|| left.name.clone(), named);
    writeln!(out, "{whose}\t{}\tunreadable: {}", left.server.escape_debug(), left.why)
}

async fn retire(config: &Path, id: String) -> Result<(), Stop> {
    let config = load(config)?;
    let store = open(&config)?;
    let change = begin(&audit(&config)?, EventKind::KeyRetired, &id).await?;
    let retired = store.retire(&id, config.session_lifetime).await;
    let outcome = match &retired {
        Ok(Retired::Done) => Outcome::Done,
        Ok(_) => Outcome::Refused,
        Err(_) => Outcome::Failed,
    };
    change.done(outcome).await;
    store.close().await;
    let why = match retired? {
        Retired::Done => {
            let done = format!("nothing needs {id} any more: take it out of tokenStore.keys on every node");
            return writeln!(io::stdout(), "{done}").map_err(Stop::output);
        }
        Retired::IsFirst => "it is the first of tokenStore.keys, which seals".to_owned(),
        Retired::Unknown => "no key of that id wrote to this store".to_owned(),
        Retired::Needed(count) => format!("it still seals {}; run `tollbridge keys rotate`", counted(count, "token")),
        Retired::NotRotated => "sessions may need it; run `tollbridge keys rotate`".to_owned(),
        Retired::SessionsUntil(end) => format!("sessions may need it until {end}"),
        Retired::Used => "something was sealed with it just now: a node still has it as its first key".to_owned(),
    };
    Err(Stop::failed(format!("{id} is not retired: {why}")))
}
