//! What a server's processes may use of the machine, and as whom they run.

use super::load::Loader;
use super::written::file::{self, PrivateDirectory, Size};
use super::written::path::Path;
use super::written::units;

/// What the processes of one request may use of the machine, and as whom.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Confinement {
    /// The most memory, bytes.
    pub memory: Option<u64>,
    /// The most processors' worth of time.
    pub cpus: Option<f64>,
    /// The most processes and threads.
    pub pids: Option<u64>,
    /// How readily the kernel ends them when memory runs out, 0 to 1000: `oom_score_adj`.
    pub oom_score_adj: u16,
    /// By how much they leave the processors to the bridge, 0 to 19: what is added to its nice value.
    pub nice: u8,
    /// Whom they run as, if not as the bridge.
    pub run_as: Option<RunAs>,
    /// What the directory of their own may hold, bytes, if they get one.
    pub private_directory: Option<u64>,
}

/// Users to run as: each request gets one of them, and one that is free if there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunAs {
    /// The first user id; never 0.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The group id of all of them; each one's own number if none.
    pub gid: Option<u32>,
}

/// Less than this and no runtime starts, bytes.
const LEAST_MEMORY: u64 = 1 << 20;

/// Halfway to "before anything else": a server that uses half of all memory less than another process goes first.
const OOM_SCORE_ADJ: u16 = 500;

/// A third of the weight of the bridge, without which no other request gets on: enough for it to go first when the
/// processors are wanted by more than there are, and too little for anybody to notice when they are not.
const NICE: u8 = 5;

/// What a private directory may hold, if nothing else is written: enough for what usual programs unpack, bytes.
const DIRECTORY: u64 = 256 << 20;

/// Less than this, and it is full of a few files, bytes.
const LEAST_DIRECTORY: u64 = 64 << 10;

/// The most processors that a machine has.
const MOST_CPUS: f64 = 8192.0;

impl Loader<'_> {
    pub(super) fn confinement(&mut self, at: &Path, file: &file::Server) -> Confinement {
        Confinement {
            memory: file.memory.as_ref().and_then(|size| self.memory(&at.key("memory"), size)),
            cpus: file.cpus.and_then(|cpus| self.cpus(&at.key("cpus"), cpus)),
            pids: file.pids.and_then(|pids| self.pids(&at.key("pids"), pids)),
            oom_score_adj: self.oom_score_adj(&at.key("oomScoreAdj"), file.oom_score_adj),
            nice: self.nice(&at.key("nice"), file.nice),
            run_as: file.run_as.as_deref().and_then(|text| self.run_as(&at.key("runAs"), text)),
            private_directory: self.private_directory(&at.key("privateDirectory"), file),
        }
    }

    fn memory(&mut self, at: &Path, Size(text): &Size) -> Option<u64> {
        match units::memory(text) {
            Ok(size) if size >= LEAST_MEMORY => return Some(size),
            Ok(_) => self.report(at, "no server starts in so little memory", "write at least 1MiB, or leave it out"),
            Err(help) => self.report(at, "this is not a size", help),
        }
        None
    }

    fn private_directory(&mut self, at: &Path, file: &file::Server) -> Option<u64> {
        let Size(text) = match &file.private_directory {
            None => return file.cwd.is_none().then_some(DIRECTORY),
            Some(PrivateDirectory::Wanted(wanted)) => return wanted.then_some(DIRECTORY),
            Some(PrivateDirectory::Sized(size)) => size,
        };
        match units::memory(text) {
            Ok(size) if size >= LEAST_DIRECTORY => return Some(size),
            Ok(_) => self.report(at, "this is too small for any file", "write at least 64KiB, or false for none"),
            Err(help) => self.report(at, "this is not a size", help),
        }
        None
    }

    fn cpus(&mut self, at: &Path, cpus: f64) -> Option<f64> {
        let fits = (0.01..=MOST_CPUS).contains(&cpus);
        if !fits {
            self.report(at, "this is not a number of processors", "write a number from 0.01 up, for example 0.5");
        }
        fits.then_some(cpus)
    }

    fn pids(&mut self, at: &Path, pids: usize) -> Option<u64> {
        if pids == 0 {
            self.report(at, "this must be more than zero", "write a larger number, or leave it out");
            return None;
        }
        u64::try_from(pids).ok()
    }

    fn oom_score_adj(&mut self, at: &Path, written: Option<usize>) -> u16 {
        const MOST: u16 = 1000;
        let value =
            written.map_or(Some(OOM_SCORE_ADJ), |value| u16::try_from(value).ok().filter(|&value| value <= MOST));
        value.unwrap_or_else(|| {
            self.report(at, "this is no value of oom_score_adj for a server", "write a number from 0 to 1000");
            OOM_SCORE_ADJ
        })
    }

    fn nice(&mut self, at: &Path, written: Option<usize>) -> u8 {
        const MOST: u8 = 19;
        let value = written.map_or(Some(NICE), |value| u8::try_from(value).ok().filter(|&value| value <= MOST));
        value.unwrap_or_else(|| {
            self.report(at, "this is no nice value for a server", "write a number from 0 to 19");
            NICE
        })
    }

    fn run_as(&mut self, at: &Path, text: &str) -> Option<RunAs> {
        match run_as(text) {
            Some(RunAs { first: 0, .. } | RunAs { gid: Some(0), .. }) => {
                self.report(at, "a server does not run as root", "name a user and a group that may do little");
                None
            }
            Some(users) => Some(users),
            None => {
                let help = "write a user id, `UID:GID`, or a range of ids, for example \"20000-20999\"";
                self.report(at, "this names no user", help);
                None
            }
        }
    }
}

