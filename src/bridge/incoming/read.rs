//! `Host`, `Origin`, `Accept` and the body of a request: checked in the order that refuses earliest, read within its limits.

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::bridge::error::BridgeError;
use crate::config::{Config, Limits};
use crate::limits::Refused;
use crate::memory::Share;

/// Refuses a `Host` that is not ours and an `Origin` that is not allowed, which is what DNS rebinding needs.
/// Source: MCP 2025-11-25, basic/transports, "Security Warning".
pub(in crate::bridge) fn check_origin(head: &Parts, config: &Config) -> Result<(), BridgeError> {
    let host = match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(&head.headers, header::HOST),
    };
    if !host.is_some_and(|host| config.allows_host(host)) {
        return Err(BridgeError::Host);
    }
    match head.headers.contains_key(header::ORIGIN) {
        false => Ok(()),
        true if only(&head.headers, header::ORIGIN).is_some_and(|origin| config.allows_origin(origin)) => Ok(()),
        true => Err(BridgeError::Origin),
    }
}

/// The value of a header that stands exactly once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The body of a POST, which is a part of `share` for as long as there is something of it.
pub(in crate::bridge) async fn body(
    head: &Parts,
    body: Incoming,
    limits: &Limits,
    share: &Share,
) -> Result<Bytes, BridgeError> {
    if is_json(&head.headers) { whole(body, limits, share).await } else { Err(BridgeError::MediaType) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = only(headers, header::CONTENT_TYPE).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Whether the client takes server-sent events.
pub(in crate::bridge) fn accepts_events(head: &Parts) -> bool {
    accepts(head, ["text/event-stream", "text/*", "*/*"])
}

/// Whether the client takes a JSON document.
pub(in crate::bridge) fn accepts_json(head: &Parts) -> bool {
    accepts(head, ["application/json", "application/*", "*/*"])
}

fn accepts(head: &Parts, ranges: [&str; 3]) -> bool {
    let values = head.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default().trim();
        ranges.iter().any(|accepted| essence.eq_ignore_ascii_case(accepted))
    })
}

/// The whole body, if it fits and keeps coming. Memory for what is announced is taken at once, else for what comes.
async fn whole(mut body: Incoming, limits: &Limits, share: &Share) -> Result<Bytes, BridgeError> {
    let announced = body.size_hint().lower();
    if announced > limits.body as u64 {
        return Err(BridgeError::TooLarge);
    }
    let no_memory = |full| BridgeError::Limited(Refused::no_memory(full));
    let mut held = share.take(usize::try_from(announced).unwrap_or(usize::MAX)).map_err(no_memory)?;
    let until = Instant::now() + limits.body_timeout;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let patience = until.min(Instant::now() + limits.body_idle);
        let frame = timeout_at(patience, body.frame()).await.map_err(|_| BridgeError::BodyLost)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| BridgeError::BodyLost)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > limits.body {
            return Err(BridgeError::TooLarge);
        }
        held.grow(length.saturating_sub(held.bytes())).map_err(no_memory)?;
        if length == data.len() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    let whole = if rest.is_empty() { first } else { rest.freeze() };
    Ok(held.keep(whole, ()))
}
