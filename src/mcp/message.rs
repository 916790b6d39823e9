//! One JSON-RPC message, parsed once; what travels on is the text that came.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::json::{self, Object, ObjectError};

/// A message from a client: a view into the bytes that arrived.
#[derive(Debug, Clone)]
pub struct Message {
    text: Bytes,
    kind: Kind,
    id: Option<Range<usize>>,
    method: String,
    params: Option<Range<usize>>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a method and an id, and wants an answer.
    Request,
    /// It has a method and no id.
    Notification,
    /// It has no method: the answer to a question.
    Response,
}

/// Why bytes are not a message, with the id if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The id as written.
    pub id: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not UTF-8, or not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// An array: a batch, which only 2025-03-26 had.
    #[error("the body is a batch; send each message as its own POST")]
    Batch,
    /// A scalar.
    #[error("the body is not a JSON-RPC message")]
    NotAnObject,
    /// Two members of the message, or of its `params`, have the same name.
    #[error("a key stands twice in the message or in its params")]
    DuplicateKey,
    /// Nested deeper than [`json::MAX_DEPTH`].
    #[error("the body nests deeper than 64 levels")]
    TooDeep,
    /// `jsonrpc` is not "2.0".
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    /// The id is null or no string and no number.
    #[error("`id` must be a string or a number")]
    Id,
    /// The method is no string, or missing where there is no answer either.
    #[error("`method` must be a string")]
    Method,
    /// `params` is no object.
    #[error("`params` must be an object")]
    Params,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// Says what is wrong with it, and its id if that much could be read.
    pub fn parse(body: Bytes) -> Result<Self, Malformed> {
        let without_id = |fault| Malformed { id: None, fault };
        let text = std::str::from_utf8(&body).map_err(|_| without_id(Fault::NotJson))?;
        if !json::depth_is_bounded(text.as_bytes()) {
            return Err(without_id(Fault::TooDeep));
        }
        let object = Object::parse(text).map_err(|error| {
            without_id(match error {
                ObjectError::Syntax => Fault::NotJson,
                ObjectError::DuplicateKey => Fault::DuplicateKey,
                ObjectError::NotAnObject if text.trim_start().starts_with('[') => Fault::Batch,
                ObjectError::NotAnObject => Fault::NotAnObject,
            })
        })?;
        let id = object.get("id").filter(|id| json::string(id).is_some() || is_number(id));
        let with_id = |fault| Malformed { id: id.map(str::to_owned), fault };
        if id.is_none() && object.get("id").is_some() {
            return Err(with_id(Fault::Id));
        }
        if object.get_string("jsonrpc").as_deref() != Some("2.0") {
            return Err(with_id(Fault::Version));
        }
        let (kind, method) = kind(&object).map_err(with_id)?;
        let params = object.get("params");
        if let Some(params) = params {
            Object::parse(params).map_err(|error| {
                with_id(if error == ObjectError::DuplicateKey { Fault::DuplicateKey } else { Fault::Params })
            })?;
        }
        let place = |part| json::range_in(text, part);
        Ok(Self { kind, id: id.map(place), method, params: params.map(place), text: body })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its method; empty for a response.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its id as written.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.clone().map(|range| self.slice(range))
    }

    /// Its `params` as written.
    #[must_use]
    pub fn params(&self) -> Option<&str> {
        self.params.clone().map(|range| self.slice(range))
    }

    /// The top level of its `params`; empty if there are none.
    #[must_use]
    pub fn params_object(&self) -> Object<'_> {
        self.params().and_then(|text| Object::parse(text).ok()).unwrap_or_default()
    }

    /// The top level of its `params._meta`, if that is an object.
    #[must_use]
    pub fn meta(&self) -> Option<Object<'_>> {
        self.params().and_then(|text| Object::parse(text).ok())?.get_object("_meta")
    }

    /// The whole message as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        self.slice(0..self.text.len())
    }

    /// The whole message with other `params`.
    #[must_use]
    pub fn with_params(&self, params: &str) -> String {
        if let Some(range) = self.params.clone() {
            let text = self.text();
            return format!("{}{params}{}", &text[..range.start], &text[range.end..]);
        }
        let mut object = Object::parse(self.text()).unwrap_or_default();
        object.set("params", params);
        object.write()
    }

    fn slice(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.text[range]).expect("a message is kept only if its text is UTF-8")
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn kind(object: &Object<'_>) -> Result<(Kind, String), Fault> {
    let has_id = object.get("id").is_some();
    match object.get("method") {
        Some(method) => {
            let method = json::string(method).ok_or(Fault::Method)?.into_owned();
            Ok((if has_id { Kind::Request } else { Kind::Notification }, method))
        }
        None if has_id && (object.get("result").is_some() || object.get("error").is_some()) => {
            Ok((Kind::Response, String::new()))
        }
        None => Err(Fault::Method),
    }
}

