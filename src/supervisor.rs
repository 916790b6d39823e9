//! The parent of the worker: started first, it does nothing but hand on signals and, however the worker ends, clear
//! away everything that the worker had started, processes first, then what its `cleanup_plan` names: containers with the clients
//! of their engines, and files with tokens.
//!
//! ```text
//! supervisor ── subreaper; one thread, no runtime; reaps whatever falls to it (as PID 1, everything)
//!  └ worker  ── subreaper; serves; told by `orphaned` if the supervisor is killed, and then ends everything itself
//!     └ servers and what they start
//! ```
//!
//! What neither can do: if both are killed at the same moment, what is around them (a service manager's control group, a
//! container) ends the rest, or the next bridge that starts.

pub mod cleanup_plan;

use std::ffi::{OsString, c_int};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getppid,
    kill_process, pidfd_open, set_child_subreaper, set_dumpable_behavior, setrlimit, wait,
};
use rustix::thread::set_name;
use tokio::io::unix::AsyncFd;

use crate::descendants;
use crate::privilege;
use crate::service_manager::{FIRST_SOCKET, Notice, ServiceManager};
use crate::sys::{self, Signals};
use crate::upstream::process::{oom, orphans};

/// What is handed on to the worker.
const HANDED_ON: [Signal; 5] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The longest that clearing away takes after the worker has ended.
const CLEARING: Duration = Duration::from_secs(2);

/// How long a worker that was told to stop may take, beyond the grace of the requests that run, before it is killed.
const STOPPING: Duration = Duration::from_secs(30);

/// The same once it was told twice, which ends the grace.
const STOPPING_AT_ONCE: Duration = Duration::from_secs(10);

/// Tells the worker who its supervisor is.
const SUPERVISOR: &str = "TOLLBRIDGE_SUPERVISOR";

/// Starts this program again with these arguments, as the worker, and returns what the worker ended with: its code,
/// or 128 and the number of the signal that ended it. Nothing that it started is left then.
///
/// Call it before the process has another thread that takes signals.
#[must_use]
pub fn run(worker_args: impl IntoIterator<Item = OsString>, manager: &ServiceManager) -> ExitCode {
    harden();
    let mut waited_for = HANDED_ON.map(Signal::as_raw).to_vec();
    waited_for.extend([Signal::CHILD, Signal::HUP].map(Signal::as_raw));
    waited_for.extend(Notice::signals());
    let waited_for = Signals::of(&waited_for);
    // From here on a signal waits until there is somebody to hand it on to.
    waited_for.block_only();
    if manager.hands_over_to(getpid()) {
        sys::keep_on_exec(FIRST_SOCKET);
    }
    match set_child_subreaper(Some(getpid())).map_err(Into::into).and_then(|()| start(worker_args)) {
        Ok((worker, plan_file)) => {
            // The worker has the socket; the engines' clients that clear away must not.
            sys::close_fds_on_exec();
            sys::give_start_back();
            watch(worker, &plan_file, &waited_for, manager)
        }
        Err(error) => {
            tracing::error!(%error, "cannot start the worker");
            ExitCode::FAILURE
        }
    }
}

/// What must hold before anything is started or read, in the supervisor and again in the worker: no file descriptor
/// above 2 and no capability goes to a new program, no signal is ignored or blocked, memory can neither be dumped nor be
/// read by others of this user, and when it runs out the kernel ends others first.
pub fn harden() {
    sys::close_fds_on_exec();
    privilege::keep();
    sys::reset_ignored_signals();
    Signals::none().block_only();
    // Neither can be refused: both take something away.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    oom::protect();
    // The kernel names a process after the file it was started from, and for the worker that is `exe`.
    let _ = set_name(c"tollbridge");
}

fn start(args: impl IntoIterator<Item = OsString>) -> io::Result<(Pid, OwnedFd)> {
    // The same program even if its file has been replaced since. Its own group, so that Ctrl-C reaches it once,
    // through us; the standard library empties its signal mask.
    let name = std::env::args_os().next().unwrap_or_else(|| "tollbridge".into());
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(args).env(SUPERVISOR, getpid().as_raw_pid().to_string()).process_group(0);
    let (plan_file, theirs) = cleanup_plan::file()?;
    command.stdin(Stdio::from(theirs));
    Ok((Pid::from_child(&privilege::handing_on_all(|| command.spawn())?), plan_file))
}

