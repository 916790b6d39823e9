//! What the processes of one request are confined to: a control group, a directory, a user. All of it is made before
//! they are started, belongs to their group, and is gone after them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use rustix::thread::CapabilitySet;
use tokio::io::unix::AsyncFd;

use super::cgroup::{self, Cgroups, Leaf};
use super::directory_size::{Room, Watch};
use super::group::SpawnError;
use super::orphans::{self, Kin};
use super::tidy::{TURN, Tidier};
use super::users::{Lease, Users};
use crate::config::{Confinement, Environment};
use crate::instance::{self, Held};
use crate::lifecycle::Lifecycle;
use crate::privilege;

/// How often to look whether the processes of a killed control group are gone, at least.
const LOOK: Duration = Duration::from_millis(20);

/// What this run of the program has on the host: a directory and a control group, or why not.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where the requests' directories are made.
    pub directory: Result<PathBuf, String>,
    /// Where their control groups are made.
    pub cgroup: Result<PathBuf, String>,
}

impl Places {
    /// Makes them, after removing those of runs that have ended. They are this run's for as long as the second part of
    /// the answer is kept.
    #[must_use]
    pub fn begin(cgroup: &cgroup::Place) -> (Self, [Option<Held>; 2]) {
        let directory = begin_directory();
        let cgroup = cgroup::begin(cgroup);
        let path = |held: &Held| held.path().to_owned();
        let places = Self {
            directory: directory.as_ref().map(path).map_err(ToString::to_string),
            cgroup: cgroup.as_ref().map(path).map_err(ToString::to_string),
        };
        (places, [directory.ok(), cgroup.ok()])
    }

    /// Removes them with everything in them. Blocks, at worst for some seconds.
    pub fn end(&self) {
        if let Ok(cgroup) = &self.cgroup {
            cgroup::end(cgroup);
        }
        if let Ok(directory) = &self.directory {
            remove_run(directory);
        }
    }
}

/// Removes the directory of a run: each request's by itself first, since what is in it may be somebody else's, who gets
/// no further up.
fn remove_run(run: &Path) {
    for request in fs::read_dir(run).into_iter().flatten().flatten() {
        let _ = instance::remove_tree(&request.path());
    }
    let _ = instance::remove_tree(run);
}

/// In the best of the usual places where a directory can be made: that of the service, that of the system for root,
/// that of the user, the one for shared memory, the one for temporary files; last those that are closed to the users
/// whom servers may be run as. What runs have left in any is removed.
fn begin_directory() -> io::Result<Held> {
    let named = |name| Environment::Process.read(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/run"));
    let of_user = of_root.is_none().then(|| named("XDG_RUNTIME_DIR")).flatten();
    // A service may have several; they are separated by colons.
    let of_service = named("RUNTIME_DIRECTORY").filter(|path| !path.as_os_str().as_bytes().contains(&b':'));
    let usual = [of_root, of_user, Some("/dev/shm".into()), named("TMPDIR"), Some("/tmp".into())];
    let mut candidates: Vec<PathBuf> = usual.into_iter().flatten().collect();
    candidates.sort_by_key(|path| drawbacks(path));
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    let mut made = None;
    let mut candidates: Vec<_> = of_service.into_iter().chain(candidates).collect();
    if privilege::has(CapabilitySet::SETUID) {
        candidates.sort_by_key(|path| !others_pass(path));
    }
    let processes_ended = Once::new();
    for parent in candidates {
        instance::sweep(&parent, |run| {
            // First what may still write there.
            processes_ended.call_once(end_processes_of_dead_runs);
            remove_run(run);
        });
        if made.is_none() {
            match Held::make(&parent) {
                Ok(held) => made = Some(held),
                Err(error) => refused = error,
            }
        }
    }
    made.ok_or(refused)
}

fn end_processes_of_dead_runs() {
    let ended = orphans::end_dead_runs();
    if ended > 0 {
        tracing::warn!(ended, "ended processes that a bridge which died as a whole had left running");
    }
}

/// Whether every user gets there.
fn others_pass(path: &Path) -> bool {
    const OTHERS_PASS: u32 = 0o001;
    path.ancestors().all(|above| fs::metadata(above).is_ok_and(|it| it.mode() & OTHERS_PASS != 0))
}

/// What speaks against making directories here, the worse first: no program can be run from it, as those do that unpack
/// themselves; it is on a disk, where what is written of a token stays and where making a directory takes ten times as
/// long.
fn drawbacks(path: &Path) -> (bool, bool) {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let runs_nothing = rustix::fs::statvfs(path).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let in_memory = rustix::fs::statfs(path).is_ok_and(|it| u64::try_from(it.f_type) == Ok(TMPFS_MAGIC));
    (runs_nothing, !in_memory)
}

/// Confines the processes of each request. The default confines nothing.
#[derive(Debug, Default)]
pub struct Confiner {
    cgroups: Option<Cgroups>,
    directory: Option<PathBuf>,
    next: AtomicU64,
    users: Users,
    tidier: Option<Tidier>,
    watch: Option<Watch>,
}

impl Confiner {
    /// Confines to what is made in these places; what cannot be removed at once is by a task of `lifecycle`.
    #[must_use]
    pub fn new(places: &Places, lifecycle: &Lifecycle) -> Self {
        Self {
            cgroups: places.cgroup.as_deref().ok().map(Cgroups::of_run),
            directory: places.directory.clone().ok(),
            next: AtomicU64::new(0),
            users: Users::default(),
            tidier: Some(Tidier::new(lifecycle)),
            watch: Some(Watch::new(lifecycle)),
        }
    }

    /// What removes in the background.
    pub(super) fn tidier(&self) -> Option<Tidier> {
        self.tidier.clone()
    }

    /// Makes what one request's processes are confined to. Where the host does not offer what was asked for, they are
    /// confined less; `guarantee` says so at the start.
    /// A client of a container engine has no control group: what it starts there would be killed with it.
    pub(super) fn cell(&self, confinement: &Confinement, kin: Kin) -> Result<Cell, SpawnError> {
        let user = match confinement.run_as {
            Some(users) => Some(Arc::new(self.users.lease(users).ok_or(SpawnError::TooManyProcesses)?)),
            None => None,
        };
        let directory = match (&self.directory, confinement.private_directory) {
            (Some(parent), Some(size)) => Some(self.make_directory(parent, size, user.clone())?),
            _ => None,
        };
        let cgroups = self.cgroups.as_ref().filter(|_| kin == Kin::Server);
        let leaf = cgroups.map(|cgroups| cgroups.group(confinement)).transpose()?;
        let limits = self.cgroups.as_ref().map(Cgroups::limits).unwrap_or_default();
        let by_process = ByProcess {
            data: confinement.memory.filter(|_| !limits.memory),
            // It counts the processes of the user, so it is of use only to one of one's own.
            processes: confinement.pids.filter(|_| !limits.pids && user.is_some()),
        };
        Ok(Cell { leaf, directory, user, by_process, tidier: self.tidier.clone() })
    }

    /// Ends the server that leads the processes in `cell` when they put too much into their directory; `leader` is its
    /// pidfd.
    pub(super) fn watch(&self, cell: &Cell, leader: &Arc<AsyncFd<OwnedFd>>) {
        if let (Some(watch), Some(directory)) = (&self.watch, &cell.directory) {
            watch.over(&directory.room, leader);
        }
    }

    fn make_directory(&self, parent: &Path, size: u64, user: Option<Arc<Lease>>) -> io::Result<Directory> {
        let path = parent.join(self.next.fetch_add(1, Relaxed).to_string());
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let owner = user.as_ref().map(|user| (user.uid, user.gid));
        let made = Directory { room: Arc::new(Room::new(path, size)), user, tidier: self.tidier.clone() };
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(made.room.path(), Some(uid), Some(gid))?;
        }
        Ok(made)
    }
}

