//! `tollbridge reload` and `tollbridge health`, and how commands talk to the bridges that run on this host.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::geteuid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Stop, token_store};
use crate::control::{self, Answer, MAX_ANSWER, Request};

/// How long the bridges may take to answer, in all.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to read whose the file is.
const READING: Duration = Duration::from_secs(5);

/// Arguments of `reload`.
#[derive(Debug, clap::Args)]
pub struct Reload {
    /// The configuration file that bridges were started with, which they are to read anew.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Reload {
    /// Tells every bridge on this host that was started with the file, and says what each answers.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(tell(Some(&self.config), Request::Reload))
    }
}

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub struct Health {
    /// The configuration file that the bridge was started with. Without it every bridge on this host is asked.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Health {
    /// Ends with 0 if every bridge that is asked is ready, as `/readyz` says it.
    #[must_use]
    pub fn run(self) -> ExitCode {
        Stop::exit(tell(self.config.as_deref(), Request::Health))
    }
}

/// Tells the bridges that were started with `file`, or with any, and shows what they answer.
///
/// # Errors
/// There is none, one does not answer, or one says no.
pub(super) fn tell(file: Option<&Path>, request: Request) -> Result<(), Stop> {
    let (mut is_there, mut refusal) = (false, None);
    let (answers, others) = token_store::run(ask_all(file, request))?;
    for (pid, answer) in answers {
        let (said, code) = match answer {
            // It was started with another file.
            Ok(None) => continue,
            Ok(Some(Answer { is_good: true, text })) => {
                is_there = true;
                writeln!(io::stdout(), "process {pid}: {text}").map_err(Stop::output)?;
                continue;
            }
            Ok(Some(Answer { text, .. })) if request == Request::Health => (text, Stop::failed as fn(String) -> Stop),
            Ok(Some(Answer { text, .. })) => (text, Stop::usage as fn(String) -> Stop),
            Err(error) => (format!("it does not answer: {error}"), Stop::failed as fn(String) -> Stop),
        };
        is_there = true;
        refusal = Some(code(format!("process {pid}: {said}")));
    }
    if !is_there {
        let place = file.map_or_else(String::new, |file| format!(" that was started with {}", file.display()));
        let none = format!("no bridge{place} runs on this host that takes commands of this user");
        let other = others.first().map(|(pid, user)| {
            format!(
                "; process {pid} of user {user} may be one, which is to be asked by that user: `sudo -u '#{user}' …`"
            )
        });
        return Err(Stop::failed(none + &other.unwrap_or_default()));
    }
    refusal.map_or(Ok(()), Err)
}

/// What the bridges that are trusted answer, by their process ids, and the processes of others that may be bridges.
async fn ask_all(file: Option<&Path>, request: Request) -> Result<(Vec<(u32, Answered)>, Vec<(u32, u32)>), Stop> {
    let found = control::find(&trusted(file)).await.map_err(Stop::failed)?;
    let line = request.line(file);
    let mut trusted = found.trusted;
    trusted.retain(|(pid, _)| file.is_none_or(|file| control::may_read(*pid, file)));
    let asked = trusted.into_iter().map(async |(pid, stream)| (pid, ask(stream, &line).await));
    Ok((join_all(asked).await, found.others))
}

/// Whose bridges are believed. Anybody may listen as a bridge does: root believes itself, and those to whom the
/// configuration file or the token store that it names belongs.
fn trusted(file: Option<&Path>) -> Vec<u32> {
    let own = geteuid();
    let mut trusted = vec![own.as_raw()];
    if let Some(file) = file.filter(|_| own.is_root()).map(Path::to_owned) {
        let (say, said) = mpsc::channel();
        // It may be a pipe: that a bridge is asked about it must not wait for who writes to it.
        thread::spawn(move || say.send(owners(&file)));
        trusted.extend(said.recv_timeout(READING).into_iter().flatten());
    }
    trusted
}

fn owners(file: &Path) -> Vec<u32> {
    let of_file = fs::metadata(file).ok();
    let of_store = token_store::load(file).ok().and_then(|config| token_store::owned(config.token_store.as_ref()?));
    [of_file, of_store].into_iter().flatten().map(|owned| owned.uid()).collect()
}

type Answered = io::Result<Option<Answer>>;

async fn ask(stream: UnixStream, line: &str) -> Answered {
    timeout(PATIENCE, converse(stream, line)).await?
}

async fn converse(mut stream: UnixStream, line: &str) -> Answered {
    stream.write_all(line.as_bytes()).await?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text).await?;
    let mut answer: Option<Answer> = serde_json::from_slice(&text)?;
    if let Some(answer) = &mut answer {
        // A terminal would obey them.
        answer.text.retain(|c| c == '\n' || !c.is_control());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_answers_a_byte_now_and_then_is_given_up_as_one_who_says_nothing() {
        for pause in [Duration::from_secs(1), Duration::from_hours(1)] {
            let (stream, mut other) = UnixStream::pair().unwrap();
            let begun = Instant::now();
            let drip = async {
                loop {
                    tokio::time::sleep(pause).await;
                    other.write_all(b" ").await.unwrap();
                }
            };
            let answered = tokio::select! {
                answered = ask(stream, "health\n") => answered,
                () = drip => unreachable!(),
            };
            assert_eq!(answered.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() < PATIENCE + Duration::from_secs(1));
        }
    }
}
