//! Which mounts a container may have: what is the machine's own, and what another request could read, is refused. What
//! is written in a way that is not known here is refused, too.

use std::path::{Component, Path, PathBuf};

/// The container could see what is the machine's.
pub(super) const HOST: &str = "this gives the machine's own files to the container";
/// The container could command the engine.
pub(super) const COMMANDS: &str = "who commands the engine is root on this machine";
/// Containers of different users would share this.
pub(super) const WRITTEN: &str = "what one user's server writes, another's would read";
/// It does more than to mount, or it cannot be told what.
const UNKNOWN: &str = "only plain read-only mounts are known here, and this is another";
/// Where it is depends on where the bridge is started.
const RELATIVE: &str = "which directory this is depends on where the bridge is started: write the whole path";

/// Sockets by which an engine is commanded.
const ENGINE_SOCKETS: &[&str] =
    &["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock", "buildkitd.sock"];

/// What is the machine's own, with everything in it, and so are the directories that it is in: devices, the kernel's
/// view, sockets, the engine's own files, keys and passwords.
const CLOSED: &str = "/boot /dev /etc/containers /etc/docker /etc/gshadow /etc/kubernetes /etc/shadow /etc/ssh \
    /etc/ssl/private /etc/sudoers /etc/sudoers.d /proc /root /run /sys /var/lib/containerd /var/lib/containers \
    /var/lib/docker /var/lib/kubelet /var/run";

/// What is the machine's own as a whole; what is in it may be mounted.
const WHOLE: &str = "/bin /home /lib /lib64 /sbin /tmp /usr /var/log /var/tmp";

/// Whether an option or a field that needs no value is on.
pub(super) fn is_on(value: Option<&str>) -> bool {
    !matches!(value, Some("false" | "0" | "f" | "F" | "False" | "FALSE"))
}

/// What a volume written as `source:target[:options]` gives away; one without a source is new and its container's own.
pub(super) fn volume(value: &str) -> Option<&'static str> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, options) = match parts[..] {
        [_new] => return None,
        [source, _target] => (source, ""),
        [source, _target, options] => (source, options),
        _ => return Some(UNKNOWN),
    };
    let mut options = options.split(',').filter(|option| !option.is_empty());
    let is_read_only = options.clone().any(|option| option == "ro");
    // None of these makes it writable, or changes the files.
    let is_harmless = options.all(|option| {
        matches!(
            option,
            "ro" | "z"
                | "Z"
                | "bind"
                | "cached"
                | "consistent"
                | "delegated"
                | "nocopy"
                | "nodev"
                | "noexec"
                | "nosuid"
                | "private"
                | "rbind"
                | "rprivate"
                | "rslave"
                | "slave"
        )
    });
    shared(source).or((!is_read_only).then_some(WRITTEN)).or((!is_harmless).then_some(UNKNOWN))
}

/// What a mount written as `type=bind,source=…,target=…[,readonly]` gives away.
pub(super) fn mount(value: &str) -> Option<&'static str> {
    let mut mount = Mount { kind: "volume", source: None, is_read_only: false };
    let mut seen = Vec::new();
    for field in value.split(',') {
        let (name, value) = field.split_once('=').map_or((field, None), |(name, value)| (name, Some(value)));
        let name = canonical(name);
        if seen.contains(&name) || !mount.takes(&name, value) {
            return Some(UNKNOWN);
        }
        seen.push(name);
    }
    let of_files = || mount.source.and_then(shared).or((!mount.is_read_only).then_some(WRITTEN));
    match mount.kind {
        // What they hold is the container's own.
        "tmpfs" | "ramfs" | "devpts" | "image" => None,
        "volume" if mount.source.is_none() => None,
        "bind" | "volume" => of_files(),
        _ => Some(UNKNOWN),
    }
}

/// What is told of a mount, as far as it matters.
struct Mount<'a> {
    kind: &'a str,
    source: Option<&'a str>,
    is_read_only: bool,
}

impl<'a> Mount<'a> {
    /// Takes a field up, and tells whether it is one that can be judged.
    fn takes(&mut self, name: &str, value: Option<&'a str>) -> bool {
        let text = value.unwrap_or_default();
        // In quotes the engine reads other fields than we do here.
        let is_plain = !text.contains(|c: char| c == '"' || c.is_control());
        is_plain
            && match name {
                "type" => {
                    self.kind = text;
                    true
                }
                "source" => {
                    self.source = Some(text);
                    true
                }
                "readonly" => {
                    self.is_read_only = matches!(value, None | Some("true" | "1" | "t" | "T" | "True" | "TRUE"));
                    self.is_read_only || !is_on(value)
                }
                "target" | "consistency" | "subpath" | "tmpfs-mode" | "tmpfs-size" | "volume-label"
                | "volume-nocopy" | "volume-subpath" => true,
                "bind-propagation" => matches!(text, "private" | "rprivate" | "slave" | "rslave"),
                "bind-recursive" => matches!(text, "disabled" | "enabled" | "readonly"),
                _ => false,
            }
    }
}

/// The one name of a field.
fn canonical(name: &str) -> String {
    match &*name.to_ascii_lowercase() {
        "src" => "source".to_owned(),
        "dst" | "destination" => "target".to_owned(),
        "ro" => "readonly".to_owned(),
        name => name.to_owned(),
    }
}

/// What a mount of this source gives away, however it is mounted.
fn shared(source: &str) -> Option<&'static str> {
    if !source.starts_with('/') {
        // The name of a volume may hold a dot, but does not start with one.
        return (source.starts_with(['.', '~']) || source.contains('/')).then_some(RELATIVE);
    }
    let written = normalised(source);
    let real = std::fs::canonicalize(&written).ok();
    of_host(&written).or_else(|| real.as_deref().and_then(of_host))
}

