//! What says which subscription something belongs to.

use bytes::Bytes;

use crate::mcp::json::Object;
use crate::mcp::splice::text;

/// `_meta`: the id of the request that a notification belongs to.
pub(super) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The result that ends a subscription, said of the id that its client knows.
pub(super) fn said_of(result: &str, id: &str) -> String {
    let mut object = Object::parse(result).unwrap_or_default();
    let Some(mut meta) = object.get_object("_meta").filter(|meta| meta.get(SUBSCRIPTION_ID).is_some()) else {
        return result.to_owned();
    };
    meta.set(SUBSCRIPTION_ID, id);
    let meta = meta.write();
    object.set("_meta", &meta);
    object.write()
}

/// A notification that says which subscription it belongs to.
pub(super) fn tagged(line: &Bytes, id: &str) -> Bytes {
    with_tag(line, Some(id))
}

/// A notification that does not say so.
pub(in crate::bridge::stream) fn untagged(line: &Bytes) -> Bytes {
    with_tag(line, None)
}

fn with_tag(line: &Bytes, id: Option<&str>) -> Bytes {
    let mut message = Object::parse(text(line)).unwrap_or_default();
    let mut params = message.get_object("params").unwrap_or_default();
    let mut meta = params.get_object("_meta").unwrap_or_default();
    match id {
        Some(id) => meta.set(SUBSCRIPTION_ID, id),
        None => meta.remove(SUBSCRIPTION_ID),
    }
    let meta = (!meta.is_empty()).then(|| meta.write());
    match &meta {
        Some(meta) => params.set("_meta", meta),
        None => params.remove("_meta"),
    }
    let params = params.write();
    message.set("params", &params);
    message.write().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_that_ends_a_subscription_names_it_as_its_client_does() {
        let result = r#"{"x":1.0,"_meta":{"io.modelcontextprotocol/subscriptionId":1,"k":1e2}}"#;
        assert_eq!(said_of(result, "1.5"), result.replace(":1,", ":1.5,"));
        assert_eq!(said_of(r#"{"_meta": {}}"#, "1.5"), r#"{"_meta": {}}"#);
    }

    #[test]
    fn a_tag_keeps_the_type_of_its_id_and_everything_else_as_written() {
        let line = Bytes::from(r#"{"jsonrpc":"2.0","method":"m","params":{"x":1.0,"_meta":{"k":1e2}},"y":2}"#);
        let expected = r#"{"jsonrpc":"2.0","method":"m","params":{"x":1.0,"_meta":{"k":1e2,"io.modelcontextprotocol/subscriptionId":"7"}},"y":2}"#;
        assert_eq!(tagged(&line, r#""7""#), expected);
        assert_eq!(untagged(&Bytes::from(expected)), line);
        let bare = Bytes::from(r#"{"jsonrpc":"2.0","method":"m"}"#);
        let expected =
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#;
        assert_eq!(tagged(&bare, "7"), expected);
    }
}
