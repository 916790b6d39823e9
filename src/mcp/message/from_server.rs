//! What a server says, as far as it must be understood to be led on.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// What a server said on one line.
#[derive(Debug)]
pub enum FromServer<'a> {
    /// The answer to a request.
    Response {
        /// Its id as written; `None` if it is null or missing.
        id: Option<&'a str>,
        /// What it answers.
        answer: Answer<'a>,
    },
    /// A request of its own.
    Request {
        /// Its id as written.
        id: &'a str,
        /// What it asks.
        method: Cow<'a, str>,
        /// With which parameters.
        params: Option<&'a str>,
    },
    /// A notification.
    Notification {
        /// What it tells.
        method: Cow<'a, str>,
        /// With which parameters.
        params: Option<&'a str>,
    },
}

/// The outcome of a request, as written.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// It worked.
    Result(&'a str),
    /// It did not.
    Error(&'a str),
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> FromServer<'a> {
    /// Reads one line of a server's stdout; `None` if it is no JSON-RPC message.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let envelope: Envelope<'a> = serde_json::from_str(line).ok()?;
        if envelope.jsonrpc != "2.0" {
            return None;
        }
        let id = envelope.id.map(RawValue::get);
        let params = envelope.params.map(RawValue::get);
        match (envelope.method, id) {
            (Some(method), Some(id)) => Some(Self::Request { id, method, params }),
            (Some(method), None) => Some(Self::Notification { method, params }),
            (None, id) => {
                let answer = match (envelope.result, envelope.error) {
                    (_, Some(error)) => Answer::Error(error.get()),
                    (Some(result), None) => Answer::Result(result.get()),
                    (None, None) => return None,
                };
                Some(Self::Response { id, answer })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_server_are_told_apart() {
        assert!(matches!(
            FromServer::parse(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#),
            Some(FromServer::Response { id: Some("1"), answer: Answer::Result(r#"{"a":1.0}"#) })
        ));
        assert!(matches!(
            FromServer::parse(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#),
            Some(FromServer::Response { id: None, answer: Answer::Error("{}") })
        ));
        assert!(matches!(
            FromServer::parse(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#),
            Some(FromServer::Request { id: r#""q""#, .. })
        ));
        assert!(matches!(
            FromServer::parse(r#"{"jsonrpc":"2.0","method":"n","params":{}}"#),
            Some(FromServer::Notification { .. })
        ));
        assert!(FromServer::parse("listening on port 3000").is_none());
        assert!(FromServer::parse("7").is_none());
        assert!(FromServer::parse("{}").is_none());
        assert!(FromServer::parse(r#"{"id":1,"result":{}}"#).is_none());
        assert!(FromServer::parse(r#"{"jsonrpc":"1.0","id":1,"result":{}}"#).is_none());
    }
}
