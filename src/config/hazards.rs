//! Options of a container engine that give a container more than an MCP server needs: refused unless `allowUnsafe`
//! names them.

use std::path::{Component, Path, PathBuf};

/// Options that `allowUnsafe` may name.
pub(super) const NAMES: &[&str] = &[
    "--cap-add",
    "--cgroup-parent",
    "--cgroupns",
    "--detach",
    "--device",
    "--device-cgroup-rule",
    "--ipc",
    "--log-driver",
    "--mount",
    "--network",
    "--oom-kill-disable",
    "--pid",
    "--privileged",
    "--pull",
    "--restart",
    "--rm",
    "--security-opt",
    "--tty",
    "--use-api-socket",
    "--userns",
    "--uts",
    "--volume",
    "--volumes-from",
];

/// Sockets by which an engine is commanded.
const ENGINE_SOCKETS: &[&str] = &["docker.sock", "podman.sock", "containerd.sock", "crio.sock"];

/// Directories that are, or lead to, the host itself.
const HOST_DIRECTORIES: &[&str] =
    &["/", "/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/usr", "/var", "/var/lib", "/var/run"];

/// What an option with this long name and this value gives away, as a sentence; `None` if nothing.
pub(super) fn hazard(name: &str, value: Option<&str>) -> Option<&'static str> {
    let value = value.unwrap_or_default();
    let is_on = !matches!(value, "false" | "0" | "f" | "F" | "False" | "FALSE");
    match name {
        "--privileged" if is_on => Some("a privileged container is root on this machine"),
        "--use-api-socket" if is_on => Some("who commands the engine is root on this machine"),
        "--tty" if is_on => Some("a terminal changes the bytes of messages"),
        "--detach" if is_on => Some("a detached container says nothing and is never missed"),
        "--oom-kill-disable" if is_on => Some("without it the container may take all memory of the machine"),
        "--rm" if !is_on => Some("a container that is kept outlives its request"),
        "--restart" if value != "no" => Some("a container that is started again outlives its request"),
        "--pull" if value != "never" => Some("an image is pulled ahead, by `tollbridge pull`, never during a request"),
        "--log-driver" if value != "none" => Some("the engine would write every answer to disk"),
        "--cap-add" | "--device" | "--device-cgroup-rule" | "--cgroup-parent" => {
            Some("this gives the container rights over the machine")
        }
        "--network" | "--pid" | "--ipc" | "--uts" | "--userns" | "--cgroupns" => namespace(value),
        "--security-opt" => protection(value),
        "--volumes-from" => Some("what one user's server writes, another's would read"),
        "--volume" => volume(value),
        "--mount" => mount(value),
        _ => None,
    }
}

/// A namespace that is not the container's own.
fn namespace(value: &str) -> Option<&'static str> {
    let shared = value == "host" || value.starts_with("container:") || value.starts_with("ns:");
    shared.then_some("the container would share this with the machine or with another container")
}

/// A protection that is switched off.
fn protection(value: &str) -> Option<&'static str> {
    let off = ["unconfined", "=disable", ":disable", "no-new-privileges=false", "no-new-privileges:false", "unmask"];
    off.iter().any(|off| value.contains(off)).then_some("this takes a protection of the machine away")
}

/// `source:target[:options]`; a volume without a source is new and belongs to its container.
fn volume(value: &str) -> Option<&'static str> {
    let mut parts = value.split(':');
    let (source, _target) = (parts.next()?, parts.next()?);
    let read_only = parts.next().is_some_and(|options| options.split(',').any(|option| option == "ro"));
    shared(source, read_only)
}

/// `type=bind,source=…,target=…[,readonly]`.
fn mount(value: &str) -> Option<&'static str> {
    let fields = || value.split(',').map(|field| field.split_once('=').unwrap_or((field, "true")));
    let field = |names: &[&str]| fields().find(|(name, _)| names.contains(name)).map(|(_, value)| value);
    let source = field(&["source", "src"])?;
    let read_only = field(&["readonly", "ro"]).is_some_and(|value| !matches!(value, "false" | "0"));
    shared(source, read_only)
}

/// What a mount of this source gives away.
fn shared(source: &str, read_only: bool) -> Option<&'static str> {
    let source = normalised(source);
    let is_socket = source.file_name().is_some_and(|name| ENGINE_SOCKETS.iter().any(|socket| name == *socket));
    if is_socket {
        Some("who commands the engine is root on this machine")
    } else if HOST_DIRECTORIES.iter().any(|directory| source == Path::new(directory)) {
        Some("this gives the machine's own files to the container")
    } else if !read_only {
        Some("what one user's server writes, another's would read")
    } else {
        None
    }
}

/// The path without `.`, `..` and doubled slashes.
fn normalised(source: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(source).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
    }
    path
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
        for (name, value) in [
            ("--privileged", ""),
            ("--tty", "true"),
            ("--rm", "false"),
            ("--restart", "always"),
            ("--pull", "always"),
            ("--network", "host"),
            ("--network", "container:x"),
            ("--pid", "host"),
            ("--cap-add", "SYS_ADMIN"),
            ("--security-opt", "seccomp=unconfined"),
            ("--volume", "/srv:/srv"),
            ("--volume", "cache:/cache:rw"),
            ("--volume", "/:/host:ro"),
            ("--volume", "/srv/../..:/host:ro"),
            ("--volume", "/var/run/docker.sock:/s:ro"),
            ("--mount", "type=bind,src=/srv,dst=/srv"),
            ("--mount", "type=volume,source=v,target=/v,readonly=false"),
            ("--mount", "type=bind,readonly,source=//run/,target=/x"),
        ] {
            assert!(hazard(name, Some(value)).is_some(), "{name} {value}");
            assert!(NAMES.contains(&name), "{name} can be allowed");
        }
    }

    #[test]
    fn what_a_server_needs_is_none() {
        for (name, value) in [
            ("--privileged", "false"),
            ("--rm", "true"),
            ("--restart", "no"),
            ("--pull", "never"),
            ("--network", "none"),
            ("--network", "backend"),
            ("--security-opt", "no-new-privileges"),
            ("--volume", "/cache"),
            ("--volume", "/srv:/srv:ro"),
            ("--volume", "data:/data:ro,z"),
            ("--mount", "type=tmpfs,target=/tmp"),
            ("--mount", "type=bind,src=/srv,dst=/srv,ro"),
            ("--publish", "80:80"),
        ] {
            assert_eq!(hazard(name, Some(value)), None, "{name} {value}");
        }
    }
}
