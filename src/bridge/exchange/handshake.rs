//! The handshake with a server: in the era of its client where the server has that, with `initialize`
//! where it wants one. Source: MCP 2026-07-28, basic/versioning and basic/transports/stdio, "Backward Compatibility".

use std::time::Duration;

use bytes::Bytes;

use super::child::Child;
use crate::bridge::error::BridgeError;
use crate::config::Protocol;
use crate::mcp::era::Era;
use crate::mcp::json;
use crate::mcp::legacy::{self, Initialized, Introduction};
use crate::mcp::message::{Answer, FromServer, from_server};
use crate::mcp::session::Session;
use crate::mcp::translate;
use crate::upstream::UpstreamError;

/// How long a server may be silent when it is asked whether it is modern, before it is offered the handshake. What it
/// answers after that still counts.
const PROBE: Duration = Duration::from_secs(10);

/// The longest that a server may say of itself, in bytes: it is kept for as long as the conversation lasts, and looked into
/// again and again.
const MAX_INTRODUCTION: usize = 1024 * 1024;

/// What a handshake has shown the server to be.
#[derive(Debug)]
pub(in crate::bridge) enum Handshake {
    /// A legacy server, and what it said of itself.
    Legacy(Initialized),
    /// A modern server, and what it said of itself if it was asked; else it is only remembered as one.
    Modern(Option<String>),
}

impl Handshake {
    /// Its name and version as written, if it has said them.
    pub(super) fn server_info(&self) -> Option<String> {
        match self {
            Self::Legacy(initialized) => initialized.server_info(),
            Self::Modern(_) => None,
        }
    }

    /// Whether it has the capability, as far as it has said.
    pub(in crate::bridge) fn offers(&self, capability: &str) -> bool {
        match self {
            Self::Legacy(initialized) => initialized.offers(capability),
            Self::Modern(_) => true,
        }
    }

    /// Its era.
    pub(in crate::bridge) fn era(&self) -> Era {
        match self {
            Self::Legacy(_) => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }
}

/// The server does not take the handshake.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It said so by this error, as written.
    Message(String),
    /// It did not say so by a message.
    Failure(UpstreamError),
}

/// What came of a handshake that the server took part in.
pub(super) type HandshakeResult = Result<Handshake, Refusal>;

/// For which client a handshake is.
#[derive(Debug, Clone, Copy)]
pub(in crate::bridge) enum ClientKind<'a> {
    /// A modern client.
    Modern,
    /// A legacy client in its session, which knows what server answered it.
    InSession(&'a Session),
    /// A legacy client without a session, or about to begin one.
    WithoutSession,
}

/// What is said to a server first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstMessage {
    /// Nothing: it is modern, and takes the request as it is.
    Nothing,
    /// `initialize`; whether it is modern is asked only if it refuses. One that is known to take it has failed if it ends
    /// instead; any other may have refused by that.
    Initialize {
        /// Whether it is known.
        known: bool,
    },
    /// `server/discover`; the handshake is offered only if it is not modern.
    Discover,
}

/// What a server says to `server/discover`.
enum DiscoverResult {
    Modern(String),
    NotModern,
    Silent,
}

impl Child {
    /// What is sent to the server first. One that has both eras is spoken to in its client's: what its tools may ask in
    /// the middle of a call differs.
    pub(super) fn first_message(&self, client: ClientKind<'_>) -> FirstMessage {
        match (self.server.protocol, client) {
            (Protocol::Modern, ClientKind::WithoutSession) => FirstMessage::Discover,
            (Protocol::Modern, _) => FirstMessage::Nothing,
            (Protocol::Auto, ClientKind::InSession(session)) if session.era == Era::Modern => FirstMessage::Nothing,
            (Protocol::Legacy, _) | (Protocol::Auto, ClientKind::InSession(_)) => {
                FirstMessage::Initialize { known: true }
            }
            (Protocol::Auto, ClientKind::WithoutSession) => FirstMessage::Initialize { known: false },
            (Protocol::Auto, ClientKind::Modern) => match self.remembered_era() {
                Some(Era::Modern) => FirstMessage::Nothing,
                Some(Era::Legacy) => FirstMessage::Initialize { known: true },
                None => FirstMessage::Discover,
            },
        }
    }

