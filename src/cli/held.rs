//! `tollbridge held …`: waits to be told the variables of a program, and becomes it. The bridge starts spares so; it is
//! not for people.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::upstream::process::held::{self, Stopped};

/// What a shell answers for a program that cannot be run.
const CANNOT_RUN: u8 = 126;

/// Returns only if the program is not run.
pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let stopped = held::run(arguments);
    if matches!(stopped, Stopped::Unneeded) {
        return ExitCode::SUCCESS;
    }
    let _closed = writeln!(io::stderr(), "tollbridge: the server could not be run: {stopped}");
    ExitCode::from(CANNOT_RUN)
}
