//! `tollbridge exec-as UID GID DATA PROCESSES PROGRAM ARGUMENT…`: becomes a user without privilege, for good, and then the
//! program. The bridge starts servers so that have `runAs`; it is not for people.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sys;

/// What a shell answers for a program that cannot be run.
const CANNOT_RUN: u8 = 126;

/// Returns only if the program cannot be run.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let error = exec(arguments).unwrap_or_else(|| io::ErrorKind::InvalidInput.into());
    let _closed = writeln!(io::stderr(), "tollbridge: the server could not be run as its user: {error}");
    ExitCode::from(CANNOT_RUN)
}

/// What keeps the program from being run; none if the arguments are not as they should be.
fn exec(mut arguments: impl Iterator<Item = OsString>) -> Option<io::Error> {
    let mut number = || arguments.next()?.into_string().ok();
    let (uid, gid) = (number()?.parse().ok()?, number()?.parse().ok()?);
    let limits = [(Resource::Data, number()?), (Resource::Nproc, number()?)];
    let program = arguments.next()?;
    for (resource, limit) in limits {
        if let Ok(limit) = limit.parse() {
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            if let Err(refused) = setrlimit(resource, limit) {
                return Some(refused.into());
            }
        }
    }
    if let Err(refused) = sys::become_user(uid, gid).and_then(|()| sys::no_new_privileges()) {
        return Some(refused);
    }
    Some(Command::new(program).args(arguments).exec())
}
