//! `tollbridge reload` and `tollbridge health`, and how commands talk to the bridges that run on this host.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::Stop;
use crate::control::{Answer, Bridge, MAX_ANSWER, Request};

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
    let bridges = Bridge::all(file).map_err(Stop::failed)?;
    if bridges.is_empty() {
        let place = file.map_or_else(String::new, |file| format!(" that was started with {}", file.display()));
        return Err(Stop::failed(format!("no bridge{place} runs on this host")));
    }
    let mut refusal = None;
    for bridge in &bridges {
        let answer = ask(bridge, request);
        let (said, code) = match &answer {
            Ok(Answer { is_good: true, text }) => {
                writeln!(io::stdout(), "process {}: {text}", bridge.pid).map_err(Stop::output)?;
                continue;
            }
            Ok(Answer { text, .. }) if request == Request::Health => (text.clone(), Stop::failed as fn(String) -> Stop),
            Ok(Answer { text, .. }) => (text.clone(), Stop::usage as fn(String) -> Stop),
            Err(error) => (format!("it does not answer: {error}"), Stop::failed as fn(String) -> Stop),
        };
        refusal = Some(code(format!("process {}: {said}", bridge.pid)));
    }
    refusal.map_or(Ok(()), Err)
}

fn ask(bridge: &Bridge, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect_addr(&bridge.address()?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", request.as_str()).as_bytes())?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it takes commands of its own user and of root only",
        ));
    }
    Ok(serde_json::from_slice(&text)?)
}
