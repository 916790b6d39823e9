//! The modern era: what every request must carry, in the order in which it is checked. Source: MCP 2026-07-28,
//! basic/index "_meta" and basic/transports/streamable-http "Server Validation".

use http::HeaderMap;

use super::era::{Version, names_modern_version};
use super::headers::{self, HeaderMismatch};
use super::json;
use super::message::{Kind, Message};
use super::tasks;

/// `_meta`: the protocol version of the request; required.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta`: the client's capabilities; required.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta`: the client's name and version.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta`: from which level log messages are wanted; none are without it.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta` of a result: the server's name and version.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// `HeaderMismatch`.
pub const HEADER_MISMATCH: i64 = -32020;
/// `MissingRequiredClientCapability`.
pub const MISSING_CAPABILITY: i64 = -32021;
/// `UnsupportedProtocolVersion`.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// What a modern request says of its client, each part as written.
#[derive(Debug, Clone)]
pub struct Modern {
    /// The client's name and version.
    pub client_info: Option<String>,
    /// The client's capabilities.
    pub capabilities: String,
    /// From which level log messages are wanted.
    pub log_level: Option<Level>,
}

/// The severity of a log message, least severe first. Source: RFC 5424, section 6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// debug
    Debug,
    /// info
    Info,
    /// notice
    Notice,
    /// warning
    Warning,
    /// error
    Error,
    /// critical
    Critical,
    /// alert
    Alert,
    /// emergency
    Emergency,
}

