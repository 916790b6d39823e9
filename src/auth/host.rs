//! To which of our names a request is addressed, and from which site a page sent it: what DNS rebinding needs is refused.

use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use crate::config::Config;

/// Why a request is not for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// `Host` is missing or names none of our authorities.
    #[error("the Host header names no address of this bridge; the operator lists them in `allowedHosts`")]
    Host,
    /// `Origin` is none of those allowed.
    #[error("requests from this Origin are not allowed; the operator lists those that are in `allowedOrigins`")]
    Origin,
}

/// Refuses a `Host` that is not ours.
///
/// # Errors
/// [`HostFault::Host`].
pub fn check_host(head: &Parts, config: &Config) -> Result<(), HostFault> {
    let host = match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(&head.headers, &header::HOST),
    };
    if host.is_some_and(|host| config.allows_host(host)) { Ok(()) } else { Err(HostFault::Host) }
}

/// Refuses a `Host` that is not ours and an `Origin` that is not allowed.
/// Source: MCP 2025-11-25, basic/transports, "Security Warning".
///
/// # Errors
/// Which of the two.
pub fn check_origin(head: &Parts, config: &Config) -> Result<(), HostFault> {
    check_host(head, config)?;
    match head.headers.contains_key(header::ORIGIN) {
        false => Ok(()),
        true if only(&head.headers, &header::ORIGIN).is_some_and(|origin| config.allows_origin(origin)) => Ok(()),
        true => Err(HostFault::Origin),
    }
}

/// The value of a header that stands exactly once and is text.
#[must_use]
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}
