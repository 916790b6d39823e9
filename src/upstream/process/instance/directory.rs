//! Directories that belong to one instance: it holds their lock while it lives, and directories that nobody has locked
//! are removed by the next instance that starts.
//!
//! A lock ends with the process that holds it, whatever ends that; unlike a process id it is never given to another,
//! and means the same in every container that shares the directory.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use crate::upstream::process::remove_tree::open;

/// What the names of such directories start with.
const PREFIX: &str = "tollbridge-run-";

/// A directory of this instance. Its lock is held until it is dropped; the directory itself stays until it is removed.
#[derive(Debug)]
pub struct InstanceDirectory {
    path: PathBuf,
    lock: OwnedFd,
}

impl Drop for InstanceDirectory {
    fn drop(&mut self) {
        // To close it would not do while a child that is being started has it, too.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl InstanceDirectory {
    /// Makes a directory of this instance in `parent`. Others may pass through it, and not list it.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn create(parent: &Path) -> io::Result<Self> {
        Self::create_with(parent, 0o711)
    }

    /// The same, and others may not even pass through it.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn create_private(parent: &Path) -> io::Result<Self> {
        Self::create_with(parent, 0o700)
    }

    fn create_with(parent: &Path, permissions: u32) -> io::Result<Self> {
        const ATTEMPTS: u32 = 100;
        for _ in 0..ATTEMPTS {
            // Never a name again: whoever still removes the directory of an instance that has ended must not meet this one.
            let mut word = [0; 4];
            aws_lc_rs::rand::fill(&mut word).map_err(|_| io::ErrorKind::Other)?;
            let path = parent.join(format!("{PREFIX}{}-{:08x}", std::process::id(), u32::from_ne_bytes(word)));
            match fs::DirBuilder::new().mode(permissions).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                done => done?,
            }
            // Another instance that started meanwhile has removed it before it was locked.
            match lock(&path) {
                Ok(lock) if is_at(&lock, &path) => return Ok(Self { path, lock }),
                Ok(_) | Err(Errno::NOENT | Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes from `parent`, by `remove`, the directories of this user's instances that have ended; returns how many.
pub fn remove_dead(parent: &Path, remove: impl Fn(&Path)) -> usize {
    let own = rustix::process::geteuid().as_raw();
    let mut removed = 0;
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let named_so = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
        let ours = || path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == own);
        if named_so && ours() && lock(&path).is_ok_and(|lock| is_at(&lock, &path)) {
            remove(&path);
            removed += 1;
        }
    }
    removed
}

fn lock(path: &Path) -> Result<OwnedFd, Errno> {
    let directory = open(rustix::fs::CWD, path.as_os_str())?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Whether the directory that was opened is still the one at `path`.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let opened = fstat(directory);
    fs::symlink_metadata(path).is_ok_and(|now| opened.is_ok_and(|then| then.st_ino == now.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::process::remove_tree::remove_tree;

    #[test]
    fn what_is_held_stays_and_what_is_not_goes() {
        let parent = tempfile::tempdir().unwrap();
        let remove = |path: &Path| assert!(remove_tree(path));
        let held = InstanceDirectory::create(parent.path()).unwrap();
        let dead = InstanceDirectory::create(parent.path()).unwrap();
        let dead_path = dead.path().to_owned();
        fs::write(dead_path.join("file"), "left").unwrap();
        fs::create_dir(parent.path().join("tollbridge-test")).unwrap();
        assert_eq!(remove_dead(parent.path(), remove), 0, "both are held");
        drop(dead);
        assert_eq!(remove_dead(parent.path(), remove), 1);
        assert!(!dead_path.exists() && held.path().exists());
        assert!(parent.path().join("tollbridge-test").exists(), "what is named otherwise is not ours");
    }
}
