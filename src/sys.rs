//! The one module with `unsafe`: the few calls of the system that neither std nor rustix offers.
//!
//! Everything here is small enough to be read against its manual page; nothing here knows what it is used for.
#![expect(unsafe_code, reason = "calls into libc; each has a SAFETY line, and no other module has any")]

mod clone;
mod memory;
mod program;
mod run;
mod spawn;
#[cfg(test)]
pub(crate) mod testing;
mod user;

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Instant;
use std::{ptr, thread};

use rustix::process::Pid;
use rustix::time::Timespec;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

pub use clone::can_clone;
pub use memory::{give_free_memory_back, give_large_blocks_back, give_start_back};
pub use program::Program;
pub use run::{duplicate, hand_on, run};
pub use spawn::spawn;
pub use user::{FileUser, become_user};

/// A list of C strings in one block of memory that is zeroed on drop, so that a token in it leaves no trace.
pub struct CStrings {
    bytes: Zeroizing<Vec<u8>>,
    starts: Vec<usize>,
}

/// A string holds a NUL, which ends a string for the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nul;

impl CStrings {
    /// Room for `count` strings of `bytes` bytes together, not counting their final NULs.
    ///
    /// The block never grows, because growing would leave a copy behind.
    #[must_use]
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes + count)), starts: Vec::with_capacity(count) }
    }

    /// Adds one string, given in parts.
    ///
    /// # Errors
    /// If a part holds a NUL.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), Nul> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        assert!(self.bytes.len() + length < self.bytes.capacity(), "the caller counted the bytes");
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(Nul);
        }
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        Ok(())
    }

    fn pointers(&self) -> Vec<*mut c_char> {
        let strings = self.starts.iter().map(|&start| self.bytes[start..].as_ptr().cast_mut().cast());
        strings.chain([ptr::null_mut()]).collect()
    }
}

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// No signal.
    #[must_use]
    pub fn none() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset writes the whole set and cannot fail on a valid pointer.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Every signal.
    #[must_use]
    pub fn all() -> Self {
        let mut set = Self::none();
        // SAFETY: the set is initialised, and the call cannot fail on a valid pointer.
        unsafe { libc::sigfillset(&raw mut set.0) };
        set
    }

    /// The signals that are blocked in the calling thread.
    #[must_use]
    pub fn blocked() -> Self {
        let mut set = Self::none();
        // SAFETY: with a null new mask the call only reads, into a valid set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut set.0) };
        set
    }

    /// These signals.
    #[must_use]
    pub fn of(numbers: &[c_int]) -> Self {
        let mut set = Self::none();
        for &number in numbers {
            set.add(number);
        }
        set
    }

    fn add(&mut self, number: c_int) {
        // SAFETY: the set is initialised; a number that is no signal is refused and changes nothing.
        unsafe { libc::sigaddset(&raw mut self.0, number) };
    }

    /// The signals that this process ignores: all that a new program would inherit, since handlers are not kept.
    #[must_use]
    pub fn ignored() -> Self {
        let mut set = Self::none();
        for number in 1..=libc::SIGRTMAX() {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: with a null new action the call only reads; it is read only if the call filled it in.
            let ignored = unsafe {
                libc::sigaction(number, ptr::null(), action.as_mut_ptr()) == 0
                    && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
            };
            if ignored {
                set.add(number);
            }
        }
        set
    }

    /// Blocks these signals, and only these, in the calling thread.
    pub fn block_only(&self) {
        // SAFETY: the set is initialised, and the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }

    /// Waits until one of these signals, which must be blocked, is pending, and takes it: its number, and the process that
    /// has sent it by `kill`, which nobody can forge (`rt_sigqueueinfo(2)`). None once the deadline has passed.
    #[must_use]
    pub fn wait_until(&self, deadline: Option<Instant>) -> Option<(c_int, Option<Pid>)> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let limit = left.map(|left| libc::timespec { tv_sec: left.tv_sec, tv_nsec: left.tv_nsec });
            let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
            let mut about = MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the set is initialised, there is room for what is known of the signal, and the limit is null, which
            // means none, or outlives the call.
            let number = unsafe { libc::sigtimedwait(&raw const self.0, about.as_mut_ptr(), limit) };
            if number > 0 {
                // SAFETY: the call has filled it in, and zeros are valid for all of it; a signal that was sent has a sender.
                let sender = unsafe {
                    let about = about.assume_init_ref();
                    (about.si_code == libc::SI_USER).then(|| about.si_pid())
                };
                return Some((number, sender.and_then(Pid::from_raw)));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
        }
    }
}

