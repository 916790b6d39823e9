//! Control groups, version 2: one for each request, joined before its server's first instruction, limited and killed as
//! one. Nothing that a process does gets it out again, unless it is the bridge's own user, to whom the groups belong.
//!
//! ```text
//! PARENT                    what was delegated to the bridge, or named by the operator
//!  └ tollbridge-instance-N-M     one instance; locked while it lives
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

use super::instance::directory::{self, InstanceDirectory};
use crate::cgroup_paths::own_cgroups;
use crate::config::Confinement;
use crate::sys;

/// Over how long `cpu.max` shares out a processor, microseconds: the kernel's own default.
const CPU_PERIOD: f64 = 100_000.0;

/// The controllers of what a request can be limited in.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// How long the last of a killed group may take to be gone before it is left to the next instance.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where control groups are to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupParent {
    /// In the bridge's own group, if that was delegated to it.
    Own,
    /// In this directory of the cgroup2 file system.
    At(PathBuf),
    /// No control groups.
    Off,
}

impl std::str::FromStr for CgroupParent {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Own,
            "off" => Self::Off,
            path => Self::At(path.into()),
        })
    }
}

impl std::fmt::Display for CgroupParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("auto"),
            Self::At(path) => path.display().fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Why there are no control groups, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// Makes the group of this instance, after removing those of instances that have ended. Call it before anything else is started:
/// the bridge may have to move.
///
/// # Errors
/// Why there can be none.
pub fn create(choice: &CgroupParent) -> Result<InstanceDirectory, Unavailable> {
    let parent = match choice {
        CgroupParent::Off => return Err(Unavailable("control groups are switched off".into())),
        CgroupParent::At(path) => path.clone(),
        CgroupParent::Own => own_group()?,
    };
    if !fs::exists(parent.join("cgroup.procs")).unwrap_or(false) {
        return Err(Unavailable(format!("{} is no control group of version 2", parent.display())));
    }
    if !sys::can_clone() {
        return Err(Unavailable("the bridge cannot start programs in a control group on this processor".into()));
    }
    directory::remove_dead(&parent, remove);
    let refused =
        |error: io::Error| Unavailable(format!("{} was not delegated to the bridge ({error})", parent.display()));
    let held = InstanceDirectory::create(&parent).map_err(refused)?;
    let instance = held.path();
    let made = fs::create_dir(instance.join("requests")).map_err(refused).and_then(|()| {
        let has_kill = fs::exists(instance.join("requests/cgroup.kill")).unwrap_or(false);
        if has_kill { Ok(()) } else { Err(Unavailable("the kernel is older than 5.14".into())) }
    });
    if let Err(why) = made {
        remove(instance);
        return Err(why);
    }
    enable_controllers(&parent, instance);
    let kind = fs::read_to_string(instance.join("requests/cgroup.type")).unwrap_or_default();
    if kind.trim_end() == "domain" {
        return Ok(held);
    }
    remove(instance);
    Err(Unavailable(format!("nothing can be started below {}, which is \"threaded\"", parent.display())))
}

/// The group that the bridge itself is in.
fn own_group() -> Result<PathBuf, Unavailable> {
    let Some(group) = own_cgroups("").into_iter().next() else {
        return Err(Unavailable("there is no file system of control groups of version 2".into()));
    };
    // Only the root of the whole system has no type, and that is nobody's to use unasked.
    if fs::exists(group.join("cgroup.type")).unwrap_or(false) {
        Ok(group)
    } else {
        Err(Unavailable("the bridge has no control group of its own, only the root of all".into()))
    }
}

/// Enables, for the groups of requests, every controller that there is.
///
/// A group with controllers enabled for those below it may hold no process itself, so the bridge leaves the parent if it
/// is the only process there. With other processes in it nothing is enabled: the kernel would allow `pids` and `cpu`, and
/// then refuse to start anything in the groups below ("domain invalid").
fn enable_controllers(parent: &Path, instance: &Path) {
    if holds_no_process(parent) || left_parent(parent, instance) {
        enable_controllers_in(parent);
    }
    enable_controllers_in(instance);
    enable_controllers_in(&instance.join("requests"));
}

/// Whether controllers can be enabled in it as it is. The root of the hierarchy has no type, and may hold processes as well.
fn holds_no_process(group: &Path) -> bool {
    !fs::exists(group.join("cgroup.type")).unwrap_or(true) || processes(group).is_empty()
}

/// Moves the bridge from the parent to a group of its own, if it is the only process there.
fn left_parent(parent: &Path, instance: &Path) -> bool {
    let own = std::process::id().to_string();
    let bridge = instance.join("bridge");
    processes(parent).lines().eq([own.as_str()])
        && fs::create_dir(&bridge).and_then(|()| fs::write(bridge.join("cgroup.procs"), own)).is_ok()
}

fn processes(group: &Path) -> String {
    fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default()
}

