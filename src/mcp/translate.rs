//! A modern client in front of a legacy server: what is taken out of its requests and added to the answers.
//! Source: MCP 2026-07-28, changelog; basic/index "`ResultType`" and "Error Codes"; server/utilities/caching.

use super::era::{Version, names_modern_version};
use super::json::{self, Object, Reader};
use super::legacy::{self, Initialized, Introduction};
use super::message::{Answer, Message};
use super::modern::{self, META_SERVER_INFO};
use crate::request_id::RequestId;

/// Members of `params` that a legacy server does not know: they belong to multi round-trip requests.
const MODERN_PARAMS: [&str; 2] = ["inputResponses", "requestState"];

/// Keys of `params._meta` that a legacy server does not know, and that some refuse.
const MODERN_META: [&str; 4] =
    [modern::META_VERSION, modern::META_CAPABILITIES, modern::META_CLIENT_INFO, modern::META_LOG_LEVEL];

/// A modern request as a legacy server knows it: the same message without what only the modern era has.
#[must_use]
pub fn request_for_legacy(message: &Message) -> String {
    let mut params = message.params_object();
    for key in MODERN_PARAMS {
        params.remove(key);
    }
    let Some(mut meta) = message.meta_object() else { return message.with_params(&params.write()) };
    for key in MODERN_META {
        meta.remove(key);
    }
    let meta = (!meta.is_empty()).then(|| meta.write());
    match &meta {
        Some(meta) => params.set("_meta", meta),
        None => params.remove("_meta"),
    }
    message.with_params(&params.write())
}

