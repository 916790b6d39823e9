//! How a command tells a bridge on the same host something: by a socket without a file, which whoever may send it a signal
//! may use. A bridge listens under a name made of its process id, since the list of sockets that the system has leaves some
//! out while others come and go. A request is a word, the [`file_id`] of the configuration file that the bridge must have
//! been started with, if it matters, and a newline; the answer is one [`Answer`] as JSON, or `null` of a bridge that was
//! started with another file, and the end.
//!
//! Source: unix(7), abstract sockets.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

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

impl Answer {
    /// It is so.
    #[must_use]
    pub fn yes(text: impl Into<String>) -> Self {
        Self { is_good: true, text: text.into() }
    }

    /// It is not so.
    #[must_use]
    pub fn no(text: impl Into<String>) -> Self {
        Self { is_good: false, text: text.into() }
    }
}

/// What listens on this host as bridges do, each under the name of its own process.
#[derive(Debug, Default)]
pub struct Found {
    /// Process ids of users who are trusted, and connections to them.
    pub trusted: Vec<(u32, UnixStream)>,
    /// Process ids of others, and whose they are.
    pub others: Vec<(u32, u32)>,
}

/// Where the bridge of this process listens.
///
/// # Errors
/// There is no process id of that length.
pub fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name(pid))
}

fn name(pid: u32) -> String {
    format!("tollbridge-control/{pid}")
}

/// Finds the bridges of users with these ids, within a Tokio runtime. Who listens under the name of another process, or has
/// no room for a connection, is none: nothing is waited for.
///
/// # Errors
/// The system does not tell which processes there are.
///
/// Source: unix(7), `SO_PEERCRED`, and `EAGAIN` of connect(2).
pub async fn find(trusted: &[u32]) -> io::Result<Found> {
    let mut found = Found::default();
    for process in fs::read_dir("/proc")? {
        let pid = process.ok().and_then(|process| process.file_name().to_str()?.parse().ok());
        let Some(pid) = pid else { continue };
        let Ok(stream) = UnixStream::connect(format!("\0{}", name(pid))).await else { continue };
        let Ok(peer) = stream.peer_cred() else { continue };
        if peer.pid().map(i32::cast_unsigned) != Some(pid) {
            continue;
        }
        if trusted.contains(&peer.uid()) {
            found.trusted.push((pid, stream));
        } else {
            found.others.push((pid, peer.uid()));
        }
    }
    Ok(found)
}

/// Whether process `pid` may have been started with `file`, as far as its command line tells: one that was not need not be
/// waited for.
#[must_use]
pub fn may_read(pid: u32, file: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return true };
    let mut arguments = line.split(|byte| *byte == 0).skip_while(|argument| *argument != b"--config").skip(1);
    let Some(named) = arguments.next().map(|named| Path::new(OsStr::from_bytes(named))) else { return true };
    if named.file_name() != file.file_name() {
        return false;
    }
    // Where a bridge was started is seen by root alone: nobody else can look into it.
    let directory = if named.is_absolute() { Ok(PathBuf::new()) } else { fs::read_link(format!("/proc/{pid}/cwd")) };
    let Ok(directory) = directory else { return true };
    file_id(&directory.join(named)) == file_id(file)
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

    #[tokio::test]
    async fn a_bridge_is_found_while_it_listens_and_is_trusted_for_its_user_alone() {
        let (own, user) = (std::process::id(), rustix::process::geteuid().as_raw());
        let is_found = async |user: u32| find(&[user]).await.unwrap().trusted.iter().any(|(pid, _)| *pid == own);
        let listening = std::os::unix::net::UnixListener::bind_addr(&address(own).unwrap()).unwrap();
        assert!(is_found(user).await);
        assert!(!is_found(user + 1).await);
        assert!(find(&[]).await.unwrap().others.contains(&(own, user)));
        drop(listening);
        assert!(!is_found(user).await);
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
