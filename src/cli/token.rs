//! `tollbridge token set|list|delete|export|restore`: the token store from the command line, beside a running bridge or without one.

mod backup;
mod prompt;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::Stop;
use super::token_store::{load, named, open};
use crate::clock::Clock;
use crate::config::{ServerName, TokenAdmin};
use crate::secret::Secret;
use crate::store::{Entry, Over, Record, Removed, SavedBy, TokenStore, Written};
use crate::tokens::{self, MAX_TOKEN};
use crate::user::{LOCAL_ISSUER, UserId};

/// The commands below `token`.
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    /// Save a user's token for a server: from stdin, or typed unseen at a terminal.
    Set(Whose),
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
        // One thread is enough: the command asks one question, perhaps two.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Stop::exit(Err(Stop::failed(error))),
        };
        Stop::exit(runtime.block_on(async {
            match self {
                Self::Set(whose) => set(&whose).await,
                Self::List { config, user, issuer } => list(&config, user.as_deref(), issuer.as_deref()).await,
                Self::Delete(whose) => delete(&whose).await,
                Self::Export { config } => backup::export(&config).await,
                Self::Restore { config } => backup::restore(&config).await,
            }
        }))
    }
}

async fn set(whose: &Whose) -> Result<(), Stop> {
    let config = load(&whose.config)?;
    let user = user(&whose.issuer, &whose.user)?;
    let Some((server, setup)) = config.servers.get_key_value(whose.server.as_str()) else {
        return Err(unknown(&config, &whose.server));
    };
    let Some(setup) = setup else {
        return Err(Stop::failed(format!("{server} takes no user's token: nothing is saved")));
    };
    if !config.may_call(&user) {
        return Err(Stop::failed(format!("{}: nothing is saved", nobody(&config, &user))));
    }
    let store = open(&config)?;
    let token = read_token(&format!("Token of {} for {server}: ", named(&user)))?;
    let [field] = &*setup.fields else {
        return Err(Stop::failed(format!("{server} takes several values: nothing is saved")));
    };
    let token = tokens::parse(&token, field.format.as_ref()).map_err(Stop::usage)?;
    save(&store, &user, server, token).await?;
    say(&format!("saved the token of {} for {server}", named(&user)))
}

async fn save(store: &TokenStore, user: &UserId, server: &ServerName, token: Secret) -> Result<(), Stop> {
    store.check().await?;
    let record = Record::token(Clock::System.now(), SavedBy::Cli, token);
    let written = store.save(user, server, &record, Over::Anything).await?;
    store.close().await;
    match written {
        Written::Done(_) => Ok(()),
        Written::Changed => Err(Stop::failed("others save it at this moment: nothing is saved")),
    }
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
    // A server or a user that is no longer configured may have left tokens behind.
    let store = open(&config)?;
    let removed = store.remove(&user, &server, Over::Anything).await?;
    store.close().await;
    if removed == Removed::Gone {
        return say(&format!("deleted the token of {} for {server}", named(&user)));
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

/// Says what was done.
fn say(done: &str) -> Result<(), Stop> {
    writeln!(io::stdout(), "{done}").map_err(Stop::output)
}

/// That nobody is recognised as `user`, and who may be.
fn nobody(config: &TokenAdmin, user: &UserId) -> String {
    let known: Vec<String> = config.users.iter().map(named).collect();
    let others = config.issuers.iter().map(|issuer| format!("whomever the proxy names (--issuer {issuer})"));
    let known: Vec<String> = known.into_iter().chain(others).collect();
    format!("nobody is recognised as {}; the configuration knows {}", named(user), known.join(", "))
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

fn user(issuer: &str, subject: &str) -> Result<UserId, Stop> {
    UserId::new(issuer, subject).map_err(Stop::usage)
}

fn unknown(config: &TokenAdmin, name: &str) -> Stop {
    let known: Vec<_> = config.servers.keys().map(ServerName::as_str).collect();
    Stop::usage(format!("no server is named {name:?}; the configuration has {}", known.join(", ")))
}

/// The token from stdin, without the line end that `echo` adds; typed unseen if stdin is a terminal.
fn read_token(question: &str) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let stdin = io::stdin();
    if rustix::termios::isatty(&stdin) {
        return prompt::read_unseen(&stdin, question).map_err(|error| Stop::failed(format!("no token read: {error}")));
    }
    // One more than a token and its line end may have, so that a longer one is seen to be longer.
    let limit = MAX_TOKEN + 3;
    let mut input = Zeroizing::new(Vec::with_capacity(limit));
    let read = stdin.lock().take(limit as u64).read_to_end(&mut input);
    read.map_err(|error| Stop::failed(format!("no token read: {error}")))?;
    for end in *b"\n\r" {
        if input.last() != Some(&end) {
            break;
        }
        input.pop();
    }
    Ok(input)
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
