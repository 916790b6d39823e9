//! `Content-Type`, `Accept` and the body of a request: checked in the order that refuses earliest, read within its limits.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use hyper::body::Incoming;

use crate::auth::only;
use crate::bridge::error::BridgeError;
use crate::config::Limits;
use crate::limits::body::read_body;
use crate::memory::Share;

/// The body of a POST, which is a part of `share` for as long as there is something of it.
pub(in crate::bridge) async fn body(
    head: &Parts,
    body: Incoming,
    limits: &Limits,
    share: &Share,
) -> Result<Bytes, BridgeError> {
    if !is_json(&head.headers) {
        return Err(BridgeError::MediaType);
    }
    Ok(read_body(body, limits.body, limits, share).await?)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = only(headers, &header::CONTENT_TYPE).unwrap_or_default();
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
