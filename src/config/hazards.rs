//! Options of a container engine that give a container more than an MCP server needs, or let it outlive its request:
//! refused unless `allowUnsafe` names them.

use super::mounts;

/// Options that `allowUnsafe` may name.
pub(super) const NAMES: &[&str] = &[
    "--cap-add",
    "--cgroup-conf",
    "--cgroup-parent",
    "--cgroupns",
    "--cgroups",
    "--conmon-pidfile",
    "--cpus",
    "--detach",
    "--detach-keys",
    "--device",
    "--device-cgroup-rule",
    "--env-host",
    "--gpus",
    "--group-add",
    "--health-on-failure",
    "--init",
    "--ipc",
    "--log-driver",
    "--memory",
    "--memory-swap",
    "--mount",
    "--network",
    "--oom-kill-disable",
    "--oom-score-adj",
    "--pid",
    "--pidfile",
    "--pids-limit",
    "--pod",
    "--pod-id-file",
    "--privileged",
    "--pull",
    "--requires",
    "--restart",
    "--rm",
    "--rmi",
    "--rootfs",
    "--runtime",
    "--seccomp-policy",
    "--security-opt",
    "--tty",
    "--use-api-socket",
    "--userns",
    "--uts",
    "--volume",
    "--volumes-from",
];

/// A container that shares something with others.
const SHARED: &str = "the container would share this with the machine or with another container";
/// A container that may do something to the machine.
const RIGHTS: &str = "this gives the container rights over the machine";
/// A container without one of the engine's protections.
const UNPROTECTED: &str = "this takes a protection of the machine away";

/// What an option with this long name and this value gives away, as a sentence; `None` if nothing.
pub(super) fn hazard(name: &str, value: Option<&str>) -> Option<&'static str> {
    let is_on = is_on(value);
    let value = value.unwrap_or_default();
    match name {
        "--cap-add" | "--cgroup-conf" | "--cgroup-parent" | "--device" | "--device-cgroup-rule" | "--gpus" => {
            Some(RIGHTS)
        }
        "--cgroupns" | "--ipc" | "--network" | "--pid" | "--userns" | "--uts" => is_shared(value).then_some(SHARED),
        "--pod" | "--pod-id-file" => Some(SHARED),
        "--runtime" => Some(UNPROTECTED),
        "--seccomp-policy" => (value != "default").then_some(UNPROTECTED),
        "--security-opt" => (!is_protection(value)).then_some(UNPROTECTED),
        "--volume" => mounts::volume(value),
        "--mount" => mounts::mount(value),
        "--volumes-from" => Some(mounts::WRITTEN),
        "--cpus" | "--memory" | "--memory-swap" | "--oom-score-adj" | "--pids-limit" => limit(name, value),
        _ => flag(name, is_on).or_else(|| life(name, value)),
    }
}

/// Whether an option that needs no value is on.
pub(super) fn is_on(value: Option<&str>) -> bool {
    !matches!(value, Some("false" | "0" | "f" | "F" | "False" | "FALSE"))
}

/// Whether this is `no-new-privileges`, on or off.
pub(super) fn is_of_privileges(security: &str) -> bool {
    security.split(['=', ':']).next() == Some("no-new-privileges")
}

/// What is given away by an option that is on or off.
fn flag(name: &str, is_on: bool) -> Option<&'static str> {
    match (name, is_on) {
        ("--detach", true) => Some("a detached container says nothing and is never missed"),
        ("--env-host", true) => Some("this gives the variables of the engine's client to the container"),
        ("--init", false) => Some("without it nothing in the container hands on signals and reaps processes"),
        ("--oom-kill-disable", true) => Some("without it the container may take all memory of the machine"),
        ("--privileged", true) => Some("a privileged container is root on this machine"),
        ("--rm", false) => Some("a container that is kept outlives its request"),
        ("--rmi", true) => Some("without the image no other request can be served"),
        ("--rootfs", true) => Some(mounts::HOST),
        ("--tty", true) => Some("a terminal changes the bytes of messages"),
        ("--use-api-socket", true) => Some(mounts::COMMANDS),
        _ => None,
    }
}

