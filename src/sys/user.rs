//! Being somebody else: for good, or for the files alone.

use std::io;
use std::marker::PhantomData;
use std::ptr;

use rustix::process::{dumpable_behavior, set_dumpable_behavior};

/// Becomes another user and group for good, in no other group, with a file mask that gives nothing to others.
///
/// # Errors
/// `EPERM` without the privilege to do so, `EAGAIN` if that user has too many processes.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: the calls read no memory of ours: the list of groups is empty.
    let done = unsafe {
        libc::umask(0o077);
        libc::setgroups(0, ptr::null()) == 0
            && libc::setresgid(gid, gid, gid) == 0
            && libc::setresuid(uid, uid, uid) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread is another user towards files, until this is dropped. It gains and loses nothing else, and whoever could
/// not signal or trace the process before still cannot.
#[derive(Debug)]
pub struct FileUser {
    before: u32,
    /// It is the thread that is changed: whoever made it drops it.
    _stays_in_its_thread: PhantomData<*const ()>,
}

impl FileUser {
    /// Becomes that user, if this process may.
    #[must_use]
    pub fn become_one(uid: u32) -> Option<Self> {
        let before = set(uid);
        let changed = Self { before, _stays_in_its_thread: PhantomData };
        // It says who was asked for before, not whether it was done; what is no user changes nothing.
        (set(u32::MAX) == uid).then_some(changed)
    }
}

impl Drop for FileUser {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Returns who it was. The kernel takes a changed user for a reason to set anew whether the process may be dumped.
fn set(uid: u32) -> u32 {
    let dumpable = dumpable_behavior();
    // SAFETY: the call reads no memory of ours. libc makes it for the calling thread alone.
    let before = unsafe { libc::setfsuid(uid) }.cast_unsigned();
    if let Ok(dumpable) = dumpable {
        let _ = set_dumpable_behavior(dumpable);
    }
    before
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_thread_is_another_towards_files_for_a_while_and_no_other_thread_is() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "closed").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let other = FileUser::become_one(61_000).unwrap();
        assert!(fs::read(&file).is_err());
        std::thread::scope(|scope| {
            // A thread is started as whoever starts it.
            scope.spawn(|| assert!(FileUser::become_one(0).is_some() && fs::read(&file).is_err()));
        });
        drop(other);
        assert!(fs::read(&file).is_ok());
    }
}