/// Enables each controller that is there for the groups below this one.
fn enable_controllers_in(group: &Path) {
    let there = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for name in there.split_ascii_whitespace().filter(|name| CONTROLLERS.contains(name)) {
        // What is not enabled is missing in `Cgroups::limits`, which says so.
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

/// Ends whatever is in the group of an instance, and removes it as far as that is possible. Blocks for up to a second.
pub fn remove(instance: &Path) {
    let _ = fs::write(instance.join("requests/cgroup.kill"), "1");
    let deadline = Instant::now() + PATIENCE;
    let groups = fs::read_dir(instance.join("requests")).into_iter().flatten().flatten();
    let mut left: Vec<_> = groups.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
    loop {
        // A try that began too late is the last one.
        let is_late = Instant::now() > deadline;
        left.retain(|group| !removed(group));
        if left.is_empty() || is_late {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // The last may be there still.
    let _ = fs::remove_dir(instance.join("requests"));
    return_to_parent(instance);
    for group in ["bridge", ""] {
        let _ = fs::remove_dir(instance.join(group));
    }
}

/// Undoes [`left_parent`]: disables the controllers, and returns to the parent.
fn return_to_parent(instance: &Path) {
    let own = std::process::id().to_string();
    let is_there = processes(&instance.join("bridge")).lines().any(|pid| pid == own);
    let Some(parent) = instance.parent().filter(|_| is_there) else { return };
    for (group, name) in [instance, parent].into_iter().flat_map(|group| CONTROLLERS.map(|name| (group, name))) {
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
    /// Groups in that of this instance, as [`create`] made it.
    #[must_use]
    pub fn of_instance(instance: &Path) -> Self {
        let requests = instance.join("requests");
        let enabled = fs::read_to_string(requests.join("cgroup.subtree_control")).unwrap_or_default();
        let has = |name| enabled.split_ascii_whitespace().any(|controller| controller == name);
        let limits = Limits { memory: has("memory"), pids: has("pids"), cpus: has("cpu") };
        Self { requests, limits, next: AtomicU64::new(0) }
    }

    /// What they can be limited in.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A new group with the limits asked for, as far as it can have them.
    pub(super) fn group(&self, confinement: &Confinement) -> io::Result<RequestCgroup> {
        let path = self.requests.join(self.next.fetch_add(1, Relaxed).to_string());
        fs::create_dir(&path)?;
        let directory = open(&path).inspect_err(|_| {
            removed(&path);
        })?;
        let group = RequestCgroup { path, directory };
        if let Some(memory) = confinement.memory.filter(|_| self.limits.memory) {
            group.write("memory.max", &memory.to_string())?;
            // Without swap as well, and without survivors that wait for those that were killed. Neither is everywhere.
            let _ = group.write("memory.swap.max", "0");
            let _ = group.write("memory.oom.group", "1");
        }
        if let Some(pids) = confinement.pids.filter(|_| self.limits.pids) {
            group.write("pids.max", &pids.to_string())?;
        }
        if let Some(cpus) = confinement.cpus.filter(|_| self.limits.cpus) {
            group.write("cpu.max", &format!("{:.0} {CPU_PERIOD}", cpus * CPU_PERIOD))?;
        }
        Ok(group)
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The group of one request. It is not removed by being dropped.
#[derive(Debug)]
pub(super) struct RequestCgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl RequestCgroup {
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
    fn a_parent_is_read_as_it_is_written() {
        for (text, choice) in
            [("auto", CgroupParent::Own), ("off", CgroupParent::Off), ("/x", CgroupParent::At("/x".into()))]
        {
            assert_eq!(text.parse(), Ok(choice.clone()));
            assert_eq!(choice.to_string(), text);
        }
    }

    /// A directory that looks like the group of an instance in which these controllers are enabled.
    fn instance_with(controllers: &str) -> tempfile::TempDir {
        let instance = tempfile::tempdir().unwrap();
        fs::create_dir(instance.path().join("requests")).unwrap();
        fs::write(instance.path().join("requests/cgroup.subtree_control"), controllers).unwrap();
        instance
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them_and_only_where_there_are_some() {
        let asked = Confinement { memory: Some(1 << 20), cpus: Some(0.5), pids: Some(7), ..Confinement::default() };
        let instance = instance_with("cpu memory pids\n");
        let groups = Cgroups::of_instance(instance.path());
        assert_eq!(groups.limits(), Limits { memory: true, pids: true, cpus: true });
        let group = groups.group(&asked).unwrap();
        let written = |name: &str| fs::read_to_string(group.path.join(name)).unwrap();
        assert_eq!((written("memory.max"), written("memory.swap.max")), ("1048576".to_owned(), "0".to_owned()));
        assert_eq!((written("pids.max"), written("cpu.max")), ("7".to_owned(), "50000 100000".to_owned()));
        let instance = instance_with("");
        let group = Cgroups::of_instance(instance.path()).group(&asked).unwrap();
        assert_eq!(fs::read_dir(&group.path).unwrap().count(), 0, "nothing can be limited here");
        assert!(group.remove());
    }

    #[test]
    fn the_controllers_that_the_parent_has_are_enabled() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("cgroup.controllers"), "cpuset memory hugetlb").unwrap();
        enable_controllers_in(parent.path());
        assert_eq!(fs::read_to_string(parent.path().join("cgroup.subtree_control")).unwrap(), "+memory");
    }

    #[test]
    fn a_directory_that_is_no_group_is_refused_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let why = create(&CgroupParent::At(directory.path().into())).unwrap_err().to_string();
        assert!(why.contains("no control group of version 2"), "{why}");
        assert!(create(&CgroupParent::Off).is_err());
    }
}