/// `UID`, `UID:GID`, `FIRST-LAST` or `FIRST-LAST:GID`.
fn run_as(text: &str) -> Option<RunAs> {
    /// Not a user: it tells the system to leave the id as it is.
    const NOBODY_AT_ALL: u32 = u32::MAX;
    let id = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|&id: &u32| plain && id != NOBODY_AT_ALL)
    };
    let (users, gid) = match text.split_once(':') {
        Some((users, group)) => (users, Some(id(group)?)),
        None => (text, None),
    };
    let (first, last) = match users.split_once('-') {
        Some((first, last)) => (id(first)?, id(last)?),
        None => (id(users)?, id(users)?),
    };
    (first <= last).then_some(RunAs { first, last, gid })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{server, try_server};
    use super::super::{Plan, Server};
    use super::*;
    use serde_json::{Value as Json, json};

    fn confinement(server: &Server) -> Confinement {
        match &server.plan {
            Plan::Stdio(plan) => plan.confinement,
            Plan::Container(_) | Plan::Http(_) => panic!("a program was expected"),
        }
    }

    #[test]
    fn users_are_one_or_a_range() {
        let users = |first, last, gid| Some(RunAs { first, last, gid });
        assert_eq!(run_as("1000"), users(1000, 1000, None));
        assert_eq!(run_as("1000:100"), users(1000, 1000, Some(100)));
        assert_eq!(run_as("20000-20999"), users(20000, 20999, None));
        assert_eq!(run_as("20000-20999:100"), users(20000, 20999, Some(100)));
        for bad in ["", "nobody", "-1", "9-8", "1-", ":1", "1:", "4294967295", "4294967296", "+1", "1000:1-2"] {
            assert_eq!(run_as(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_written_is_not_limited_and_the_directory_is_private_without_a_cwd() {
        let plain = confinement(&server(&json!({ "command": "/bin/cat" })));
        assert_eq!(
            plain,
            Confinement { private_directory: Some(256 << 20), oom_score_adj: 500, nice: 5, ..Confinement::default() }
        );
        let directory = |fields: &Json| confinement(&server(fields)).private_directory;
        assert_eq!(directory(&json!({ "command": "/bin/cat", "cwd": "/" })), None);
        for (written, size) in [(json!(true), Some(256 << 20)), (json!(false), None), (json!("64MiB"), Some(64 << 20))]
        {
            let fields = json!({ "command": "/bin/cat", "cwd": "/", "privateDirectory": written });
            assert_eq!(directory(&fields), size, "{fields}");
        }
    }

    #[test]
    fn limits_are_read_and_nonsense_is_refused() {
        let fields = json!({ "command": "/bin/cat", "memory": "2GiB", "cpus": 0.5, "pids": 64, "runAs": "65534",
            "oomScoreAdj": 1000, "nice": 19 });
        let limits = confinement(&server(&fields));
        assert_eq!((limits.memory, limits.cpus, limits.pids), (Some(2 << 30), Some(0.5), Some(64)));
        assert_eq!((limits.oom_score_adj, limits.nice), (1000, 19));
        assert_eq!(limits.run_as, Some(RunAs { first: 65534, last: 65534, gid: None }));
        for bad in [
            r#""memory": "1kB""#,
            r#""memory": "x""#,
            r#""cpus": 0"#,
            r#""cpus": -1"#,
            r#""pids": 0"#,
            r#""privateDirectory": "63KiB""#,
            r#""privateDirectory": "much""#,
            r#""privateDirectory": 64"#,
            r#""oomScoreAdj": -1"#,
            r#""oomScoreAdj": 1001"#,
            r#""nice": -1"#,
            r#""nice": 20"#,
            r#""runAs": "0""#,
            r#""runAs": "0-9""#,
            r#""runAs": "5:0""#,
            r#""runAs": "root""#,
        ] {
            assert!(try_server(&format!(r#"{{ "command": "/bin/cat", {bad} }}"#)).is_err(), "{bad}");
        }
        for field in [r#""memory": "1GiB""#, r#""runAs": "5""#, r#""privateDirectory": true"#] {
            assert!(try_server(&format!(r#"{{ "url": "https://x.example/", {field} }}"#)).is_err(), "{field}");
        }
    }
}
