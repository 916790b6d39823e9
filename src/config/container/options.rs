//! The options of `docker run` and `podman run` that a server may have. Every other one is refused unless `allowUnsafe`
//! names it, and is then written as `--name=value`: what is not known here must not be taken for two arguments.

use super::mounts;

/// An option that is known here.
pub(in crate::config) struct Known {
    /// Its long name.
    pub name: &'static str,
    /// Its short name.
    letter: Option<char>,
    /// Whether it takes a value, from the next argument if there is no `=`.
    pub takes_value: bool,
    rule: Rule,
}

/// What is said of an option.
#[derive(Clone, Copy)]
enum Rule {
    /// A server may have it.
    Accepted,
    /// Why a server may not have it with this value, if it may not.
    Judged(fn(Option<&str>) -> Option<&'static str>),
    /// Why a server may not have it.
    Refused(&'static str),
    /// Only the bridge writes it.
    Own,
}

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Accepted,
    /// It is refused unless `allowUnsafe` names it.
    Refused(&'static str),
    /// It is refused in any case.
    Own,
}

const RIGHTS: &str = "this gives the container rights over the machine";
const SHARED: &str = "the container would share this with the machine or with another container";
const UNLIMITED: &str = "without a limit the container may take all that the machine has";
const UNPROTECTED: &str = "this takes a protection of the machine away";
const UNKNOWN: &str = "this option is not known here, so its effect cannot be judged";
const PORTS: &str = "a server that is asked on stdin needs no published port";

const fn flag(name: &'static str, letter: Option<char>, rule: Rule) -> Known {
    Known { name, letter, takes_value: false, rule }
}

const fn valued(name: &'static str, letter: Option<char>, rule: Rule) -> Known {
    Known { name, letter, takes_value: true, rule }
}

use Rule::{Accepted, Judged, Own, Refused};

/// Those of `run`. What is refused is here only so that it is explained, and read with its value.
pub(super) const RUN: &[Known] = &[
    flag("--interactive", Some('i'), Judged(|on| (!mounts::is_on(on)).then_some("the bridge talks to its stdin"))),
    flag("--rm", None, Judged(|on| (!mounts::is_on(on)).then_some("a container that is kept outlives its request"))),
    flag("--init", None, Judged(|on| (!mounts::is_on(on)).then_some("without it nothing reaps processes in it"))),
    flag("--read-only", None, Accepted),
    valued("--pull", None, Accepted),
    valued("--platform", None, Accepted),
    valued("--env", Some('e'), Accepted),
    valued("--env-file", None, Accepted),
    valued("--label", Some('l'), Accepted),
    valued("--workdir", Some('w'), Accepted),
    valued("--user", Some('u'), Accepted),
    valued("--entrypoint", None, Accepted),
    valued("--tmpfs", None, Accepted),
    valued("--ulimit", None, Accepted),
    valued("--shm-size", None, Accepted),
    valued("--cap-drop", None, Accepted),
    valued("--memory", Some('m'), Judged(|size| (!is_limit(size, 1.0)).then_some(UNLIMITED))),
    valued("--pids-limit", None, Judged(|count| (!is_limit(count, 1.0)).then_some(UNLIMITED))),
    valued("--cpus", None, Judged(|count| (!is_limit(count, f64::MIN_POSITIVE)).then_some(UNLIMITED))),
    valued("--network", None, Judged(|name| (!is_network(name.unwrap_or_default())).then_some(SHARED))),
    valued("--security-opt", None, Judged(|what| (!protects(what.unwrap_or_default())).then_some(UNPROTECTED))),
    valued("--volume", Some('v'), Judged(|mount| mounts::volume(mount.unwrap_or_default()))),
    valued("--mount", None, Judged(|mount| mounts::mount(mount.unwrap_or_default()))),
    flag("--privileged", None, Refused("a privileged container is root on this machine")),
    flag("--tty", Some('t'), Refused("a terminal changes the bytes of messages")),
    flag("--detach", Some('d'), Refused("a detached container answers nothing and outlives its request")),
    flag("--publish-all", Some('P'), Refused(PORTS)),
    valued("--publish", Some('p'), Refused(PORTS)),
    valued("--cap-add", None, Refused(RIGHTS)),
    valued("--device", None, Refused(RIGHTS)),
    valued("--gpus", None, Refused(RIGHTS)),
    valued("--restart", None, Refused("a container that is started again outlives its request")),
    valued("--log-driver", None, Refused("the engine would write every answer to disk")),
    valued("--pid", None, Refused(SHARED)),
    valued("--ipc", None, Refused(SHARED)),
    valued("--volumes-from", None, Refused(mounts::WRITTEN)),
    valued("--hostname", Some('h'), Refused(UNKNOWN)),
    valued("--name", None, Own),
    valued("--cidfile", None, Own),
    valued("--label-file", None, Own),
    valued("--stop-timeout", None, Own),
    flag("--replace", None, Own),
];

/// Those of the engine, which stand before the command and say which engine it is.
pub(super) const ENGINE: &[Known] = &[
    flag("--debug", Some('D'), Accepted),
    flag("--remote", Some('r'), Accepted),
    flag("--tls", None, Accepted),
    flag("--tlsverify", None, Accepted),
    valued("--config", None, Accepted),
    valued("--connection", None, Accepted),
    valued("--context", Some('c'), Accepted),
    valued("--host", Some('H'), Accepted),
    valued("--identity", None, Accepted),
    valued("--log-level", Some('l'), Accepted),
    valued("--tlscacert", None, Accepted),
    valued("--tlscert", None, Accepted),
    valued("--tlskey", None, Accepted),
    valued("--url", None, Accepted),
];

/// The option with this long name.
pub(super) fn long(options: &'static [Known], name: &str) -> Option<&'static Known> {
    let name = if name == "--net" { "--network" } else { name };
    options.iter().find(|option| option.name == name)
}

/// The option with this short name.
pub(super) fn short(options: &'static [Known], letter: char) -> Option<&'static Known> {
    options.iter().find(|option| option.letter == Some(letter))
}

/// The one name of an option of `run` that may be written in several ways.
pub(super) fn canonical(name: &str) -> &str {
    let mut letters = name.strip_prefix('-').unwrap_or_default().chars();
    let known = match (letters.next(), letters.next()) {
        (Some(letter), None) => short(RUN, letter),
        _ => long(RUN, name),
    };
    known.map_or(name, |known| known.name)
}

/// What becomes of an option that is known, with this value, or of one that is not.
pub(super) fn judge(known: Option<&Known>, value: Option<&str>) -> Verdict {
    match known.map(|known| (known.name, known.rule)) {
        Some(("--label", _)) if value.is_some_and(|label| label.starts_with("io.tollbridge.")) => Verdict::Own,
        Some((_, Accepted)) => Verdict::Accepted,
        Some((_, Own)) => Verdict::Own,
        Some((_, Refused(why))) => Verdict::Refused(why),
        Some((_, Judged(judge))) => judge(value).map_or(Verdict::Accepted, Verdict::Refused),
        None => Verdict::Refused(UNKNOWN),
    }
}

/// Whether this is `no-new-privileges`, on or off.
pub(super) fn is_of_privileges(security: &str) -> bool {
    security.split(['=', ':']).next() == Some("no-new-privileges")
}

/// What keeps the container smaller.
fn protects(security: &str) -> bool {
    matches!(security, "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" | "seccomp=builtin")
}

/// No network, the engine's own, or one that has been made and named.
fn is_network(name: &str) -> bool {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    is_name && !name.is_empty() && !matches!(name, "host" | "container" | "ns" | "pod")
}

/// A number, perhaps with a unit of memory, of at least `least` in bytes.
fn is_limit(value: Option<&str>, least: f64) -> bool {
    let value = value.unwrap_or_default();
    let (number, unit) = value.split_at(value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len()));
    let power = "kmgtp".find(unit.to_ascii_lowercase().chars().next().unwrap_or('b')).map_or(0, |at| at + 1);
    let factor = (0..power).fold(1.0, |factor, _| factor * 1024.0);
    number.trim().parse::<f64>().is_ok_and(|number| number * factor >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(name: &str, value: Option<&str>) -> bool {
        matches!(judge(long(RUN, name), value), Verdict::Refused(_))
    }

    #[test]
    fn what_is_not_listed_is_refused_and_so_is_a_value_that_gives_something_away() {
        for (name, values) in [
            ("--annotation", &["run.oci.keep_original_groups=1"][..]),
            ("--cpus", &["0", "0.0", "-1", "NaN"]),
            ("--group-add", &["keep-groups"]),
            ("--init", &["false", "0"]),
            ("--init-path", &["/host/file"]),
            ("--interactive", &["false"]),
            ("--link", &["other"]),
            ("--memory", &["0", "0g", "-1", "0.5", "0.0001k", "", "x"]),
            ("--mount", &["type=bind,src=/srv,dst=/srv"]),
            ("--net", &["host"]),
            ("--network", &["host", "name=host", "alias=x,Name=host", "\"name=host\"", "container:x", "ns:/x", ""]),
            ("--network", &["slirp4netns:allow_host_loopback=true", "pasta:-T,auto"]),
            ("--pids-limit", &["0", "-1", "", "x"]),
            ("--publish", &["80:80", "0.0.0.0:80:80"]),
            ("--rm", &["false"]),
            ("--runtime", &["/opt/x"]),
            ("--security-opt", &["seccomp=unconfined", "seccomp=profile.json", "apparmor=unconfined", "label=disable"]),
            ("--security-opt", &["no-new-privileges=0", "no-new-privileges:false", "unmask=ALL", ""]),
            ("--userns", &["host", "keep-id"]),
            ("--volume", &["/srv:/srv"]),
        ] {
            for value in values {
                assert!(is_refused(name, Some(value)), "{name} {value}");
            }
        }
        assert_eq!(judge(long(RUN, "--label"), Some("io.tollbridge.instance=x")), Verdict::Own);
    }

    #[test]
    fn what_a_server_needs_is_accepted() {
        for (name, value) in [
            ("--init", Some("true")),
            ("--interactive", None),
            ("--label", Some("team=a")),
            ("--memory", Some("0.5g")),
            ("--memory", Some("6291456")),
            ("--cpus", Some("0.5")),
            ("--pids-limit", Some("64")),
            ("--network", Some("none")),
            ("--network", Some("my_backend-1.x")),
            ("--pull", Some("always")),
            ("--security-opt", Some("no-new-privileges:true")),
            ("--security-opt", Some("seccomp=builtin")),
            ("--volume", Some("/srv:/srv:ro")),
            ("--mount", Some("type=bind,src=/srv,dst=/srv,ro")),
        ] {
            assert_eq!(judge(long(RUN, name), value), Verdict::Accepted, "{name} {value:?}");
        }
    }
}
