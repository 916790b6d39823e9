//! Meeting a server: in the era of its client where it has that, with the handshake where it wants one. Source: MCP
//! 2026-07-28, basic/versioning and basic/transports/stdio, "Backward Compatibility".

use std::time::Duration;

use bytes::Bytes;

use super::child::Child;
use super::error::BridgeError;
use super::talk::from_server;
use crate::config::Protocol;
use crate::mcp::era::Era;
use crate::mcp::json;
use crate::mcp::legacy::{self, Initialized, Introduction};
use crate::mcp::message::{Answer, FromServer};
use crate::mcp::session::Session;
use crate::mcp::translate;
use crate::upstream::UpstreamError;

/// How long a server may be silent when it is asked whether it is modern, before it is offered the handshake. What it
/// answers after that still counts.
const PROBE: Duration = Duration::from_secs(10);

/// The longest that a server may say of itself, in bytes: it is kept for as long as the conversation lasts, and looked into
/// again and again.
const MAX_INTRODUCTION: usize = 1024 * 1024;

/// What a server turned out to be.
#[derive(Debug)]
pub(super) enum Met {
    /// A legacy server, and what it said of itself.
    Legacy(Initialized),
    /// A modern server, and what it said of itself if it was asked; else it is only remembered as one.
    Modern(Option<String>),
}

impl Met {
    /// Its name and version as written, if it has said them.
    pub(super) fn server_info(&self) -> Option<String> {
        match self {
            Self::Legacy(initialized) => initialized.server_info(),
            Self::Modern(_) => None,
        }
    }

    /// Whether it has the capability, as far as it has said.
    pub(super) fn offers(&self, capability: &str) -> bool {
        match self {
            Self::Legacy(initialized) => initialized.offers(capability),
            Self::Modern(_) => true,
        }
    }

    /// Its era.
    pub(super) fn era(&self) -> Era {
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
    Said(String),
    /// It did not say so by a message.
    Shown(UpstreamError),
}

/// A meeting that the server took part in.
pub(super) type Meeting = Result<Met, Refusal>;

/// For whom a server is met.
#[derive(Debug, Clone, Copy)]
pub(super) enum For<'a> {
    /// A modern client.
    Modern,
    /// A legacy client in its session, which knows what server answered it.
    Session(&'a Session),
    /// A legacy client without a session, or about to begin one.
    Newcomer,
}

/// What is said to a server first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
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
enum Probed {
    Modern(String),
    NotModern,
    Silent,
}

impl Child {
    /// How the server is to be greeted. One that has both eras is to be met in its client's: what its tools may ask in
    /// the middle of a call differs.
    pub(super) fn greeting(&self, client: For<'_>) -> Greeting {
        match (self.server.protocol, client) {
            (Protocol::Modern, For::Newcomer) => Greeting::Discover,
            (Protocol::Modern, _) => Greeting::Nothing,
            (Protocol::Auto, For::Session(session)) if session.era == Era::Modern => Greeting::Nothing,
            (Protocol::Legacy, _) | (Protocol::Auto, For::Session(_)) => Greeting::Initialize { known: true },
            (Protocol::Auto, For::Newcomer) => Greeting::Initialize { known: false },
            (Protocol::Auto, For::Modern) => match self.remembered_era() {
                Some(Era::Modern) => Greeting::Nothing,
                Some(Era::Legacy) => Greeting::Initialize { known: true },
                None => Greeting::Discover,
            },
        }
    }

    /// Meets the server. Takes no longer than the server may take to start.
    pub(super) async fn meet(&mut self, client: &Introduction, greeting: Greeting) -> Result<Meeting, BridgeError> {
        let within = self.server.process.start_timeout;
        let meeting = async {
            match greeting {
                Greeting::Nothing => Ok(Ok(Met::Modern(None))),
                Greeting::Initialize { known } => self.offer_handshake(client, known).await,
                Greeting::Discover => self.ask_era(client).await,
            }
        };
        tokio::time::timeout(within, meeting).await.map_err(|_| UpstreamError::StartTimeout)?
    }