/// What lets something outlive the request, or makes the bridge lose it.
fn life(name: &str, value: &str) -> Option<&'static str> {
    match name {
        "--cgroups" if value != "enabled" => Some("without control groups nothing limits the container"),
        "--conmon-pidfile" | "--pidfile" => Some("this writes a file that outlives the request"),
        "--detach-keys" if !value.is_empty() => Some("these bytes in a message would detach its container"),
        "--group-add" if value.split(',').any(|group| group.trim() == "keep-groups") => Some(RIGHTS),
        "--health-on-failure" if !matches!(value, "none" | "kill" | "stop") => {
            Some("a container that is started again outlives its request")
        }
        "--log-driver" if value != "none" => Some("the engine would write every answer to disk"),
        "--pull" if value != "never" => Some("an image is pulled ahead, by `tollbridge pull`, never during a request"),
        "--requires" => Some("this starts containers that outlive the request"),
        "--restart" if value != "no" => Some("a container that is started again outlives its request"),
        _ => None,
    }
}

/// A namespace that is not the container's own, or a network from which the machine's own is reached.
fn is_shared(value: &str) -> bool {
    let mut words = value.split([',', ':', '=', '"']).map(|word| word.trim().to_ascii_lowercase());
    let is_open = |word: &str| matches!(word, "host" | "container" | "ns" | "pod" | "allow_host_loopback");
    words.any(|word| is_open(&word)) || value.starts_with("pasta:")
}

/// What keeps the container smaller, whatever it is set to.
fn is_protection(value: &str) -> bool {
    match value.split_once(['=', ':']) {
        None => value == "no-new-privileges",
        Some(("no-new-privileges", value)) => matches!(value, "true" | "1" | "t" | "T" | "True" | "TRUE"),
        Some(("label", value)) => value.starts_with("level:"),
        Some(("seccomp", value)) => value == "builtin",
        Some((name, _)) => name == "mask",
    }
}

/// A limit that is none.
fn limit(name: &str, value: &str) -> Option<&'static str> {
    let (number, unit) = value.split_at(value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len()));
    let number = number.trim().parse::<f64>().ok();
    let is_some = number.is_some_and(|number| match name {
        "--memory" => number * unit_of(unit) >= 1.0,
        "--memory-swap" | "--oom-score-adj" => number >= 0.0,
        "--pids-limit" => number >= 1.0,
        _ => number > 0.0,
    });
    let why = if name == "--oom-score-adj" {
        "the machine would end others before the container that takes its memory"
    } else {
        "without a limit the container may take all that the machine has"
    };
    (!is_some).then_some(why)
}

/// How many bytes a unit of memory is.
fn unit_of(unit: &str) -> f64 {
    let power = match unit.chars().next().map(|letter| letter.to_ascii_lowercase()) {
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        _ => 0,
    };
    1024_f64.powi(power)
}

