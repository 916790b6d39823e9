//! The final message of a call: the server's answer as its client knows it, with the status it needs.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::conversation::{Call, Purpose, one_line, text};
use super::error::BridgeError;
use super::local::token_refused;
use super::sse::Last;
use crate::clock::{Clock, UnixTime};
use crate::config::{Server, ServerName};
use crate::keyring::Keyring;
use crate::mcp::headers;
use crate::mcp::json;
use crate::mcp::legacy::{self, Asked, Initialized};
use crate::mcp::message::Answer;
use crate::mcp::modern;
use crate::mcp::session::{self, Owner, Session};
use crate::mcp::translate;
use crate::upstream::UpstreamError;
use crate::user::UserId;

/// `Method not found`.
const METHOD_NOT_FOUND: i64 = -32601;

/// A final message, and what goes with it.
pub(super) struct Answered {
    /// The status, if it is not too late for one.
    pub(super) status: StatusCode,
    /// The message.
    pub(super) text: Bytes,
    /// The session that it begins.
    pub(super) session: Option<HeaderValue>,
}

/// Makes final messages for one user and one server.
pub(super) struct Reply {
    /// Whose call it is.
    pub(super) user: UserId,
    /// Which server it is for.
    pub(super) server: ServerName,
    /// Seals sessions.
    pub(super) keyring: Arc<Keyring>,
    /// Says when they end.
    pub(super) clock: Clock,
    /// How long they last, in seconds.
    pub(super) session_lifetime: u64,
    /// Where the user saves their token for the server, if it takes one.
    pub(super) setup_link: Option<String>,
}

impl Reply {
    /// The final message of a call that failed.
    pub(super) fn failed(&self, call: &Call, server: &Server, error: &BridgeError) -> Last {
        match (error, &self.setup_link) {
            (BridgeError::Upstream(UpstreamError::TokenRefused), Some(link)) => {
                let text = token_refused(call, server, link).into();
                Last { status: StatusCode::OK, text, session: None, retry_after: None }
            }
            _ => error.last(Some(call.id())),
        }
    }

    /// The answer to a legacy client's `initialize`: what the server said, as far as it can be honoured, and the
    /// session that begins.
    pub(super) fn initialized(&self, call: &Call, initialized: &Initialized) -> Result<Answered, BridgeError> {
        let asked = Asked::parse(&call.message).ok_or(BridgeError::NoVersion)?;
        let session = Session {
            version: initialized.version,
            client_info: session::brief_client_info(asked.client_info.as_deref()),
            capabilities: asked.capabilities,
            nonce: session::fresh_nonce(),
            expires: UnixTime(self.clock.now().0 + self.session_lifetime),
        };
        let owner = Owner { user: &self.user, server: &self.server };
        let id = session.seal(&self.keyring, owner).map_err(|_| BridgeError::ClientTooLong)?;
        Ok(Answered {
            status: StatusCode::OK,
            text: legacy::result(call.id(), &initialized.honest_result()).into(),
            session: Some(HeaderValue::from_str(&id).expect("a sealed text is base64url")),
        })
    }
}

impl Answered {
    /// A message that worked.
    pub(super) fn ok(text: String) -> Self {
        Self { status: StatusCode::OK, text: text.into(), session: None }
    }

    /// The answer to any other request: `line` is what the server wrote, `id` the id in it.
    pub(super) fn by_server(
        call: &Call,
        initialized: &Initialized,
        line: &Bytes,
        id: &str,
        answer: Answer<'_>,
    ) -> Self {
        if !matches!(call.purpose, Purpose::Modern(_)) {
            return Self { status: StatusCode::OK, text: with_id(line, id, call.id()), session: None };
        }
        let (status, text) = match answer {
            Answer::Result(result) => {
                let server_info = initialized.server_info();
                let result = translate::result_for_modern(call.message.method(), result, server_info.as_deref());
                (StatusCode::OK, legacy::result(call.id(), &result))
            }
            Answer::Error(error) => {
                let error = translate::error_for_modern(error);
                let status = status_of(&error, call.message.method(), initialized);
                (status, format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, call.id()))
            }
        };
        Self { status, text: text.into(), session: None }
    }
}

/// The server's line with the id as the client wrote it; most servers write it so themselves.
fn with_id(line: &Bytes, id: &str, wanted: &str) -> Bytes {
    if id == wanted {
        return one_line(line);
    }
    let at = json::range_in(text(line), id);
    one_line(&[&line[..at.start], wanted.as_bytes(), &line[at.end..]].concat().into())
}

/// The status of an error for a modern client. Source: MCP 2026-07-28, basic/transports/streamable-http: 404 is for a
/// method that is not implemented, which a server that has the capability does not mean.
fn status_of(error: &str, method: &str, initialized: &Initialized) -> StatusCode {
    match translate::error_code(error) {
        Some(modern::UNSUPPORTED_VERSION..=modern::HEADER_MISMATCH) => StatusCode::BAD_REQUEST,
        Some(METHOD_NOT_FOUND) => {
            let capability = method.split('/').next().unwrap_or_default();
            let names_a_thing = headers::named_by(method).is_some();
            if names_a_thing && initialized.offers(capability) { StatusCode::OK } else { StatusCode::NOT_FOUND }
        }
        _ => StatusCode::OK,
    }
}