/// The answer to `server/discover`, from what the server answered to `initialize`.
#[must_use]
pub fn discover_result(initialized: &Initialized) -> String {
    let versions = format!(r#"["{}"]"#, Version::V2026_07_28.as_str());
    let mut object = Object::parse(&initialized.result).unwrap_or_default();
    let meta = object.get("serverInfo").map(|info| meta_with(object.get("_meta"), info));
    for of_a_session in ["protocolVersion", "serverInfo"] {
        object.remove(of_a_session);
    }
    object.set("resultType", r#""complete""#);
    object.set("supportedVersions", &versions);
    if let Some(meta) = &meta {
        object.set("_meta", meta);
    }
    mark_uncacheable(&mut object);
    object.write()
}

/// Writes a legacy result as a modern client knows it: with `resultType`, the server's name, and, where the method's
/// results may be cached, the word that they may not. Each part of it goes to `push`.
pub fn write_result_for_modern(method: &str, result: &str, server_info: Option<&str>, mut push: impl FnMut(&str)) {
    let tools;
    let Ok(mut object) = Object::parse(result) else { return push(result) };
    if method == "tools/list"
        && let Some(list) = object.get("tools").and_then(without_execution)
    {
        tools = list;
        object.set("tools", &tools);
    }
    let meta = server_info.map(|info| meta_with(object.get("_meta"), info));
    if let Some(meta) = &meta {
        object.set("_meta", meta);
    }
    object.set("resultType", r#""complete""#);
    if is_cacheable(method) {
        mark_uncacheable(&mut object);
    }
    object.write_by(push);
}

/// Says of a result that it may not be cached, where its server has not said otherwise.
fn mark_uncacheable(object: &mut Object<'_>) {
    for (key, value) in [("ttlMs", "0"), ("cacheScope", r#""private""#)] {
        if object.get(key).is_none() {
            object.set(key, value);
        }
    }
}

fn meta_with(meta: Option<&str>, server_info: &str) -> String {
    let mut meta = meta.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
    meta.set(META_SERVER_INFO, server_info);
    meta.write()
}

/// Methods whose results carry `ttlMs` and `cacheScope`.
fn is_cacheable(method: &str) -> bool {
    matches!(method, "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read")
}

/// A list of tools without `execution`, which the modern era has not; `None` if no tool has it.
fn without_execution(tools: &str) -> Option<String> {
    memchr::memmem::find(tools.as_bytes(), b"execution")?;
    let mut list = String::with_capacity(tools.len());
    let mut reader = Reader::new(tools, usize::MAX);
    let read = reader.array(|reader| {
        let tool = reader.value()?;
        list.push(if list.is_empty() { '[' } else { ',' });
        match Object::parse(tool) {
            Ok(mut object) => {
                object.remove("execution");
                object.write_by(|part| list.push_str(part));
            }
            Err(_) => list.push_str(tool),
        }
        Ok(())
    });
    read.ok().filter(|()| !list.is_empty())?;
    list.push(']');
    Some(list)
}

/// A legacy request as a modern server knows it: with what its session agreed on in `params._meta`.
#[must_use]
pub fn request_for_modern(message: &Message, client: &Introduction, level: Option<modern::Level>) -> String {
    let mut params = message.params_object();
    let meta = modern_meta(message.meta_object().unwrap_or_default(), client, level);
    params.set("_meta", &meta);
    message.with_params(&params.write())
}

/// The bridge's own `server/discover`.
#[must_use]
pub fn discover(client: &Introduction) -> String {
    let meta = modern_meta(Object::default(), client, None);
    format!(
        r#"{{"jsonrpc":"2.0","id":{},"method":"server/discover","params":{{"_meta":{meta}}}}}"#,
        legacy::DISCOVER_ID
    )
}

/// `_meta` of a request of a legacy client, as a modern server wants it.
#[must_use]
pub fn modern_meta(meta: Object<'_>, client: &Introduction, level: Option<modern::Level>) -> String {
    let version = json::quote(Version::V2026_07_28.as_str());
    let level = level.map(|level| json::quote(level.as_str()));
    let mut meta = meta;
    meta.set(modern::META_VERSION, &version);
    meta.set(modern::META_CLIENT_INFO, &client.client_info);
    meta.set(modern::META_CAPABILITIES, &client.capabilities);
    if let Some(level) = &level {
        meta.set(modern::META_LOG_LEVEL, level);
    }
    meta.write()
}

/// Whether an answer to `server/discover` is a modern server's: it names a modern version, or its error is one that
/// only the modern era has.
#[must_use]
pub fn is_modern(answer: Answer<'_>) -> bool {
    match answer {
        Answer::Result(result) => {
            let versions = Object::parse(result).ok().and_then(|result| result.get("supportedVersions"));
            let versions = versions.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
            versions.is_some_and(|all| all.iter().any(|version| names_modern_version(version)))
        }
        Answer::Error(error) => matches!(
            error_code(error),
            Some(modern::UNSUPPORTED_VERSION | modern::MISSING_CAPABILITY | modern::HEADER_MISMATCH)
        ),
    }
}

/// The answer to a legacy client's `initialize`, from a modern server's to `server/discover`.
#[must_use]
pub fn initialize_result(discovered: &str, version: Version) -> String {
    let version = json::quote(version.as_str());
    let mut object = Object::parse(discovered).unwrap_or_default();
    let mut meta = object.get_object("_meta").unwrap_or_default();
    let info = meta.get(META_SERVER_INFO).unwrap_or(r#"{"name":"unknown","version":"0"}"#);
    meta.remove(META_SERVER_INFO);
    let meta = (!meta.is_empty()).then(|| meta.write());
    for of_the_modern_era in ["resultType", "supportedVersions", "ttlMs", "cacheScope", "_meta"] {
        object.remove(of_the_modern_era);
    }
    object.set("protocolVersion", &version);
    object.set("serverInfo", info);
    if object.get("capabilities").is_none() {
        object.set("capabilities", "{}");
    }
    if let Some(meta) = &meta {
        object.set("_meta", meta);
    }
    object.write()
}

/// A legacy request without `task`: a task outlives its request, and so cannot be had.
#[must_use]
pub fn without_task(message: &Message) -> String {
    if message.param("task").is_none() {
        return message.text().to_owned();
    }
    let mut params = message.params_object();
    params.remove("task");
    message.with_params(&params.write())
}

/// The code of an error as written; `None` if it has none.
#[must_use]
pub fn error_code(error: &str) -> Option<i64> {
    Object::parse(error).ok()?.get("code")?.parse().ok()
}

/// A legacy error as a modern client knows it: the codes that this era reserves for other things are replaced, and
/// what the server said is kept in `data`.
#[must_use]
pub fn error_for_modern(error: &str) -> String {
    let Ok(mut object) = Object::parse(error) else {
        return r#"{"code":-32603,"message":"the server sent a malformed error"}"#.into();
    };
    match object.get("code").and_then(|code| code.parse::<i64>().ok()) {
        Some(-32002) => {
            object.set("code", "-32602");
            object.write()
        }
        Some(-32099..=-32020) => {
            let message = object.get("message").unwrap_or(r#""the server failed""#);
            format!(r#"{{"code":-32603,"message":{message},"data":{{"original":{error}}}}}"#)
        }
        _ => error.to_owned(),
    }
}

/// Whether a log message is at least as severe as asked; one without a level that can be read is not.
#[must_use]
pub fn log_is_wanted(params: Option<&str>, least: modern::Level) -> bool {
    let level = params.and_then(|text| Object::parse(text).ok());
    let level = level.as_ref().and_then(|params| params.get_string("level"));
    level.and_then(|name| modern::Level::parse(&name)).is_some_and(|level| level >= least)
}

/// The `data` of an `UnsupportedProtocolVersion` error, with the id of the request if it has one.
#[must_use]
pub fn unsupported_version_data(requested: &str, request: Option<&RequestId>) -> String {
    let request = request.map(|request| format!(r#","requestId":"{request}""#)).unwrap_or_default();
    let supported = Version::V2026_07_28.as_str();
    format!(r#"{{"supported":["{supported}"],"requested":{}{request}}}"#, json::quote(requested))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn modern_keys_are_taken_out_and_everything_else_stays() {
        let text = r#"{"jsonrpc":"2.0","id":1e2,"method":"tools/call","params":{"name":"a","arguments":{"x":1.0},"requestState":"s","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":7,"traceparent":"t"}}}"#;
        assert_eq!(
            request_for_legacy(&Message::parse(Bytes::from(text)).unwrap()),
            r#"{"jsonrpc":"2.0","id":1e2,"method":"tools/call","params":{"name":"a","arguments":{"x":1.0},"_meta":{"progressToken":7,"traceparent":"t"}}}"#
        );
    }

    #[test]
    fn a_result_gets_its_type_its_server_and_its_caching_word() {
        let result_for_modern = |method, result, info| {
            let mut text = String::new();
            write_result_for_modern(method, result, info, |part| text.push_str(part));
            text
        };
        assert_eq!(
            result_for_modern(
                "tools/list",
                r#"{"tools":[{"name":"a","execution":{"taskSupport":"optional"},"x":1.0}],"_meta":{"k":1}}"#,
                Some(r#"{"name":"s"}"#)
            ),
            r#"{"tools":[{"name":"a","x":1.0}],"_meta":{"k":1,"io.modelcontextprotocol/serverInfo":{"name":"s"}},"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#
        );
        assert_eq!(
            result_for_modern("tools/call", r#"{"content":[],"v":18446744073709551616}"#, None),
            r#"{"content":[],"v":18446744073709551616,"resultType":"complete"}"#
        );
    }

    #[test]
    fn codes_that_this_era_reserves_are_replaced() {
        assert_eq!(error_for_modern(r#"{"code":-32002,"message":"m"}"#), r#"{"code":-32602,"message":"m"}"#);
        assert_eq!(
            error_for_modern(r#"{"code":-32042,"message":"m"}"#),
            r#"{"code":-32603,"message":"m","data":{"original":{"code":-32042,"message":"m"}}}"#
        );
        assert_eq!(error_for_modern(r#"{"code":-32000,"message":"m"}"#), r#"{"code":-32000,"message":"m"}"#);
    }

    #[test]
    fn logs_are_filtered_by_severity() {
        assert!(log_is_wanted(Some(r#"{"level":"error"}"#), modern::Level::Warning));
        assert!(!log_is_wanted(Some(r#"{"level":"info"}"#), modern::Level::Warning));
        assert!(!log_is_wanted(None, modern::Level::Debug));
    }

    #[test]
    fn what_a_server_says_of_itself_is_said_in_the_other_era_and_nothing_is_lost() {
        let initialized = Initialized::parse(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"x":1.0}},"serverInfo":{"name":"s","version":"1"},"instructions":"do","x":1.0,"_meta":{"k":1e2}}"#,
        )
        .unwrap();
        let discovered = discover_result(&initialized);
        assert_eq!(
            discovered,
            r#"{"capabilities":{"tools":{"x":1.0}},"instructions":"do","x":1.0,"_meta":{"k":1e2,"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}},"resultType":"complete","supportedVersions":["2026-07-28"],"ttlMs":0,"cacheScope":"private"}"#
        );
        assert_eq!(
            initialize_result(&discovered, Version::V2025_06_18),
            r#"{"capabilities":{"tools":{"x":1.0}},"instructions":"do","x":1.0,"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"1"},"_meta":{"k":1e2}}"#
        );
        assert_eq!(
            initialize_result("{}", Version::V2025_06_18),
            r#"{"protocolVersion":"2025-06-18","serverInfo":{"name":"unknown","version":"0"},"capabilities":{}}"#
        );
    }

    #[test]
    fn how_long_a_result_may_be_kept_is_said_where_its_server_has_not() {
        let written = |method, result| {
            let mut text = String::new();
            write_result_for_modern(method, result, None, |part| text.push_str(part));
            text
        };
        let own = r#"{"tools":[],"ttlMs":5,"cacheScope":"public","resultType":"complete"}"#;
        assert_eq!(written("tools/list", own), own);
        let added = r#"{"tools":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#;
        assert_eq!(written("tools/list", r#"{"tools":[]}"#), added);
        assert_eq!(written("x/y", r#"{"ttlMs":5}"#), r#"{"ttlMs":5,"resultType":"complete"}"#);
    }
}
