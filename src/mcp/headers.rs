//! The headers that mirror a modern request's body. Source: MCP 2026-07-28, basic/transports/streamable-http,
//! "Request Metadata".

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::message::Message;
use super::tasks;

/// Names the protocol version; required of modern requests, optional for legacy ones.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Mirrors `method`.
pub const METHOD: &str = "mcp-method";
/// Mirrors `params.name`, `params.uri` or `params.taskId`.
pub const NAME: &str = "mcp-name";
/// The legacy session; ignored for modern requests.
pub const SESSION_ID: &str = "mcp-session-id";

/// How the headers of a modern request disagree with its body: one sentence that names header and rule, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderMismatch {
    /// A required header is missing.
    #[error("the {0} header is required and missing")]
    Missing(&'static str),
    /// A header stands more than once.
    #[error("the {0} header stands more than once")]
    Repeated(&'static str),
    /// A value is not visible ASCII, or its base64 form does not decode.
    #[error("the {0} header is malformed")]
    Malformed(&'static str),
    /// Header and body say different things.
    #[error("the {0} header does not match the body")]
    Different(&'static str),
    /// A header that mirrors a tool's parameter is malformed, or does not say what the body says.
    #[error("the {0} header does not match the arguments")]
    Parameter(String),
    /// A parameter that the tool wants mirrored is not.
    #[error("the {0} header is required by this tool and missing")]
    ParameterMissing(String),
}

/// The value of a header that may stand at most once.
///
/// # Errors
/// If it stands twice or is not visible ASCII.
pub fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, HeaderMismatch> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderMismatch::Repeated(name));
    }
    value.to_str().map(Some).map_err(|_| HeaderMismatch::Malformed(name))
}

/// Checks that the standard headers of a modern request are there and say what the body says. The version header is
/// only required here; [`PROTOCOL_VERSION`] is compared with `_meta` after `_meta` itself has been checked.
///
/// # Errors
/// Names the first header that is missing, malformed or different.
pub fn check_standard(headers: &HeaderMap, message: &Message) -> Result<(), HeaderMismatch> {
    required(headers, PROTOCOL_VERSION)?;
    if required(headers, METHOD)? != message.method() {
        return Err(HeaderMismatch::Different(METHOD));
    }
    let Some(field) = named_by(message.method()) else { return Ok(()) };
    let Some(expected) = message.param_string(field) else {
        return Ok(());
    };
    let name = decode(required(headers, NAME)?).ok_or(HeaderMismatch::Malformed(NAME))?;
    if name == expected { Ok(()) } else { Err(HeaderMismatch::Different(NAME)) }
}

/// The member of `params` that `Mcp-Name` mirrors for this method.
#[must_use]
pub fn named_by(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        method if tasks::is_about_one(method) => Some("taskId"),
        _ => None,
    }
}

/// A mirrored value, decoded from its base64 form if it is in that form; `None` if that form is broken.
#[must_use]
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
    }
}

/// `text` as a mirrored value: itself where a header can hold it as it is, else in the base64 form. Source: ibid., "Value
/// Encoding".
#[must_use]
pub fn encode(text: &str) -> Cow<'_, str> {
    let is_plain = text.bytes().all(|b| matches!(b, b' ' | b'\t' | 0x21..=0x7e));
    let is_trimmed = text.trim_matches([' ', '\t']) == text;
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if is_plain && is_trimmed && !looks_encoded {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(text)))
}

fn required<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, HeaderMismatch> {
    single(headers, name)?.map(str::trim).ok_or(HeaderMismatch::Missing(name))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn call(name: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#);
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_that_mirror_the_body_pass() {
        let all = headers(&[(PROTOCOL_VERSION, "2026-07-28"), (METHOD, "tools/call"), (NAME, "add")]);
        assert_eq!(check_standard(&all, &call("add")), Ok(()));
    }

    #[test]
    fn a_base64_name_is_decoded_before_it_is_compared() {
        let all = headers(&[(PROTOCOL_VERSION, "x"), (METHOD, "tools/call"), (NAME, "=?base64?5LiW55WM?=")]);
        assert_eq!(check_standard(&all, &call("世界")), Ok(()));
        let broken = headers(&[(PROTOCOL_VERSION, "x"), (METHOD, "tools/call"), (NAME, "=?base64?5LiW55W?=")]);
        assert_eq!(check_standard(&broken, &call("世界")), Err(HeaderMismatch::Malformed(NAME)));
    }

    #[test]
    fn what_a_header_cannot_hold_as_it_is_is_encoded_and_decodes_to_itself() {
        for (text, encoded) in [
            ("us-west1", "us-west1"),
            ("a b\tc", "a b\tc"),
            ("", ""),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode(text), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(text));
        }
    }

    #[test]
    fn missing_repeated_and_different_headers_are_named() {
        let mut all = headers(&[(PROTOCOL_VERSION, "x"), (METHOD, "tools/list"), (NAME, "add")]);
        assert_eq!(check_standard(&all, &call("add")), Err(HeaderMismatch::Different(METHOD)));
        all.insert(METHOD, HeaderValue::from_static("tools/call"));
        assert_eq!(check_standard(&all, &call("sub")), Err(HeaderMismatch::Different(NAME)));
        all.append(NAME, HeaderValue::from_static("sub"));
        assert_eq!(check_standard(&all, &call("sub")), Err(HeaderMismatch::Repeated(NAME)));
        all.remove(NAME);
        assert_eq!(check_standard(&all, &call("sub")), Err(HeaderMismatch::Missing(NAME)));
    }
}
