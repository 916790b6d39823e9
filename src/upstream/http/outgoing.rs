//! One message on its way to a server, with the headers that mirror it. Source: MCP 2026-07-28,
//! basic/transports/streamable-http, "Request Metadata".

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::mcp::headers;
use crate::mcp::json::{self, Object};
use crate::mcp::message::{Answer, FromServer};
use crate::mcp::modern::META_VERSION;

/// A queued message.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// Its text as the bridge wrote it.
    pub(super) text: Bytes,
    /// What it is.
    pub(super) about: MessageKind,
    /// The protocol version in its `_meta`: it is of the modern era.
    pub(super) modern_version: Option<String>,
    /// Headers that mirror what only its sender knows to be mirrored.
    pub(super) mirrored: Vec<(HeaderName, HeaderValue)>,
    method: String,
    name: Option<String>,
}

/// What a message is, as far as its transport must know.
#[derive(Clone)]
pub(super) enum MessageKind {
    /// A request, by its id as written.
    Request(String),
    /// A notification that a request, by its id as written, is no longer wanted.
    Cancellation(String),
    /// Any other notification.
    Notification,
    /// The answer to a question of the server.
    Answer,
}

impl Outgoing {
    /// Takes a message in.
    pub(super) fn new(text: &str) -> Self {
        let (about, method, params) = match FromServer::parse(text) {
            Some(FromServer::Request { id, method, params }) => (MessageKind::Request(id.to_owned()), method, params),
            Some(FromServer::Notification { method, params }) => (MessageKind::Notification, method, params),
            Some(FromServer::Response { .. }) => (MessageKind::Answer, "".into(), None),
            None => (MessageKind::Notification, "".into(), None),
        };
        let params = params.and_then(|text| Object::parse(text).ok()).unwrap_or_default();
        let about = match params.get("requestId").filter(|_| method == "notifications/cancelled") {
            Some(id) => MessageKind::Cancellation(id.to_owned()),
            None => about,
        };
        let version = params.get_object("_meta").and_then(|meta| meta.get_string(META_VERSION));
        let name = headers::named_by(&method).and_then(|field| params.get_string(field));
        Self {
            text: Bytes::copy_from_slice(text.as_bytes()),
            about,
            modern_version: version.map(Cow::into_owned),
            mirrored: Vec::new(),
            name: name.map(Cow::into_owned),
            method: method.into_owned(),
        }
    }

    /// The id, if it is a request.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.about {
            MessageKind::Request(id) => Some(id),
            _ => None,
        }
    }

    /// Whether it opens a legacy session.
    pub(super) fn opens_session(&self) -> bool {
        self.method == "initialize"
    }

    /// Whether it may be sent again if a connection broke before an answer began: a method that only reads.
    pub(super) fn only_reads(&self) -> bool {
        const READING: [&str; 4] = ["initialize", "server/discover", "ping", "completion/complete"];
        let method = self.method.as_str();
        let ends = |suffix| method.ends_with(suffix);
        self.id().is_some() && (READING.contains(&method) || ends("/list") || ends("/read") || method == "prompts/get")
    }

    /// Adds the headers that mirror it.
    pub(super) fn mirror_into(&self, map: &mut HeaderMap) {
        let mut add = |name: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(&headers::encode(text)) {
                map.insert(HeaderName::from_static(name), value);
            }
        };
        if !self.method.is_empty() {
            add(headers::METHOD, &self.method);
        }
        if let Some(name) = &self.name {
            add(headers::NAME, name);
        }
    }
}

/// Whether `message` answers the request `id`.
pub(super) fn answers(message: &[u8], id: &str) -> bool {
    let text = std::str::from_utf8(message).unwrap_or_default();
    matches!(FromServer::parse(text), Some(FromServer::Response { id: Some(of), .. }) if json::same_scalar(of, id))
}

/// The body of an HTTP error as the answer to the request `id`: an error that has this id, or none, because the server
/// had not read so far.
pub(super) fn error_for(body: &[u8], id: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    match FromServer::parse(text)? {
        FromServer::Response { id: Some(of), answer: Answer::Error(_) } if json::same_scalar(of, id) => {
            Some(Bytes::copy_from_slice(body))
        }
        FromServer::Response { id: None, answer: Answer::Error(error) } => {
            Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into())
        }
        _ => None,
    }
}

/// The version that the answer to `initialize` names.
pub(super) fn negotiated(message: &[u8]) -> Option<HeaderValue> {
    match FromServer::parse(std::str::from_utf8(message).ok()?)? {
        FromServer::Response { answer: Answer::Result(result), .. } => {
            let version = Object::parse(result).ok()?.get_string("protocolVersion")?.into_owned();
            HeaderValue::from_str(&version).ok()
        }
        _ => None,
    }
}
