//! The one HTTP client, shared by everything that calls a server elsewhere. What it keeps between calls is connections,
//! and those know no user: no cookies, no credentials, no redirects of its own, no proxy from the environment.

mod dated_body;
pub mod guard;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::{Certificate, Client, ClientBuilder, Error, redirect};

/// How long a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: less than the 5 s after which Node and uvicorn close theirs, so that no request
/// is written to a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// How many idle connections to one host are kept.
const IDLE_PER_HOST: usize = 64;

/// The pause after which a silent connection is probed, and between probes: a stream may be silent for hours, its peer
/// may not be gone that long.
const PROBE: Duration = Duration::from_secs(20);

/// How many probes may go unanswered.
const PROBES: u32 = 3;

/// The longest time to wait that is passed on.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;

/// Builds the client. It speaks HTTP/1.1 alone: a connection then carries one user's exchange at a time, so that no
/// stream waits for another's window or for a server's limit of streams.
///
/// # Errors
/// If TLS cannot be set up.
pub fn build() -> Result<Client, Error> {
    finish(builder)
}

fn finish(builder: impl Fn() -> ClientBuilder) -> Result<Client, Error> {
    let with_system_roots = builder().build();
    // An image without certificates has no system roots; Mozilla's are compiled in.
    with_system_roots.or_else(|_| builder().tls_certs_only(mozilla_roots()?).build())
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("tollbridge/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .tcp_nodelay(true)
        .tcp_keepalive(PROBE)
        .tcp_keepalive_interval(PROBE)
        .tcp_keepalive_retries(PROBES)
}

fn mozilla_roots() -> Result<Vec<Certificate>, Error> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Certificate::from_der(root)).collect()
}

/// When to try again, as seconds or as a date, which counts from the server's own `Date`.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let after = text(header::RETRY_AFTER)?.trim();
    let wait = if let Ok(seconds) = after.parse() {
        Duration::from_secs(seconds)
    } else {
        let now = httpdate::parse_http_date(text(header::DATE)?).ok()?;
        httpdate::parse_http_date(after).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(Duration::from_secs(MAX_RETRY_AFTER)))
}
