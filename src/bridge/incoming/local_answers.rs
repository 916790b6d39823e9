//! What needs no process: the answers that the bridge gives by itself, and the rules that a request must keep before
//! anything is started for it.

use http::{Response, StatusCode};

use super::read;
use super::session::key;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::{Call, Purpose};
use crate::bridge::exchange::notes::Note;
use crate::bridge::exchange::questions::{Owner as Asker, call_key, open_question};
use crate::bridge::{Bridge, IncomingMessage};
use crate::config::{Questions, Tasks};
use crate::mcp::era::Version;
use crate::mcp::headers::{self, HeaderMismatch};
use crate::mcp::json;
use crate::mcp::legacy::{self, Introduction, without_questions};
use crate::mcp::message::{Answer, Kind, Message};
use crate::mcp::mirror;
use crate::mcp::modern::{self, META_CAPABILITIES, ModernFault};
use crate::mcp::session::{self, Session};
use crate::mcp::tasks;
use crate::relay::NotDelivered;
use crate::respond::{self, Body};
use crate::store::SessionStatus;

/// What is to be done with a message.
pub(in crate::bridge) enum LocalAnswer {
    /// Nothing more.
    Answered(Response<Body>),
    /// A fresh server must be asked.
    Call(Box<Call>),
}

impl Bridge {
    /// Answers what needs no process; anything else becomes a call.
    pub(in crate::bridge) async fn answer_locally(
        &self,
        incoming: &IncomingMessage,
    ) -> Result<LocalAnswer, BridgeError> {
        let message = &incoming.message;
        let is_modern = modern::is_modern(&incoming.head.headers, Some(message));
        let session = incoming.session.clone();
        // What becomes a call is let in as one.
        if is_local(message, session.is_some()) {
            self.limits.admit_message(&incoming.caller.user, message.text().len()).await?;
        }
        if is_modern {
            return modern_answer(incoming);
        }
        let named = version_header(incoming)?;
        match message.kind() {
            Kind::Request => {}
            Kind::Notification => return self.take_notification(incoming, session).await.map(LocalAnswer::Answered),
            Kind::Response => return self.take_answer(incoming, session).await.map(LocalAnswer::Answered),
        }
        match message.method() {
            "ping" => self.pong(incoming, session.as_ref()).await.map(LocalAnswer::Answered),
            "initialize" => Ok(LocalAnswer::Call(Box::new(initialize(incoming)?))),
            "logging/setLevel" if let Some(session) = &session => {
                self.set_level(incoming, session).await.map(LocalAnswer::Answered)
            }
            _ => match self.change_locally(incoming).await? {
                Some(response) => Ok(LocalAnswer::Answered(response)),
                None => Ok(LocalAnswer::Call(Box::new(legacy_call(incoming, session, named)))),
            },
        }
    }

    /// The answer to a `ping`, which asks whether the bridge is there: also while the store is not.
    async fn pong(&self, incoming: &IncomingMessage, session: Option<&Session>) -> Result<Response<Body>, BridgeError> {
        match self.session_status(incoming, session).await {
            Ok(_) | Err(BridgeError::Store) => {}
            Err(error) => return Err(error),
        }
        Ok(respond::json(StatusCode::OK, legacy::result(id(&incoming.message), "{}")))
    }

    /// A session that was ended is ended for what needs no process, too.
    async fn session_status(
        &self,
        incoming: &IncomingMessage,
        session: Option<&Session>,
    ) -> Result<SessionStatus, BridgeError> {
        match session {
            Some(session) => self.unless_ended(self.store.session_status(&key(&incoming.caller.user, session)).await),
            None => Ok(SessionStatus::default()),
        }
    }

