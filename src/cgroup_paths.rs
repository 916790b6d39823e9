//! The control groups that this process is in, as directories of this host or container.
//! Source: `cgroups(7)`, `proc_pid_mountinfo(5)`.

use std::fs;
use std::path::{Path, PathBuf};

/// The directories of the control group that this process is in and of every one above it that can be seen from here,
/// its own first; none if there is no such hierarchy. `controller` names one of version 1, and "" means version 2.
#[must_use]
pub fn own_cgroups(controller: &str) -> Vec<PathBuf> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    cgroups_in(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), controller).unwrap_or_default()
}

fn cgroups_in(mounts: &str, memberships: &str, controller: &str) -> Option<Vec<PathBuf>> {
    let named = |list: &str| list.split(',').any(|name| name == controller);
    let path = memberships.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        named(controllers).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (fields, file_system) = line.split_once(" - ")?;
        let [_, _, _, root, at, ..] = *fields.split(' ').collect::<Vec<_>>() else { return None };
        let [kind, _, options] = *file_system.split(' ').collect::<Vec<_>>() else { return None };
        let is_it = if controller.is_empty() { kind == "cgroup2" } else { kind == "cgroup" && named(options) };
        // A mount shows only what is below its root.
        let below = Path::new(path).strip_prefix(root).ok().filter(|_| is_it)?;
        let own = Path::new(at).join(below);
        let groups = own.ancestors().take_while(|group| group.starts_with(at));
        Some(groups.map(|group| group.components().collect()).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(mounts: &str, memberships: &str, controller: &str) -> Vec<String> {
        let groups = cgroups_in(mounts, memberships, controller).unwrap_or_default();
        groups.iter().map(|group| group.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_service_is_below_its_slice() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let own = "0::/system.slice/x.service/bridge\n";
        let below = "/sys/fs/cgroup/system.slice";
        let expected = [format!("{below}/x.service/bridge"), format!("{below}/x.service"), below.into()];
        assert_eq!(groups(mounts, own, "")[..3], expected);
        assert_eq!(groups(mounts, own, "")[3..], ["/sys/fs/cgroup"]);
        assert!(groups(mounts, own, "memory").is_empty());
    }

    #[test]
    fn version_1_and_2_beside_each_other_have_mounts_of_their_own() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let own = "8:pids:/\n4:cpu,memory:/a/b\n1:name=systemd:/\n0::/u\n";
        assert_eq!(groups(mounts, own, "memory"), ["a/b", "a", ""].map(|path| dir("/sys/fs/cgroup/memory", path)));
        assert_eq!(groups(mounts, own, "pids"), ["/sys/fs/cgroup/pids"]);
        assert_eq!(groups(mounts, own, ""), ["/sys/fs/cgroup/unified/u", "/sys/fs/cgroup/unified"]);
    }

    fn dir(at: &str, path: &str) -> String {
        format!("{at}/{path}").trim_end_matches('/').to_owned()
    }

    #[test]
    fn a_container_without_a_namespace_sees_its_own_group_as_the_root() {
        let mounts = "35 31 0:32 /docker/12ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        assert_eq!(groups(mounts, "4:memory:/docker/12ab", "memory"), ["/sys/fs/cgroup/memory"]);
        assert!(groups(mounts, "4:memory:/elsewhere", "memory").is_empty(), "it cannot be seen from here");
    }
}
