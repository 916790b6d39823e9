//! The harness of the integration tests: they come in by the front door, over a real socket to the real program.
//!
//! - [`home`]: a directory with a key, a configuration and the commands that work on them
//! - [`bridge`]: `tollbridge serve`, ended with everything below it when dropped
//! - [`browser`]: a Chromium of one's own
//! - [`redis`]: a redis-server of one's own
//! - [`registry`]: a registry of images of one's own
//! - [`reverse_proxy`]: an nginx, `HAProxy` or Caddy of one's own in front of several nodes
//! - [`certificate`]: a certificate for TLS
//! - [`elsewhere`]: a server that listens by itself
//! - [`unprivileged`]: a bridge that is not root
//! - [`procs`]: what the kernel says is there: processes, zombies, descriptors, memory
//! - [`http`]: HTTP/1.1 and server-sent events, byte for byte
//! - [`mcp`]: a legacy or a modern MCP client over that
//!
//! Ports are ephemeral, directories temporary, markers unique: tests run beside each other. Waiting is polling with a
//! deadline, never a sleep.

#![expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every test program compiles the whole harness and uses its own part of it"
)]

pub mod bridge;
pub mod browser;
pub mod certificate;
pub mod elsewhere;
pub mod home;
pub mod http;
pub mod mcp;
pub mod procs;
pub mod redis;
pub mod registry;
pub mod reverse_proxy;
pub mod unprivileged;

pub use bridge::Bridge;
pub use browser::Browser;
pub use certificate::certificate;
pub use elsewhere::Elsewhere;
pub use home::{Home, bearer_identity, random_hex, server, sha256_hex};
pub use mcp::Client;
pub use redis::{Redis, free_address};
pub use registry::Registry;
pub use reverse_proxy::ReverseProxy;
pub use unprivileged::Unprivileged;

/// A gauge or counter of the admin listener, if it is there.
pub async fn metric(admin: std::net::SocketAddr, name: &str) -> Option<f64> {
    let mut connection = http::Connection::open(admin).await.ok()?;
    let mut reply = connection.send("GET", "/metrics", &[], b"").await.ok()?;
    let text = String::from_utf8(reply.body().await.ok()?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

/// A number that an environment variable may change.
#[expect(clippy::disallowed_methods, reason = "a test's own size is no configuration of the bridge")]
pub fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
