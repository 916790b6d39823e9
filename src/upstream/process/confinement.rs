//! What the processes of one request are confined to: a control group, a directory, a user. All of it is made before
//! they are started, belongs to their group, and is gone after them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::SpawnError;
use super::cgroup::{Cgroups, RequestCgroup};
use super::cleanup::{BackgroundCleanup, TURN};
use super::directory_size::{SizeWatcher, SizedDirectory};
use super::instance::resources::InstanceResources;
use super::orphans::ProcessKind;
use super::remove_tree::remove_tree_within;
use super::users::{Lease, Users};
use crate::config::Confinement;
use crate::lifecycle::Lifecycle;

/// How often to check whether the processes of a killed control group are gone, at least.
const POLL: Duration = Duration::from_millis(20);

/// Confines the processes of each request. The default confines nothing.
#[derive(Debug, Default)]
pub struct Confiner {
    cgroups: Option<Cgroups>,
    directory: Option<PathBuf>,
    next: AtomicU64,
    users: Users,
    cleanup: Option<BackgroundCleanup>,
    size_watcher: Option<SizeWatcher>,
}

impl Confiner {
    /// Confines by these resources; a task of `lifecycle` removes what cannot be removed at once.
    #[must_use]
    pub fn new(resources: &InstanceResources, lifecycle: &Lifecycle) -> Self {
        Self {
            cgroups: resources.cgroup.as_deref().ok().map(Cgroups::of_instance),
            directory: resources.directory.clone().ok(),
            next: AtomicU64::new(0),
            users: Users::default(),
            cleanup: Some(BackgroundCleanup::new(lifecycle)),
            size_watcher: Some(SizeWatcher::new(lifecycle)),
        }
    }

    /// The directory of this instance, which goes with it. Others may pass through it.
    pub(super) fn instance_directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// What removes in the background.
    pub(super) fn cleanup(&self) -> Option<BackgroundCleanup> {
        self.cleanup.clone()
    }

    /// Makes what one request's processes are confined to. Where the host does not offer what was asked for, they are
    /// confined less; `host_checks` says so at the start.
    /// A client of a container engine has no control group: what it starts there would be killed with it.
    pub(super) fn confine(
        &self,
        confinement: &Confinement,
        kind: ProcessKind,
    ) -> Result<ActiveConfinement, SpawnError> {
        let user = match confinement.run_as {
            Some(users) => Some(Arc::new(self.users.lease(users).ok_or(SpawnError::TooManyProcesses)?)),
            None => None,
        };
        let directory = match (&self.directory, confinement.private_directory) {
            (Some(parent), Some(size)) => Some(self.make_directory(parent, size, user.clone())?),
            _ => None,
        };
        let cgroups = self.cgroups.as_ref().filter(|_| kind == ProcessKind::Server);
        let cgroup = cgroups.map(|cgroups| cgroups.group(confinement)).transpose()?;
        let limits = self.cgroups.as_ref().map(Cgroups::limits).unwrap_or_default();
        let by_process = ByProcess {
            data: confinement.memory.filter(|_| !limits.memory),
            // It counts the processes of the user, so it is of use only to one of one's own.
            processes: confinement.pids.filter(|_| !limits.pids && user.is_some()),
        };
        Ok(ActiveConfinement { cgroup, directory, user, by_process, cleanup: self.cleanup.clone() })
    }

    /// Ends the server that leads the processes in `confined` when they put too much into their directory; `leader` is its
    /// pidfd.
    pub(super) fn watch(&self, confined: &ActiveConfinement, leader: &Arc<AsyncFd<OwnedFd>>) {
        if let (Some(watcher), Some(directory)) = (&self.size_watcher, &confined.directory) {
            watcher.watch(&directory.sized, leader);
        }
    }

    fn make_directory(&self, parent: &Path, size: u64, user: Option<Arc<Lease>>) -> io::Result<Directory> {
        let path = parent.join(self.next.fetch_add(1, Relaxed).to_string());
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let owner = user.as_ref().map(|user| (user.uid, user.gid));
        let made = Directory { sized: Arc::new(SizedDirectory::new(path, size)), user, cleanup: self.cleanup.clone() };
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::lchown(made.sized.path(), Some(uid), Some(gid))?;
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
pub(super) struct ActiveConfinement {
    pub(super) cgroup: Option<RequestCgroup>,
    directory: Option<Directory>,
    pub(super) user: Option<Arc<Lease>>,
    pub(super) by_process: ByProcess,
    cleanup: Option<BackgroundCleanup>,
}

impl ActiveConfinement {
    /// The directory of its own.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(|directory| directory.sized.path())
    }

    /// What the directory may hold, bytes, if it was seen to hold more.
    pub(super) fn overfilled(&self) -> Option<u64> {
        self.directory.as_ref().and_then(|directory| directory.sized.overfilled())
    }

    /// Kills what is in the control group.
    pub(super) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Waits until nothing is in the control group, which was killed, and removes it. What is empty and cannot be removed,
    /// because there are groups in it, is left to the background cleanup.
    pub(super) async fn emptied(&mut self) {
        let mut pause = Duration::from_micros(500);
        while let Some(cgroup) = &self.cgroup {
            if cgroup.remove() {
                self.cgroup = None;
            } else if cgroup.is_populated() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL);
            } else {
                return;
            }
        }
    }
}

impl Drop for ActiveConfinement {
    fn drop(&mut self) {
        let Some(cgroup) = self.cgroup.take() else { return };
        cgroup.kill();
        if !cgroup.remove()
            && let Some(cleanup) = &self.cleanup
        {
            cleanup.retry_until(move || cgroup.remove());
        }
    }
}

#[derive(Debug)]
struct Directory {
    sized: Arc<SizedDirectory>,
    /// Nobody else is this user as long as the directory is there.
    user: Option<Arc<Lease>>,
    cleanup: Option<BackgroundCleanup>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if fs::remove_dir(self.sized.path()).is_err()
            && let Some(cleanup) = &self.cleanup
        {
            let (directory, user) = (Arc::clone(&self.sized), self.user.take());
            cleanup.retry_until(move || {
                let _still_taken = &user;
                remove_tree_within(directory.path(), TURN)
            });
        }
    }
}
