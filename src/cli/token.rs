//! `tollbridge token set|list|delete|export|restore`: the token store from the command line, beside a running bridge or without one.

mod backup;
mod prompt;
mod values;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::Stop;
use super::connection::{Connection, given_back};
use super::token_store::{audit, load, named, nobody, open, run, tell_bridges, unknown, user};
use crate::clock::Clock;
use crate::config::{ServerName, TokenAdmin};
use crate::store::{Entry, Over, SavedBy};
use crate::tokens::{By, Disconnected, Entered, FieldFault, TokenSource};
use crate::user::{LOCAL_ISSUER, UserId};

/// The commands below `token`.
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    /// Save a user's token for a server: from stdin, or typed unseen at a terminal.
    Set {
        /// Whose, for which server.
        #[command(flatten)]
        whose: Whose,
        /// A value that may be seen, of a server with `tokenSetup.fields`. Secret ones come from stdin, each on a line, in
        /// the order of the configuration.
        #[arg(long = "field", value_name = "NAME=VALUE")]
        fields: Vec<String>,
    },
    /// List the saved tokens: user, server and date. Tokens themselves are never shown.
    List {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only this user's.
        #[arg(long)]
        user: Option<String>,
        /// Only those of users whom this issuer names. Default: all, or with a user `local`.
        #[arg(long)]
        issuer: Option<String>,
    },
    /// Delete a user's token for a server.
    Delete(Whose),
    /// Write all tokens to stdout, sealed as they are stored: a backup.
    Export {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Save the tokens of a backup, read from stdin; one that is stored and newer is kept.
    Restore {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Whose token, for which server.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The user, as the configured identity method names them.
    #[arg(long)]
    user: String,
    /// Who names the user: `local` for those whom the configuration names, else the identity provider's issuer.
    #[arg(long, default_value = LOCAL_ISSUER)]
    issuer: String,
    /// The server, a key of `mcpServers`.
    #[arg(long)]
    server: String,
}

impl Token {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(run(async {
            match self {
                Self::Set { whose, fields } => set(&whose, &fields).await,
                Self::List { config, user, issuer } => list(&config, user.as_deref(), issuer.as_deref()).await,
                Self::Delete(whose) => delete(&whose).await,
                Self::Export { config } => backup::export(&config).await,
                Self::Restore { config } => backup::restore(&config).await,
            }
        }))
    }
}

async fn set(whose: &Whose, fields: &[String]) -> Result<(), Stop> {
    let config = load(&whose.config)?;
    let user = user(&whose.issuer, &whose.user)?;
    let Some((server, setup)) = config.servers.get_key_value(whose.server.as_str()) else {
        return Err(unknown(&config, &whose.server));
    };
    if config.sign_in_only.contains(server) {
        let user = if user.issuer() == LOCAL_ISSUER { "" } else { " --issuer …" };
        return Err(Stop::failed(format!(
            "the users of {server} sign in at its service (`tollbridge login {server} --user {}{user}`), and paste no token \
             unless `oauth` has \"also\": \"token\": nothing is saved",
            whose.user
        )));
    }
    let Some(setup) = setup else {
        return Err(Stop::failed(format!("{server} takes no user's token: nothing is saved")));
    };
    if !config.may_call(&user) {
        return Err(Stop::failed(format!("{}: nothing is saved", nobody(&config, &user))));
    }
    let store = open(&config)?;
    let given = values::read(setup, fields, &format!("of {} for {server}", named(&user)))?;
    let given: Vec<(&str, &[u8])> = given.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let entered = Entered::parse(setup, &given, Clock::System.now()).map_err(|faults| Stop::usage(said(&faults)))?;
    store.check().await?;
    let store = Arc::new(store);
    let tokens = TokenSource::new(Arc::clone(&store), Clock::System, audit(&config)?);
    let by = By { caller: None, how: SavedBy::Cli };
    let saved = tokens.save(by, (&user, server), entered, Over::Anything).await;
    if saved.is_ok() {
        tell_bridges(&config, &store, (&user, server)).await;
    }
    store.close().await;
    saved.map_err(|error| Stop::failed(format!("{error}: nothing is saved")))?;
    say(&format!("saved the token of {} for {server}", named(&user)))
}

