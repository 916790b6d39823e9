//! Becoming another program, and what was left open for that.

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::CStrings;

/// Becomes this program, with this environment or the one that this one was given; a file without a `#!` line is not taken
/// for a script. Returns only if that is refused.
#[must_use]
pub fn run(path: &CStr, args: &CStrings, env: Option<&CStrings>) -> io::Error {
    let (args, env) = (args.pointers(), env.map(CStrings::pointers));
    // SAFETY: the path and the strings are NUL-terminated, the arrays end with a null pointer, and all outlive the
    // call. SIGPIPE, which the start of a Rust program ignores, is as it was before.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        match &env {
            Some(env) => libc::execve(path.as_ptr(), args.as_ptr().cast(), env.as_ptr().cast()),
            None => libc::execv(path.as_ptr(), args.as_ptr().cast()),
        };
    }
    io::Error::last_os_error()
}

/// A copy, of one's own, of the descriptor with this number.
///
/// # Errors
/// `EBADF` if there is none.
pub fn duplicate(number: c_int) -> io::Result<OwnedFd> {
    const ABOVE_STDIO: c_int = 3;
    // SAFETY: the call makes a new descriptor, whichever number it is given, and nobody else knows it.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, ABOVE_STDIO) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(OwnedFd::from_raw_fd(copy)),
        }
    }
}

/// Makes `target` name the file that `number` names, also in the program that this one becomes.
///
/// # Errors
/// `EBADF` if there is none.
pub fn hand_on(number: c_int, target: c_int) -> io::Result<()> {
    // SAFETY: what `target` named is closed; for that the caller, who is about to become another program, has no use.
    match unsafe { libc::dup2(number, target) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
