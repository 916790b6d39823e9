//! What a browser is told of every page: it loads nothing but our style sheet, runs nothing, sends forms to us alone, is
//! shown in no frame and leaves no trace elsewhere.

use http::HeaderMap;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};

/// `Cross-Origin-Opener-Policy`, which the crate has no name for. Source: HTML, section 7.1.3.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

const CONTENT: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                       frame-ancestors 'none'; base-uri 'none'";

/// Adds to an answer what every page says. `no-store` and `nosniff` are in every answer of the bridge.
pub(super) fn add(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
}