/// What is wrong with what was given, a line for each.
fn said(faults: &[FieldFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

async fn list(config: &Path, subject: Option<&str>, issuer: Option<&str>) -> Result<(), Stop> {
    let config = load(config)?;
    let user = subject.map(|subject| user(issuer.unwrap_or(LOCAL_ISSUER), subject)).transpose()?;
    let mut listing = open(&config)?.list(user.as_ref()).await?;
    listing.entries.retain(|entry| issuer.is_none_or(|issuer| entry.user.issuer() == issuer));
    let mut stdout = io::stdout().lock();
    listing.entries.iter().try_for_each(|entry| print(&mut stdout, entry)).map_err(Stop::output)?;
    if listing.unreadable > 0 {
        return Err(Stop::failed(format!(
            "{} more cannot be read: sealed by keys that are not in the key ring, or not by tollbridge",
            listing.unreadable
        )));
    }
    Ok(())
}

async fn delete(whose: &Whose) -> Result<(), Stop> {
    let config = load(&whose.config)?;
    let user = user(&whose.issuer, &whose.user)?;
    let server = ServerName::parse(&whose.server).ok_or_else(|| unknown(&config, &whose.server))?;
    // What a service gave is given back, where the configuration says how.
    let ended = match Connection::to(&whose.config, user.clone(), &server).await? {
        Some(connection) => connection.end().await.map_err(Stop::failed)?,
        None => remove(&config, &user, &server).await?,
    };
    if ended != Disconnected::Absent {
        return say(&format!("deleted the token of {} for {server}{}", named(&user), given_back(ended)));
    }
    if !config.servers.contains_key(&server) {
        return Err(unknown(&config, &whose.server));
    }
    let why = if config.may_call(&user) {
        format!("{} has no token for {server}", named(&user))
    } else {
        nobody(&config, &user)
    };
    Err(Stop::failed(format!("{why}: nothing is deleted")))
}

/// Removes what is saved; a server or a user that is no longer configured may have left something behind.
async fn remove(config: &TokenAdmin, user: &UserId, server: &ServerName) -> Result<Disconnected, Stop> {
    let store = Arc::new(open(config)?);
    let tokens = TokenSource::new(Arc::clone(&store), Clock::System, audit(config)?);
    let saved = store.read(user, server).await.ok().flatten();
    let was_given = saved.is_some_and(|saved| saved.record.grant.is_some());
    let by = By { caller: None, how: SavedBy::Cli };
    let removed = tokens.remove(by, (user, server), Over::Anything).await;
    if removed == Ok(true) {
        tell_bridges(config, &store, (user, server)).await;
    }
    store.close().await;
    Ok(match removed.map_err(Stop::failed)? {
        true if was_given => Disconnected::GivenBack(false),
        true => Disconnected::Removed,
        false => Disconnected::Absent,
    })
}

/// Says what was done, on stdout.
pub(super) fn say(done: &str) -> Result<(), Stop> {
    writeln!(io::stdout(), "{done}").map_err(Stop::output)
}

/// One line: user, server and date, between tabs; the issuer after them unless it is the configuration itself.
fn print(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    write!(out, "{}\t{}\t", entry.user.subject(), entry.server)?;
    match &entry.saved_at {
        Ok(time) => write!(out, "{time}")?,
        Err(error) => write!(out, "unreadable: {error}")?,
    }
    match entry.user.issuer() {
        LOCAL_ISSUER => writeln!(out),
        issuer => writeln!(out, "\t{issuer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;

    #[test]
    fn a_line_shows_user_server_and_date() {
        let entry = |issuer| Entry {
            user: UserId::new(issuer, "alice").unwrap(),
            server: ServerName::parse("notion").unwrap(),
            saved_at: Ok(UnixTime(0)),
        };
        let line = |entry| {
            let mut out = Vec::new();
            print(&mut out, &entry).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(entry(LOCAL_ISSUER)), "alice\tnotion\t1970-01-01T00:00:00Z\n");
        assert_eq!(line(entry("https://idp")), "alice\tnotion\t1970-01-01T00:00:00Z\thttps://idp\n");
    }
}
