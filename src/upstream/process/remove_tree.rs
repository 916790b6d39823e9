//! Removing a directory with everything in it, whatever its server has done there.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::sys::FileUser;

/// The longest that removing one directory takes; what is left then is for the next time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a directory to read it; a link is refused.
///
/// # Errors
/// What the system says.
pub(super) fn open(at: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes a directory and everything in it, follows no link out of it, and returns whether it is gone.
///
/// However deep it is, two descriptors and no recursion do: a directory within another is first moved to the top. What
/// belongs to others, and is closed to us, is removed as whom it belongs to, if we may be them.
pub(super) fn remove_tree(path: &Path) -> bool {
    remove_tree_within(path, PATIENCE)
}

/// The same for at most that long; what is left then is smaller for the next time.
pub(super) fn remove_tree_within(path: &Path, patience: Duration) -> bool {
    match empty_top(path, Instant::now() + patience) {
        Ok(()) => fs::remove_dir(path).is_ok(),
        Err(error) => error == Errno::NOENT,
    }
}

fn empty_top(path: &Path, deadline: Instant) -> Result<(), Errno> {
    let top = open_whatever(CWD, path.as_os_str())?;
    let mut moved = 0;
    while let Some(inner) = empty(top.as_fd(), top.as_fd(), &mut moved, deadline)? {
        let directory = open_whatever(top.as_fd(), &inner)?;
        empty(directory.as_fd(), top.as_fd(), &mut moved, deadline)?;
        let _owner = as_owner(&fstat(&top)?);
        unlinkat(&top, &inner, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Acts as the owner of a file, if we may. Root may do everything as it is, and nobody else acts as root.
pub(super) fn as_owner(file: &Stat) -> Option<FileUser> {
    let may = !rustix::process::geteuid().is_root() && file.st_uid != 0;
    may.then(|| FileUser::become_one(file.st_uid)).flatten()
}

/// What a directory that is being removed may be used for, and by whom: things of several users may be in it.
fn open_to_all(owner: u32) -> Mode {
    let own = owner == rustix::process::geteuid().as_raw();
    if own { Mode::RWXU } else { Mode::RWXU | Mode::RWXG | Mode::RWXO }
}

/// Opens a directory of which whoever made it may have taken away the right to look into it.
fn open_whatever(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let _owner = as_owner(&found);
    let directory = open_even_closed(at, name)?;
    // It may be only theirs to read.
    let _ = fchmod(&directory, open_to_all(found.st_uid));
    Ok(directory)
}

/// Opens a directory of whoever we act as; one that is closed to its owner is opened to them first.
///
/// # Errors
/// What the system says.
pub(super) fn open_even_closed(at: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd, Errno> {
    match open(at, name) {
        Err(Errno::ACCESS) => {
            change_mode(at, name, Mode::RWXU)?;
            open(at, name)
        }
        done => done,
    }
}

/// Changes the mode of a directory by what it is and not by its name, under which its server may have put a link.
fn change_mode(at: BorrowedFd<'_>, name: impl Arg, mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(at, name, flags, Mode::empty())?;
    chmodat(CWD, format!("/proc/self/fd/{}", directory.as_raw_fd()), mode, AtFlags::empty())
}

/// Removes the files of `directory`, up to the first directory in it, whose name at the top is returned: it is moved
/// there if it was not there.
fn empty(
    directory: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    moved: &mut u64,
    deadline: Instant,
) -> Result<Option<std::ffi::OsString>, Errno> {
    let is_top = same(directory, top)?;
    let _owner = as_owner(&fstat(directory)?);
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if Instant::now() > deadline {
            return Err(Errno::TIMEDOUT);
        }
        let unlinked = match entry.file_type() {
            FileType::Directory => Err(Errno::ISDIR),
            _ => unlinkat(directory, name, AtFlags::empty()),
        };
        match unlinked {
            Err(Errno::ISDIR) if is_top => return Ok(Some(OsStr::from_bytes(name.to_bytes()).to_owned())),
            Err(Errno::ISDIR) => move_up(directory, name, top, moved)?,
            Err(Errno::NOENT) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstat(one)?.st_ino == fstat(other)?.st_ino)
}

/// Moves a directory to the top under a name that is free there.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<(), Errno> {
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let _owner = as_owner(&found);
    let mut opened = false;
    loop {
        *moved += 1;
        match renameat(from, name, top, moved.to_string()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            // A directory learns of its new parent, so it must be one that can be written to.
            Err(Errno::ACCESS) if !opened => {
                change_mode(from, name, open_to_all(found.st_uid))?;
                opened = true;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_goes_whatever_is_in_it_and_nothing_outside_does() {
        let parent = tempfile::tempdir().unwrap();
        let (outside, tree) = (parent.path().join("outside"), parent.path().join("tree"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "kept").unwrap();
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join("0.0/1.0")).unwrap();
        for directory in ["a", "a/b", "a/b/c", "0.0"] {
            symlink(&outside, tree.join(directory).join("link")).unwrap();
            fs::write(tree.join(directory).join("file"), "").unwrap();
        }
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
        assert!(remove_tree(&tree));
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "kept");
        assert!(remove_tree(&tree), "what is not there is gone");
    }

    #[test]
    fn a_directory_is_opened_up_and_what_a_link_leads_to_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(parent.path().join(name)).unwrap().permissions().mode() & 0o777;
        for name in ["outside", "closed"] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::set_permissions(parent.path().join(name), fs::Permissions::from_mode(0o100)).unwrap();
        }
        symlink(parent.path().join("outside"), parent.path().join("link")).unwrap();
        let at = open(CWD, parent.path().as_os_str()).unwrap();
        assert_eq!(change_mode(at.as_fd(), "closed", Mode::RWXU), Ok(()));
        assert!(change_mode(at.as_fd(), "link", Mode::RWXU).is_err());
        assert_eq!((mode("closed"), mode("outside")), (0o700, 0o100));
    }

    #[test]
    fn a_tree_deeper_than_any_path_may_be_long_goes() {
        const DEPTH: usize = 3000;
        let parent = tempfile::tempdir().unwrap();
        let tree = parent.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(rustix::fs::CWD, tree.as_os_str()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, OsStr::new("d")).unwrap();
        }
        drop(at);
        assert!(remove_tree_within(&tree, Duration::from_mins(5)), "however slow the disk is");
        assert!(!tree.exists());
    }
}