/// Whether the engine's own client reads this variable: what stands in it decides what the client does.
pub(super) fn is_read_by_client(name: &str) -> bool {
    const PREFIXES: [&str; 8] = ["DOCKER_", "CONTAINERS_", "PODMAN_", "LD_", "XDG_", "SSH_", "SSL_", "STORAGE_"];
    const NAMES: [&str; 13] = [
        "ALL_PROXY",
        "CONTAINER_CONNECTION",
        "CONTAINER_HOST",
        "CONTAINER_PASSPHRASE",
        "CONTAINER_SSHKEY",
        "DBUS_SESSION_BUS_ADDRESS",
        "HOME",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NOTIFY_SOCKET",
        "NO_PROXY",
        "PATH",
        "TMPDIR",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_the_host_or_another_user_is_a_hazard() {
        for (name, values) in [
            ("--cap-add", &["SYS_ADMIN"][..]),
            ("--cgroup-conf", &["memory.max=max"]),
            ("--cgroup-parent", &["/"]),
            ("--cgroupns", &["host"]),
            ("--device", &["/dev/sda"]),
            ("--device-cgroup-rule", &["a *:* rwm"]),
            ("--gpus", &["all"]),
            ("--group-add", &["keep-groups", "audio,keep-groups"]),
            ("--ipc", &["host", "container:x"]),
            ("--network", &["host", "name=host", "alias=x,Name=host", "\"name=host\"", "container:x", "ns:/x"]),
            ("--network", &["slirp4netns:allow_host_loopback=true", "pasta:-T,auto"]),
            ("--pid", &["host", "container:x"]),
            ("--pod", &["x", "new:x"]),
            ("--pod-id-file", &["x"]),
            ("--privileged", &["", "true", "1"]),
            ("--rootfs", &["", "true"]),
            ("--runtime", &["runc"]),
            ("--seccomp-policy", &["image"]),
            ("--security-opt", &["seccomp=unconfined", "seccomp=profile.json", "apparmor=unconfined", "label=disable"]),
            ("--security-opt", &["no-new-privileges=0", "no-new-privileges:false", "label=type:spc_t", "unmask=ALL"]),
            ("--security-opt", &["systempaths=unconfined", "writable-cgroups=true", "No-New-Privileges", ""]),
            ("--use-api-socket", &[""]),
            ("--userns", &["host"]),
            ("--uts", &["host"]),
            ("--volume", &["/srv:/srv"]),
            ("--volumes-from", &["x"]),
            ("--mount", &["type=bind,src=/srv,dst=/srv"]),
        ] {
            every(name, values);
        }
    }

    #[test]
    fn what_outlives_the_request_or_has_no_limit_is_a_hazard() {
        for (name, values) in [
            ("--cgroups", &["disabled", "no-conmon", "split"][..]),
            ("--conmon-pidfile", &["/x"]),
            ("--cpus", &["0", "0.0", "-1"]),
            ("--detach", &["", "true"]),
            ("--detach-keys", &["a"]),
            ("--env-host", &["", "true"]),
            ("--health-on-failure", &["restart"]),
            ("--init", &["false", "0"]),
            ("--log-driver", &["json-file"]),
            ("--memory", &["0", "0g", "-1", "0.5", "0.0001k", "", "x"]),
            ("--memory-swap", &["-1"]),
            ("--oom-kill-disable", &[""]),
            ("--oom-score-adj", &["-500"]),
            ("--pidfile", &["/x"]),
            ("--pids-limit", &["0", "-1", "", "x"]),
            ("--pull", &["always", "missing"]),
            ("--requires", &["x"]),
            ("--restart", &["always"]),
            ("--rm", &["false"]),
            ("--rmi", &[""]),
            ("--tty", &["", "true"]),
        ] {
            every(name, values);
        }
    }

    fn every(name: &str, values: &[&str]) {
        assert!(NAMES.contains(&name), "{name} can be allowed");
        for value in values {
            assert!(hazard(name, Some(value)).is_some(), "{name} {value}");
        }
    }

    #[test]
    fn what_a_server_needs_is_none() {
        for (name, value) in [
            ("--privileged", "false"),
            ("--tty", "false"),
            ("--rm", "true"),
            ("--init", "true"),
            ("--restart", "no"),
            ("--pull", "never"),
            ("--network", "none"),
            ("--network", "backend"),
            ("--network", "name=backend,alias=hosts"),
            ("--userns", "keep-id:uid=1"),
            ("--security-opt", "no-new-privileges"),
            ("--security-opt", "no-new-privileges=true"),
            ("--security-opt", "label=level:s0:c1"),
            ("--memory", "0.5g"),
            ("--memory", "6291456"),
            ("--memory-swap", "2GB"),
            ("--pids-limit", "64"),
            ("--cpus", "0.5"),
            ("--volume", "/srv:/srv:ro"),
            ("--mount", "type=bind,src=/srv,dst=/srv,ro"),
            ("--publish", "80:80"),
        ] {
            assert_eq!(hazard(name, Some(value)), None, "{name} {value}");
        }
    }
}
