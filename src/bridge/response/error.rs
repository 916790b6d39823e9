//! Everything that can go wrong with a request, and the one match that says what the client is told: a status, a
//! JSON-RPC code, and one sentence that a person can act on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::final_message::FinalMessage;
use crate::auth::{AuthError, HostFault};
use crate::bridge::exchange::request_state::BadState;
use crate::config::{BadHeader, FillError};
use crate::limits::Refused;
use crate::limits::body::BodyFault;
use crate::mcp::legacy;
use crate::mcp::message::{Fault, Malformed};
use crate::mcp::modern::{self, ModernFault};
use crate::mcp::tasks;
use crate::mcp::tools::Unreadable;
use crate::mcp::translate;
use crate::memory::Full;
use crate::request_id::RequestId;
use crate::respond::{self, Body};
use crate::store::{MAX_SESSION, MAX_SUBSCRIPTIONS, MAX_URI, TooSoon};
use crate::upstream::UpstreamError;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;

/// After how many seconds to try again where nothing better is known.
const RETRY_AFTER: u64 = 1;

/// Why a request has no answer from its server. Whose fault it was is in the status: 4xx the client's, 502 the
/// server's, 503 and 504 ours or the store's.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// `Host` or `Origin` is none of ours.
    #[error("{0}")]
    Host(#[from] HostFault),
    /// Nobody, or somebody else.
    #[error("the request carries no valid credential; present the one that this bridge's operator gave you")]
    Auth(#[from] AuthError),
    /// No such path, or no such server, or none for this user.
    #[error("there is no MCP server at this path")]
    NotFound,
    /// The path does not take this method, or not in this era; it takes these.
    #[error("this path does not take this HTTP method; it takes {0}")]
    Method(&'static str),
    /// The body is not JSON by its content type.
    #[error("the Content-Type must be application/json")]
    MediaType,
    /// The body is over the limit.
    #[error("the request body is longer than this bridge accepts")]
    TooLarge,
    /// The body did not come in time, or broke off.
    #[error("the request body did not arrive")]
    BodyLost,
    /// The body is no message.
    #[error("{}", .0.fault)]
    Malformed(Malformed),
    /// A modern request breaks the rules of its revision.
    #[error("{0}")]
    Modern(#[from] ModernFault),
    /// The version header names a version that is not spoken.
    #[error("the MCP-Protocol-Version header names a version that is not supported")]
    Version,
    /// The session id does not open for this user and this server, or has ended.
    #[error("there is no such session; initialize again")]
    Session,
    /// The request needs a session and names none.
    #[error("the Mcp-Session-Id header is required")]
    NoSession,
    /// The tool is not there, or not for this caller. As servers say it: 2025-11-25, server/tools, "Error Handling".
    #[error("Unknown tool: {0}")]
    UnknownTool(String),
    /// The list of tools cannot be read, and this caller may not use all of them.
    #[error("the server's list of tools cannot be read")]
    Tools(#[from] Unreadable),
    /// The log level is none.
    #[error("`params.level` must be a log level of RFC 5424, such as \"info\"")]
    Level,
    /// The filter of a subscription is malformed, or asks for too much.
    #[error(
        "`params.notifications` must be a filter of at most {MAX_SUBSCRIPTIONS} resources with URIs of up to {MAX_URI} bytes"
    )]
    Filter,
    /// The client takes no events where there is nothing else to give.
    #[error("the Accept header must allow text/event-stream")]
    NotAcceptable,
    /// The session has a listener already.
    #[error("this session has a listening stream already; close that one first")]
    Listening,
    /// The stream that a message is for is not there, or not this user's.
    #[error("there is no such stream; open another")]
    NoStream,
    /// The session has no room for another subscription.
    #[error(
        "a session can be subscribed to {MAX_SUBSCRIPTIONS} resources with URIs of up to {MAX_URI} bytes, {MAX_SESSION} bytes in all"
    )]
    Subscriptions,
    /// The client says too much of itself for a session.
    #[error("the client's capabilities are too long for a session id")]
    ClientTooLong,
    /// `initialize` names no version.
    #[error("`params.protocolVersion` is required")]
    NoVersion,
    /// Too much is running.
    #[error("{0}; try again in a moment")]
    Limited(#[from] Refused),
    /// The user calls too often.
    #[error("{0}")]
    TooSoon(#[from] TooSoon),
    /// The token store did not answer.
    #[error("the token store is not available; try again in a moment")]
    Store,
    /// The service that renews the user's token does not answer.
    #[error("the service that renews your sign-in is not available; try again in a moment")]
    Service {
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// A header that goes into the server does not fit.
    #[error("{0}")]
    Header(#[from] BadHeader),
    /// What fills the server does not fit its place, or is not there.
    #[error("{0}")]
    Fill(#[from] FillError),
    /// The server failed.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    /// The deadline passed.
    #[error("the server did not answer within its time")]
    Deadline,
    /// The bridge is stopping.
    #[error("the bridge is stopping; send the request again")]
    Stopped,
    /// The bridge stopped while the server worked.
    #[error("the bridge stopped before the answer came; the request may have been carried out")]
    Interrupted,
    /// The client takes nothing.
    #[error("the client did not read its answer in time")]
    Stalled,
    /// The client has cancelled its request.
    #[error("the request was cancelled")]
    Cancelled,
    /// A client that must be asked cannot be.
    #[error("the server has a question, and this client cannot be asked")]
    CannotAsk,
    /// The client did not answer a question that needs an answer.
    #[error("the server's question was not answered")]
    NotAnswered,
    /// A call asks without end.
    #[error("the server asks too many questions about one call")]
    TooManyRounds,
    /// A state is not taken.
    #[error("{0}")]
    State(#[from] BadState),
    /// `inputResponses` is no object of objects.
    #[error("`inputResponses` must be an object whose members are objects")]
    BadAnswers,
    /// The task is not there, or not for this user. Source: SEP-2663, "Protocol Errors".
    #[error("there is no such task")]
    NoTask,
    /// The task has ended with what held it.
    #[error("this task is gone: its server, its lease or the node that held it has ended")]
    TaskGone,
    /// The other nodes cannot be reached.
    #[error("the node that holds this call cannot be reached; try again in a moment")]
    Relay,
    /// Nobody waits for this answer.
    #[error("the request that asked this is over")]
    NobodyAsked,
    /// The answer is nowhere: its node has ended, or could not deliver it, or a defect of ours.
    #[error("the answer to this request was lost; it may have been carried out")]
    Lost,
}

impl BridgeError {
    /// What the client is told: status and code.
    #[must_use]
    pub fn verdict(&self) -> (StatusCode, i64) {
        match self {
            Self::Host(_) | Self::Fill(FillError::NoEmail) => (StatusCode::FORBIDDEN, INVALID_REQUEST),
            Self::Auth(AuthError::TooMany { .. }) => (StatusCode::TOO_MANY_REQUESTS, INVALID_REQUEST),
            Self::Auth(AuthError::Missing | AuthError::Bearer(_) | AuthError::TrustedHeader(_)) => {
                (StatusCode::UNAUTHORIZED, INVALID_REQUEST)
            }
            Self::NotFound | Self::Session | Self::NobodyAsked | Self::NoStream => {
                (StatusCode::NOT_FOUND, INVALID_REQUEST)
            }
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST),
            Self::Listening => (StatusCode::CONFLICT, INVALID_REQUEST),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST),
            Self::BodyLost => (StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST),
            Self::Malformed(malformed) => (StatusCode::BAD_REQUEST, code_of(malformed.fault)),
            Self::Modern(fault) => modern_verdict(fault),
            Self::Version | Self::NoSession => (StatusCode::BAD_REQUEST, INVALID_REQUEST),
            // Answers to a request that was understood: legacy clients read the body of no other status.
            Self::Level
            | Self::Subscriptions
            | Self::State(BadState)
            | Self::UnknownTool(_)
            | Self::NoTask
            | Self::TaskGone => (StatusCode::OK, INVALID_PARAMS),
            Self::ClientTooLong | Self::NoVersion | Self::BadAnswers | Self::Filter | Self::Header(_) => {
                (StatusCode::BAD_REQUEST, INVALID_PARAMS)
            }
            Self::CannotAsk | Self::NotAnswered | Self::TooManyRounds | Self::Cancelled => {
                (StatusCode::OK, INTERNAL_ERROR)
            }
            Self::Limited(refused) if refused.exhausted.is_users_own() => {
                (StatusCode::TOO_MANY_REQUESTS, INTERNAL_ERROR)
            }
            Self::TooSoon(_) | Self::Upstream(UpstreamError::NoRoom(Full::User)) => {
                (StatusCode::TOO_MANY_REQUESTS, INTERNAL_ERROR)
            }
            Self::Limited(_)
            | Self::Store
            | Self::Service { .. }
            | Self::Stopped
            | Self::Interrupted
            | Self::Relay
            | Self::Upstream(UpstreamError::Busy { .. } | UpstreamError::NoRoom(Full::All)) => {
                (StatusCode::SERVICE_UNAVAILABLE, INTERNAL_ERROR)
            }
            Self::Upstream(UpstreamError::Spawn(error)) if error.may_pass() => {
                (StatusCode::SERVICE_UNAVAILABLE, INTERNAL_ERROR)
            }
            Self::Upstream(UpstreamError::StartTimeout) | Self::Deadline => {
                (StatusCode::GATEWAY_TIMEOUT, INTERNAL_ERROR)
            }
            Self::Upstream(_) | Self::Fill(_) | Self::Tools(_) => (StatusCode::BAD_GATEWAY, INTERNAL_ERROR),
            Self::Stalled | Self::Lost => (StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR),
        }
    }

    /// The status that tells a legacy client in its session what its request came to. That it failed is an answer, and
    /// needs no other: there are official clients that end their session at any status but 200 and 404.
    #[must_use]
    pub fn status_in_session(&self) -> StatusCode {
        match self.verdict().0 {
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => StatusCode::OK,
            status => status,
        }
    }

    /// After how many seconds to try again, where that may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Limited(refused) => Some(refused.retry_after.as_secs().max(RETRY_AFTER)),
            Self::Auth(AuthError::TooMany { retry_after }) | Self::Service { retry_after } => {
                Some(retry_after.as_secs().max(RETRY_AFTER))
            }
            Self::TooSoon(too_soon) => Some(too_soon.seconds()),
            Self::Upstream(UpstreamError::Busy { retry_after }) => {
                Some(retry_after.map_or(RETRY_AFTER, |wait| wait.as_secs().max(RETRY_AFTER)))
            }
            Self::Upstream(UpstreamError::Spawn(error)) if error.may_pass() => Some(RETRY_AFTER),
            Self::Store | Self::Stopped | Self::Relay => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// The JSON-RPC error; `id` is as written, null if it is not known.
    #[must_use]
    pub fn document(&self, id: Option<&str>) -> Bytes {
        let (_, code) = self.verdict();
        let request = RequestId::current();
        let data = match self {
            Self::Modern(ModernFault::Version { requested }) => {
                Some(translate::unsupported_version_data(requested, request.as_ref()))
            }
            Self::Modern(ModernFault::TasksUndeclared) => {
                Some(format!(r#"{{"requiredCapabilities":{}}}"#, tasks::REQUIRED))
            }
            _ => request.map(|request| format!(r#"{{"requestId":"{request}"}}"#)),
        };
        let id = match self {
            Self::Malformed(malformed) => malformed.id.as_deref(),
            _ => id,
        };
        legacy::error(id, code, &self.to_string(), data.as_deref()).into()
    }

    /// The error as a response of its own.
    #[must_use]
    pub fn respond(&self, id: Option<&str>) -> Response<Body> {
        // A person who reads it at a terminal has a line of their own for what comes next.
        let mut response = respond::json(self.verdict().0, [&*self.document(id), b"\n"].concat());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Self::Auth(error) = self
            && let Some(challenge) = error.challenge()
        {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Self::Method(allowed) = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }

    /// The error as the final message of a conversation.
    #[must_use]
    pub(in crate::bridge) fn last(&self, id: Option<&str>) -> FinalMessage {
        FinalMessage {
            status: self.verdict().0,
            text: self.document(id).into(),
            session: None,
            retry_after: self.retry_after(),
        }
    }

    /// The same in a legacy client's session.
    #[must_use]
    pub(in crate::bridge) fn last_in_session(&self, id: Option<&str>) -> FinalMessage {
        FinalMessage { status: self.status_in_session(), ..self.last(id) }
    }
}

impl From<BodyFault> for BridgeError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLong => Self::TooLarge,
            BodyFault::Lost => Self::BodyLost,
            BodyFault::NoMemory(full) => Self::Limited(Refused::no_memory(full)),
        }
    }
}

fn code_of(fault: Fault) -> i64 {
    match fault {
        Fault::NotJson => PARSE_ERROR,
        Fault::Params => INVALID_PARAMS,
        Fault::Batch
        | Fault::NotAnObject
        | Fault::DuplicateKey
        | Fault::Case(_)
        | Fault::TooManyMembers
        | Fault::TooDeep
        | Fault::Version
        | Fault::Id
        | Fault::Method => INVALID_REQUEST,
    }
}

fn modern_verdict(fault: &ModernFault) -> (StatusCode, i64) {
    match fault {
        ModernFault::Headers(_) => (StatusCode::BAD_REQUEST, modern::HEADER_MISMATCH),
        ModernFault::Meta(_) | ModernFault::LogLevel => (StatusCode::BAD_REQUEST, INVALID_PARAMS),
        ModernFault::Version { .. } => (StatusCode::BAD_REQUEST, modern::UNSUPPORTED_VERSION),
        ModernFault::RemovedMethod => (StatusCode::NOT_FOUND, METHOD_NOT_FOUND),
        ModernFault::TasksUndeclared => (StatusCode::BAD_REQUEST, modern::MISSING_CAPABILITY),
        ModernFault::Response => (StatusCode::BAD_REQUEST, INVALID_REQUEST),
    }
}
