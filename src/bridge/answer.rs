//! The final message of a call: the server's answer as its client knows it, with the status it needs.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::call::Purpose;
use super::error::BridgeError;
use super::local::{setup_link, token_refused};
use super::meet::Met;
use super::sse::Last;
use super::talk::{Talk, text, with_part};
use crate::clock::UnixTime;
use crate::config::{Listening, Tasks};
use crate::mcp::era::Era;
use crate::mcp::headers;
use crate::mcp::json;
use crate::mcp::legacy::{self, Asked};
use crate::mcp::lists;
use crate::mcp::message::Answer;
use crate::mcp::modern;
use crate::mcp::session::{self, Owner, Session};
use crate::mcp::tasks;
use crate::mcp::translate;
use crate::upstream::{Upstream, UpstreamError};

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

/// The final message of a call that failed.
pub(super) fn failed(talk: &Talk, error: &BridgeError) -> Last {
    match error {
        BridgeError::Upstream(UpstreamError::TokenRefused) if talk.server.requires_user_token => {
            let link = setup_link(&talk.bridge.config.public_url, &talk.server);
            let text = token_refused(&talk.call, &talk.server, &link).into();
            Last { status: StatusCode::OK, text, session: None, retry_after: None }
        }
        _ if talk.call.session().is_some() => {
            Last { status: error.status_in_session(), ..error.last(Some(&talk.reply_id)) }
        }
        _ => error.last(Some(&talk.reply_id)),
    }
}

impl Answered {
    /// A message that worked.
    pub(super) fn ok(text: String) -> Self {
        Self { status: StatusCode::OK, text: text.into(), session: None }
    }

    /// The answer to a legacy client's `initialize`: what the server said, as far as it can be honoured, and the
    /// session that begins.
    pub(super) fn initialized(talk: &Talk, asked: &Asked, met: &Met) -> Result<Self, BridgeError> {
        let (version, result) = match met {
            Met::Legacy(initialized) => (initialized.version, initialized.result.clone()),
            Met::Modern(discovered) => {
                let version = talk.version_for_client();
                (version, translate::initialize_result(discovered.as_deref().unwrap_or("{}"), version))
            }
        };
        let (bridge, lifetime) = (&talk.bridge, talk.bridge.config.limits.session_lifetime.as_secs());
        let session = Session {
            version,
            client_info: session::brief_client_info(asked.client_info.as_deref()),
            capabilities: asked.capabilities.clone(),
            era: met.era(),
            nonce: session::fresh_nonce(),
            expires: UnixTime(bridge.clock.now().0 + lifetime),
        };
        let owner = Owner { user: &talk.caller.user, server: &talk.server.name };
        let id = session.seal(&bridge.keyring, owner).map_err(|_| BridgeError::ClientTooLong)?;
        Ok(Self {
            status: StatusCode::OK,
            text: legacy::result(&talk.reply_id, &talk.promised(result)).into(),
            session: Some(HeaderValue::from_str(&id).expect("a sealed text is base64url")),
        })
    }

    /// The answer to any other request: `line` is what the server wrote, `id` the id in it.
    pub(super) fn by_server(talk: &Talk, line: &Bytes, id: &str, answer: Answer<'_>) -> Self {
        let (status, text) = match (&talk.call.purpose, talk.met()) {
            (Purpose::Modern(_) | Purpose::Discover, Met::Legacy(_)) => translated(talk, line, id, answer),
            (Purpose::Discover, Met::Modern(_)) if matches!(answer, Answer::Result(_)) => {
                let Answer::Result(result) = answer else { unreachable!("just looked") };
                let write = |text: &mut String| text.push_str(&talk.promised(result.to_owned()));
                (StatusCode::OK, respliced(line, (id, &talk.reply_id), result, write))
            }
            (Purpose::Modern(_) | Purpose::Discover, Met::Modern(_)) => {
                let status = match answer {
                    Answer::Result(_) => StatusCode::OK,
                    Answer::Error(error) => status_of(error, talk),
                };
                (status, with_id(line, id, &talk.reply_id))
            }
            (Purpose::Legacy(_) | Purpose::Initialize(_), _) => (StatusCode::OK, with_id(line, id, &talk.reply_id)),
        };
        Self { status, text, session: None }
    }
}