    /// A legacy client tells something: what concerns a call finds it by its session and its id.
    async fn take_notification(
        &self,
        incoming: &IncomingMessage,
        session: Option<Session>,
    ) -> Result<Response<Body>, BridgeError> {
        let status = self.session_status(incoming, session.as_ref()).await?;
        let Some(session) = session else { return Ok(respond::empty(StatusCode::ACCEPTED)) };
        let message = &incoming.message;
        match message.method() {
            "notifications/cancelled" => {
                if let Some(id) = message.param("requestId").filter(|id| id.len() <= MAX_CANCELLATION) {
                    let note = Note::Cancelled(cancellation(message, id)).write();
                    let (relay, key) = (self.relay.clone(), call_key(&session.nonce, id));
                    self.notify_of_end(async move { relay.insist_by_key(&key, note).await });
                }
            }
            "notifications/progress" => {
                let token = message.param_string("progressToken");
                let to = token.and_then(|token| open_question(&self.keyring, asker(incoming), &session.nonce, &token));
                if let Some((address, token)) = to {
                    let text = message.with_param("progressToken", &token).text().to_owned();
                    let _ = self.relay.deliver(&address, Note::Tell(text).write()).await;
                }
            }
            "notifications/roots/list_changed" => {
                let listener = status.listener.map(|listener| listener.address);
                self.tell_listener(listener.as_deref(), Note::Tell(message.text().to_owned())).await;
            }
            _ => {}
        }
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// A legacy client answers a question of its server, which waits on the node that the question's id names.
    async fn take_answer(
        &self,
        incoming: &IncomingMessage,
        session: Option<Session>,
    ) -> Result<Response<Body>, BridgeError> {
        let accepted = Ok(respond::empty(StatusCode::ACCEPTED));
        self.session_status(incoming, session.as_ref()).await?;
        let Some(session) = session else { return accepted };
        let Some(id) = incoming.message.id().and_then(json::string) else { return accepted };
        let to = open_question(&self.keyring, asker(incoming), &session.nonce, &id);
        let Some((address, question)) = to else { return accepted };
        let (failed, text) = match incoming.message.answer() {
            Some(Answer::Error(error)) => (true, error),
            Some(Answer::Result(result)) => (false, result),
            None => return accepted,
        };
        let note = Note::Answer { id: question, failed, text: text.to_owned() };
        match self.relay.deliver(&address, note.write()).await {
            Ok(()) => accepted,
            Err(NotDelivered::Gone) => Err(BridgeError::NobodyAsked),
            Err(NotDelivered::TooLarge) => Err(BridgeError::TooLarge),
            Err(NotDelivered::Full | NotDelivered::Failed) => Err(BridgeError::Relay),
        }
    }
}

/// The longest cancellation that travels as it was written, bytes.
const MAX_CANCELLATION: usize = 4 << 10;

fn id(message: &Message) -> &str {
    message.id().unwrap_or("null")
}

/// Whether a message is answered without a process, whatever its server is.
fn is_local(message: &Message, has_session: bool) -> bool {
    message.kind() != Kind::Request
        || message.method() == "ping"
        || has_session && message.method() == "logging/setLevel"
}

/// A cancellation as its server hears it: as written, or without the reason where that is long.
fn cancellation(message: &Message, id: &str) -> String {
    if message.text().len() <= MAX_CANCELLATION {
        return message.text().to_owned();
    }
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

fn asker(incoming: &IncomingMessage) -> Asker<'_> {
    Asker { user: &incoming.caller.user, server: &incoming.server.name }
}

fn modern_answer(incoming: &IncomingMessage) -> Result<LocalAnswer, BridgeError> {
    let message = &incoming.message;
    if message.kind() == Kind::Notification {
        return Ok(LocalAnswer::Answered(respond::empty(StatusCode::ACCEPTED)));
    }
    let modern = modern::check(&incoming.head.headers, message)?;
    let keeps_tasks = incoming.server.tasks != Tasks::Off;
    if tasks::is_about_one(message.method()) {
        if !keeps_tasks {
            return Err(ModernFault::RemovedMethod.into());
        }
        if !tasks::declared(&modern.capabilities) {
            return Err(ModernFault::TasksUndeclared.into());
        }
    }
    let without_tasks = tasks::of_client(&modern.capabilities, false);
    let undeclared = (!keeps_tasks && without_tasks != modern.capabilities).then(|| without_tasks.clone());
    // Also where it cannot be asked by the result: a server may show each client what that can do.
    let capabilities = match incoming.server.questions {
        Questions::Refuse => without_questions(&without_tasks),
        Questions::Park | Questions::Replay => without_tasks,
    };
    let introduction = Introduction {
        version: Version::NEWEST_LEGACY,
        client_info: modern.client_info.clone().unwrap_or_else(|| session::brief_client_info(None)),
        capabilities,
    };
    let level = modern.log_level;
    let purpose = match message.method() {
        "server/discover" => Purpose::Discover,
        _ => Purpose::Modern(modern),
    };
    let mut call = call(incoming, introduction, purpose, level);
    if let Some(capabilities) = undeclared {
        call.message = call.message.with_meta(META_CAPABILITIES, &capabilities);
    }
    Ok(LocalAnswer::Call(Box::new(call)))
}

fn call(
    incoming: &IncomingMessage,
    introduction: Introduction,
    purpose: Purpose,
    level: Option<modern::Level>,
) -> Call {
    let message = &incoming.message;
    let (events, json) = (read::accepts_events(&incoming.head), read::accepts_json(&incoming.head));
    let (id, progress) = (id(message).to_owned(), message.progress_token().map(str::to_owned));
    let message = message.under(legacy::REQUEST_ID);
    let is_of_extension = headers::named_by(message.method()).is_none();
    let is_mirrored = |name: &str| name.starts_with(mirror::PREFIX) || is_of_extension && name == headers::NAME;
    let mirrored = incoming.head.headers.iter().filter(|(name, _)| is_mirrored(name.as_str()));
    let mirrored = mirrored.map(|(name, value)| (name.clone(), value.clone())).collect();
    Call { message, id, progress, introduction, purpose, level, listener: None, mirrored, events, json, agreed: None }
}

fn initialize(incoming: &IncomingMessage) -> Result<Call, BridgeError> {
    let wanted = legacy::Asked::parse(&incoming.message).ok_or(BridgeError::NoVersion)?;
    let introduction = Introduction {
        version: wanted.version,
        client_info: wanted.client_info.clone().unwrap_or_else(|| session::brief_client_info(None)),
        capabilities: tasks::of_client(&wanted.capabilities, incoming.server.tasks == Tasks::Durable),
    };
    Ok(call(incoming, introduction, Purpose::Initialize(wanted), None))
}

fn legacy_call(incoming: &IncomingMessage, session: Option<Session>, named: Option<Version>) -> Call {
    let introduction = match &session {
        Some(session) => Introduction {
            version: session.version,
            client_info: session.client_info.clone(),
            capabilities: {
                let capabilities = tasks::of_client(&session.capabilities, incoming.server.tasks == Tasks::Durable);
                if read::accepts_events(&incoming.head) { capabilities } else { without_questions(&capabilities) }
            },
        },
        None => Introduction {
            version: named.unwrap_or(Version::WITHOUT_HEADER),
            client_info: session::brief_client_info(None),
            capabilities: "{}".into(),
        },
    };
    call(incoming, introduction, Purpose::Legacy(session), None)
}

/// The version that a legacy client's header names, if it names one.
fn version_header(incoming: &IncomingMessage) -> Result<Option<Version>, BridgeError> {
    match headers::single(&incoming.head.headers, headers::PROTOCOL_VERSION) {
        Ok(Some(text)) => Version::parse(text.trim()).map(Some).ok_or(BridgeError::Version),
        Ok(None) | Err(HeaderMismatch::Missing(_)) => Ok(None),
        Err(_) => Err(BridgeError::Version),
    }
}

impl From<HeaderMismatch> for BridgeError {
    fn from(mismatch: HeaderMismatch) -> Self {
        Self::Modern(ModernFault::Headers(mismatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_travels_as_written_unless_its_reason_is_long() {
        let written = |reason: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"\u0061", "reason":"{reason}"}}}}"#
            )
        };
        let heard = |reason: &str| cancellation(&Message::parse(written(reason).into()).unwrap(), r#""\u0061""#);
        assert_eq!(heard("x"), written("x"));
        let short = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0061"}}"#;
        assert_eq!(heard(&"x".repeat(MAX_CANCELLATION)), short);
    }
}
