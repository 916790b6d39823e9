//! What an instance has on the host for its requests: a directory in which theirs are made, and a control group.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::StatVfsMountFlags;
use rustix::thread::CapabilitySet;

use super::directory::{self, InstanceDirectory};
use crate::config::Environment;
use crate::privilege;
use crate::upstream::process::remove_tree::remove_tree;
use crate::upstream::process::{cgroup, orphans};

/// What this instance has on the host: a directory and a control group, or why not.
#[derive(Debug, Clone)]
pub struct InstanceResources {
    /// Where the requests' directories are made.
    pub directory: Result<PathBuf, String>,
    /// Where their control groups are made.
    pub cgroup: Result<PathBuf, String>,
}

impl InstanceResources {
    /// Makes them, after removing those of instances that have ended. They are this instance's for
    /// as long as the second part of the answer is kept.
    #[must_use]
    pub fn create(cgroup: &cgroup::CgroupParent) -> (Self, [Option<InstanceDirectory>; 2]) {
        let directory = create_directory();
        let cgroup = cgroup::create(cgroup);
        let path = |held: &InstanceDirectory| held.path().to_owned();
        let resources = Self {
            directory: directory.as_ref().map(path).map_err(ToString::to_string),
            cgroup: cgroup.as_ref().map(path).map_err(ToString::to_string),
        };
        (resources, [directory.ok(), cgroup.ok()])
    }

    /// Removes them with everything in them. Blocks, at worst for some seconds.
    pub fn remove(&self) {
        if let Ok(cgroup) = &self.cgroup {
            cgroup::remove(cgroup);
        }
        if let Ok(directory) = &self.directory {
            remove_instance(directory);
        }
    }
}

/// Removes the directory of an instance: each request's by itself first, since what is in it may belong to
/// another user, who has no rights further up.
fn remove_instance(instance: &Path) {
    for request in fs::read_dir(instance).into_iter().flatten().flatten() {
        let _ = remove_tree(&request.path());
    }
    let _ = remove_tree(instance);
}

/// In the best of the usual places where a directory can be made: that of the service, that of the system for root,
/// that of the user, the one for shared memory, the one for temporary files; last those that are closed to the users
/// whom servers may be run as. What instances have left in any is removed.
fn create_directory() -> io::Result<InstanceDirectory> {
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
        directory::remove_dead(&parent, |instance| {
            // First what may still write there.
            processes_ended.call_once(end_processes_of_dead_instances);
            remove_instance(instance);
        });
        if made.is_none() {
            match InstanceDirectory::create(&parent) {
                Ok(held) => made = Some(held),
                Err(error) => refused = error,
            }
        }
    }
    made.ok_or(refused)
}

fn end_processes_of_dead_instances() {
    let ended = orphans::end_dead_instances();
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
