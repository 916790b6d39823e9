//! A server in conversation: its lines, meeting it in its era, and asking it what the bridge itself wants to know.
//! Source: MCP 2026-07-28, basic/transports/stdio, "Backward Compatibility".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Bridge;
use super::error::BridgeError;
use super::meet::Met;
use super::talk::text;
use crate::config::{Protocol, Server};
use crate::mcp::era::Era;
use crate::mcp::json;
use crate::mcp::legacy::{self, Initialized, Introduction};
use crate::mcp::message::{Answer, FromServer};
use crate::mcp::translate;
use crate::upstream::{Upstream, UpstreamError};

/// `Method not found`: what a server's own request is answered with when nobody can be asked.
const METHOD_NOT_FOUND: i64 = -32601;

/// How long a server may be silent when it is asked whether it is modern; then it is taken to be legacy.
const PROBE: Duration = Duration::from_secs(10);

/// How many lines are kept that come while the bridge itself asks something.
const MOST_WAITING: usize = 100;

/// A server and what it said while something else was waited for.
pub(super) struct Child {
    pub(super) upstream: Upstream,
    pub(super) bridge: Arc<Bridge>,
    pub(super) server: Arc<Server>,
    /// Notifications that came meanwhile.
    pub(super) waiting: Vec<Bytes>,
}

impl Child {
    pub(super) fn new(bridge: &Arc<Bridge>, server: &Arc<Server>, upstream: Upstream) -> Self {
        Self { upstream, bridge: Arc::clone(bridge), server: Arc::clone(server), waiting: Vec::new() }
    }

    /// A server that stays for as long as a stream does.
    pub(super) fn staying(bridge: &Arc<Bridge>, server: &Arc<Server>, upstream: Upstream) -> Self {
        let mut child = Self::new(bridge, server, upstream);
        child.upstream.stay();
        child
    }

    /// The next line that is UTF-8 and not empty. Cancel safe.
    pub(super) async fn line(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.upstream.receive().await.inspect_err(|error| self.count(error))?;
            if std::str::from_utf8(&line).is_err() {
                self.junk(&line)?;
            } else if !line.trim_ascii().is_empty() {
                return Ok(line);
            }
        }
    }

    /// A program that becomes another user first is known only now not to have been started.
    fn count(&self, error: &UpstreamError) {
        if matches!(error, UpstreamError::Spawn(_)) {
            self.bridge.spawn_failed();
        }
    }

    /// Counts a line that was no message.
    pub(super) fn junk(&mut self, line: &Bytes) -> Result<(), UpstreamError> {
        self.bridge.metrics.junk_lines.inc();
        self.upstream.junk(line)
    }

    /// Answers a question of the server that nobody can be asked.
    pub(super) fn decline(&mut self, id: &str, method: &str) {
        let answer = if method == "ping" {
            legacy::result(id, "{}")
        } else {
            legacy::error(Some(id), METHOD_NOT_FOUND, "the client cannot be asked", None)
        };
        self.upstream.send(&answer);
    }

    /// The line that answers one of the bridge's own requests; notifications that come before it are kept.
    pub(super) async fn answer_to(&mut self, id: &str) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.line().await?;
            match FromServer::parse(text(&line)) {
                Some(FromServer::Response { id: Some(answered), .. }) if json::same_scalar(answered, id) => {
                    return Ok(line);
                }
                Some(FromServer::Request { id, method, .. }) => self.decline(id, &method),
                Some(FromServer::Notification { .. }) if self.waiting.len() < MOST_WAITING => self.waiting.push(line),
                Some(_) => {}
                None => self.junk(&line)?,
            }
        }
    }

    /// Meets the server in its era, within its start timeout. What it says before the handshake is over is for nobody.
    pub(super) async fn meet(&mut self, client: &Introduction) -> Result<Met, BridgeError> {
        let within = self.server.process.start_timeout;
        let meeting = async {
            if self.era(client).await? == Era::Modern {
                return Ok::<_, BridgeError>(Met::Modern(None));
            }
            let initialized = self.handshake(client).await?.map_err(|_| UpstreamError::Handshake)?;
            Ok(Met::Legacy(initialized))
        };
        let met = tokio::time::timeout(within, meeting).await;
        let met = met.map_err(|_| UpstreamError::StartTimeout)??;
        self.waiting.clear();
        if matches!(met, Met::Legacy(_)) {
            self.upstream.send(legacy::INITIALIZED);
            self.upstream.listen();
        }
        Ok(met)
    }

    /// The server's era: as configured, as learned, or as it says.
    pub(super) async fn era(&mut self, client: &Introduction) -> Result<Era, BridgeError> {
        match self.server.protocol {
            Protocol::Legacy => return Ok(Era::Legacy),
            Protocol::Modern => return Ok(Era::Modern),
            Protocol::Auto => {}
        }
        let name = self.server.name.as_str();
        if let Some(era) = self.bridge.eras.of(name) {
            return Ok(era);
        }
        let era = if self.discover(client).await?.is_some() { Era::Modern } else { Era::Legacy };
        self.bridge.eras.learn(self.server.name.as_str(), Some(era));
        Ok(era)
    }

    /// What a modern server says of itself; `None` if it is not modern.
    pub(super) async fn discover(&mut self, client: &Introduction) -> Result<Option<String>, BridgeError> {
        self.upstream.send(&translate::discover(client));
        let patience = PROBE.min(self.server.process.start_timeout / 2);
        let Ok(line) = tokio::time::timeout(patience, self.answer_to(legacy::DISCOVER_ID)).await else {
            return Ok(None);
        };
        let line = match line {
            // A server elsewhere may refuse what it does not know by a status alone.
            Err(UpstreamError::Status(_) | UpstreamError::NotMcp | UpstreamError::Ended) => {
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

    /// Introduces the client; the inner error is the server's own refusal, as written.
    pub(super) async fn handshake(
        &mut self,
        client: &Introduction,
    ) -> Result<Result<Initialized, String>, BridgeError> {
        self.upstream.send(&client.initialize());
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
