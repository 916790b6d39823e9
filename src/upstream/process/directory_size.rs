//! Ends servers that put more into the private directory of a request than it may hold.
//!
//! One task looks into all of these directories, one after the other, every [`PERIOD`]. That works on every host and for
//! every user. A file system of its own would hold each request to its size exactly, but the bridge would have to be root
//! to mount one, each start would pay for it, and other mount namespaces would keep copies of it.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, statat};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::remove_tree;
use crate::lifecycle::Lifecycle;

/// How long after all directories have been looked at they are again.
const PERIOD: Duration = Duration::from_millis(100);

/// How many times as long as measuring a directory took it is then left alone, so that measuring costs little.
const REST: u32 = 10;

/// What each file and directory takes up at least, bytes.
const LEAST: u64 = 4 << 10;

/// The most files and directories that are counted in one directory, however much it may hold.
const MOST_ENTRIES: u64 = 1 << 16;

/// How many directories may be within each other. Each that is being counted takes a file descriptor.
const MOST_DEEP: usize = 64;

/// A private directory with its size.
#[derive(Debug)]
pub(super) struct SizedDirectory {
    path: PathBuf,
    /// Bytes.
    size: u64,
    overfilled: AtomicBool,
}

impl SizedDirectory {
    /// The directory at `path`, which may hold `size` bytes.
    pub(super) fn new(path: PathBuf, size: u64) -> Self {
        Self { path, size, overfilled: AtomicBool::new(false) }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it may hold, bytes, if it was seen to hold more.
    pub(super) fn overfilled(&self) -> Option<u64> {
        self.overfilled.load(Relaxed).then_some(self.size)
    }

    /// Whether it holds more than it may: more bytes, more than [`MOST_ENTRIES`], or directories more than [`MOST_DEEP`]
    /// within each other.
    ///
    /// No link is followed. What is removed meanwhile is not counted, nor is a file that is open and has no name.
    ///
    /// # Errors
    /// If the directory is not there, or cannot be opened.
    fn holds_too_much(&self) -> Result<bool, Errno> {
        let least = LEAST.max(self.size / MOST_ENTRIES);
        let found = statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW)?;
        let _owner = remove_tree::as_owner(&found);
        let mut used = 0_u64;
        let mut open = vec![Dir::new(remove_tree::open(CWD, self.path.as_os_str())?)?];
        while let Some(directory) = open.last_mut() {
            let Some(Ok(entry)) = directory.read() else {
                open.pop();
                continue;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let at = directory.fd()?;
            let Ok(found) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            used = used.saturating_add(least.max(found.st_blocks.unsigned_abs().saturating_mul(512)));
            let inner = FileType::from_raw_mode(found.st_mode).is_dir().then(|| enter(at, name)).flatten();
            if used > self.size || inner.is_some() && open.len() > MOST_DEEP {
                return Ok(true);
            }
            open.extend(inner);
        }
        Ok(false)
    }
}

/// Opens a directory, also one that is closed to its owner, who may look into it all the same.
fn enter(at: BorrowedFd<'_>, name: &CStr) -> Option<Dir> {
    Dir::new(remove_tree::open_even_closed(at, name).ok()?).ok()
}

/// Takes directories to watch; cloning it shares it.
#[derive(Debug, Clone)]
pub(super) struct SizeWatcher(UnboundedSender<Watched>);

/// A directory and the server that fills it, for as long as there are both.
#[derive(Debug)]
struct Watched {
    directory: Weak<SizedDirectory>,
    leader: Weak<AsyncFd<OwnedFd>>,
    /// When to look again.
    next: Instant,
}

impl SizeWatcher {
    /// Works in a task of `lifecycle`.
    pub(super) fn new(lifecycle: &Lifecycle) -> Self {
        let (sender, receiver) = unbounded_channel();
        lifecycle.accompany(work(receiver));
        Self(sender)
    }

    /// Kills `leader`, a pidfd, when there is too much in `directory`.
    pub(super) fn watch(&self, directory: &Arc<SizedDirectory>, leader: &Arc<AsyncFd<OwnedFd>>) {
        let (directory, leader) = (Arc::downgrade(directory), Arc::downgrade(leader));
        // At the very end nobody looks any more, and every server is ended.
        let _ = self.0.send(Watched { directory, leader, next: Instant::now() });
    }
}

async fn work(mut arrivals: UnboundedReceiver<Watched>) {
    let mut watched = Vec::new();
    loop {
        if watched.is_empty() {
            let Some(first) = arrivals.recv().await else { return };
            watched.push(first);
        }
        // Most requests have ended by then.
        tokio::time::sleep(PERIOD).await;
        while let Ok(more) = arrivals.try_recv() {
            watched.push(more);
        }
        let pass = tokio::task::spawn_blocking(move || {
            watched.retain_mut(Watched::goes_on);
            watched
        });
        watched = pass.await.unwrap_or_default();
    }
}

impl Watched {
    fn goes_on(&mut self) -> bool {
        let (Some(directory), Some(leader)) = (self.directory.upgrade(), self.leader.upgrade()) else { return false };
        let before = Instant::now();
        if before < self.next {
            return true;
        }
        // What cannot be looked into now may be the next time.
        if directory.holds_too_much().unwrap_or(false) {
            // Said first: the server's end is asked about at once.
            directory.overfilled.store(true, Relaxed);
            let _ = pidfd_send_signal(leader.get_ref(), Signal::KILL);
            return false;
        }
        self.next = Instant::now() + before.elapsed() * REST;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn holds_too_much(path: &Path, size: u64) -> bool {
        SizedDirectory::new(path.to_owned(), size).holds_too_much().unwrap()
    }

    #[test]
    fn what_is_in_a_directory_counts_however_it_is_spread_and_closed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("directory");
        let inner = directory.join("a/b/c");
        fs::create_dir_all(&inner).unwrap();
        fs::write(parent.path().join("outside"), vec![1; 1 << 20]).unwrap();
        symlink(parent.path(), inner.join("link")).unwrap();
        assert!(!holds_too_much(&directory, 128 << 10), "a link leads nowhere");
        fs::write(inner.join("one"), vec![1; 96 << 10]).unwrap();
        fs::write(directory.join("other"), vec![1; 96 << 10]).unwrap();
        assert!(!holds_too_much(&directory, 256 << 10) && holds_too_much(&directory, 128 << 10));
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o300)).unwrap();
        assert!(holds_too_much(&directory, 128 << 10), "its owner cannot hide it");
    }

    #[test]
    fn many_small_files_and_deep_directories_are_too_much() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..32 {
            fs::write(directory.path().join(number.to_string()), "").unwrap();
        }
        assert!(!holds_too_much(directory.path(), 32 * LEAST) && holds_too_much(directory.path(), 31 * LEAST));
        let mut deep = directory.path().to_owned();
        for _ in 0..MOST_DEEP {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        assert!(!holds_too_much(directory.path(), 1 << 30));
        fs::create_dir(deep.join("d")).unwrap();
        assert!(holds_too_much(directory.path(), 1 << 30));
    }

    #[test]
    fn a_directory_that_is_gone_holds_nothing() {
        let parent = tempfile::tempdir().unwrap();
        assert_eq!(SizedDirectory::new(parent.path().join("gone"), 1).holds_too_much(), Err(Errno::NOENT));
    }
}