    /// Performs the handshake. Takes no longer than the server may take to start.
    pub(super) async fn perform_handshake(
        &mut self,
        client: &Introduction,
        first_message: FirstMessage,
    ) -> Result<HandshakeResult, BridgeError> {
        let within = self.server.process.start_timeout;
        let handshake = async {
            match first_message {
                // What it is asked first must not be asked of another if it is dead.
                FirstMessage::Nothing if self.is_silent_spare() => self.wake(client).await,
                FirstMessage::Nothing => Ok(Ok(Handshake::Modern(None))),
                FirstMessage::Initialize { known } => self.initialize_first(client, known).await,
                FirstMessage::Discover => self.discover_first(client).await,
            }
        };
        tokio::time::timeout(within, handshake).await.map_err(|_| UpstreamError::StartTimeout)?
    }

    /// The same with a server that may send messages of its own accord from then on. What it sends before is dropped.
    pub(in crate::bridge) async fn handshake_to_listen(
        &mut self,
        client: &Introduction,
        client_kind: ClientKind<'_>,
    ) -> Result<Handshake, BridgeError> {
        let first_message = self.first_message(client_kind);
        let handshake = self.perform_handshake(client, first_message).await?.map_err(|refusal| match refusal {
            Refusal::Message(_) => UpstreamError::Handshake,
            Refusal::Failure(error) => error,
        })?;
        self.waiting.clear();
        if matches!(handshake, Handshake::Legacy(_)) {
            self.upstream.send(legacy::INITIALIZED);
            self.upstream.listen();
        }
        Ok(handshake)
    }

    /// Has a spare, which is known to be modern, show that it lives.
    async fn wake(&mut self, client: &Introduction) -> Result<HandshakeResult, BridgeError> {
        let (discover, patience) = (translate::discover(client), self.patience());
        let woken = self.greet(&discover, |id, _| json::same_scalar(id, legacy::DISCOVER_ID));
        // One that is silent is told the request all the same, as a fresh one would be.
        if let Ok(answer) = tokio::time::timeout(patience, woken).await {
            answer?.map(drop)?;
        }
        Ok(Ok(Handshake::Modern(None)))
    }

    /// How long it may be silent when it is asked whether it is modern.
    fn patience(&self) -> Duration {
        PROBE.min(self.server.process.start_timeout / 2)
    }

    async fn initialize_first(&mut self, client: &Introduction, known: bool) -> Result<HandshakeResult, BridgeError> {
        let refusal = match self.initialize(client).await? {
            Err(Refusal::Failure(UpstreamError::Ended)) if known => return Err(UpstreamError::Ended.into()),
            Err(refusal) if self.server.protocol == Protocol::Auto => refusal,
            handshake => return Ok(handshake),
        };
        match self.discover(client).await? {
            DiscoverResult::Modern(discovered) => Ok(Ok(self.modern(discovered))),
            DiscoverResult::NotModern | DiscoverResult::Silent => Ok(Err(refusal)),
        }
    }

