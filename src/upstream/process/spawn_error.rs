//! Why a server could not be started, told from what the system says.

use std::io;

use rustix::io::Errno;

use crate::sys;

/// Why a server could not be started. Says nothing of the program or its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// ENOENT, ENOTDIR.
    #[error("the program, its interpreter or its working directory does not exist")]
    NotFound(Errno),
    /// EACCES, EPERM.
    #[error("the program or its working directory may not be used by this user")]
    NotPermitted(Errno),
    /// ENOEXEC.
    #[error("the program is neither an executable for this machine nor a script with a #! line")]
    NotExecutable,
    /// E2BIG.
    #[error("the arguments and the environment are larger than the system allows")]
    TooLarge,
    /// No string of the system can hold a NUL.
    #[error("an argument, a variable or a path holds a NUL")]
    Nul,
    /// EAGAIN.
    #[error("the limit on processes is reached")]
    TooManyProcesses,
    /// EMFILE, ENFILE.
    #[error("the limit on open files is reached")]
    TooManyFiles(Errno),
    /// ENOMEM.
    #[error("there is not enough memory")]
    OutOfMemory,
    /// ENOSPC, EDQUOT: of a file system, or of the kernel's own tables.
    #[error("there is no space for its files")]
    NoSpace(Errno),
    /// Everything is being ended.
    #[error("the bridge is stopping")]
    Stopping,
    /// Anything else, by its errno.
    #[error("the system refused (errno {})", .0.raw_os_error())]
    Other(Errno),
}

impl SpawnError {
    /// Whether it may go better a little later, without anybody mending anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TooManyProcesses | Self::TooManyFiles(_) | Self::OutOfMemory | Self::NoSpace(_) | Self::Stopping => {
                true
            }
            Self::NotFound(_)
            | Self::NotPermitted(_)
            | Self::NotExecutable
            | Self::TooLarge
            | Self::Nul
            | Self::Other(_) => false,
        }
    }

    /// Whether it is for want of something that another process of ours has, and gives back when it ends.
    #[must_use]
    pub fn is_want_of_room(&self) -> bool {
        self.may_pass() && *self != Self::Stopping
    }

    /// What the system said, for the log.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NotFound(errno)
            | Self::NotPermitted(errno)
            | Self::TooManyFiles(errno)
            | Self::NoSpace(errno)
            | Self::Other(errno) => Some(*errno),
            Self::NotExecutable => Some(Errno::NOEXEC),
            Self::TooLarge => Some(Errno::TOOBIG),
            Self::TooManyProcesses => Some(Errno::AGAIN),
            Self::OutOfMemory => Some(Errno::NOMEM),
            Self::Nul | Self::Stopping => None,
        }
    }
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound(errno),
            Errno::ACCESS | Errno::PERM => Self::NotPermitted(errno),
            Errno::NOEXEC => Self::NotExecutable,
            Errno::TOOBIG => Self::TooLarge,
            Errno::AGAIN => Self::TooManyProcesses,
            Errno::MFILE | Errno::NFILE => Self::TooManyFiles(errno),
            Errno::NOMEM => Self::OutOfMemory,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace(errno),
            _ => Self::Other(errno),
        }
    }
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

impl From<sys::Nul> for SpawnError {
    fn from(_: sys::Nul) -> Self {
        Self::Nul
    }
}
