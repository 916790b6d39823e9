//! A running server: its process, container or HTTP connection, the lines that it writes, and the bridge's own requests to
//! it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::start::Spare;
use crate::bridge::Bridge;
use crate::bridge::error::BridgeError;
use crate::bridge::server_facts::FactKey;
use crate::config::{Inputs, Server};
use crate::limits::{Permit, Refused};
use crate::long_work::by_length;
use crate::mcp::era::Era;
use crate::mcp::json;
use crate::mcp::legacy;
use crate::mcp::message::{Answer, FromServer, from_server};
use crate::memory::Share;
use crate::secret::Credential;
use crate::upstream::process::group::Graces;
use crate::upstream::spares::Turn;
use crate::upstream::{Upstream, UpstreamError};
use crate::user::UserId;

/// `Method not found`: what a server's own request is answered with when nobody can be asked.
const METHOD_NOT_FOUND: i64 = -32601;

/// How often it is looked whether there is room for a server's answer.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(20);

/// How many lines are kept that come while the bridge itself asks something.
const MOST_WAITING: usize = 100;

/// A server and what it said while something else was waited for.
pub(in crate::bridge) struct Child {
    pub(in crate::bridge) upstream: Upstream,
    pub(in crate::bridge) bridge: Arc<Bridge>,
    pub(in crate::bridge) server: Arc<Server>,
    /// What the conversation holds is a part of it.
    pub(in crate::bridge) share: Share,
    /// What it was filled with.
    inputs: Inputs,
    /// Whose memory it adds to.
    pub(in crate::bridge) fact_key: FactKey,
    /// The right to stay for as long as a stream does, if it does.
    stays: Option<Permit>,
    /// What its request holds of the pool of spares, if the server has one.
    turn: Option<Turn>,
    /// Whether it has said anything.
    has_spoken: bool,
    /// Whether it ended while it was asked.
    pub(super) has_ended: bool,
    /// Notifications that came meanwhile.
    pub(in crate::bridge) waiting: Vec<Bytes>,
    /// Processes before this one that are being ended.
    closing: TaskTracker,
}

impl Child {
    /// A server of this request alone, filled with `inputs`. None is started whose longest answer would find no room beside
    /// what its user has not taken yet, after `patience`: it would work for nothing, and perhaps do what is asked for a
    /// second time.
    pub(in crate::bridge) async fn open(
        bridge: &Arc<Bridge>,
        server: &Arc<Server>,
        inputs: Inputs,
        patience: Duration,
    ) -> Result<Self, BridgeError> {
        let share = bridge.share(&inputs.user, server);
        // So many looks, not so much time: whoever answers a batch does not look while its client takes an answer.
        let mut looks = patience.as_millis() / LOOK_FOR_ROOM.as_millis();
        while let Err(full) = share.check_user(server.process.line) {
            if looks == 0 {
                return Err(Refused::no_memory(full).into());
            }
            looks -= 1;
            sleep(LOOK_FOR_ROOM).await;
        }
        let (upstream, turn) = bridge.start_server(server, &inputs, &share, Spare::Welcome).await?;
        let fact_key = bridge.server_facts.key_of(server, &inputs);
        let (bridge, server) = (Arc::clone(bridge), Arc::clone(server));
        let closing = TaskTracker::new();
        Ok(Self {
            upstream,
            bridge,
            server,
            share,
            inputs,
            fact_key,
            stays: None,
            turn,
            has_spoken: false,
            has_ended: false,
            waiting: Vec::new(),
            closing,
        })
    }

    /// The same, of a server that stays for as long as a stream does, once there is room for one.
    pub(in crate::bridge) async fn staying(
        bridge: &Arc<Bridge>,
        server: &Arc<Server>,
        inputs: Inputs,
    ) -> Result<Self, BridgeError> {
        let permit = bridge.limits.admit_stream_server(&inputs.user).await?;
        let mut child = Self::open(bridge, server, inputs, Duration::ZERO).await?;
        child.stays = Some(permit);
        if let Some(mark) = child.credential_mark() {
            let (store, user, name) = (Arc::clone(&bridge.store), child.inputs.user.clone(), server.name.clone());
            bridge.lifecycle.spawn(async move { store.used(&user, &name, mark).await });
        }
        child.upstream.allow_silence();
        Ok(child)
    }

    /// Tells the record that it was filled from, if it was from one.
    pub(super) fn credential_mark(&self) -> Option<u64> {
        self.inputs.credential.as_ref().map(Credential::mark)
    }

    /// Whose it is.
    pub(super) fn user(&self) -> &UserId {
        &self.inputs.user
    }

    /// What it was filled with of its user's.
    pub(in crate::bridge) fn credential(&self) -> Option<&Credential> {
        self.inputs.credential.as_ref()
    }

    /// Another server in place of this one, filled with this.
    pub(in crate::bridge) async fn refill(&mut self, credential: Credential) -> Result<(), BridgeError> {
        self.inputs.credential = Some(credential);
        self.fact_key = self.bridge.server_facts.key_of(&self.server, &self.inputs);
        self.waiting.clear();
        self.renew(Spare::Unwanted).await
    }