    async fn discover_first(&mut self, client: &Introduction) -> Result<HandshakeResult, BridgeError> {
        let silent = match self.discover(client).await? {
            DiscoverResult::Modern(discovered) => return Ok(Ok(self.modern(discovered))),
            DiscoverResult::NotModern => false,
            DiscoverResult::Silent => true,
        };
        match self.initialize(client).await? {
            Ok(handshake) => {
                self.remember_era(handshake.era());
                Ok(Ok(handshake))
            }
            // It has started by now.
            Err(refusal) if silent => match self.discover(client).await? {
                DiscoverResult::Modern(discovered) => Ok(Ok(self.modern(discovered))),
                DiscoverResult::NotModern | DiscoverResult::Silent => Ok(Err(refusal)),
            },
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn modern(&self, discovered: String) -> Handshake {
        self.remember_era(Era::Modern);
        Handshake::Modern(Some(discovered))
    }

    /// Asks the server whether it is modern.
    async fn discover(&mut self, client: &Introduction) -> Result<DiscoverResult, BridgeError> {
        self.renew_if_ended().await?;
        let (discover, patience) = (translate::discover(client), self.patience());
        let asked = self.greet(&discover, |id, _| json::same_scalar(id, legacy::DISCOVER_ID));
        let Ok(line) = tokio::time::timeout(patience, asked).await else {
            return Ok(DiscoverResult::Silent);
        };
        let Ok(line) = self.unless_refused(line?)? else { return Ok(DiscoverResult::NotModern) };
        Ok(discovered(&line).map_or(DiscoverResult::NotModern, DiscoverResult::Modern))
    }

    /// Introduces the client. A good answer to an earlier question whether the server is modern counts as well: it was
    /// only slow to start, and will refuse the handshake.
    async fn initialize(&mut self, client: &Introduction) -> Result<HandshakeResult, BridgeError> {
        self.renew_if_ended().await?;
        let initialize = client.initialize();
        let line = self.greet(&initialize, |id, answer| {
            json::same_scalar(id, legacy::INITIALIZE_ID)
                || (json::same_scalar(id, legacy::DISCOVER_ID) && translate::is_modern(answer))
        });
        let line = line.await?;
        let line = match self.unless_refused(line)? {
            Ok(line) => line,
            Err(shown) => return Ok(Err(Refusal::Failure(shown))),
        };
        Ok(match from_server(&line) {
            Some(FromServer::Response { id: Some(id), .. }) if json::same_scalar(id, legacy::DISCOVER_ID) => {
                Ok(Handshake::Modern(discovered(&line)))
            }
            Some(FromServer::Response { answer: Answer::Error(error), .. }) => Err(Refusal::Message(error.to_owned())),
            Some(FromServer::Response { answer: Answer::Result(result), .. }) => {
                let initialized = Initialized::parse(result);
                if let Some(Initialized { version, .. }) = &initialized {
                    self.bridge.server_facts.learn_version(&self.server.name, client.version, *version);
                }
                initialized.map(Handshake::Legacy).ok_or(Refusal::Failure(UpstreamError::Handshake))
            }
            _ => Err(Refusal::Failure(UpstreamError::Handshake)),
        })
    }

    /// What was heard; the inner error is how a server may refuse what it does not know without a message: by a status,
    /// or by its end.
    fn unless_refused(
        &mut self,
        heard: Result<Bytes, UpstreamError>,
    ) -> Result<Result<Bytes, UpstreamError>, UpstreamError> {
        match heard {
            Ok(line) if line.len() > MAX_INTRODUCTION => Err(UpstreamError::LineTooLong(MAX_INTRODUCTION)),
            Ok(line) => Ok(Ok(line)),
            Err(error @ (UpstreamError::Status(_) | UpstreamError::NotMcp)) => Ok(Err(error)),
            Err(error @ UpstreamError::Ended) => {
                self.has_ended = true;
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a server that negotiated its own version can go on with a session. Where the bridge answered in its place, an
/// older server is understood, since newer clients read its messages as they are; any other asks for a new session.
///
/// # Errors
/// It cannot.
pub(in crate::bridge) fn check_version(session: &Session, initialized: &Initialized) -> Result<(), BridgeError> {
    match initialized.version {
        version if version == session.version => Ok(()),
        _ if session.met => Err(UpstreamError::VersionChanged.into()),
        version if version < session.version => Ok(()),
        _ => Err(BridgeError::Session),
    }
}

/// What a modern server says of itself in this line; `None` if it is no modern server's answer.
fn discovered(line: &Bytes) -> Option<String> {
    match from_server(line) {
        Some(FromServer::Response { answer, .. }) if translate::is_modern(answer) => Some(match answer {
            Answer::Result(result) => result.to_owned(),
            Answer::Error(_) => "{}".to_owned(),
        }),
        _ => None,
    }
}
