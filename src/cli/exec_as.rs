//! `tollbridge exec-as …`: becomes a user without privilege, for good, and then a program. The bridge starts servers so
//! that have `runAs`; it is not for people.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::upstream::process::exec_as;

/// What a shell answers for a program that cannot be run.
const CANNOT_RUN: u8 = 126;

/// Returns only if the program cannot be run.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let stopped = exec_as::run(arguments);
    let _closed = writeln!(io::stderr(), "tollbridge: the server could not be run as its user: {stopped}");
    ExitCode::from(CANNOT_RUN)
}
