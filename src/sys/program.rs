//! What is to be known of a program before it is started.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use super::{CStrings, Signals};

/// A program to start.
pub struct Program<'a> {
    /// Its absolute path.
    pub path: &'a CStr,
    /// Its arguments, the first being its name.
    pub args: &'a CStrings,
    /// Its whole environment, as `NAME=value`.
    pub env: &'a CStrings,
    /// Its working directory; ours if none.
    pub cwd: Option<&'a CStr>,
    /// What it gets as stdin, stdout, stderr and so on; none of them may itself be one of 0, 1, 2.
    pub files: &'a [BorrowedFd<'a>],
    /// The signals to set to their default.
    pub defaults: &'a Signals,
}
