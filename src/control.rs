//! How a command tells a bridge on the same host something: by a socket without a file, which whoever may send it a signal
//! may use. A bridge listens under a name made of its process id, since the list of sockets that the system has leaves some
//! out while others come and go. A request is a word, the [`file_id`] of the configuration file that the bridge must have
//! been started with, if it matters, and a newline; the answer is one [`Answer`] as JSON, or `null` of a bridge that was
//! started with another file, and the end.
//!
//! Source: unix(7), abstract sockets.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::net::{UCred, sockopt::socket_peercred};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

/// The longest request, bytes, with its newline.
pub const MAX_REQUEST: usize = 32;

/// The longest answer, bytes.
pub const MAX_ANSWER: u64 = 1 << 20;

/// What a bridge is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To read its configuration anew.
    Reload,
    /// To say what that would do.
    Diff,
    /// To say whether it is ready.
    Health,
}

impl Request {
    const ALL: [Self; 3] = [Self::Reload, Self::Diff, Self::Health];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Diff => "diff",
            Self::Health => "health",
        }
    }

    /// The line for it, to a bridge that was started with `file`, or with any.
    #[must_use]
    pub fn line(self, file: Option<&Path>) -> String {
        file.map_or_else(|| format!("{}\n", self.as_str()), |file| format!("{} {}\n", self.as_str(), file_id(file)))
    }

    /// The request that a line is, without its newline, and the id of the file that it is about.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<(Self, Option<&str>)> {
        let line = str::from_utf8(line).ok()?;
        let (word, file) = line.split_once(' ').map_or((line, None), |(word, file)| (word, Some(file)));
        Self::ALL.into_iter().find(|request| request.as_str() == word).map(|request| (request, file))
    }
}

/// What a bridge answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it did what it was told, or it is as was asked.
    pub is_good: bool,
    /// For people.
    pub text: String,
}

/// Where the bridge of this process listens.
///
/// # Errors
/// There is no process id of that length.
pub fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("tollbridge-control/{pid}"))
}

/// Connections to all bridges that take commands of this user, with their process ids. Who listens under the name of
/// another process is none.
///
/// # Errors
/// The system does not tell which processes there are.
pub fn bridges() -> io::Result<Vec<(u32, UnixStream)>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let pid = process.ok().and_then(|process| process.file_name().to_str()?.parse().ok());
        if let Some(pid) = pid
            && let Ok(stream) = UnixStream::connect_addr(&address(pid)?)
            && is_of(&stream, pid)
        {
            found.push((pid, stream));
        }
    }
    Ok(found)
}

/// Whether process `pid` listens at the other end, and takes commands of this user. Source: unix(7), `SO_PEERCRED`.
fn is_of(stream: &UnixStream, pid: u32) -> bool {
    let own = geteuid();
    let is_of = |peer: UCred| peer.pid.as_raw_pid().cast_unsigned() == pid && (own.is_root() || peer.uid == own);
    socket_peercred(stream).is_ok_and(is_of)
}

/// What a configuration file is known by, wherever a link leads that is its last part: such are made to lead elsewhere.
#[must_use]
pub fn file_id(file: &Path) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = absolute.parent().map(|parent| parent.canonicalize().unwrap_or_else(|_| parent.to_owned()));
    let path: PathBuf = directory.into_iter().chain(absolute.file_name().map(PathBuf::from)).collect();
    let hash = digest(&SHA256, path.as_os_str().as_bytes());
    let hash = u64::from_be_bytes(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_id_however_it_is_named() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("real/tollbridge.json"), home.path().join("link"));
        fs::create_dir(home.path().join("real")).unwrap();
        std::os::unix::fs::symlink(home.path().join("real"), &link).unwrap();
        assert_eq!(file_id(&file), file_id(&link.join("tollbridge.json")));
        assert_ne!(file_id(&file), file_id(&home.path().join("tollbridge.json")));
    }

    #[test]
    fn a_bridge_is_found_while_it_listens() {
        let own = std::process::id();
        let is_found = || bridges().unwrap().iter().any(|(pid, _)| *pid == own);
        let listening = std::os::unix::net::UnixListener::bind_addr(&address(own).unwrap()).unwrap();
        assert!(is_found());
        drop(listening);
        assert!(!is_found());
    }

    #[test]
    fn each_request_is_read_as_it_is_written_and_nothing_else_is_one() {
        let file = Path::new("/etc/tollbridge.json");
        for request in Request::ALL {
            assert_eq!(Request::parse(request.line(None).trim_end().as_bytes()), Some((request, None)));
            let line = request.line(Some(file));
            assert!(line.len() <= MAX_REQUEST);
            assert_eq!(Request::parse(line.trim_end().as_bytes()), Some((request, Some(&*file_id(file)))));
        }
        assert_eq!(Request::parse(b"reloads"), None);
        assert_eq!(Request::parse(b""), None);
    }
}
