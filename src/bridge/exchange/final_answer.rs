//! The final message of a call: the server's answer as its client knows it, with the status it needs.

use bytes::Bytes;
use http::StatusCode;

use super::Exchange;
use super::call::Purpose;
use super::handshake::Handshake;
use crate::bridge::connect::link::Lack;
use crate::bridge::error::BridgeError;
use crate::bridge::response::final_message::FinalMessage;
use crate::config::{Listening, Tasks};
use crate::mcp::era::Era;
use crate::mcp::headers;
use crate::mcp::legacy::{self, Asked};
use crate::mcp::lists::{self, List};
use crate::mcp::message::Answer;
use crate::mcp::modern;
use crate::mcp::session::Owner;
use crate::mcp::splice::{Spliced, Splicer, respliced, with_part};
use crate::mcp::tasks;
use crate::mcp::translate;
use crate::upstream::Upstream;

/// `Method not found`.
const METHOD_NOT_FOUND: i64 = -32601;

/// The final message of a call that failed.
pub(in crate::bridge) fn failed(exchange: &Exchange, error: &BridgeError) -> FinalMessage {
    match (Lack::of_refusal(&exchange.server, error), exchange.call.session()) {
        (Some(lack), _) => {
            exchange.bridge.without_token((&exchange.caller.user, &exchange.server), &exchange.call, &lack)
        }
        (None, Some(_)) => error.last_in_session(Some(&exchange.reply_id)),
        (None, _) => error.last(Some(&exchange.reply_id)),
    }
}

/// The answer to a legacy client's `initialize`: what the server said, as far as it can be honoured, and the
/// session that begins.
pub(in crate::bridge) fn initialized(
    exchange: &Exchange,
    asked: &Asked,
    handshake: &Handshake,
) -> Result<FinalMessage, BridgeError> {
    let (version, result) = match handshake {
        Handshake::Legacy(initialized) => (initialized.version, initialized.result.clone()),
        Handshake::Modern(discovered) => {
            let version = exchange.version_for_client();
            (version, translate::initialize_result(discovered.as_deref().unwrap_or("{}"), version))
        }
    };
    let owner = Owner { user: &exchange.caller.user, server: &exchange.server.name };
    let session = exchange.bridge.begin_session(owner, asked, version, Some(handshake.era()))?;
    Ok(FinalMessage {
        status: StatusCode::OK,
        text: legacy::result(&exchange.reply_id, &exchange.promised(result)).into(),
        session: Some(session),
        retry_after: None,
    })
}

/// The answer to any other request: `line` is what the server wrote, `id` the id in it.
pub(super) fn by_server(exchange: &Exchange, line: &Bytes, id: &str, answer: Answer<'_>) -> FinalMessage {
    let (status, text) = match (&exchange.call.purpose, exchange.handshaken()) {
        (Purpose::Modern(_) | Purpose::Discover, Handshake::Legacy(_)) => translated(exchange, line, id, answer),
        (Purpose::Discover, Handshake::Modern(_)) if matches!(answer, Answer::Result(_)) => {
            let Answer::Result(result) = answer else { unreachable!("just looked") };
            let write = |said: &mut Splicer<'_>| said.push_str(&exchange.promised(result.to_owned()));
            (StatusCode::OK, respliced(line, (id, &exchange.reply_id), result, write))
        }
        (Purpose::Modern(_) | Purpose::Discover, Handshake::Modern(_)) => {
            let status = match answer {
                Answer::Result(_) => StatusCode::OK,
                Answer::Error(error) => status_of(error, exchange),
            };
            (status, with_id(line, id, &exchange.reply_id))
        }
        (Purpose::Legacy(_) | Purpose::Initialize(_), _) => (StatusCode::OK, with_id(line, id, &exchange.reply_id)),
    };
    FinalMessage { status, text, session: None, retry_after: None }
}

impl Exchange {
    /// What the server says of itself, with no promise that is not kept: changes of lists are told by the programs and
    /// containers of calls, if their era lets them speak unasked and the client has a session to be told in, and by a
    /// server that always listens; tasks are kept as the configuration says, and in its server's own era. Where the user's
    /// token is missing, the bridge tells of its tools once it is there.
    pub(in crate::bridge) fn promised(&self, result: String) -> String {
        let keeps_tasks = match (self.server.tasks, self.handshaken()) {
            (Tasks::Off, _) => false,
            (Tasks::Hold, handshake) => self.call.is_modern() && handshake.era() == Era::Modern,
            (Tasks::Durable, handshake) => !self.call.is_modern() || handshake.era() == Era::Modern,
        };
        let result = if keeps_tasks { result } else { tasks::without_offer(&result) };
        let is_here = !matches!(self.child.upstream, Upstream::Http(_));
        let by_calls = is_here && !self.call.is_modern() && matches!(self.handshaken(), Handshake::Legacy(_));
        let told = by_calls || self.server.listen == Listening::Always;
        let result = if told { result } else { lists::without_promise(&result) };
        let awaits_token = self.server.requires_user_token && self.child.credential_mark().is_none();
        if awaits_token { lists::with_promise(&result, List::Tools) } else { result }
    }
}

/// A legacy server's answer for a modern client: its line, with the id and the outcome said anew.
fn translated(exchange: &Exchange, line: &Bytes, id: &str, answer: Answer<'_>) -> (StatusCode, Spliced) {
    match answer {
        Answer::Result(result) => {
            let info = exchange.handshaken().server_info();
            let method = exchange.call.message.method();
            let write = |said: &mut Splicer<'_>| {
                translate::write_result_for_modern(method, result, info.as_deref(), |part| said.push_str(part));
            };
            (StatusCode::OK, respliced(line, (id, &exchange.reply_id), result, write))
        }
        Answer::Error(error) => {
            let said = translate::error_for_modern(error);
            let status = status_of(&said, exchange);
            (status, respliced(line, (id, &exchange.reply_id), error, |anew| anew.push_str(&said)))
        }
    }
}

/// The server's line with the id as the client wrote it; most servers write it so themselves.
fn with_id(line: &Bytes, id: &str, wanted: &str) -> Spliced {
    if id == wanted { line.clone().into() } else { with_part(line, id, wanted) }
}

/// The status of an error for a modern client. Source: MCP 2026-07-28, basic/transports/streamable-http: 404 is for a
/// method that is not implemented, which a server that has the capability does not mean.
pub(super) fn status_of(error: &str, exchange: &Exchange) -> StatusCode {
    match translate::error_code(error) {
        Some(modern::UNSUPPORTED_VERSION..=modern::HEADER_MISMATCH) => StatusCode::BAD_REQUEST,
        Some(METHOD_NOT_FOUND) => {
            let method = exchange.call.message.method();
            let capability = method.split('/').next().unwrap_or_default();
            let names_a_thing = headers::named_by(method).is_some();
            if names_a_thing && exchange.handshaken().offers(capability) {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            }
        }
        _ => StatusCode::OK,
    }
}
