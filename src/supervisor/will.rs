//! What a worker leaves to its supervisor: what to clear away, outside its own processes, if it cannot do so itself.

use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

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
    /// How long its requests may go on once it was told to stop.
    grace: Duration,
}

impl Will {
    /// The will of this process.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            instance: Instance::own().to_string(),
            engines: config.engines().iter().map(|engine| Engine::clone(engine)).collect(),
            token_directories: config.token_directories(),
            grace: config.limits.shutdown_grace,
        }
    }

    /// Hands it to the supervisor, which has made our stdin the place for it.
    ///
    /// # Errors
    /// If there is no such place, or no memory for it.
    pub fn leave(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let place = rustix::io::dup(rustix::stdio::stdin())?;
        // At its start, whatever else has been written: there is one will.
        std::fs::File::from(place).write_all_at(&text, 0)
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

/// A place for a will: a file in memory, our end and the worker's. However long the will is, the worker waits for nobody.
pub(super) fn place() -> io::Result<(OwnedFd, OwnedFd)> {
    // Some kernels make no other file in memory than one that nobody can run, and older ones do not know of such.
    let make = |more| memfd_create("tollbridge-will", MemfdFlags::CLOEXEC | more);
    let place = make(MemfdFlags::NOEXEC_SEAL).or_else(|_| make(MemfdFlags::empty()))?;
    let theirs = place.try_clone()?;
    Ok((place, theirs))
}

/// The will that has been left in this place, if there is one and it is whole.
pub(super) fn read(place: &OwnedFd) -> Option<Will> {
    let mut text = Vec::new();
    let mut place = std::fs::File::from(place.try_clone().ok()?);
    place.rewind().ok()?;
    place.read_to_end(&mut text).ok()?;
    serde_json::from_slice(text.strip_suffix(b"\n")?).ok()
}

/// How long the requests of the worker whose will this is may go on once it was told to stop; none before it serves.
pub(super) fn grace(place: &OwnedFd) -> Duration {
    read(place).map_or(Duration::ZERO, |will| will.grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_will_is_read_whole_however_long_it_is_and_not_at_all_if_it_is_not_whole() {
        let directories: Vec<PathBuf> = (0..50_000).map(|n| format!("/somewhere/{n}").into()).collect();
        let will = Will {
            instance: "a.1.1.1".to_owned(),
            engines: Vec::new(),
            token_directories: directories,
            grace: Duration::ZERO,
        };
        let mut text = serde_json::to_vec(&will).unwrap();
        text.push(b'\n');
        let (ours, theirs) = place().unwrap();
        std::fs::File::from(theirs).write_all_at(&text, 0).unwrap();
        assert_eq!(read(&ours).unwrap().token_directories, will.token_directories);

        let (ours, theirs) = place().unwrap();
        std::fs::File::from(theirs).write_all_at(&text[..text.len() - 1], 0).unwrap();
        assert!(read(&ours).is_none());
    }
}