    /// Meets a server that may say things of its own accord from then on. What it says before is for nobody.
    pub(super) async fn meet_to_listen(&mut self, client: &Introduction, whom: For<'_>) -> Result<Met, BridgeError> {
        let greeting = self.greeting(whom);
        let met = self.meet(client, greeting).await?.map_err(|refusal| match refusal {
            Refusal::Said(_) => UpstreamError::Handshake,
            Refusal::Shown(error) => error,
        })?;
        self.waiting.clear();
        if matches!(met, Met::Legacy(_)) {
            self.upstream.send(legacy::INITIALIZED);
            self.upstream.listen();
        }
        Ok(met)
    }

    async fn offer_handshake(&mut self, client: &Introduction, known: bool) -> Result<Meeting, BridgeError> {
        let refusal = match self.handshake(client).await? {
            Err(Refusal::Shown(UpstreamError::Ended)) if known => return Err(UpstreamError::Ended.into()),
            Err(refusal) if self.server.protocol == Protocol::Auto => refusal,
            met => return Ok(met),
        };
        match self.discover(client).await? {
            Probed::Modern(discovered) => Ok(Ok(self.modern(discovered))),
            Probed::NotModern | Probed::Silent => Ok(Err(refusal)),
        }
    }

    async fn ask_era(&mut self, client: &Introduction) -> Result<Meeting, BridgeError> {
        let silent = match self.discover(client).await? {
            Probed::Modern(discovered) => return Ok(Ok(self.modern(discovered))),
            Probed::NotModern => false,
            Probed::Silent => true,
        };
        match self.handshake(client).await? {
            Ok(met) => {
                self.remember_era(met.era());
                Ok(Ok(met))
            }
            // It has started by now.
            Err(refusal) if silent => match self.discover(client).await? {
                Probed::Modern(discovered) => Ok(Ok(self.modern(discovered))),
                Probed::NotModern | Probed::Silent => Ok(Err(refusal)),
            },
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn modern(&self, discovered: String) -> Met {
        self.remember_era(Era::Modern);
        Met::Modern(Some(discovered))
    }

    /// Asks the server whether it is modern.
    async fn discover(&mut self, client: &Introduction) -> Result<Probed, BridgeError> {
        self.renew_if_ended()?;
        self.upstream.send(&translate::discover(client));
        let patience = PROBE.min(self.server.process.start_timeout / 2);
        let Ok(line) = tokio::time::timeout(patience, self.answer_to(legacy::DISCOVER_ID)).await else {
            return Ok(Probed::Silent);
        };
        let Ok(line) = self.unless_refused(line)? else { return Ok(Probed::NotModern) };
        Ok(discovered(&line).map_or(Probed::NotModern, Probed::Modern))
    }

    /// Introduces the client. A good answer to an earlier question whether the server is modern counts as well: it was
    /// only slow to start, and will refuse the handshake.
    async fn handshake(&mut self, client: &Introduction) -> Result<Meeting, BridgeError> {
        self.renew_if_ended()?;
        self.upstream.send(&client.initialize());
        let line = self.answer_that(|id, answer| {
            json::same_scalar(id, legacy::INITIALIZE_ID)
                || (json::same_scalar(id, legacy::DISCOVER_ID) && translate::is_modern(answer))
        });
        let line = line.await;
        let line = match self.unless_refused(line)? {
            Ok(line) => line,
            Err(shown) => return Ok(Err(Refusal::Shown(shown))),
        };
        Ok(match from_server(&line) {
            Some(FromServer::Response { id: Some(id), .. }) if json::same_scalar(id, legacy::DISCOVER_ID) => {
                Ok(Met::Modern(discovered(&line)))
            }
            Some(FromServer::Response { answer: Answer::Error(error), .. }) => Err(Refusal::Said(error.to_owned())),
            Some(FromServer::Response { answer: Answer::Result(result), .. }) => {
                Initialized::parse(result).map(Met::Legacy).ok_or(Refusal::Shown(UpstreamError::Handshake))
            }
            _ => Err(Refusal::Shown(UpstreamError::Handshake)),
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
