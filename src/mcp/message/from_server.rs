//! What a server says, as far as it must be understood to be led on.

use std::borrow::Cow;

use bytes::Bytes;

use crate::long_work::by_length;
use crate::mcp::json::{self, Invalid, Reader};
use crate::mcp::splice::text;

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

/// The members that say what a message is, as written. `null` is as good as none.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a str>,
    id: Option<&'a str>,
    method: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    fn read(line: &'a str) -> Result<Self, Invalid> {
        let mut envelope = Self::default();
        let mut reader = Reader::new(line, usize::MAX);
        reader.object(|reader, key| {
            let value = reader.value()?;
            let member = match json::string(key).as_deref() {
                Some("jsonrpc") => &mut envelope.jsonrpc,
                Some("id") => &mut envelope.id,
                Some("method") => &mut envelope.method,
                Some("params") => &mut envelope.params,
                Some("result") => &mut envelope.result,
                Some("error") => &mut envelope.error,
                _ => return Ok(()),
            };
            if member.replace(value).is_some() { Err(Invalid::DuplicateKey) } else { Ok(()) }
        })?;
        reader.end()?;
        Ok(envelope)
    }
}

impl<'a> FromServer<'a> {
    /// Reads one line of a server's stdout; `None` if it is no JSON-RPC message.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let Envelope { jsonrpc, id, method, params, result, error } = Envelope::read(line).ok()?;
        if json::string(jsonrpc?)? != "2.0" {
            return None;
        }
        let said = |member: Option<&'a str>| member.filter(|text| *text != "null");
        let (id, params) = (said(id), said(params));
        match (said(method), id) {
            (Some(method), Some(id)) => Some(Self::Request { id, method: json::string(method)?, params }),
            (Some(method), None) => Some(Self::Notification { method: json::string(method)?, params }),
            (None, id) => {
                let answer = match (said(result), said(error)) {
                    (_, Some(error)) => Answer::Error(error),
                    (Some(result), None) => Answer::Result(result),
                    (None, None) => return None,
                };
                Some(Self::Response { id, answer })
            }
        }
    }
}

/// What a server says on a line, which is known to be UTF-8.
#[must_use]
pub fn from_server(line: &Bytes) -> Option<FromServer<'_>> {
    by_length(line.len(), || FromServer::parse(text(line)))
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
