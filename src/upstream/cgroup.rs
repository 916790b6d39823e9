//! Control groups, version 2: one for each request, joined before its server's first instruction, limited and killed as
//! one. Nothing that a process does gets it out again, unless it is the bridge's own user, to whom the groups belong.
//!
//! ```text
//! PARENT                    what was delegated to the bridge, or named by the operator
//!  └ tollbridge-run-N-M     one run of the program; locked while it lives
//!     ├ bridge              the bridge itself, if it had to leave the parent for limits to be possible; it comes back
//!     └ requests
//!        └ N                one request
//! ```
//! Source: Documentation/admin-guide/cgroup-v2.rst of Linux.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::config::Confinement;
use crate::instance::{self, Held};
use crate::own_groups::own_groups;
use crate::sys;

/// Over how long `cpu.max` shares out a processor, microseconds: the kernel's own default.
const CPU_PERIOD: f64 = 100_000.0;

/// The controllers of what a request can be limited in.
const HANDED_DOWN: [&str; 3] = ["memory", "pids", "cpu"];

/// How long the last of a killed group may take to be gone before it is left to the next run.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where control groups are to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the bridge's own group, if that was delegated to it.
    Own,
    /// In this directory of the cgroup2 file system.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

impl std::str::FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Own,
            "off" => Self::Nowhere,
            path => Self::At(path.into()),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("auto"),
            Self::At(path) => path.display().fmt(f),
            Self::Nowhere => f.write_str("off"),
        }
    }
}

/// Why there are no control groups, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// Makes the group of this run, after removing those of runs that have ended. Call it before anything else is started:
/// the bridge may have to move.
///
/// # Errors
/// Why there can be none.
pub fn begin(place: &Place) -> Result<Held, Unavailable> {
    let parent = match place {
        Place::Nowhere => return Err(Unavailable("control groups are switched off".into())),
        Place::At(path) => path.clone(),
        Place::Own => own_group()?,
    };
    if !fs::exists(parent.join("cgroup.procs")).unwrap_or(false) {
        return Err(Unavailable(format!("{} is no control group of version 2", parent.display())));
    }
    if !sys::can_spawn_into() {
        return Err(Unavailable("the bridge cannot start programs in a control group on this processor".into()));
    }
    instance::sweep(&parent, end);
    let refused = |error: io::Error| Unavailable(format!("{} was not delegated to it ({error})", parent.display()));
    let held = Held::make(&parent).map_err(refused)?;
    let run = held.path();
    let made = fs::create_dir(run.join("requests")).map_err(refused).and_then(|()| {
        let has_kill = fs::exists(run.join("requests/cgroup.kill")).unwrap_or(false);
        if has_kill { Ok(()) } else { Err(Unavailable("the kernel is older than 5.14".into())) }
    });
    if let Err(why) = made {
        end(run);
        return Err(why);
    }
    hand_down(&parent, run);
    let kind = fs::read_to_string(run.join("requests/cgroup.type")).unwrap_or_default();
    if kind.trim_end() == "domain" {
        return Ok(held);
    }
    end(run);
    Err(Unavailable(format!("nothing can be started below {}, which is \"threaded\"", parent.display())))
}

/// The group that the bridge itself is in.
fn own_group() -> Result<PathBuf, Unavailable> {
    let Some(group) = own_groups("").into_iter().next() else {
        return Err(Unavailable("there is no file system of control groups of version 2".into()));
    };
    // Only the root of the whole system has no type, and that is nobody's to use unasked.
    if fs::exists(group.join("cgroup.type")).unwrap_or(false) {
        Ok(group)
    } else {
        Err(Unavailable("the bridge has no control group of its own, only the root of all".into()))
    }
}

/// Lets the groups of requests have whatever limits there are.
///
/// A group that hands limits down holds no process itself, so the bridge leaves the parent if it is all alone there.
/// With a process in it nothing may be handed down: the kernel would let it have `pids` and `cpu`, and in return let
/// nothing be started in any group below it ("domain invalid").
fn hand_down(parent: &Path, run: &Path) {
    if holds_no_process(parent) || left(parent, run) {
        hand_down_from(parent);
    }
    hand_down_from(run);
    hand_down_from(&run.join("requests"));
}

/// Whether limits can be handed down from it as it is. The root of all has no type, and may hold processes as well.
fn holds_no_process(group: &Path) -> bool {
    !fs::exists(group.join("cgroup.type")).unwrap_or(true) || processes(group).is_empty()
}

/// Moves the bridge from the parent to a group of its own, if it is all alone there.
fn left(parent: &Path, run: &Path) -> bool {
    let own = std::process::id().to_string();
    let bridge = run.join("bridge");
    processes(parent).lines().eq([own.as_str()])
        && fs::create_dir(&bridge).and_then(|()| fs::write(bridge.join("cgroup.procs"), own)).is_ok()
}

fn processes(group: &Path) -> String {
    fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default()
}

