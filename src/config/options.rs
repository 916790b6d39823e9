//! The options of `docker` and `podman`, and which of them take a value: what is not here is not guessed at, since an
//! option that is wrongly taken to have a value hides the one behind it.

/// The options of one command.
pub(super) struct Syntax {
    /// Those that take no value, unless it is written with `=`.
    flags: &'static [&'static str],
    /// Those that take one, from the next argument if there is no `=`.
    valued: &'static [&'static str],
    /// The long names of short ones.
    short: &'static [(char, &'static str)],
}

/// Those of `run`.
pub(super) static RUN: Syntax = Syntax { flags: RUN_FLAGS, valued: RUN_VALUED, short: RUN_SHORT };

/// Those of the engine, which stand before the command.
pub(super) static GLOBAL: Syntax = Syntax { flags: GLOBAL_FLAGS, valued: GLOBAL_VALUED, short: GLOBAL_SHORT };

/// Names that are one option.
const SYNONYMS: &[(&str, &str)] =
    &[("--net", "--network"), ("--net-alias", "--network-alias"), ("--dns-opt", "--dns-option")];

impl Syntax {
    /// Whether the option with this long name takes a value; `None` if there is no such option.
    pub(super) fn takes_value(&self, name: &str) -> Option<bool> {
        let is_flag = self.flags.contains(&name);
        (is_flag || self.valued.contains(&name)).then_some(!is_flag)
    }

    /// The long name of a short option.
    pub(super) fn long(&self, letter: char) -> Option<&'static str> {
        self.short.iter().find(|(short, _)| *short == letter).map(|(_, long)| *long)
    }

    /// The one name of an option that may be written in several ways.
    pub(super) fn canonical<'a>(&self, name: &'a str) -> &'a str {
        let mut letters = name.chars().skip(1);
        if let (Some(letter), None) = (letters.next(), letters.next()) {
            return self.long(letter).unwrap_or(name);
        }
        SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name)
    }
}

const RUN_FLAGS: &[&str] = &[
    "--detach",
    "--disable-content-trust",
    "--env-host",
    "--help",
    "--http-proxy",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--no-hostname",
    "--no-hosts",
    "--oom-kill-disable",
    "--passwd",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--read-only-tmpfs",
    "--replace",
    "--rm",
    "--rmi",
    "--rootfs",
    "--sig-proxy",
    "--tls-verify",
    "--tty",
    "--unsetenv-all",
    "--use-api-socket",
];

const RUN_VALUED: &[&str] = &[
    "--add-host",
    "--annotation",
    "--arch",
    "--attach",
    "--authfile",
    "--blkio-weight",
    "--blkio-weight-device",
    "--cap-add",
    "--cap-drop",
    "--cgroup-conf",
    "--cgroup-parent",
    "--cgroupns",
    "--cgroups",
    "--chrootdirs",
    "--cidfile",
    "--conmon-pidfile",
    "--cpu-count",
    "--cpu-percent",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--cpu-shares",
    "--cpus",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--detach-keys",
    "--device",
    "--device-cgroup-rule",
    "--device-read-bps",
    "--device-read-iops",
    "--device-write-bps",
    "--device-write-iops",
    "--dns",
    "--dns-option",
    "--dns-search",
    "--domainname",
    "--entrypoint",
    "--env",
    "--env-file",
    "--env-merge",
    "--expose",
    "--gidmap",
    "--gpus",
    "--group-add",
    "--health-cmd",
    "--health-interval",
    "--health-on-failure",
    "--health-retries",
    "--health-start-interval",
    "--health-start-period",
    "--health-timeout",
    "--hostname",
    "--hostuser",
    "--image-volume",
    "--init-path",
    "--io-maxbandwidth",
    "--io-maxiops",
    "--ip",
    "--ip6",
    "--ipc",
    "--isolation",
    "--kernel-memory",
    "--label",
    "--label-file",
    "--link",
    "--link-local-ip",
    "--log-driver",
    "--log-opt",
    "--mac-address",
    "--memory",
    "--memory-reservation",
    "--memory-swap",
    "--memory-swappiness",
    "--mount",
    "--name",
    "--network",
    "--network-alias",
    "--oom-score-adj",
    "--os",
    "--passwd-entry",
    "--personality",
    "--pid",
    "--pidfile",
    "--pids-limit",
    "--platform",
    "--pod",
    "--pod-id-file",
    "--preserve-fds",
    "--publish",
    "--pull",
    "--requires",
    "--restart",
    "--runtime",
    "--sdnotify",
    "--seccomp-policy",
    "--secret",
    "--security-opt",
    "--shm-size",
    "--stop-signal",
    "--stop-timeout",
    "--storage-opt",
    "--subgidname",
    "--subuidname",
    "--sysctl",
    "--systemd",
    "--timeout",
    "--tmpfs",
    "--tz",
    "--uidmap",
    "--ulimit",
    "--umask",
    "--unsetenv",
    "--user",
    "--userns",
    "--uts",
    "--variant",
    "--volume",
    "--volume-driver",
    "--volumes-from",
    "--workdir",
];

const RUN_SHORT: &[(char, &str)] = &[
    ('a', "--attach"),
    ('c', "--cpu-shares"),
    ('d', "--detach"),
    ('e', "--env"),
    ('h', "--hostname"),
    ('i', "--interactive"),
    ('l', "--label"),
    ('m', "--memory"),
    ('P', "--publish-all"),
    ('p', "--publish"),
    ('q', "--quiet"),
    ('t', "--tty"),
    ('u', "--user"),
    ('v', "--volume"),
    ('w', "--workdir"),
];

const GLOBAL_FLAGS: &[&str] =
    &["--debug", "--help", "--noout", "--remote", "--syslog", "--tls", "--tlsverify", "--transient-store", "--version"];

const GLOBAL_VALUED: &[&str] = &[
    "--cgroup-manager",
    "--config",
    "--conmon",
    "--connection",
    "--context",
    "--events-backend",
    "--hooks-dir",
    "--host",
    "--identity",
    "--imagestore",
    "--log-level",
    "--module",
    "--namespace",
    "--network-cmd-path",
    "--network-config-dir",
    "--out",
    "--root",
    "--runroot",
    "--runtime",
    "--runtime-flag",
    "--ssh",
    "--storage-driver",
    "--storage-opt",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--tmpdir",
    "--url",
    "--volumepath",
];

const GLOBAL_SHORT: &[(char, &str)] = &[
    ('c', "--context"),
    ('D', "--debug"),
    ('H', "--host"),
    ('l', "--log-level"),
    ('r', "--remote"),
    ('v', "--version"),
];
