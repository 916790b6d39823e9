//! What a worker hands to its supervisor: what to remove, besides its processes, when it cannot do so itself.

use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memchr::memchr;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::{Config, Engine};
use crate::descendants;
use crate::upstream::container::blocking_cleanup;
use crate::upstream::process::instance::Instance;
use crate::upstream::process::orphans;
use crate::upstream::process::token_files;

/// The longest that it takes: an engine that does not answer by then leaves its containers to the next start.
const LIMIT: Duration = Duration::from_secs(20);

/// In how many lists a container must be missing, if its client may have been killed while it was being made.
const LISTS: u32 = 3;

/// How long what is left of the engines' clients may take to end.
const CLIENTS: Duration = Duration::from_secs(1);

/// What there is to remove when the worker has ended.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct CleanupPlan {
    /// The worker's instance, which its containers name in a label.
    instance: String,
    engines: Vec<Engine>,
    token_directories: Vec<PathBuf>,
    /// How long its requests may go on once it was told to stop.
    grace: Duration,
}

impl CleanupPlan {
    /// The plan for this process.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            instance: Instance::own().to_string(),
            engines: config.engines().iter().map(|engine| Engine::clone(engine)).collect(),
            token_directories: config.token_directories(),
            grace: config.limits.pre_stop_delay + config.limits.shutdown_grace,
        }
    }

    /// Adds what another configuration asks for. What the first one has started may still run, so nothing is left out.
    pub fn add(&mut self, config: &Config) {
        let Self { engines, token_directories, grace, .. } = Self::of(config);
        self.grace = grace;
        for engine in engines {
            if !self.engines.contains(&engine) {
                self.engines.push(engine);
            }
        }
        self.token_directories.extend(token_directories);
        self.token_directories.sort();
        self.token_directories.dedup();
    }

    /// Hands it to the supervisor, which has made our stdin the file for it.
    ///
    /// # Errors
    /// If there is no such file, or no memory for it.
    pub fn hand_over(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let file = rustix::io::dup(rustix::stdio::stdin())?;
        // Over the one before, of which the end may be left: the plan is the first line.
        std::fs::File::from(file).write_all_at(&text, 0)
    }

    /// Removes everything, the engines' clients too. `in_order` is whether the worker has ended as it should, with nothing in the
    /// making. `reap` is called now and then, for what has ended.
    pub fn execute(&self, in_order: bool, mut reap: impl FnMut()) {
        // The worker's lock has ended with it.
        token_files::remove_dead(&self.token_directories);
        let lists = if in_order { 1 } else { LISTS };
        // A client makes its container to the end; only then can the engine be asked to remove it.
        let clients_left = || {
            reap();
            descendants::alive(orphans::is_daemon_of_engine).is_ok_and(|clients| !clients.is_empty())
        };
        let deadline = Instant::now() + LIMIT;
        if !blocking_cleanup::remove_all(&self.engines, &self.instance, lists, deadline, clients_left) {
            tracing::error!("the container engine does not answer: containers are left until the next start");
        }
        let _all_gone = descendants::end_all(Instant::now() + CLIENTS, orphans::is_daemon_of_engine, reap);
    }
}

/// A file in memory for the plan, our end and the worker's. However long the plan is, the worker waits for nobody.
pub(super) fn file() -> io::Result<(OwnedFd, OwnedFd)> {
    // Some kernels make no other file in memory than one that nobody can run, and older ones do not know of such.
    let make = |more| memfd_create("tollbridge-cleanup-plan", MemfdFlags::CLOEXEC | more);
    let file = make(MemfdFlags::NOEXEC_SEAL).or_else(|_| make(MemfdFlags::empty()))?;
    let theirs = file.try_clone()?;
    Ok((file, theirs))
}

/// The plan that has been handed over in this file, if there is one and it is whole.
pub(super) fn read(file: &OwnedFd) -> Option<CleanupPlan> {
    let mut text = Vec::new();
    let mut file = std::fs::File::from(file.try_clone().ok()?);
    file.rewind().ok()?;
    file.read_to_end(&mut text).ok()?;
    let (plan, _) = text.split_at_checked(memchr(b'\n', &text)?)?;
    serde_json::from_slice(plan).ok()
}

/// How long the requests of the worker whose plan this is may go on once it was told to stop; none before it serves.
pub(super) fn grace(file: &OwnedFd) -> Duration {
    read(file).map_or(Duration::ZERO, |plan| plan.grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_whole_however_long_it_is_and_not_at_all_if_it_is_not_whole() {
        let directories: Vec<PathBuf> = (0..50_000).map(|n| format!("/somewhere/{n}").into()).collect();
        let plan = CleanupPlan {
            instance: "a.1.1.1".to_owned(),
            engines: Vec::new(),
            token_directories: directories,
            grace: Duration::ZERO,
        };
        let mut text = serde_json::to_vec(&plan).unwrap();
        text.push(b'\n');
        let (ours, theirs) = file().unwrap();
        std::fs::File::from(theirs).write_all_at(&text, 0).unwrap();
        assert_eq!(read(&ours).unwrap().token_directories, plan.token_directories);

        let (ours, theirs) = file().unwrap();
        let theirs = std::fs::File::from(theirs);
        theirs.write_all_at(&text[..text.len() - 1], 0).unwrap();
        assert!(read(&ours).is_none());

        let short = CleanupPlan { token_directories: vec!["/one".into()], ..plan };
        theirs.write_all_at(&text, 0).unwrap();
        theirs.write_all_at(&[&serde_json::to_vec(&short).unwrap()[..], b"\n"].concat(), 0).unwrap();
        assert_eq!(read(&ours).unwrap().token_directories, short.token_directories, "the last one counts");
    }
}
