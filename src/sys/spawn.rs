//! Starting a program.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::{Program, Signals, clone};

/// Starts a program as the leader of a new process group, with an empty signal mask, within the control group whose
/// directory `cgroup` is, if that is given.
///
/// Not of a new session: for each of those the kernel makes a scheduling group (`sched(7)`, "The autogroup feature"), in
/// which the child waits for a turn of its own, and we for the child. On a busy machine that takes milliseconds.
///
/// The child shares our memory until the program runs: the cost does not grow with ours, as it would after `fork`.
///
/// # Errors
/// What the system says: of the program, of the directory or of our own limits; `EBUSY`, `EAGAIN` or `ENOENT` if the
/// control group takes no process.
pub fn spawn(program: &Program<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Pid, Errno> {
    match clone::spawn(program, cgroup) {
        // A kernel that does not know how, or that is told to let nobody do so (`seccomp(2)`).
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) if cgroup.is_none() => posix_spawn(program),
        started => started,
    }
}

/// The same by libc.
fn posix_spawn(program: &Program<'_>) -> Result<Pid, Errno> {
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

#[cfg(test)]
mod tests {
    use rustix::process::{WaitOptions, getpgid, waitpid};

    use super::*;
    use crate::sys::CStrings;

    fn strings(all: &[&str]) -> CStrings {
        let mut strings = CStrings::with_capacity(all.len(), all.iter().map(|text| text.len()).sum());
        for text in all {
            strings.push(&[text.as_bytes()]).unwrap();
        }
        strings
    }

    #[test]
    fn a_program_is_started_in_the_same_way_with_and_without_libc() {
        let (args, env, defaults) =
            (strings(&["sh", "-c", "read line; exit $line$A"]), strings(&["A=3"]), Signals::all());
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let files = [std::os::fd::AsFd::as_fd(&read)];
        let program =
            |path, cwd| Program { path, args: &args, env: &env, cwd: Some(cwd), files: &files, defaults: &defaults };
        for by_clone in [false, true] {
            if by_clone && !clone::can_clone() {
                return;
            }
            let start = |program: Program<'_>| {
                if by_clone { clone::spawn(&program, None) } else { posix_spawn(&program) }
            };
            let child = start(program(c"/bin/sh", c"/")).unwrap();
            assert_eq!(getpgid(Some(child)), Ok(child));
            rustix::io::write(&write, b"4\n").unwrap();
            let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(43));
            assert_eq!(start(program(c"/bin/there is none", c"/")), Err(Errno::NOENT));
            assert_eq!(start(program(c"/bin/sh", c"/there is none")), Err(Errno::NOENT));
            assert_eq!(start(program(c"/etc", c"/")), Err(Errno::ACCESS));
        }
    }
}
