//! `tollbridge login`: signs a user in at the service of a server, from a terminal. Where to go stands on stderr, and no
//! token anywhere.

use std::fmt;
use std::io::{self, BufRead as _, Read as _, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use url::Url;
use zeroize::Zeroizing;

use super::Stop;
use super::connection::{Connection, Whose};
use super::token::say;
use super::token_store::{named, run};
use crate::audit::{EventKind, Outcome};
use crate::oauth::{Callback, CallbackAnswer, DeviceCode, DeviceEnd, Fault};
use crate::secret::Secret;
use crate::store::Revision;
use crate::tokens::{DeviceSignIn, NotConnected};

/// The longest line that is read, bytes.
const MAX_LINE: u64 = 32 << 10;

/// How often it looks whether the service's answer has come to a running bridge.
const LOOK: Duration = Duration::from_secs(1);

/// How long that bridge may take to save what the service gives for it.
const SAVED: Duration = Duration::from_secs(20);

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct Login {
    #[command(flatten)]
    whose: Whose,
    /// Show a code that is entered at the service, on any device.
    #[arg(long, conflicts_with = "paste")]
    device: bool,
    /// Wait for nothing but the pasted address, on stdin.
    #[arg(long)]
    paste: bool,
}

/// Why somebody is not connected.
enum Failure {
    /// The service says so, or nobody knows.
    Fault(Fault),
    /// It is said in a sentence.
    Told(Stop),
}

impl<E: Into<Stop>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Told(error.into())
    }
}

impl Login {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(run(self.sign_in()))
    }

    async fn sign_in(self) -> Result<(), Stop> {
        let connection = Connection::open(&self.whose).await?;
        connection.check_user()?;
        let (user, server) = (named(&connection.user), connection.server.name.clone());
        let done = self.connect(&connection).await;
        connection.close().await;
        done?;
        say(&format!("{user} is connected to {server}"))
    }

    async fn connect(&self, connection: &Connection) -> Result<(), Stop> {
        if self.device {
            return connect_by_code(connection).await;
        }
        let mut lines = lines();
        let done = match self.connect_by_browser(connection, &mut lines, false).await {
            Err(Failure::Fault(Fault::ClientRefused { is_registered: true, .. })) => {
                tell("The service has forgotten this bridge, which registers itself anew.\n");
                self.connect_by_browser(connection, &mut lines, true).await
            }
            done => done,
        };
        done.map_err(|failure| match failure {
            Failure::Told(stop) => stop,
            Failure::Fault(fault) => {
                connection.note(EventKind::SignInEnded, Outcome::Failed);
                Stop::failed(format!("{fault}: nothing is saved"))
            }
        })
    }

    /// One sign-in, whose answer comes to a running bridge or is pasted here.
    async fn connect_by_browser(
        &self,
        connection: &Connection,
        lines: &mut mpsc::Receiver<Zeroizing<String>>,
        is_anew: bool,
    ) -> Result<(), Failure> {
        let (user, server, services) = (&connection.user, &connection.server, &connection.services);
        let before = connection.saved().await?.map(|stored| stored.revision);
        let url = services.begin(server, (user, None), is_anew).await.map_err(Failure::Fault)?;
        connection.note(EventKind::SignInBegun, Outcome::Begun);
        let state = url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned());
        let state = state.unwrap_or_default();
        let redirect_uri = connection.config.redirect_uri(server);
        self.explain(connection, &url, &redirect_uri);
        let (mut looks, mut is_open) = (interval(LOOK), true);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                line = lines.recv(), if is_open => match line {
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => match Callback::pasted(&line, &redirect_uri).filter(|read| read.state == state) {
                        Some(answer) => return redeem(connection, answer).await,
                        None => tell(&format!("This is not the answer to this sign-in: it begins with {redirect_uri}?\n")),
                    },
                    None if self.paste => return Err(Stop::failed("nothing was pasted: nothing is saved").into()),
                    None => is_open = false,
                },
                _ = looks.tick() => if !services.awaits(&state).await? {
                    return Ok(saved_meanwhile(connection, before.as_ref()).await?);
                },
            }
        }
    }

    /// Says where to go, and what comes then.
    fn explain(&self, connection: &Connection, url: &Url, redirect_uri: &str) {
        let (user, server) = (named(&connection.user), &connection.server);
        let bridge = if self.paste || connection.config.takes_paste_back(server) {
            ""
        } else {
            "If you have signed in to the bridge's pages there, that is all. "
        };
        tell(&format!(
            "To connect {} for {user}, open this in a browser and sign in within ten minutes:\n\n  {url}\n\n{bridge}\
             Else paste the whole address here that the browser is led to; it begins with {redirect_uri}?\n",
            server.display_name(),
        ));
    }
}

