//! Descendants of `hostile` that are hard to get rid of. Each starts itself anew, so that its command line holds the
//! marker a test counts by.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tollbridge::descendants::Process;

/// How long anything here lives at most, so that a failed test does not leave it behind for ever.
pub(crate) const LIFETIME: Duration = Duration::from_mins(2);

const SAME_GROUP: &str = "member-of-group";
const OWN_SESSION: &str = "member-own-session";
const DOUBLE_FORK: &str = "member-double-fork";
const EATER: &str = "member-eater";
const BOMB: &str = "member-bomb";
const MEMBERS: [&str; 3] = [SAME_GROUP, OWN_SESSION, DOUBLE_FORK];

/// Whether a first argument makes this process a grandchild and not a server.
pub(crate) fn is_member(argument: &str) -> bool {
    MEMBERS.contains(&argument) || [EATER, BOMB].contains(&argument)
}

/// The life of a grandchild: says when it cannot be ended politely any more, and holds its memory, then lingers.
pub(crate) fn live(kind: &str, marker: &str, mib: u64) {
    if kind == DOUBLE_FORK {
        // The caller's pipe goes on to the second child; this process leaves at once, so that init inherits it.
        let _ = member(OWN_SESSION, marker).stdout(Stdio::inherit()).spawn();
        return;
    }
    if kind == BOMB {
        return explode(marker);
    }
    if kind == OWN_SESSION {
        let _ = rustix::process::setsid();
    }
    ignore_signals();
    let held: Vec<_> = (0..mib).map(|_| vec![1_u8; 1 << 20]).collect();
    let _ = std::io::stdout().write_all(b"ready\n");
    linger();
    drop(held);
}

/// Starts one grandchild of each kind and waits until each has settled.
pub(crate) fn start(marker: &str) {
    for kind in MEMBERS {
        let Ok(mut child) = member(kind, marker).stdout(Stdio::piped()).spawn() else { continue };
        if let Some(stdout) = child.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut String::new());
        }
        if kind == DOUBLE_FORK {
            let _ = child.wait();
        }
    }
}

/// Starts a grandchild that inherits stdout and so keeps the pipe open after its parent has gone; whether it could.
pub(crate) fn hold_stdout(marker: &str) -> bool {
    member(OWN_SESSION, marker).stdout(Stdio::inherit()).spawn().is_ok()
}

/// Moves to the process group of this process's parent, or of another child of theirs, as far as the system lets it.
pub(crate) fn join(group_of: &str) {
    let Some(parent) = rustix::process::getppid() else { return };
    let whose = if group_of == "parent" { Some(parent) } else { sibling(parent) };
    let group = rustix::process::getpgid(whose);
    let _ = group.and_then(|group| rustix::process::setpgid(None, Some(group)));
}

/// Another child of the same parent.
fn sibling(parent: Pid) -> Option<Pid> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others = pids.filter_map(Pid::from_raw).filter(|&pid| pid != rustix::process::getpid());
    others.find(|&pid| Process::read(pid).is_some_and(|process| process.parent == parent.as_raw_pid()))
}

/// Starts a fork bomb.
pub(crate) fn start_bomb(marker: &str) {
    let _ = member(BOMB, marker).stdout(Stdio::null()).spawn();
}

/// Starts others like itself for as long as it lives, out of reach of its group.
fn explode(marker: &str) {
    let _ = rustix::process::setsid();
    let end = Instant::now() + LIFETIME;
    while Instant::now() < end {
        // What has ended is not waited for: zombies count as well.
        if member(BOMB, marker).stdout(Stdio::null()).spawn().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Starts that many grandchildren which take so much memory each, and tells how many of them got it.
pub(crate) fn feed(count: u64, mib: u64, marker: &str) -> usize {
    let eaters = (0..count).filter_map(|_| {
        let mut command = member(EATER, marker);
        command.arg(format!("mib={mib}")).stdout(Stdio::piped()).spawn().ok()?.stdout
    });
    let said = eaters.map(|stdout| BufReader::new(stdout).read_line(&mut String::new()));
    said.filter(|read| matches!(read, Ok(1..))).count()
}

/// Outlasts SIGTERM, SIGHUP and SIGINT from here on.
pub(crate) fn ignore_signals() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime else { return };
    let entered = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        // A handler stays for the life of the process; that nobody awaits it is the point.
        drop(signal(kind));
    }
    drop(entered);
}

/// Does nothing for a long time.
pub(crate) fn linger() {
    std::thread::sleep(LIFETIME);
}

/// Computes for a long time.
pub(crate) fn spin() {
    let end = Instant::now() + LIFETIME;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn member(kind: &str, marker: &str) -> Command {
    let program = std::env::current_exe().unwrap_or_default();
    let mut command = Command::new(program);
    command.arg(kind).arg(format!("marker={marker}")).stdin(Stdio::null()).stderr(Stdio::null());
    command
}