/// Hands down each limit that is there.
fn hand_down_from(group: &Path) {
    let there = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for name in there.split_ascii_whitespace().filter(|name| HANDED_DOWN.contains(name)) {
        // What is not handed down is missing in `Cgroups::limits`, which says so.
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

/// Ends whatever is in the group of a run, and removes it as far as that is possible. Blocks for up to a second.
pub fn end(run: &Path) {
    let _ = fs::write(run.join("requests/cgroup.kill"), "1");
    let deadline = Instant::now() + PATIENCE;
    let groups = fs::read_dir(run.join("requests")).into_iter().flatten().flatten();
    let mut left: Vec<_> = groups.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
    loop {
        // A look that began too late is the last one.
        let is_late = Instant::now() > deadline;
        left.retain(|group| !removed(group));
        if left.is_empty() || is_late {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // The last may be there still.
    let _ = fs::remove_dir(run.join("requests"));
    come_back(run);
    for group in ["bridge", ""] {
        let _ = fs::remove_dir(run.join(group));
    }
}

/// Undoes [`left`]: takes back what was handed down, and returns to the parent.
fn come_back(run: &Path) {
    let own = std::process::id().to_string();
    let is_there = processes(&run.join("bridge")).lines().any(|pid| pid == own);
    let Some(parent) = run.parent().filter(|_| is_there) else { return };
    for (group, name) in [run, parent].into_iter().flat_map(|group| HANDED_DOWN.map(|name| (group, name))) {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("-{name}"));
    }
    let _ = fs::write(parent.join("cgroup.procs"), own);
}

fn removed(group: &Path) -> bool {
    match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Which limits the groups of requests can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max`.
    pub memory: bool,
    /// `pids.max`.
    pub pids: bool,
    /// `cpu.max`.
    pub cpus: bool,
}

/// Makes a group for each request.
#[derive(Debug)]
pub struct Cgroups {
    requests: PathBuf,
    limits: Limits,
    next: AtomicU64,
}

impl Cgroups {
    /// Groups in that of this run, as [`begin`] made it.
    #[must_use]
    pub fn of_run(run: &Path) -> Self {
        let requests = run.join("requests");
        let handed_down = fs::read_to_string(requests.join("cgroup.subtree_control")).unwrap_or_default();
        let has = |name| handed_down.split_ascii_whitespace().any(|controller| controller == name);
        let limits = Limits { memory: has("memory"), pids: has("pids"), cpus: has("cpu") };
        Self { requests, limits, next: AtomicU64::new(0) }
    }

    /// What they can be limited in.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A new group with the limits asked for, as far as it can have them.
    pub(super) fn group(&self, confinement: &Confinement) -> io::Result<Leaf> {
        let path = self.requests.join(self.next.fetch_add(1, Relaxed).to_string());
        fs::create_dir(&path)?;
        let directory = open(&path).inspect_err(|_| {
            removed(&path);
        })?;
        let leaf = Leaf { path, directory };
        if let Some(memory) = confinement.memory.filter(|_| self.limits.memory) {
            leaf.write("memory.max", &memory.to_string())?;
            // Without swap as well, and without survivors that wait for those that were killed. Neither is everywhere.
            let _ = leaf.write("memory.swap.max", "0");
            let _ = leaf.write("memory.oom.group", "1");
        }
        if let Some(pids) = confinement.pids.filter(|_| self.limits.pids) {
            leaf.write("pids.max", &pids.to_string())?;
        }
        if let Some(cpus) = confinement.cpus.filter(|_| self.limits.cpus) {
            leaf.write("cpu.max", &format!("{:.0} {CPU_PERIOD}", cpus * CPU_PERIOD))?;
        }
        Ok(leaf)
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The group of one request. It is not removed by being dropped.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
    directory: OwnedFd,
}

impl Leaf {
    /// What a program is started into.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    /// Kills everything in it, at once and without waiting.
    pub(super) fn kill(&self) {
        let _ = self.write("cgroup.kill", "1");
    }

    /// Whether there are processes in it, or in a group within it; one that cannot be read has none.
    pub(super) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Removes it, and returns whether it is gone: not while something in it is.
    pub(super) fn remove(&self) -> bool {
        removed(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (text, place) in [("auto", Place::Own), ("off", Place::Nowhere), ("/x", Place::At("/x".into()))] {
            assert_eq!(text.parse(), Ok(place.clone()));
            assert_eq!(place.to_string(), text);
        }
    }

    /// A directory that looks like the group of a run in which these limits are handed down.
    fn run_with(controllers: &str) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("requests")).unwrap();
        fs::write(run.path().join("requests/cgroup.subtree_control"), controllers).unwrap();
        run
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them_and_only_where_there_are_some() {
        let asked = Confinement { memory: Some(1 << 20), cpus: Some(0.5), pids: Some(7), ..Confinement::default() };
        let run = run_with("cpu memory pids\n");
        let groups = Cgroups::of_run(run.path());
        assert_eq!(groups.limits(), Limits { memory: true, pids: true, cpus: true });
        let leaf = groups.group(&asked).unwrap();
        let written = |name: &str| fs::read_to_string(leaf.path.join(name)).unwrap();
        assert_eq!((written("memory.max"), written("memory.swap.max")), ("1048576".to_owned(), "0".to_owned()));
        assert_eq!((written("pids.max"), written("cpu.max")), ("7".to_owned(), "50000 100000".to_owned()));
        let run = run_with("");
        let leaf = Cgroups::of_run(run.path()).group(&asked).unwrap();
        assert_eq!(fs::read_dir(&leaf.path).unwrap().count(), 0, "nothing can be limited here");
        assert!(leaf.remove());
    }

    #[test]
    fn what_the_parent_has_of_the_limits_is_handed_down() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("cgroup.controllers"), "cpuset memory hugetlb").unwrap();
        hand_down_from(parent.path());
        assert_eq!(fs::read_to_string(parent.path().join("cgroup.subtree_control")).unwrap(), "+memory");
    }

    #[test]
    fn a_directory_that_is_no_group_is_refused_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let why = begin(&Place::At(directory.path().into())).unwrap_err().to_string();
        assert!(why.contains("no control group of version 2"), "{why}");
        assert!(begin(&Place::Nowhere).is_err());
    }
}