/// Limits that hold for each process by itself, where a control group cannot have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByProcess {
    /// `RLIMIT_DATA`, bytes.
    pub(super) data: Option<u64>,
    /// `RLIMIT_NPROC`.
    pub(super) processes: Option<u64>,
}

/// What one request's processes are confined to. Dropping it kills what is in its control group, then removes the
/// group and the directory, then frees the user.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) leaf: Option<Leaf>,
    directory: Option<Directory>,
    pub(super) user: Option<Arc<Lease>>,
    pub(super) by_process: ByProcess,
    tidier: Option<Tidier>,
}

impl Cell {
    /// The directory of its own.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(|directory| directory.room.path())
    }

    /// What the directory may hold, bytes, if it was seen to hold more.
    pub(super) fn overfilled(&self) -> Option<u64> {
        self.directory.as_ref().and_then(|directory| directory.room.overfilled())
    }

    /// Kills what is in the control group.
    pub(super) fn kill(&self) {
        if let Some(leaf) = &self.leaf {
            leaf.kill();
        }
    }

    /// Waits until nothing is in the control group, which was killed, and removes it. What is empty and cannot be removed,
    /// because there are groups in it, is left to be tidied.
    pub(super) async fn emptied(&mut self) {
        let mut pause = Duration::from_micros(500);
        while let Some(leaf) = &self.leaf {
            if leaf.remove() {
                self.leaf = None;
            } else if leaf.is_populated() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK);
            } else {
                return;
            }
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let Some(leaf) = self.leaf.take() else { return };
        leaf.kill();
        if !leaf.remove()
            && let Some(tidier) = &self.tidier
        {
            tidier.until_done(move || leaf.remove());
        }
    }
}

#[derive(Debug)]
struct Directory {
    room: Arc<Room>,
    /// Nobody else is this user as long as the directory is there.
    user: Option<Arc<Lease>>,
    tidier: Option<Tidier>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if fs::remove_dir(self.room.path()).is_err()
            && let Some(tidier) = &self.tidier
        {
            let (room, user) = (Arc::clone(&self.room), self.user.take());
            tidier.until_done(move || {
                let _still_taken = &user;
                instance::remove_tree_within(room.path(), TURN)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_memory_that_programs_may_run_from_is_preferred() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        for place in ["/", "/proc", "/dev/shm"] {
            let mount = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(place));
            let mount: Vec<_> = mount.unwrap_or_default().split(' ').collect();
            let [_, _, kind, options, ..] = *mount else { continue };
            let expected = (options.split(',').any(|option| option == "noexec"), kind != "tmpfs");
            assert_eq!(drawbacks(Path::new(place)), expected, "{place}");
        }
    }
}
