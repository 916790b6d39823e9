//! `tollbridge status`: who is connected to what, and how that stands.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::Stop;
use super::connection::load_what_is_set;
use super::token_store::{load, named, open, run, user};
use crate::clock::{Clock, UnixTime};
use crate::config::Server;
use crate::store::{About, GrantState, Overview};
use crate::tokens::must_sign_in;
use crate::user::{LOCAL_ISSUER, UserId};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only this user's.
    #[arg(long)]
    user: Option<String>,
    /// Only those of users whom this issuer names. Default: all, or with a user `local`.
    #[arg(long)]
    issuer: Option<String>,
}

impl Status {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(run(self.show()))
    }

    async fn show(self) -> Result<(), Stop> {
        let (admin, config) = (load(&self.config)?, load_what_is_set(&self.config)?);
        let issuer = self.issuer.as_deref();
        let one = self.user.map(|subject| user(issuer.unwrap_or(LOCAL_ISSUER), &subject)).transpose()?;
        let store = open(&admin)?;
        let listing = store.list(one.as_ref()).await?;
        let mut users: Vec<UserId> = listing.entries.into_iter().map(|entry| entry.user).collect();
        users.dedup();
        users.retain(|user| issuer.is_none_or(|issuer| user.issuer() == issuer));
        let now = Clock::System.now();
        for user in users {
            for saved in store.overview(&user).await? {
                let server = config.servers.get(&saved.server).map(|server| &**server);
                writeln!(io::stdout(), "{}", line(&user, server, &saved, now)).map_err(Stop::output)?;
            }
        }
        store.close().await;
        match listing.unreadable {
            0 => Ok(()),
            count => Err(Stop::failed(format!(
                "{count} more cannot be read: sealed by keys that are not in the key ring, or not by tollbridge"
            ))),
        }
    }
}

/// One line, between tabs: server, user, state, end, scopes, issuer and kind of client; `-` where there is none.
fn line(user: &UserId, server: Option<&Server>, saved: &Overview, now: UnixTime) -> String {
    let none = || "-".to_owned();
    let about = saved.about.as_ref().ok();
    let grant = about.and_then(|about| about.grant.as_ref());
    let scopes = grant.map(|grant| grant.scopes.join(" ")).filter(|scopes| !scopes.is_empty());
    let client = grant.map_or("pasted", |grant| grant.client.as_str());
    [
        saved.server.to_string(),
        named(user),
        about.map_or_else(|| "unreadable".to_owned(), |about| state(server, about, now)),
        about.and_then(|about| about.expires_at).map_or_else(none, |end| end.to_string()),
        scopes.unwrap_or_else(none),
        grant.and_then(|grant| grant.issuer.clone()).unwrap_or_else(none),
        about.map_or_else(none, |_| client.to_owned()),
    ]
    .join("\t")
}

fn state(server: Option<&Server>, about: &About, now: UnixTime) -> String {
    let needs = |reason: &str, since: UnixTime| format!("needsSignIn ({reason}, {since})");
    if let Some((reason, since)) = server.and_then(|server| must_sign_in(server, about, now)) {
        return needs(reason.as_str(), since);
    }
    match about.grant.as_ref().map(|grant| &grant.state) {
        Some(GrantState::NeedsSignIn { reason, since }) => needs(reason.as_str(), UnixTime(*since)),
        Some(GrantState::Refreshing { .. }) => "refreshing".to_owned(),
        None if about.expires_at.is_some_and(|end| end <= now) => "expired".to_owned(),
        Some(GrantState::Valid) | None => "valid".to_owned(),
    }
}
