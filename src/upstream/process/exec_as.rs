//! A server as another user: started as this very program, which becomes that user and then the server.
//!
//! So no process that shares our memory is ever somebody else's. What is set before the user changes, the user cannot
//! undo, and nothing has to be done from outside to a process that we may not touch any more:
//!
//! ```text
//! tollbridge exec-as UID GID OOM NICE LOCKS FILES DATA PROCESSES GATE DIRECTORY PROGRAM ARGUMENT…
//! ```
//!
//! OOM is what `oom_score_adj` is set to, and NICE the nice value. Each may be `-` for what is there, as may a limit, which
//! is `SOFT:HARD`; without a directory it stays where it is. GATE is `-` where the program has no gate (`super::gate`). The error
//! of a program that cannot be run goes to a pipe that is closed by running it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};

use super::SpawnError;
use super::confinement::ActiveConfinement;
use super::gate;
use super::oom;
use crate::privilege;
use crate::sys::{self, CStrings};

/// The hidden command of this program.
pub const EXEC_AS: &str = "exec-as";

/// The descriptor, after stdin, stdout and stderr, on which it is told why the program cannot be run.
const ERROR_FD: i32 = 3;

/// The descriptor with the channel of the program's gate, if it has one.
const GATE_FD: i32 = 4;

/// The limits that are set, in their order among the arguments.
const LIMITS: [Resource; 4] = [Resource::Locks, Resource::Nofile, Resource::Data, Resource::Nproc];

/// What is done before the program is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSetup {
    /// The user and group to become.
    user: (u32, u32),
    /// The value of `oom_score_adj`.
    oom_score_adj: Option<i16>,
    /// The nice value.
    nice: Option<i32>,
    /// Of [`LIMITS`], those to set.
    limits: [Option<Rlimit>; LIMITS.len()],
    /// Whether the program gets the channel of a gate.
    has_gate: bool,
    /// Where the program works.
    directory: Option<PathBuf>,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The arguments are not as they should be.
    #[error("the arguments are not those of the bridge")]
    Arguments,
    /// A step before the last ones was refused.
    #[error("{0} is refused: {1}")]
    Before(&'static str, io::Error),
    /// The directory or the program cannot be used. It has been reported, if somebody listens.
    #[error("{0}")]
    Program(io::Error),
}

impl ExecSetup {
    /// What becomes of a process in this confined; none if it runs as our own user.
    pub(super) fn of(
        confined: &ActiveConfinement,
        tag: Option<u64>,
        files: Option<Rlimit>,
        (oom_score_adj, nice, directory): (Option<i16>, Option<i32>, Option<&Path>),
    ) -> Option<Self> {
        let user = confined.user.as_ref()?;
        let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
        let limits =
            [tag.map(both), files, confined.by_process.data.map(both), confined.by_process.processes.map(both)];
        let directory = directory.map(Path::to_owned);
        Some(Self { user: (user.uid, user.gid), oom_score_adj, nice, limits, has_gate: false, directory })
    }

    /// The same for a program that has a gate, or none.
    pub(super) fn with_gate(self, has_gate: bool) -> Self {
        Self { has_gate, ..self }
    }

    /// What stands before the program among the arguments.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let (uid, gid) = self.user;
        let mut arguments: Vec<OsString> =
            vec!["tollbridge".into(), EXEC_AS.into(), uid.to_string().into(), gid.to_string().into()];
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned()).into();
        arguments.push(or_dash(self.oom_score_adj.map(|value| value.to_string())));
        arguments.push(or_dash(self.nice.map(|value| value.to_string())));
        arguments.extend(self.limits.iter().map(|limit| written(limit.as_ref()).into()));
        arguments.push(if self.has_gate { "gate" } else { "-" }.into());
        arguments.push(self.directory.clone().unwrap_or_default().into());
        arguments
    }

    /// Reads what [`ExecSetup::arguments`] has written, after the command; what follows is the program and its arguments.
    fn read(arguments: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let mut text = || arguments.next()?.into_string().ok();
        let user = (text()?.parse().ok()?, text()?.parse().ok()?);
        let oom_score_adj = value(&text()?)?;
        let nice = value(&text()?)?;
        let mut limits = [None; LIMITS.len()];
        for limit in &mut limits {
            *limit = read(&text()?)?;
        }
        let has_gate = match text()?.as_str() {
            "-" => false,
            "gate" => true,
            _ => return None,
        };
        let directory = Some(PathBuf::from(arguments.next()?)).filter(|path| !path.as_os_str().is_empty());
        Some(Self { user, oom_score_adj, nice, limits, has_gate, directory })
    }
}

/// The inner none is a value that stays as it is, the outer one no value at all.
#[expect(clippy::option_option, reason = "what is not there is told from what is not understood")]
fn value<T: FromStr>(text: &str) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { text.parse().ok().map(Some) }
}

fn written(limit: Option<&Rlimit>) -> String {
    let bound = |bound: Option<u64>| bound.map_or_else(String::new, |bound| bound.to_string());
    limit.map_or_else(|| "-".to_owned(), |limit| format!("{}:{}", bound(limit.current), bound(limit.maximum)))
}

