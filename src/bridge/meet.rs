//! Meeting a server: finding out its era, and the handshake where it wants one. Source: MCP 2026-07-28,
//! basic/transports/stdio, "Backward Compatibility".

use std::time::Duration;

use super::call::Purpose;
use super::error::BridgeError;
use super::talk::{Talk, text};
use crate::config::Protocol;
use crate::mcp::era::Era;
use crate::mcp::legacy::{self, Initialized};
use crate::mcp::message::{Answer, FromServer};
use crate::mcp::translate;
use crate::upstream::UpstreamError;

/// How long a server may be silent when it is asked whether it is modern; then it is taken to be legacy.
pub(super) const PROBE: Duration = Duration::from_secs(10);

/// What a server turned out to be.
#[derive(Debug)]
pub(super) enum Met {
    /// A legacy server, and what it said of itself.
    Legacy(Initialized),
    /// A modern server, and what it said of itself if it was asked.
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
}

impl Talk {
    /// Meets the server in its era; the inner error is the server's own refusal of the handshake.
    pub(super) async fn meet(&mut self) -> Result<Result<Met, String>, BridgeError> {
        match self.known_era() {
            Some(Era::Modern) if !matches!(self.call.purpose, Purpose::Initialize(_)) => Ok(Ok(Met::Modern(None))),
            Some(Era::Legacy) => {
                let refusal = match self.handshake().await? {
                    Ok(initialized) => return Ok(Ok(Met::Legacy(initialized))),
                    Err(refusal) => refusal,
                };
                // It was legacy once. Perhaps it is not any more.
                match self.probe().await? {
                    Some(discovered) if self.server.protocol == Protocol::Auto => Ok(Ok(self.modern(discovered))),
                    _ => Ok(Err(refusal)),
                }
            }
            Some(Era::Modern) | None => match self.probe().await? {
                Some(discovered) => Ok(Ok(self.modern(discovered))),
                None => Ok(self.handshake().await?.map(|initialized| self.legacy(initialized))),
            },
        }
    }

    fn modern(&self, discovered: String) -> Met {
        self.bridge.eras.learn(self.server.name.as_str(), Some(Era::Modern));
        Met::Modern(Some(discovered))
    }

    fn legacy(&self, initialized: Initialized) -> Met {
        self.bridge.eras.learn(self.server.name.as_str(), Some(Era::Legacy));
        Met::Legacy(initialized)
    }

    /// Asks the server whether it is modern; what it says of itself if it is.
    async fn probe(&mut self) -> Result<Option<String>, BridgeError> {
        if self.server.protocol == Protocol::Legacy {
            return Ok(None);
        }
        self.upstream.send(&translate::discover(&self.call.introduction));
        let patience = PROBE.min(self.server.process.start_timeout / 2);
        let Ok(line) = tokio::time::timeout(patience, self.answer_to(legacy::DISCOVER_ID)).await else {
            return Ok(None);
        };
        let line = match line {
            // A server elsewhere may refuse what it does not know by a status alone.
            Err(BridgeError::Upstream(UpstreamError::Status(_) | UpstreamError::NotMcp | UpstreamError::Ended)) => {
                return Ok(None);
            }
            line => line?,
        };
        Ok(match FromServer::parse(text(&line)) {
            Some(FromServer::Response { answer, .. }) if translate::is_modern(answer) => match answer {
                Answer::Result(result) => Some(result.to_owned()),
                Answer::Error(_) => Some("{}".to_owned()),
            },
            _ => None,
        })
    }

    /// Introduces the client; the inner error is the server's own refusal.
    async fn handshake(&mut self) -> Result<Result<Initialized, String>, BridgeError> {
        self.upstream.send(&self.call.introduction.initialize());
        let line = self.answer_to(legacy::INITIALIZE_ID).await?;
        match FromServer::parse(text(&line)) {
            Some(FromServer::Response { answer: Answer::Result(result), .. }) => {
                let initialized = Initialized::parse(result).ok_or(UpstreamError::Handshake)?;
                Ok(Ok(initialized))
            }
            Some(FromServer::Response { answer: Answer::Error(error), .. }) => Ok(Err(error.to_owned())),
            _ => Err(UpstreamError::Handshake.into()),
        }
    }
}