fn of_host(path: &Path) -> Option<&'static str> {
    if path.file_name().is_some_and(|name| ENGINE_SOCKETS.iter().any(|socket| name == *socket)) {
        return Some(COMMANDS);
    }
    let contains = |closed: &str| path.starts_with(closed) || Path::new(closed).starts_with(path);
    let closed = || CLOSED.split_ascii_whitespace().any(contains);
    let whole = || WHOLE.split_ascii_whitespace().any(|whole| path == Path::new(whole));
    (closed() || whole() || is_of_home(path)).then_some(HOST)
}

/// Whether this is somebody's home, or what is hidden in it: keys, settings, the files of a rootless engine.
fn is_of_home(path: &Path) -> bool {
    let Ok(within) = path.strip_prefix("/home") else { return false };
    let mut within = within.components().skip(1);
    within.next().is_none_or(|first| first.as_os_str().to_string_lossy().starts_with('.'))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_can_be_written_or_cannot_be_judged_is_refused() {
        for (value, why) in [
            ("/srv:/srv", WRITTEN),
            ("cache:/cache:rw", WRITTEN),
            ("/srv:/srv:rw,Z", WRITTEN),
            ("/srv:/srv:ro,U", UNKNOWN),
            ("/srv:/srv:ro,rshared", UNKNOWN),
            ("a:b:c:ro", UNKNOWN),
            ("./x:/x:ro", RELATIVE),
            ("..:/x:ro", RELATIVE),
        ] {
            assert_eq!(volume(value), Some(why), "{value}");
        }
        for (value, why) in [
            ("type=bind,src=/srv,dst=/srv", WRITTEN),
            ("type=volume,source=v,target=/v,readonly=false", WRITTEN),
            ("type=bind,src=/srv,dst=/srv,readonly=F", WRITTEN),
            ("type=bind,src=/srv,dst=/srv,readonly=maybe", UNKNOWN),
            ("type=bind,src=/srv,dst=/srv,readonly,ReadOnly=false", UNKNOWN),
            ("type=bind,readonly,ro=false,src=/srv,dst=/srv", UNKNOWN),
            ("type=volume,dst=/x,readonly,volume-opt=device=/", UNKNOWN),
            ("type=bind,\"src=/\",dst=/x,readonly", UNKNOWN),
            ("type=bind,src=\"/\",dst=/x,readonly", UNKNOWN),
            ("type=bind,src=/srv,dst=/x,ro,bind-propagation=rshared", UNKNOWN),
            ("type=bind,src=/srv,dst=/x,ro,bind-recursive=writable", UNKNOWN),
            ("type=glob,src=/*,dst=/x,ro", UNKNOWN),
            ("type=bind,Source=/var/run/docker.sock,dst=/x,ro", COMMANDS),
            ("type=bind,readonly,source=//run/,target=/x", HOST),
            ("type=bind,src=.,dst=/x,ro", RELATIVE),
        ] {
            assert_eq!(mount(value), Some(why), "{value}");
        }
    }

    #[test]
    fn what_is_the_machines_own_is_refused_and_so_is_what_contains_it() {
        for source in [
            "/",
            "/.//..",
            "/boot/grub",
            "/dev/shm",
            "/etc",
            "/etc/shadow",
            "/etc/ssl",
            "/home",
            "/home/alice",
            "/home/alice/.ssh",
            "/home/alice/.local/share/containers",
            "/proc/1/root",
            "/root/.docker",
            "/run",
            "/run/podman",
            "/run/containerd",
            "/run/user/1000",
            "/srv/../..",
            "/srv/../run/x",
            "/sys/fs/cgroup",
            "/tmp",
            "/usr",
            "/var",
            "/var/lib",
            "/var/lib/containers/storage",
            "/var/lib/docker",
            "/var/run/podman",
        ] {
            assert_eq!(volume(&format!("{source}:/x:ro")), Some(HOST), "{source}");
        }
        for socket in ["/var/run/docker.sock", "/srv/docker.sock", "/run/podman/podman.sock"] {
            assert_eq!(volume(&format!("{socket}:/x:ro")), Some(COMMANDS), "{socket}");
        }
    }

    #[test]
    fn what_stands_behind_a_link_is_judged_too() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert_eq!(volume(&format!("{}:/x:ro", link.display())), Some(HOST));
    }

    #[test]
    fn what_a_server_needs_may_be_mounted() {
        for value in [
            "/cache",
            "/srv:/srv:ro",
            "/srv/data:/data:ro,z",
            "data:/data:ro,z",
            "my.data:/data:ro",
            "/home/alice/project:/project:ro",
            "/etc/localtime:/etc/localtime:ro",
            "/etc/ssl/certs:/etc/ssl/certs:ro",
            "/usr/share/zoneinfo:/usr/share/zoneinfo:ro",
            "/var/lib/notes:/notes:ro",
        ] {
            assert_eq!(volume(value), None, "{value}");
        }
        for value in [
            "type=tmpfs,target=/tmp,tmpfs-size=1m",
            "type=image,source=mcp/data,target=/data",
            "type=volume,target=/scratch",
            "type=bind,src=/srv,dst=/srv,ro",
            "type=bind,Source=/srv,Destination=/srv,READONLY=TRUE,bind-propagation=rprivate",
        ] {
            assert_eq!(mount(value), None, "{value}");
        }
    }
}
