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
    let ring: Vec<String> = store.keys().map(str::to_owned).collect();
    for (place, id) in ring.iter().enumerate() {
        let key = status.keys.remove(id).unwrap_or_default();
        let place = if place == 0 { "seals" } else { "opens" };
        describe(&mut stdout, (id, place), &key, config.session_lifetime).map_err(Stop::output)?;
    }
    for (id, key) in &status.keys {
        describe(&mut stdout, (id, "missing"), key, config.session_lifetime).map_err(Stop::output)?;
    }
    if status.unknown > 0 {
        return Err(Stop::failed(format!("{} records do not say which key sealed them", status.unknown)));
    }
    Ok(())
}

/// One line: the key's id, what it is for, its numbers, its proof and the end of its sessions, between tabs.
fn describe(out: &mut impl Write, who: (&str, &str), key: &KeyStatus, lifetime: Duration) -> io::Result<()> {
    let (id, place) = who;
    let KeyStatus { records, owners, unreadable, .. } = key;
    write!(out, "{id}\t{place}\t{records} tokens of {owners} users")?;
    if *unreadable > 0 {
        write!(out, ", {unreadable} of them unreadable")?;
    }
    match &key.proof {
        None => write!(out, "\tnever wrote here")?,
        Some(Ok(())) => write!(out, "\tthe key that wrote here")?,
        Some(Err(error)) => write!(out, "\tnot the key that wrote here: {error}")?,
    }
    match (place, key.sessions_end(lifetime)) {
        ("seals", _) => writeln!(out),
        (_, Some(end)) => writeln!(out, "\tsessions need it until {end}"),
        (_, None) => writeln!(out, "\tsessions may need it: not rotated yet"),
    }
}

async fn rotate(config: &Path, rate: Option<NonZeroU32>) -> Result<(), Stop> {
    let config = load(config)?;
    let store = open(&config)?;
    let first = store.keys().next().unwrap_or_default();
    let change = begin(&audit(&config)?, EventKind::KeyRotated, first).await?;
    let mut stdout = io::stdout().lock();
    let mut written = Ok(());
    let done = store.rotate(rate, |left| written = describe_left_alone(&mut stdout, &left)).await;
    change.done(if done.is_ok() { Outcome::Done } else { Outcome::Failed }).await;
    store.close().await;
    let done = done?;
    written.map_err(Stop::output)?;
    writeln!(stdout, "{} tokens newly sealed with {first}", done.resealed).map_err(Stop::output)?;
    if done.left_alone > 0 {
        return Err(Stop::failed(format!("{} records cannot be read and were left as they are", done.left_alone)));
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
            let done = format!("{id} seals nothing any more: take it out of tokenStore.keys on every node");
            return writeln!(io::stdout(), "{done}").map_err(Stop::output);
        }
        Retired::IsFirst => "it is the first of tokenStore.keys, which seals".to_owned(),
        Retired::Unknown => "no key of that id wrote to this store".to_owned(),
        Retired::Needed(count) => format!("it seals {count} tokens; run `tollbridge keys rotate`"),
        Retired::NotRotated => "sessions may need it; run `tollbridge keys rotate`".to_owned(),
        Retired::SessionsUntil(end) => format!("sessions may need it until {end}"),
        Retired::Used => "something was sealed with it just now: a node still has it as its first key".to_owned(),
    };
    Err(Stop::failed(format!("{id} is not retired: {why}")))
}
