//! Why a server could not be started, told from what the system says.

use std::io;

use rustix::io::Errno;

use crate::sys;

/// Why a server could not be started. Says nothing of the program or its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// ENOENT, ENOTDIR.
    #[error("the program, its interpreter or its working directory does not exist")]
    NotFound,
    /// EACCES, EPERM.
    #[error("the program or its working directory may not be used by this user")]
    NotPermitted,
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
    TooManyFiles,
    /// ENOMEM.
    #[error("there is not enough memory")]
    OutOfMemory,
    /// ENOSPC, EDQUOT: of a file system, or of the kernel's own tables.
    #[error("there is no space for its files")]
    NoSpace,
    /// Everything is being ended.
    #[error("the bridge is stopping")]
    Stopping,
    /// Anything else, by its errno.
    #[error("the system refused (errno {0})")]
    Other(i32),
}

impl SpawnError {
    /// Whether it may go better a little later, without anybody mending anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TooManyProcesses | Self::TooManyFiles | Self::OutOfMemory | Self::NoSpace | Self::Stopping => true,
            Self::NotFound | Self::NotPermitted | Self::NotExecutable | Self::TooLarge | Self::Nul | Self::Other(_) => {
                false
            }
        }
    }
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound,
            Errno::ACCESS | Errno::PERM => Self::NotPermitted,
            Errno::NOEXEC => Self::NotExecutable,
            Errno::TOOBIG => Self::TooLarge,
            Errno::AGAIN => Self::TooManyProcesses,
            Errno::MFILE | Errno::NFILE => Self::TooManyFiles,
            Errno::NOMEM => Self::OutOfMemory,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            other => Self::Other(other.raw_os_error()),
        }
    }
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::Other(0), |code| Errno::from_raw_os_error(code).into())
    }
}

impl From<sys::Nul> for SpawnError {
    fn from(_: sys::Nul) -> Self {
        Self::Nul
    }
}