/// The inner none is a limit that stays as it is, the outer one no limit at all.
#[expect(clippy::option_option, reason = "what is not there is told from what is not understood")]
fn read(text: &str) -> Option<Option<Rlimit>> {
    let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    match text.split_once(':') {
        None => (text == "-").then_some(None),
        Some((current, maximum)) => Some(Some(Rlimit { current: bound(current)?, maximum: bound(maximum)? })),
    }
}

/// Does what the arguments of the hidden command say. Returns only if the program cannot be run.
#[must_use]
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Stopped {
    let error_pipe = sys::duplicate(ERROR_FD);
    sys::close_fds_on_exec();
    let Some((setup, command)) = ExecSetup::read(&mut arguments).zip(Command::read(arguments)) else {
        return Stopped::Arguments;
    };
    let stopped = become_program(&setup, &command);
    if let (Stopped::Program(error), Ok(error_pipe)) = (&stopped, error_pipe) {
        let errno = error.raw_os_error().unwrap_or_default().to_ne_bytes();
        let _ = rustix::io::write(error_pipe, &errno);
    }
    stopped
}

struct Command {
    path: CString,
    args: CStrings,
}

impl Command {
    fn read(arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let all: Vec<Vec<u8>> = arguments.map(OsStringExt::into_vec).collect();
        let mut args = CStrings::with_capacity(all.len(), all.iter().map(Vec::len).sum());
        for arg in &all {
            args.push(&[arg]).ok()?;
        }
        Some(Self { path: CString::new(all.into_iter().next()?).ok()?, args })
    }
}

fn become_program(setup: &ExecSetup, command: &Command) -> Stopped {
    if let Some(value) = setup.oom_score_adj {
        oom::set_own(value);
    }
    if let Some(nice) = setup.nice {
        let _ = setpriority_process(None, nice);
    }
    for (resource, limit) in LIMITS.into_iter().zip(setup.limits) {
        if let Some(limit) = limit
            && let Err(refused) = setrlimit(resource, limit)
        {
            return Stopped::Before("a limit", refused.into());
        }
    }
    privilege::close_bounding_set();
    let (uid, gid) = setup.user;
    match sys::become_user(uid, gid) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Stopped::Program(error),
        Err(error) => return Stopped::Before("to become the user", error),
        Ok(()) => {}
    }
    let without = privilege::give_up().map_err(Into::into).and_then(|()| sys::no_new_privileges());
    if let Err(refused) = without {
        return Stopped::Before("to give up privilege", refused);
    }
    if setup.has_gate
        && let Err(refused) = sys::hand_on(GATE_FD, gate::DESCRIPTOR)
    {
        return Stopped::Before("its gate", refused);
    }
    // As the user, whose directory may be closed to us.
    match setup.directory.as_ref().map_or(Ok(()), std::env::set_current_dir) {
        Err(error) => Stopped::Program(error),
        Ok(()) => Stopped::Program(sys::run(&command.path, &command.args, None)),
    }
}

/// Where it is told, before a server's program runs, why it cannot.
#[derive(Debug)]
pub(super) struct ExecErrorPipe(OwnedFd);

impl ExecErrorPipe {
    /// The reading end, and the one that is the process's fourth descriptor.
    pub(super) fn open() -> Result<(Self, OwnedFd), Errno> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self(ours), theirs))
    }

    /// What was told, once the process has ended.
    pub(super) fn read(&self) -> Option<SpawnError> {
        let mut errno = [0; size_of::<i32>()];
        match rustix::io::read(&self.0, &mut errno) {
            Ok(length) if length == errno.len() => Some(Errno::from_raw_os_error(i32::from_ne_bytes(errno)).into()),
            _ => None,
        }
    }
}

/// Gives pipes to that user: a server may open its own again by their names in /dev or /proc.
pub(super) fn chown_pipes(pipes: &[OwnedFd], (uid, gid): (u32, u32)) -> Result<(), Errno> {
    pipes.iter().try_for_each(|pipe| fchown(pipe, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_back_as_it_is_written() {
        let all = Some(Rlimit { current: Some(7), maximum: Some(u64::MAX - 1) });
        let endless = Some(Rlimit { current: Some(0), maximum: None });
        for (oom_score_adj, nice, limits, has_gate, directory) in [
            (None, Some(-3), [all, None, endless, None], true, None),
            (Some(-5), None, [None, endless, None, all], false, Some(PathBuf::from("/a b"))),
        ] {
            let setup = ExecSetup { user: (61_000, 7), oom_score_adj, nice, limits, has_gate, directory };
            let mut arguments = setup.arguments().into_iter().skip(2).chain(["/bin/true".into()]);
            assert_eq!(ExecSetup::read(&mut arguments), Some(setup));
            assert_eq!(arguments.next(), Some("/bin/true".into()));
        }
    }

    #[test]
    fn what_the_bridge_would_not_write_is_refused() {
        for line in [
            "",
            "1",
            "1 1",
            "x 1 - - - - - - - / /",
            "1 1 - - - - - - -",
            "1 1 - - - 1 - - - / /",
            "1 1 - - - a:b - - - / /",
            "1 1 - - - - - - - /",
            "1 1 - - - - - - 4 / /",
            "1 1 x - - - - - - / /",
            "1 1 - x - - - - - / /",
        ] {
            let stopped = run(line.split(' ').map(OsString::from));
            assert!(matches!(stopped, Stopped::Arguments), "{line}");
        }
    }
}
