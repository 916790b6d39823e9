//! `posix_spawn` by hand: that of glibc asks in the child what becomes of each signal, which takes a tenth of a short
//! server's start, and starts programs within a control group only since 2.39.
//!
//! As there, the child shares our memory and the calling thread waits until the program runs. The child has a stack of
//! its own, allocates nothing, and gives errors back through memory. It is in its group before its first instruction,
//! so nothing that it starts can be outside of it.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

use super::{Program, Signals};

/// The child's stack: it calls a handful of functions that call none.
const STACK: usize = 64 << 10;

/// `CLONE_CLEAR_SIGHAND`: no handler of ours runs in the child. (libc has it as a number that does not fit its type.)
const CLEAR_HANDLERS: u64 = 1 << 32;

/// `CLONE_INTO_CGROUP`.
const INTO_CGROUP: u64 = 1 << 33;

/// Whether this is there for this machine.
#[must_use]
pub fn can_clone() -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
}

/// What the child reads, and where it says what went wrong.
struct Child<'a> {
    program: &'a Program<'a>,
    args: *const *mut c_char,
    env: *const *mut c_char,
    no_signal: Signals,
    error: c_int,
}

/// Memory of its own, so that there being none is an error and not the end of the process.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Self, Errno> {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK);
        // SAFETY: a new mapping, wherever there is room, is nobody else's.
        let start = unsafe { libc::mmap(ptr::null_mut(), STACK, access, kind, -1, 0) };
        if start == libc::MAP_FAILED { Err(Errno::NOMEM) } else { Ok(Self(start)) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it is mapped, of this size, and whoever had it as a stack has a program of its own by now or has ended.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

/// As [`super::spawn`]. `ENOSYS`, `EINVAL` and `EPERM` may also say that the kernel does not know how, or was told not to.
pub(super) fn spawn(program: &Program<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Pid, Errno> {
    let (args, env) = (program.args.pointers(), program.env.pointers());
    let mut child = Child { program, args: args.as_ptr(), env: env.as_ptr(), no_signal: Signals::none(), error: 0 };
    let stack = Stack::new()?;
    // SAFETY: every field of the arguments is a number, for which zero means nothing.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = number(libc::CLONE_VM) | number(libc::CLONE_VFORK) | CLEAR_HANDLERS;
    how.exit_signal = number(libc::SIGCHLD);
    how.stack = stack.0 as u64;
    how.stack_size = STACK as u64;
    if let Some(cgroup) = cgroup {
        how.flags |= INTO_CGROUP;
        how.cgroup = number(cgroup.as_raw_fd());
    }
    let mut ours = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: no signal reaches this thread while the child uses its memory; the old mask is filled in before it is
    // set again. The child's function, stack and data outlive the child's use of them, since this thread does not go
    // on before the child runs its program or has ended.
    let pid = unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ours.as_mut_ptr());
        let pid = clone3(&raw mut how, &raw mut child);
        libc::pthread_sigmask(libc::SIG_SETMASK, ours.as_ptr(), ptr::null_mut());
        pid
    };
    drop(stack);
    if pid < 0 {
        return Err(Errno::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::ENOSYS)));
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    if child.error != 0 {
        // It has ended. If somebody else was quicker to reap it, that is as good.
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        return Err(Errno::from_raw_os_error(child.error));
    }
    Ok(pid)
}

fn number(value: c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

/// What the child does. It never returns, and touches nothing that our other threads may hold locked.
unsafe extern "C" fn run(child: *mut Child<'_>) -> ! {
    // SAFETY: the parent waits, so this is the only use of what the pointer names; `_exit` runs nothing of ours.
    unsafe {
        (*child).error = prepare_and_run(&*child);
        libc::_exit(127)
    }
}

/// Returns the error of the first step that fails; the last one does not return otherwise.
fn prepare_and_run(child: &Child<'_>) -> c_int {
    let program = child.program;
    // SAFETY: each call is safe between `vfork` and `exec`; every pointer is valid as `spawn` made it.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            if libc::sigismember(&raw const program.defaults.0, signal) == 1 {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        if libc::setpgid(0, 0) == -1 {
            return errno();
        }
        for (target, fd) in (0..).zip(program.files) {
            let fd = fd.as_raw_fd();
            // What is in its place already would be closed there.
            let done = if fd == target { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, target) };
            if done == -1 {
                return errno();
            }
        }
        if let Some(cwd) = program.cwd
            && libc::chdir(cwd.as_ptr()) == -1
        {
            return errno();
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const child.no_signal.0, ptr::null_mut());
        libc::execve(program.path.as_ptr(), child.args.cast(), child.env.cast());
        errno()
    }
}

fn errno() -> c_int {
    // SAFETY: the location is that of the waiting parent's thread, and always valid.
    unsafe { *libc::__errno_location() }
}

/// The system call: the child calls [`run`] on its own stack, the parent gets its pid or a negated error.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(how: *mut libc::clone_args, child: *mut Child<'_>) -> i64 {
    let result: i64;
    // SAFETY: the caller vouches for the arguments. The child leaves this code by a call that does not return; the
    // parent comes out with its own registers and stack as they were.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") how,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") child,
            in("r13") run as unsafe extern "C" fn(*mut Child<'_>) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As on the other architecture.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(how: *mut libc::clone_args, child: *mut Child<'_>) -> i64 {
    let result: i64;
    // SAFETY: as on the other architecture.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            inlateout("x0") how => result,
            in("x8") libc::SYS_clone3,
            in("x1") size_of::<libc::clone_args>(),
            in("x20") child,
            in("x21") run as unsafe extern "C" fn(*mut Child<'_>) -> !,
        );
    }
    result
}

/// Not there: [`can_clone`] says so.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_how: *mut libc::clone_args, _child: *mut Child<'_>) -> i64 {
    -i64::from(libc::ENOSYS)
}