    /// Another process in place of this one, which is ended while nobody waits for it.
    async fn renew(&mut self, spare: Spare) -> Result<(), BridgeError> {
        let (fresh, turn) = self.bridge.start_server(&self.server, &self.inputs, &self.share, spare).await?;
        let before = std::mem::replace(&mut self.upstream, fresh);
        (self.turn, self.has_spoken, self.has_ended) = (turn, false, false);
        if self.stays.is_some() {
            self.upstream.allow_silence();
        }
        self.bridge.close_in_background(before, &self.server, &self.closing);
        Ok(())
    }

    /// There is something more to be asked, and perhaps nobody who could be.
    pub(super) async fn renew_if_ended(&mut self) -> Result<(), BridgeError> {
        if self.has_ended { self.renew(Spare::Welcome).await } else { Ok(()) }
    }

    /// Whether it was started before the request, and has not yet shown that it lives.
    pub(super) fn is_silent_spare(&self) -> bool {
        !self.has_spoken && self.turn.as_ref().is_some_and(Turn::is_spare)
    }

    /// Tells it the first that it is told, which it may be told twice, and waits for the answer. A spare that turns out to
    /// be dead is replaced by a fresh server.
    pub(super) async fn greet(
        &mut self,
        greeting: &str,
        is_waited_for: impl Fn(&str, Answer<'_>) -> bool,
    ) -> Result<Result<Bytes, UpstreamError>, BridgeError> {
        self.upstream.send(greeting);
        let answer = self.answer_that(&is_waited_for).await;
        let is_gone = |error: &UpstreamError| {
            matches!(error, UpstreamError::Ended | UpstreamError::Spawn(_) | UpstreamError::DirectoryOverfilled(_))
        };
        if !self.is_silent_spare() || !answer.as_ref().is_err_and(is_gone) {
            return Ok(answer);
        }
        self.renew(Spare::Unwanted).await?;
        self.upstream.send(greeting);
        Ok(self.answer_that(is_waited_for).await)
    }

    /// The request has its answer.
    pub(super) fn answered(&self) {
        self.turn.iter().for_each(Turn::answered);
    }

    /// Ends the server, and returns when nothing is left of it and of those before it.
    pub(in crate::bridge) async fn close(self) {
        // From here on it does not matter when it is replaced.
        drop(self.turn);
        self.closing.close();
        tokio::join!(self.upstream.close(Graces::from(&self.server.process)), self.closing.wait());
    }

    /// The era that is remembered of the server.
    pub(super) fn remembered_era(&self) -> Option<Era> {
        self.bridge.server_facts.era(self.fact_key)
    }

    /// Remembers the server's era.
    pub(super) fn remember_era(&self, era: Era) {
        self.bridge.server_facts.learn_era(self.fact_key, era);
    }

    /// Forgets what is remembered of the server: some of it was wrong.
    pub(in crate::bridge) fn forget(&self) {
        self.bridge.server_facts.forget(self.fact_key);
    }

    /// The next line that is UTF-8 and not empty. Cancel safe.
    pub(in crate::bridge) async fn line(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.upstream.receive().await.inspect_err(|error| self.count(error))?;
            self.has_spoken = true;
            if !line.trim_ascii().is_empty() && by_length(line.len(), || std::str::from_utf8(&line).is_ok()) {
                return Ok(line);
            }
            self.count_invalid(&line)?;
        }
    }

    /// A program that becomes another user first is known only now not to have been started.
    fn count(&self, error: &UpstreamError) {
        if matches!(error, UpstreamError::Spawn(_)) {
            self.bridge.spawn_failed(&self.server, error);
        }
    }

    /// Counts a line that was no message.
    pub(in crate::bridge) fn count_invalid(&mut self, line: &Bytes) -> Result<(), UpstreamError> {
        self.bridge.metrics.junk_lines.inc();
        self.upstream.count_invalid(line)
    }

    /// Answers a question of the server that nobody can be asked.
    pub(in crate::bridge) fn decline(&mut self, id: &str, method: &str) {
        let answer = if method == "ping" {
            legacy::result(id, "{}")
        } else {
            legacy::error(Some(id), METHOD_NOT_FOUND, "the client cannot be asked", None)
        };
        self.upstream.send(&answer);
    }

    /// The line that answers one of the bridge's own requests; notifications that come before it are kept.
    pub(in crate::bridge) async fn answer_to(&mut self, id: &str) -> Result<Bytes, UpstreamError> {
        self.answer_that(|answered, _| json::same_scalar(answered, id)).await
    }

    /// The first answer that is waited for; notifications that come before it are kept.
    pub(super) async fn answer_that(
        &mut self,
        is_waited_for: impl Fn(&str, Answer<'_>) -> bool,
    ) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.line().await?;
            match from_server(&line) {
                Some(FromServer::Response { id: Some(id), answer }) if is_waited_for(id, answer) => return Ok(line),
                Some(FromServer::Request { id, method, .. }) => self.decline(id, &method),
                Some(FromServer::Notification { .. }) if self.waiting.len() < MOST_WAITING => {
                    let held = self.share.take(line.len()).map_err(UpstreamError::NoRoom)?;
                    self.waiting.push(held.keep(line, ()));
                }
                Some(_) => {}
                None => self.count_invalid(&line)?,
            }
        }
    }
}