impl Talk {
    /// What the server says of itself, with no promise that is not kept: changes of lists are told by the programs and
    /// containers of calls, if their era lets them speak unasked and the client has a session to be told in, and by a
    /// server that always listens; tasks are kept as the configuration says, and in its server's own era.
    pub(super) fn promised(&self, result: String) -> String {
        let keeps_tasks = match (self.server.tasks, self.met()) {
            (Tasks::Off, _) => false,
            (Tasks::Hold, met) => self.call.is_modern() && met.era() == Era::Modern,
            (Tasks::Durable, met) => !self.call.is_modern() || met.era() == Era::Modern,
        };
        let result = if keeps_tasks { result } else { tasks::without_offer(&result) };
        let is_here = !matches!(self.child.upstream, Upstream::Http(_));
        let by_calls = is_here && !self.call.is_modern() && matches!(self.met(), Met::Legacy(_));
        let told = by_calls || self.server.listen == Listening::Always;
        if told { result } else { lists::without_promise(&result) }
    }
}

/// A legacy server's answer for a modern client: its line, with the id and the outcome said anew.
fn translated(talk: &Talk, line: &Bytes, id: &str, answer: Answer<'_>) -> (StatusCode, Bytes) {
    match answer {
        Answer::Result(result) => {
            let info = talk.met().server_info();
            let method = talk.call.message.method();
            let write = |text: &mut String| {
                translate::write_result_for_modern(method, result, info.as_deref(), text);
            };
            (StatusCode::OK, respliced(line, (id, &talk.reply_id), result, write))
        }
        Answer::Error(error) => {
            let said = translate::error_for_modern(error);
            let status = status_of(&said, talk);
            (status, respliced(line, (id, &talk.reply_id), error, |text| text.push_str(&said)))
        }
    }
}

/// A line with its id and its outcome, both slices of it, said anew, in one copy.
pub(super) fn respliced(line: &Bytes, id: (&str, &str), outcome: &str, write: impl FnOnce(&mut String)) -> Bytes {
    let whole = text(line);
    let (id_at, outcome_at) = (json::range_in(whole, id.0), json::range_in(whole, outcome));
    let mut said = String::with_capacity(line.len() + 256);
    if id_at.start < outcome_at.start {
        said.push_str(&whole[..id_at.start]);
        said.push_str(id.1);
        said.push_str(&whole[id_at.end..outcome_at.start]);
        write(&mut said);
        said.push_str(&whole[outcome_at.end..]);
    } else {
        said.push_str(&whole[..outcome_at.start]);
        write(&mut said);
        said.push_str(&whole[outcome_at.end..id_at.start]);
        said.push_str(id.1);
        said.push_str(&whole[id_at.end..]);
    }
    said.into()
}

/// The server's line with the id as the client wrote it; most servers write it so themselves.
fn with_id(line: &Bytes, id: &str, wanted: &str) -> Bytes {
    if id == wanted { line.clone() } else { with_part(line, id, wanted) }
}

/// The status of an error for a modern client. Source: MCP 2026-07-28, basic/transports/streamable-http: 404 is for a
/// method that is not implemented, which a server that has the capability does not mean.
pub(super) fn status_of(error: &str, talk: &Talk) -> StatusCode {
    match translate::error_code(error) {
        Some(modern::UNSUPPORTED_VERSION..=modern::HEADER_MISMATCH) => StatusCode::BAD_REQUEST,
        Some(METHOD_NOT_FOUND) => {
            let method = talk.call.message.method();
            let capability = method.split('/').next().unwrap_or_default();
            let names_a_thing = headers::named_by(method).is_some();
            if names_a_thing && talk.met().offers(capability) { StatusCode::OK } else { StatusCode::NOT_FOUND }
        }
        _ => StatusCode::OK,
    }
}
