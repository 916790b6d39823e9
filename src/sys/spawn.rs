//! Starting a program with `posix_spawn`.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::{CStrings, Signals};

/// A program to start.
pub struct Program<'a> {
    /// Its absolute path.
    pub path: &'a CStr,
    /// Its arguments, the first being its name.
    pub args: &'a CStrings,
    /// Its whole environment, as `NAME=value`.
    pub env: &'a CStrings,
    /// Its working directory; ours if none.
    pub cwd: Option<&'a CStr>,
    /// What it gets as stdin, stdout, stderr and so on; none of them may itself be one of 0, 1, 2.
    pub files: &'a [BorrowedFd<'a>],
    /// The signals to set to their default.
    pub defaults: &'a Signals,
}

/// Starts a program as the leader of a new process group, with an empty signal mask.
///
/// Not of a new session: for each of those the kernel makes a scheduling group (`sched(7)`, "The autogroup feature"), in
/// which the child waits for a turn of its own, and we for the child. On a busy machine that takes milliseconds.
///
/// This is `posix_spawn` in libc, which shares our memory with the child until the program runs: its cost does not
/// grow with ours, as it would after `fork`.
///
/// # Errors
/// What the system says: of the program, of the directory or of our own limits.
pub fn spawn(program: &Program<'_>) -> Result<Pid, Errno> {
    let attributes = Attributes::new(program.defaults)?;
    let actions = Actions::new(program.files, program.cwd)?;
    let (args, env) = (program.args.pointers(), program.env.pointers());
    let mut pid = 0;
    // SAFETY: every pointer outlives the call; both arrays end with a null pointer and hold NUL-terminated strings,
    // which the call does not write to.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            args.as_ptr(),
            env.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or(Errno::SRCH)
}

fn check(code: c_int) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code)) }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(defaults: &Signals) -> Result<Self, Errno> {
        let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        let flags = flags.try_into().expect("the flags fit the type that takes them");
        let no_signal = Signals::none();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: init fills the attributes in before anything else uses them; the sets are initialised.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
            check(libc::posix_spawnattr_setpgroup(&raw mut attributes.0, 0))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const defaults.0))?;
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const no_signal.0))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new(files: &[BorrowedFd<'_>], cwd: Option<&CStr>) -> Result<Self, Errno> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init fills the actions in before anything else uses them; libc copies the path.
        unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            let mut actions = Self(actions.assume_init());
            for (target, fd) in (0..).zip(files) {
                check(libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, fd.as_raw_fd(), target))?;
            }
            if let Some(cwd) = cwd {
                check(libc::posix_spawn_file_actions_addchdir_np(&raw mut actions.0, cwd.as_ptr()))?;
            }
            Ok(actions)
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}