/// Starts a thread that takes no signals: those are for the threads that wait for them.
///
/// # Errors
/// The system gives no thread.
pub fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A new thread starts with the mask of its parent.
    let before = Signals::blocked();
    Signals::all().block_only();
    let started = thread::Builder::new().name(name.to_owned()).spawn(work);
    before.block_only();
    started.map(drop)
}

/// How many of the ticks that `/proc` counts time in are a second.
///
/// From libc, which was told at the start: a look into `/proc/self/auxv` is refused to a process that is not dumpable.
#[must_use]
pub fn ticks_per_second() -> u64 {
    /// What it is on every Linux.
    const USUAL: u64 = 100;
    // SAFETY: the call reads no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|&ticks| ticks > 0).unwrap_or(USUAL)
}

/// Gives up, for this process and whatever it starts, every way to gain privilege by running a program.
///
/// # Errors
/// If the kernel is older than 3.5.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: the call reads no memory of ours.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives up the terminal that this process was started at: it and whatever it starts from now on can neither open that as
/// `/dev/tty` nor type into it. Only for a process that does not lead its session: with a leader all others would lose it.
pub fn leave_terminal() {
    let Ok(terminal) = File::open("/dev/tty") else { return };
    // SAFETY: the call has no argument and reads no memory of ours.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) };
}

/// Sets every signal that this process ignores, except `SIGPIPE`, back to its default.
pub fn reset_ignored_signals() {
    for number in (1..=libc::SIGRTMAX()).filter(|&number| number != libc::SIGPIPE) {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the first call only reads and fills the action in; SIG_DFL is a valid disposition for every signal.
        unsafe {
            if libc::sigaction(number, ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
            {
                libc::signal(number, libc::SIG_DFL);
            }
        }
    }
}

/// Lets the runtime wait until a file descriptor, such as a pidfd, is readable.
///
/// # Errors
/// If the system has no room to watch one more.
///
/// # Panics
/// Outside the runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd that is moved in and never replaced names one open file until the AsyncFd is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// The soft limit of another process on file locks, `u64::MAX` if there is none.
///
/// # Errors
/// `ESRCH` if it is gone, `EPERM` if it belongs to somebody else.
pub fn lock_limit(pid: Pid) -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: with a null new limit the call only reads; the limit is read only if the call filled it in.
    unsafe {
        if libc::prlimit(pid.as_raw_pid(), libc::RLIMIT_LOCKS, ptr::null(), limit.as_mut_ptr()) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(limit.assume_init().rlim_cur)
    }
}

/// Marks every file descriptor from 3 up to be closed in programs that this process starts.
pub fn close_fds_on_exec() {
    // SAFETY: the call changes one flag of descriptors and closes none.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0;
    if done {
        return;
    }
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for fd in listed.filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok()).filter(|&fd| fd > 2) {
        // SAFETY: as above; a number that is no open descriptor is refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Lets this descriptor, if it is open, go to the programs that this process starts from now on.
pub fn keep_on_exec(fd: c_int) {
    // SAFETY: the call changes one flag of a descriptor; a number that is no open descriptor is refused.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
}

/// The descriptor of this number, which whoever started this process has opened and nothing in it owns; none if it is not
/// open. Call it once.
#[must_use]
pub fn inherited(fd: c_int) -> Option<OwnedFd> {
    // SAFETY: the call reads flags; a number that is no open descriptor is refused.
    let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
    // SAFETY: it is open, and the caller sees to it that nothing else owns it.
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal of this number, if there is somebody to take it.
pub fn send_signal(to: Pid, number: c_int) {
    // SAFETY: the call takes no memory.
    unsafe { libc::kill(to.as_raw_pid(), number) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_as_in_proc() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks: u64 = stat[stat.rfind(')').unwrap()..].split(' ').nth(20).unwrap().parse().unwrap();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec.unsigned_abs();
        let born = ticks / ticks_per_second();
        assert!(born <= now && now - born < 24 * 60 * 60, "born at {born} s, and it is {now} s");
    }
}
