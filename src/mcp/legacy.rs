//! The legacy era: the handshake that opens a session with a server, and what of it can be promised to a client.
//! Source: MCP 2025-11-25, basic/lifecycle.

use super::era::Version;
use super::json::{self, Object};
use super::message::Message;
use super::modern::Level;

/// The bridge's own requests to a server carry ids with this prefix. They meet no client's, not even those of a bridge
/// in front of this one: each is answered before the client's request is sent.
pub const RESERVED: &str = "tollbridge:";

/// The id under which a client's request is asked of a server that serves no other, and its progress token: one that
/// every server can represent, which cannot be said of a client's own.
pub const REQUEST_ID: &str = "1";

/// The id of the bridge's `initialize`.
pub const INITIALIZE_ID: &str = r#""tollbridge:initialize""#;

/// The id of the bridge's `logging/setLevel`.
pub const SET_LEVEL_ID: &str = r#""tollbridge:setLevel""#;

/// The id of the bridge's `resources/subscribe` and `resources/unsubscribe`.
pub const SUBSCRIBE_ID: &str = r#""tollbridge:subscribe""#;

/// The id of the bridge's `server/discover`.
pub const DISCOVER_ID: &str = r#""tollbridge:discover""#;

/// The id of the bridge's `tools/list`.
pub const TOOLS_ID: &str = r#""tollbridge:tools""#;

/// The id of the bridge's `ping`.
pub const PING_ID: &str = r#""tollbridge:ping""#;

/// The id of what is asked to try a credential.
pub const PROBE_ID: &str = r#""tollbridge:probe""#;

/// The notification that ends the handshake.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Who the bridge says is calling, and what they can do.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// The protocol version that is asked for.
    pub version: Version,
    /// The client's name and version, as a JSON object.
    pub client_info: String,
    /// The client's capabilities, as a JSON object.
    pub capabilities: String,
}

impl Introduction {
    /// The `initialize` request that says so.
    #[must_use]
    pub fn initialize(&self) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{INITIALIZE_ID},"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{},"clientInfo":{}}}}}"#,
            self.version.as_str(),
            self.capabilities,
            self.client_info,
        )
    }
}

/// The bridge's own `logging/setLevel`.
#[must_use]
pub fn set_level(level: Level) -> String {
    let level = level.as_str();
    format!(r#"{{"jsonrpc":"2.0","id":{SET_LEVEL_ID},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
}

/// The bridge's own `resources/subscribe` or `resources/unsubscribe`.
#[must_use]
pub fn change_subscription(uri: &str, adds: bool) -> String {
    let (method, uri) = (if adds { "subscribe" } else { "unsubscribe" }, json::quote(uri));
    format!(r#"{{"jsonrpc":"2.0","id":{SUBSCRIBE_ID},"method":"resources/{method}","params":{{"uri":{uri}}}}}"#)
}

/// The notification that takes a request back.
#[must_use]
pub fn cancelled(id: &str, reason: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"{reason}"}}}}"#
    )
}

/// What a server answered to `initialize`.
#[derive(Debug, Clone)]
pub struct Initialized {
    /// The version it chose.
    pub version: Version,
    /// Its whole result as written.
    pub result: String,
}

impl Initialized {
    /// Reads the result of `initialize`; `None` if it chose no version of the legacy era that the bridge knows.
    #[must_use]
    pub fn parse(result: &str) -> Option<Self> {
        let object = Object::parse(result).ok()?;
        let version = Version::parse(&object.get_string("protocolVersion")?).filter(|version| !version.is_modern())?;
        Some(Self { version, result: result.to_owned() })
    }

    /// Whether it has the capability, by its top-level name.
    #[must_use]
    pub fn offers(&self, capability: &str) -> bool {
        let result = Object::parse(&self.result).unwrap_or_default();
        result.get_object("capabilities").is_some_and(|all| all.get(capability).is_some())
    }

    /// Whether it promises `what` in the capability `area`, as in `tools.listChanged`.
    #[must_use]
    pub fn promises(&self, area: &str, what: &str) -> bool {
        let result = Object::parse(&self.result).unwrap_or_default();
        let area = result.get_object("capabilities").and_then(|all| all.get_object(area));
        area.is_some_and(|area| area.get(what) == Some("true"))
    }

    /// Its name and version as written.
    #[must_use]
    pub fn server_info(&self) -> Option<String> {
        Object::parse(&self.result).ok()?.get("serverInfo").map(str::to_owned)
    }
}

/// Client capabilities without those by which a server could ask the client questions.
#[must_use]
pub fn without_questions(capabilities: &str) -> String {
    let Ok(mut all) = Object::parse(capabilities) else { return "{}".into() };
    for capability in QUESTIONS {
        all.remove(capability);
    }
    all.write()
}

/// Whether client capabilities hold one by which a server could ask the client questions.
#[must_use]
pub fn can_be_asked(capabilities: &str) -> bool {
    let all = Object::parse(capabilities).unwrap_or_default();
    QUESTIONS.into_iter().any(|question| all.get(question).is_some())
}

/// The capabilities by which a server could ask the client questions.
const QUESTIONS: [&str; 3] = ["sampling", "elicitation", "roots"];

/// What a client's `initialize` asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The version to ask the server for: the client's own if it is a legacy one, else the newest.
    pub version: Version,
    /// The client's `clientInfo` as written.
    pub client_info: Option<String>,
    /// The client's `capabilities` as written.
    pub capabilities: String,
}

impl Asked {
    /// Reads the parameters of `initialize`; `None` if they name no version.
    #[must_use]
    pub fn parse(message: &Message) -> Option<Self> {
        let version = message.param_string("protocolVersion")?;
        let known = Version::parse(&version).filter(|version| !version.is_modern());
        let capabilities = message.param("capabilities").filter(|text| text.starts_with('{')).unwrap_or("{}");
        Some(Self {
            version: known.unwrap_or(Version::NEWEST_LEGACY),
            client_info: message.param("clientInfo").filter(|text| text.starts_with('{')).map(str::to_owned),
            capabilities: capabilities.to_owned(),
        })
    }
}

/// A JSON-RPC error as text; `id` is as written, or null if it is not known.
#[must_use]
pub fn error(id: Option<&str>, code: i64, message: &str, data: Option<&str>) -> String {
    let id = id.unwrap_or("null");
    let message = json::quote(message);
    match data {
        Some(data) => {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message},"data":{data}}}}}"#)
        }
        None => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#),
    }
}

/// A JSON-RPC result as text; both parts are as written.
#[must_use]
pub fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_server_offers_and_promises_is_read() {
        let initialized = Initialized::parse(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"s"}}"#,
        )
        .unwrap();
        assert!(initialized.offers("logging") && !initialized.offers("prompts"));
        assert!(initialized.promises("resources", "subscribe") && !initialized.promises("resources", "listChanged"));
    }

    #[test]
    fn a_server_that_chooses_an_unknown_or_modern_version_is_not_understood() {
        assert!(Initialized::parse(r#"{"protocolVersion":"1.0","capabilities":{}}"#).is_none());
        assert!(Initialized::parse(r#"{"protocolVersion":"2026-07-28","capabilities":{}}"#).is_none());
    }

    #[test]
    fn a_modern_version_in_initialize_is_negotiated_down() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2026-07-28","capabilities":{"roots":{}}}}"#;
        let asked = Asked::parse(&Message::parse(Bytes::from(text)).unwrap()).unwrap();
        assert_eq!(asked.version, Version::NEWEST_LEGACY);
        assert_eq!(without_questions(&asked.capabilities), "{}");
    }
}
