//! `tollbridge reload` and `tollbridge health`, and how commands talk to the bridges that run on this host.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::Stop;
use crate::control::{self, Answer, MAX_ANSWER, Request};

/// How long a bridge may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

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
    for (pid, stream) in control::bridges().map_err(Stop::failed)? {
        let answer = ask(stream, &request.line(file));
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
        return Err(Stop::failed(format!("no bridge{place} runs on this host that takes commands of this user")));
    }
    refusal.map_or(Ok(()), Err)
}

fn ask(mut stream: UnixStream, line: &str) -> io::Result<Option<Answer>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(line.as_bytes())?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text)?;
    let mut answer: Option<Answer> = serde_json::from_slice(&text)?;
    if let Some(answer) = &mut answer {
        // A terminal would obey them, and whoever listens under its own name is taken for a bridge.
        answer.text.retain(|c| c == '\n' || !c.is_control());
    }
    Ok(answer)
}