impl Level {
    const ALL: [(Self, &str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(level, _)| *level)
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Why a modern request is refused before any process is started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModernFault {
    /// Headers and body disagree: 400, -32020.
    #[error("{0}")]
    Headers(#[from] HeaderMismatch),
    /// `_meta` lacks a field or holds one of the wrong type: 400, -32602.
    #[error("params._meta must hold `{0}`")]
    Meta(&'static str),
    /// The log level is none: 400, -32602.
    #[error("`{META_LOG_LEVEL}` is not a log level")]
    LogLevel,
    /// The version is not spoken: 400, -32022.
    #[error("the protocol version is not supported")]
    Version {
        /// What was asked for.
        requested: String,
    },
    /// The method is not part of this revision: 404, -32601.
    #[error("the method does not exist in this protocol version")]
    RemovedMethod,
    /// The request is about tasks, of which the client has not declared the extension: 400, -32021.
    #[error("the request needs the extension `{}`, which this client has not declared", tasks::EXTENSION)]
    TasksUndeclared,
    /// Responses are not sent by clients of this era: 400, -32600.
    #[error("clients of this protocol version do not send responses")]
    Response,
}

/// Whether a message is of the modern era: its `_meta` names a protocol version, or the header names a modern one.
#[must_use]
pub fn is_modern(headers: &HeaderMap, message: Option<&Message>) -> bool {
    let by_body = message.is_some_and(|message| message.meta(META_VERSION).is_some());
    by_body || header_is_modern(headers)
}

fn header_is_modern(headers: &HeaderMap) -> bool {
    headers
        .get_all(headers::PROTOCOL_VERSION)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| names_modern_version(text.trim())))
}

/// Checks a modern message in the order the specification's tests expect.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(headers: &HeaderMap, message: &Message) -> Result<Modern, ModernFault> {
    if message.kind() == Kind::Response {
        return Err(ModernFault::Response);
    }
    headers::check_standard(headers, message)?;
    let version = message.meta(META_VERSION).and_then(json::string).ok_or(ModernFault::Meta(META_VERSION))?;
    let capabilities = message.meta(META_CAPABILITIES).filter(|text| text.starts_with('{'));
    let capabilities = capabilities.ok_or(ModernFault::Meta(META_CAPABILITIES))?.to_owned();
    let client_info = message.meta(META_CLIENT_INFO);
    if client_info.is_some_and(|text| !text.starts_with('{')) {
        return Err(ModernFault::Meta(META_CLIENT_INFO));
    }
    if headers::single(headers, headers::PROTOCOL_VERSION)?.map(str::trim) != Some(&*version) {
        return Err(HeaderMismatch::Different(headers::PROTOCOL_VERSION).into());
    }
    if !Version::parse(&version).is_some_and(Version::is_modern) {
        return Err(ModernFault::Version { requested: version.into_owned() });
    }
    if is_removed(message.method()) {
        return Err(ModernFault::RemovedMethod);
    }
    let log_level = match message.meta(META_LOG_LEVEL) {
        None => None,
        Some(text) => {
            let name = json::string(text).ok_or(ModernFault::LogLevel)?;
            Some(Level::parse(&name).ok_or(ModernFault::LogLevel)?)
        }
    };
    Ok(Modern { client_info: client_info.map(str::to_owned), capabilities, log_level })
}

/// Methods of the legacy era that the modern one has not. Source: MCP 2026-07-28, changelog.
fn is_removed(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "ping"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "roots/list"
            | "sampling/createMessage"
            | "elicitation/create"
    ) || (method.starts_with("tasks/") && !tasks::is_about_one(method))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(method: &str, meta: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{meta}}}}}"#);
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn headers(version: &'static str, method: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(headers::PROTOCOL_VERSION, http::HeaderValue::from_static(version));
        map.insert(headers::METHOD, http::HeaderValue::from_static(method));
        map
    }

    const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"a":1.0}}"#;

    #[test]
    fn a_complete_request_passes_and_keeps_its_capabilities_as_written() {
        let modern = check(&headers("2026-07-28", "tools/list"), &request("tools/list", META)).unwrap();
        assert_eq!(modern.capabilities, r#"{"a":1.0}"#);
    }

    #[test]
    fn the_order_of_checks_is_headers_meta_version_method() {
        let right = headers("2026-07-28", "tools/list");
        assert!(matches!(check(&HeaderMap::new(), &request("tools/list", "{}")), Err(ModernFault::Headers(_))));
        assert_eq!(check(&right, &request("tools/list", "{}")).unwrap_err(), ModernFault::Meta(META_VERSION));
        let no_capabilities = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        assert_eq!(
            check(&right, &request("tools/list", no_capabilities)).unwrap_err(),
            ModernFault::Meta(META_CAPABILITIES)
        );
        let other = headers("2099-01-01", "tools/list");
        assert!(matches!(check(&other, &request("tools/list", META)), Err(ModernFault::Headers(_))));
        let unknown = META.replace("2026-07-28", "2099-01-01");
        assert!(matches!(check(&other, &request("tools/list", &unknown)), Err(ModernFault::Version { .. })));
        let removed = headers("2026-07-28", "initialize");
        assert_eq!(check(&removed, &request("initialize", META)).unwrap_err(), ModernFault::RemovedMethod);
    }

    #[test]
    fn an_unknown_log_level_is_refused() {
        let meta = META.replace("{\"a\":1.0}", "{},\"io.modelcontextprotocol/logLevel\":\"loud\"");
        assert_eq!(
            check(&headers("2026-07-28", "tools/list"), &request("tools/list", &meta)).unwrap_err(),
            ModernFault::LogLevel
        );
    }

    #[test]
    fn the_era_is_read_from_the_body_or_the_header() {
        let legacy = request("tools/list", "{}");
        assert!(!is_modern(&HeaderMap::new(), Some(&legacy)));
        assert!(is_modern(&headers("2026-07-28", "x"), Some(&legacy)));
        assert!(!is_modern(&headers("2025-11-25", "x"), Some(&legacy)));
        assert!(is_modern(&HeaderMap::new(), Some(&request("tools/list", META))));
    }

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(Level::ALL.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(Level::ALL.iter().all(|(level, name)| level.as_str() == *name));
    }
}
