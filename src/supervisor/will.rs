//! What a worker leaves to its supervisor: what to clear away, outside its own processes, if it cannot do so itself.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::config::{Config, Engine};
use crate::descendants;
use crate::upstream::container::last_resort;
use crate::upstream::instance::Instance;
use crate::upstream::orphans;
use crate::upstream::token_files;

/// The longest that it takes: an engine that does not answer by then leaves its containers to the next start.
const LIMIT: Duration = Duration::from_secs(20);

/// How often a container must not be there, if its client may have been killed while it was being made.
const LOOKS: u32 = 3;

/// How long what is left of the engines' clients may take to end.
const CLIENTS: Duration = Duration::from_secs(1);

/// What a worker leaves.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Will {
    /// The worker's run: what its containers are known by.
    instance: String,
    engines: Vec<Engine>,
    token_directories: Vec<PathBuf>,
}

impl Will {
    /// The will of this process.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            instance: Instance::own().to_string(),
            engines: config.engines().iter().map(|engine| Engine::clone(engine)).collect(),
            token_directories: config.token_directories(),
        }
    }

    /// Hands it to the supervisor, which has made our stdin the way to it.
    ///
    /// # Errors
    /// If there is no way, or it is too long.
    pub fn leave(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        match rustix::io::write(rustix::stdio::stdin(), &text)? {
            written if written == text.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Clears away, the engines' clients too. `in_order` is whether the worker has ended as it should, with nothing in the
    /// making. `reap` is called now and then, for what has ended.
    pub fn execute(&self, in_order: bool, mut reap: impl FnMut()) {
        // The worker's lock has ended with it.
        token_files::sweep(&self.token_directories);
        let looks = if in_order { 1 } else { LOOKS };
        // A client makes its container to the end; only then can the engine be asked to remove it.
        let clients_left = || {
            reap();
            descendants::alive(orphans::is_daemon_of_engine).is_ok_and(|clients| !clients.is_empty())
        };
        let deadline = Instant::now() + LIMIT;
        if !last_resort::remove_all(&self.engines, &self.instance, looks, deadline, clients_left) {
            tracing::error!("the container engine does not answer: containers are left until the next start");
        }
        let _all_gone = descendants::end_all(Instant::now() + CLIENTS, orphans::is_daemon_of_engine, reap);
    }
}

/// The way of a will: our end, and the worker's.
pub(super) fn way() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// The will that has come on this way, if there is one.
pub(super) fn read(way: OwnedFd) -> Option<Will> {
    let mut text = Vec::new();
    // It ends where nothing more is there, even if something that the worker started holds the other end.
    let _ = std::fs::File::from(way).read_to_end(&mut text);
    serde_json::from_slice(text.strip_suffix(b"\n")?).ok()
}
