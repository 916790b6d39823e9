//! Meeting a server: finding out its era, and the handshake where it wants one. Source: MCP 2026-07-28,
//! basic/transports/stdio, "Backward Compatibility".

use super::call::Purpose;
use super::error::BridgeError;
use super::talk::Talk;
use crate::config::Protocol;
use crate::mcp::era::Era;
use crate::mcp::legacy::Initialized;

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
                let refusal = match self.child.handshake(&self.call.introduction).await? {
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
                None => {
                    Ok(self.child.handshake(&self.call.introduction).await?.map(|initialized| self.legacy(initialized)))
                }
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

    /// Asks the server whether it is modern, unless it is known not to be; what it says of itself if it is.
    async fn probe(&mut self) -> Result<Option<String>, BridgeError> {
        if self.server.protocol == Protocol::Legacy {
            return Ok(None);
        }
        self.child.discover(&self.call.introduction).await
    }
}