/// One message as a line for a program's stdin: line ends between its tokens become spaces, and one ends it.
/// Source: 2025-11-25, basic/transports, "stdio": messages must not contain embedded newlines.
#[must_use]
pub fn line(text: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    if memchr::memchr2(b'\n', b'\r', &line).is_some() {
        line.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    }
    line.push(b'\n');
    line
}

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

    fn parse(text: &'static str) -> Result<Message, Malformed> {
        Message::parse(Bytes::from_static(text.as_bytes()))
    }

    fn fault(text: &'static str) -> Fault {
        parse(text).unwrap_err().fault
    }

    #[test]
    fn a_request_keeps_its_id_and_params_byte_for_byte() {
        let message = parse(
            r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"x","params":{"a":1.0,"b":18446744073709551616},"x-extra":[1e400]}"#,
        )
        .unwrap();
        assert_eq!(message.kind(), Kind::Request);
        assert_eq!(message.id(), Some("123456789012345678901234567890"));
        assert_eq!(message.params(), Some(r#"{"a":1.0,"b":18446744073709551616}"#));
        assert_eq!(
            message.with_params("{}"),
            r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"x","params":{},"x-extra":[1e400]}"#
        );
    }

    #[test]
    fn params_are_added_where_there_were_none() {
        let message = parse(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).unwrap();
        assert_eq!(message.with_params("{}"), r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#);
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(parse(r#"{"jsonrpc":"2.0","method":"x"}"#).unwrap().kind(), Kind::Notification);
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap().kind(), Kind::Response);
    }

    #[test]
    fn malformed_messages_say_what_is_wrong() {
        assert_eq!(fault("{"), Fault::NotJson);
        assert_eq!(fault("[]"), Fault::Batch);
        assert_eq!(fault("1"), Fault::NotAnObject);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#), Fault::DuplicateKey);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1,"a":2}}"#), Fault::DuplicateKey);
        assert_eq!(fault(r#"{"id":1,"method":"x"}"#), Fault::Version);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#), Fault::Id);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#), Fault::Id);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":7}"#), Fault::Method);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1}"#), Fault::Method);
        assert_eq!(fault(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#), Fault::Params);
    }

    #[test]
    fn the_id_of_a_malformed_message_is_known_when_it_can_be() {
        assert_eq!(parse(r#"{"id":"a","method":"x"}"#).unwrap_err().id.as_deref(), Some(r#""a""#));
    }

    #[test]
    fn a_line_has_one_line_end_and_keeps_its_length() {
        assert_eq!(line("{\r\n \"a\": \"\\n\"\n}"), b"{   \"a\": \"\\n\" }\n");
    }

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
        assert!(matches!(FromServer::parse(r#"{"method":"n","params":{}}"#), Some(FromServer::Notification { .. })));
        assert!(FromServer::parse("listening on port 3000").is_none());
        assert!(FromServer::parse("7").is_none());
        assert!(FromServer::parse("{}").is_none());
    }
}