/// One sign-in by a code, which is shown on stderr.
async fn connect_by_code(connection: &Connection) -> Result<(), Stop> {
    let (user, server) = (&connection.user, &connection.server);
    let nothing = |why: &dyn fmt::Display| Stop::failed(format!("{why}: nothing is saved"));
    let before = connection.saved().await?.map(|stored| stored.revision);
    connection.tokens.begin_device(user, server).await.map_err(|why| nothing(&why))?;
    connection.note(EventKind::SignInBegun, Outcome::Begun);
    let mut told = None;
    loop {
        let looked = connection.tokens.look_at_device(user, server).await;
        match looked.map_err(|error| nothing(&error))? {
            DeviceSignIn::Waiting(shown, _) if told.as_ref().is_some_and(|told| *told != shown) => {
                return Err(nothing(&"a newer sign-in has taken the place of this one"));
            }
            DeviceSignIn::Waiting(shown, wait) => {
                if told.is_none() {
                    let (name, user) = (server.display_name(), named(user));
                    let DeviceCode { code, uri, complete } = &shown;
                    let complete = complete.as_ref().map(|complete| format!("\nor open\n\n  {complete}\n"));
                    tell(&format!(
                        "To connect {name} for {user}, enter this code, on any device\n\n  {code}\n\nat\n\n  {uri}\n{}",
                        complete.unwrap_or_default()
                    ));
                }
                told = Some(shown);
                sleep(wait.max(LOOK / 4)).await;
            }
            DeviceSignIn::Connected => {
                connection.tell_bridges().await;
                return Ok(());
            }
            // A page or a call that waits may have been faster.
            DeviceSignIn::Nothing => return saved_meanwhile(connection, before.as_ref()).await,
            DeviceSignIn::Ended(DeviceEnd::Denied) => return Err(nothing(&"you did not allow it")),
            DeviceSignIn::Ended(DeviceEnd::Expired) => return Err(nothing(&"the code was not entered in time")),
            DeviceSignIn::Ended(DeviceEnd::Fault(fault)) => return Err(nothing(&fault)),
        }
    }
}

/// Gets and saves what the service gives for a pasted answer.
async fn redeem(connection: &Connection, answer: Callback) -> Result<(), Failure> {
    let (user, server, services) = (&connection.user, &connection.server, &connection.services);
    let taken = services.take(server, (user, None), &answer).await;
    let flow = taken.map_err(|why| Stop::failed(format!("{why}: nothing is saved")))?;
    let code: Secret = match answer.answer {
        CallbackAnswer::Code(code) => code,
        CallbackAnswer::Error(Some("access_denied")) => {
            connection.note(EventKind::SignInEnded, Outcome::Refused);
            return Err(Stop::failed("you did not allow it: nothing is saved").into());
        }
        CallbackAnswer::Error(code) => return Err(Failure::Fault(flow.refused(code))),
    };
    let (services, asked) = (Arc::clone(services), Arc::clone(server));
    let given = async move { services.redeem(&asked, &flow, &code).await };
    connection.tokens.connect((user, &server.name), given).await.map_err(|why| match why {
        NotConnected::Service(fault) => Failure::Fault(fault),
        NotConnected::Change(error) => Stop::failed(format!("{error}: nothing is saved")).into(),
    })?;
    connection.tell_bridges().await;
    Ok(())
}

/// The answer came to a running bridge, or nobody has answered in time.
async fn saved_meanwhile(connection: &Connection, before: Option<&Revision>) -> Result<(), Stop> {
    let until = Instant::now() + SAVED;
    while Instant::now() < until {
        let now = connection.saved().await?.map(|stored| stored.revision);
        if now.is_some() && now.as_ref() != before {
            return Ok(());
        }
        sleep(LOOK / 4).await;
    }
    Err(Stop::failed("this sign-in has ended and gave nothing: nothing is saved; start again"))
}

/// What comes on stdin, line by line.
fn lines() -> mpsc::Receiver<Zeroizing<String>> {
    let (give, given) = mpsc::channel(1);
    // A thread of its own, for which the end of the program does not wait.
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Zeroizing::new(String::new());
            match stdin.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(length) if length > 0 && give.blocking_send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    given
}

/// Says something to whoever sits there.
fn tell(text: &str) {
    // Whoever closed stderr does not want to know.
    let _closed = writeln!(io::stderr(), "{text}");
}