fn watch(worker: Pid, plan_file: &OwnedFd, signals: &Signals, manager: &ServiceManager) -> ExitCode {
    let (mut told_to_stop, mut deadline) = (false, None);
    loop {
        let Some((number, sender)) = signals.wait_until(deadline) else {
            tracing::error!("the worker does not stop: it is killed");
            let _ = kill_process(worker, Signal::KILL);
            deadline = None;
            continue;
        };
        if let Some(&signal) = HANDED_ON.iter().find(|signal| signal.as_raw() == number) {
            // It has not been reaped, so the pid is its own.
            let _ = kill_process(worker, signal);
            told_to_stop |= signal == Signal::TERM;
            if matches!(signal, Signal::TERM | Signal::INT) {
                let now = Instant::now();
                let at_once = deadline.map(|deadline: Instant| deadline.min(now + STOPPING_AT_ONCE));
                deadline = Some(at_once.unwrap_or_else(|| now + STOPPING + cleanup_plan::grace(plan_file)));
            }
        } else if let Some(notice) = Notice::of_signal(number) {
            // Servers of the same user could send it, too.
            if sender == Some(worker) {
                manager.tell(notice);
            }
        } else if number == Signal::HUP.as_raw() {
            // Before it has handed over its plan it might die of it, and there is nothing to be opened anew.
            if cleanup_plan::read(plan_file).is_some() {
                let _ = kill_process(worker, Signal::HUP);
            }
        } else if let Some(status) = reap(Some(worker)) {
            let reap_all = || {
                reap(None);
            };
            let _all_gone = descendants::end_all(Instant::now() + CLEARING, orphans::is_of_engine, reap_all);
            if let Some(plan) = cleanup_plan::read(plan_file) {
                plan.execute(status.exit_status() == Some(0), reap_all);
            }
            // A worker dies of it only while it does not serve yet: then it has stopped as it was told.
            let as_told = told_to_stop && status.terminating_signal() == Some(Signal::TERM.as_raw());
            return if as_told { ExitCode::SUCCESS } else { exit_code(status) };
        }
    }
}

/// Reaps everything that can be, and tells how the one that was asked about ended, if it did.
fn reap(asked_about: Option<Pid>) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == asked_about {
            ended = Some(status);
        }
    }
    ended
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code: c_int| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// Whether this worker has a supervisor that lives.
#[must_use]
pub fn is_supervised() -> bool {
    named_supervisor().is_some_and(|supervisor| getppid() == Some(supervisor))
}

/// Who said to be the supervisor when this process was started.
#[expect(clippy::disallowed_methods, reason = "said by the supervisor, not by the operator")]
fn named_supervisor() -> Option<Pid> {
    std::env::var(SUPERVISOR).ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?))
}

/// Lets the supervisor of this worker tell the service manager something: it is the process that is listened to.
pub fn notify(notice: Notice) {
    if let (Some(supervisor), true) = (named_supervisor(), is_supervised()) {
        sys::send_signal(supervisor, notice.signal());
    }
}

/// The socket on which clients are served, if a service manager has handed one over to the supervisor of this worker. Call
/// it once.
#[must_use]
pub fn inherited_socket(manager: &ServiceManager) -> Option<OwnedFd> {
    named_supervisor().filter(|&supervisor| manager.hands_over_to(supervisor))?;
    sys::inherited(FIRST_SOCKET)
}

/// How long may pass between two signs of life, if a service manager waits for those of the supervisor of this worker, or
/// of a worker that has none.
#[must_use]
pub fn watched(manager: &ServiceManager) -> Option<Duration> {
    manager.watches(named_supervisor().unwrap_or_else(getpid))
}

/// Resolves when the supervisor of this worker is gone, at once if it is gone already, never if it had none. Call it
/// in the runtime.
pub fn orphaned() -> impl Future<Output = ()> + Send + 'static {
    let pinned = named_supervisor().map(pin_parent);
    async move {
        match pinned {
            None => std::future::pending().await,
            Some(None) => {}
            Some(Some(pidfd)) => {
                // An error says that the runtime is going away, and this with it.
                let _ = pidfd.readable().await;
            }
        }
    }
}

/// Pins the supervisor, if it still is our parent: one that has ended has left us to another parent.
fn pin_parent(supervisor: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pidfd = sys::watch(pidfd_open(supervisor, PidfdFlags::NONBLOCK).ok()?).ok()?;
    (getppid() == Some(supervisor)).then_some(pidfd)
}
