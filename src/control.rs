//! How a command tells a bridge on the same host something: by a socket without a file, which whoever may send it a signal
//! may use. A bridge that was started with a configuration file listens under a name made of that file's path and of its
//! process id. A request is a word and a newline; the answer is one [`Answer`] as JSON, and the end.
//!
//! Source: unix(7), abstract sockets; the proc file system, `net/unix`.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What every name begins with.
const PREFIX: &str = "tollbridge-control/";

/// The longest request, bytes, with its newline.
pub const MAX_REQUEST: usize = 16;

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

    /// The request that a line is, without its newline.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|request| request.as_str().as_bytes() == line)
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

/// A bridge that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its process.
    pub pid: u32,
    name: String,
}

impl Bridge {
    /// This process, started with this file.
    #[must_use]
    pub fn own(file: &Path) -> Self {
        let pid = std::process::id();
        Self { pid, name: format!("{}{pid}", prefix(file)) }
    }

    /// Those that listen and were started with `file`, or with any.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn all(file: Option<&Path>) -> io::Result<Vec<Self>> {
        let prefix = file.map_or_else(|| PREFIX.to_owned(), prefix);
        let sockets = fs::read("/proc/net/unix")?;
        let sockets = String::from_utf8_lossy(&sockets);
        let mut found: Vec<Self> = Vec::new();
        for line in sockets.lines() {
            let Some(name) = line.split_whitespace().nth(7).and_then(|path| path.strip_prefix('@')) else { continue };
            let pid = name.strip_prefix(&prefix).and_then(|rest| rest.rsplit('/').next()?.parse().ok());
            // Connections to it are listed under the same name.
            if let Some(pid) = pid.filter(|&pid| found.iter().all(|bridge| bridge.pid != pid)) {
                found.push(Self { pid, name: name.to_owned() });
            }
        }
        Ok(found)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The name is too long for a socket; its own never is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(&self.name)
    }
}

/// What the names of those begin with that were started with `file`, wherever a link leads that is its last part: such are
/// made to lead elsewhere.
fn prefix(file: &Path) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = absolute.parent().map(|parent| parent.canonicalize().unwrap_or_else(|_| parent.to_owned()));
    let path: PathBuf = directory.into_iter().chain(absolute.file_name().map(PathBuf::from)).collect();
    let hash = digest(&SHA256, path.as_os_str().as_bytes());
    let hash = u64::from_be_bytes(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 bytes"));
    format!("{PREFIX}{hash:016x}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_found_by_its_file_however_the_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("real/tollbridge.json"), home.path().join("link"));
        fs::create_dir(home.path().join("real")).unwrap();
        std::os::unix::fs::symlink(home.path().join("real"), &link).unwrap();
        let own = Bridge::own(&file);
        let listening = std::os::unix::net::UnixListener::bind_addr(&own.address().unwrap()).unwrap();
        let is_found = |file: Option<&Path>| Bridge::all(file).unwrap().contains(&own);
        assert!(is_found(Some(&file)) && is_found(Some(&link.join("tollbridge.json"))) && is_found(None));
        assert!(!is_found(Some(&home.path().join("tollbridge.json"))));
        drop(listening);
        assert!(!is_found(None));
    }

    #[test]
    fn each_request_is_read_as_it_is_written_and_nothing_else_is_one() {
        for request in Request::ALL {
            assert_eq!(Request::parse(request.as_str().as_bytes()), Some(request));
            assert!(request.as_str().len() < MAX_REQUEST);
        }
        assert_eq!(Request::parse(b"reload "), None);
        assert_eq!(Request::parse(b""), None);
    }
}
