//! The variables by which the client of a container engine finds its engine.

/// Variables that an engine's client needs from the bridge's own environment: which engine, and where it is. None of
/// them goes into a container.
pub(super) const OF_CLIENTS: [&str; 17] = [
    "CONTAINERS_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_CONNECTION",
    "CONTAINER_HOST",
    "CONTAINER_SSHKEY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_API_VERSION",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

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
