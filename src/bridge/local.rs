//! What needs no process: the answers that the bridge gives by itself, and the rules that a request must keep before
//! anything is started for it.

use http::{Response, StatusCode};

use super::conversation::{Call, Purpose};
use super::error::BridgeError;
use super::session::introduction;
use super::{Asked, Bridge};
use crate::config::Server;
use crate::mcp::era::Version;
use crate::mcp::headers::{self, HeaderMismatch};
use crate::mcp::json;
use crate::mcp::legacy::{self, Introduction, without_questions};
use crate::mcp::message::{Kind, Message};
use crate::mcp::modern::{self, ModernFault};
use crate::mcp::session::{self, Session};
use crate::respond::{self, Body};
use crate::store::SessionState;

/// What is to be done with a message.
pub(super) enum Next {
    /// Nothing more.
    Answered(Response<Body>),
    /// A fresh server must be asked.
    Call(Call),
}

impl Bridge {
    /// Answers what needs no process; anything else becomes a call.
    pub(super) async fn answer_locally(&self, asked: &Asked) -> Result<Next, BridgeError> {
        let message = &asked.message;
        if modern::is_modern(&asked.head.headers, Some(message)) {
            return modern_next(asked);
        }
        let named = version_header(asked)?;
        match (message.kind(), message.method()) {
            (Kind::Notification | Kind::Response, _) => self.take_notice(asked).await.map(Next::Answered),
            (Kind::Request, method) => {
                refuse_reserved_id(message)?;
                match (method, &asked.session) {
                    ("ping", session) => {
                        self.check(session.as_ref()).await?;
                        Ok(Next::Answered(respond::json(StatusCode::OK, legacy::result(id(message), "{}"))))
                    }
                    ("initialize", _) => Ok(Next::Call(initialize(message)?)),
                    ("logging/setLevel", Some(session)) => self.set_level(asked, session).await.map(Next::Answered),
                    (_, session) => Ok(Next::Call(legacy_call(message, session.as_ref(), named))),
                }
            }
        }
    }

    /// A message that wants no answer.
    async fn take_notice(&self, asked: &Asked) -> Result<Response<Body>, BridgeError> {
        self.check(asked.session.as_ref()).await?;
        if let Some(session) = asked.session.as_ref().filter(|_| asked.message.method() == ROOTS_CHANGED) {
            self.tell_listener(session, asked.message.text().to_owned().into()).await;
        }
        Ok(respond::empty(StatusCode::ACCEPTED))
    }

    /// A session that was ended is ended for what needs no process, too.
    async fn check(&self, session: Option<&Session>) -> Result<(), BridgeError> {
        match session {
            Some(session) => self.alive(self.store.session_state(&session.nonce).await).map(drop),
            None => Ok(()),
        }
    }

    /// The answer when the user has no token for the server: never a bare failure, always what to do.
    pub(super) fn without_token(&self, asked: &Asked, call: &Call) -> Response<Body> {
        let link = setup_link(&self.config.public_url, &asked.server);
        let sentence = sentence(&asked.server, &link);
        let document = if call.message.method() == "tools/call" {
            let kind = if matches!(call.purpose, Purpose::Modern(_)) { r#""resultType":"complete","# } else { "" };
            let text = json::quote(&sentence);
            let result = format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}],"isError":true}}"#);
            legacy::result(call.id(), &result)
        } else {
            let data = format!(r#"{{"setupUrl":{}}}"#, json::quote(&link));
            legacy::error(Some(call.id()), NO_TOKEN, &sentence, Some(&data))
        };
        respond::json(StatusCode::OK, document)
    }
}

/// A legacy client's word that its roots have changed: what a server that listens may want to know.
const ROOTS_CHANGED: &str = "notifications/roots/list_changed";

/// The JSON-RPC code of "no token": an application's own, outside the range that JSON-RPC reserves.
const NO_TOKEN: i64 = 1401;

fn setup_link(public_url: &url::Url, server: &Server) -> String {
    format!("{}/{}/connect", public_url.as_str().trim_end_matches('/'), server.name)
}

fn sentence(server: &Server, link: &str) -> String {
    let name = server.token_setup.display_name.as_deref().unwrap_or(server.name.as_str());
    format!("You have not connected {name} yet: save your token at {link} and try again.")
}

fn id(message: &Message) -> &str {
    message.id().unwrap_or("null")
}

fn modern_next(asked: &Asked) -> Result<Next, BridgeError> {
    let message = &asked.message;
    if message.kind() == Kind::Notification {
        return Ok(Next::Answered(respond::empty(StatusCode::ACCEPTED)));
    }
    let modern = modern::check(&asked.head.headers, message)?;
    refuse_reserved_id(message)?;
    let introduction = Introduction {
        version: Version::NEWEST_LEGACY,
        client_info: modern.client_info.clone().unwrap_or_else(|| session::brief_client_info(None)),
        capabilities: without_questions(&modern.capabilities),
        log_level: None,
    };
    let purpose = match message.method() {
        "server/discover" => Purpose::Discover,
        _ => Purpose::Modern(modern),
    };
    Ok(Next::Call(Call { message: message.clone(), introduction, purpose }))
}

fn initialize(message: &Message) -> Result<Call, BridgeError> {
    let asked = legacy::Asked::parse(message).ok_or(BridgeError::NoVersion)?;
    let introduction = Introduction {
        version: asked.version,
        client_info: asked.client_info.unwrap_or_else(|| session::brief_client_info(None)),
        capabilities: without_questions(&asked.capabilities),
        log_level: None,
    };
    Ok(Call { message: message.clone(), introduction, purpose: Purpose::Initialize })
}

fn legacy_call(message: &Message, session: Option<&Session>, named: Option<Version>) -> Call {
    let agreed = session.map(|session| session.version);
    let introduction = match session {
        Some(session) => introduction(session, without_questions(&session.capabilities), &SessionState::default()),
        None => Introduction {
            version: named.unwrap_or(Version::WITHOUT_HEADER),
            client_info: session::brief_client_info(None),
            capabilities: "{}".into(),
            log_level: None,
        },
    };
    Call { message: message.clone(), introduction, purpose: Purpose::Legacy(agreed) }
}

/// The version that a legacy client's header names, if it names one.
fn version_header(asked: &Asked) -> Result<Option<Version>, BridgeError> {
    match headers::single(&asked.head.headers, headers::PROTOCOL_VERSION) {
        Ok(Some(text)) => Version::parse(text.trim()).map(Some).ok_or(BridgeError::Version),
        Ok(None) | Err(HeaderMismatch::Missing(_)) => Ok(None),
        Err(_) => Err(BridgeError::Version),
    }
}

/// The bridge's own requests to a server must be told from the client's.
fn refuse_reserved_id(message: &Message) -> Result<(), BridgeError> {
    let id = message.id().and_then(json::string);
    if id.is_some_and(|id| id.starts_with(legacy::RESERVED)) { Err(BridgeError::ReservedId) } else { Ok(()) }
}

impl Call {
    /// Whether the status line may go out before the answer is there: not where the answer begins a session, whose id
    /// travels in a header.
    pub(super) fn may_commit_early(&self) -> bool {
        !matches!(self.purpose, Purpose::Initialize)
    }
}

impl From<HeaderMismatch> for BridgeError {
    fn from(mismatch: HeaderMismatch) -> Self {
        Self::Modern(ModernFault::Headers(mismatch))
    }
}
