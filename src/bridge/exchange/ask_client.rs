//! A server asks its client (sampling, elicitation, roots): a legacy client on the stream of its call, a modern one by the
//! result of the call, which it then repeats with its answers. Source: MCP 2026-07-28, basic/patterns/mrtr.

use std::sync::atomic::Ordering;

use super::call::{Purpose, may_ask};
use super::notes::{Note, Retry};
use super::questions::{Question, for_client, seal_question};
use super::request_state::{BadState, NextStep, RequestState, STATE_LIFETIME, fingerprint_of_question};
use super::visit::ask_to_visit;
use super::{Done, Exchange};
use crate::bridge::error::BridgeError;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::sse::Outbox;
use crate::clock::UnixTime;
use crate::config::Questions;
use crate::mcp::extensions;
use crate::mcp::json::{self, Object};
use crate::mcp::legacy;
use crate::mcp::message::{Answer, FromServer, Message, from_server};
use crate::mcp::modern::MISSING_CAPABILITY;
use crate::mcp::mrtr::{self, InputRequired};
use crate::mcp::translate;
use crate::memory::Held;
use crate::upstream::{Upstream, UpstreamError};

/// How often one call may be asked about; a call that asks more never comes to an end.
const MAX_ROUNDS: u32 = 16;

/// How many questions of one call may be open at once.
const MOST_OPEN: usize = 64;

/// The longest state that travels through a client, in bytes.
const MAX_TRANSCRIPT: usize = 256 * 1024;

/// The longest questions that are kept, all of them together, in bytes.
const MAX_KEPT: usize = 1024 * 1024;

impl Exchange {
    /// Takes up a question of the server.
    pub(in crate::bridge) async fn question(
        &mut self,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) -> Result<Option<Done>, BridgeError> {
        let capability = mrtr::capability_for(method, params);
        let may_be_asked = |capabilities: &str| match capability {
            Some(capability) => mrtr::declares(capabilities, capability),
            None => extensions::has_question(method) && extensions::declared(capabilities),
        };
        match (&self.call.purpose, capability) {
            (Purpose::Legacy(Some(session)), _) if self.call.events && may_be_asked(&session.capabilities) => {
                let (nonce, params) = (session.nonce.clone(), params.unwrap_or("{}").to_owned());
                self.waits.store(true, Ordering::Relaxed);
                self.keep_question(Question::new(id, method, &params))?;
                self.forward(&nonce, id, method, &params).await?;
            }
            (Purpose::Modern(modern), Some(capability))
                if may_ask(self.call.message.method()) && self.policy() != Questions::Refuse =>
            {
                if !mrtr::declares(&modern.capabilities, capability) {
                    return self.lacks(capability).await.map(Some);
                }
                self.remember(id, method, params.unwrap_or("{}"))?;
            }
            _ => self.child.decline(id, method),
        }
        Ok(None)
    }

    /// Keeps a question until the server is silent, unless an earlier call has its answer.
    fn remember(&mut self, id: &str, method: &str, params: &str) -> Result<(), BridgeError> {
        let fingerprint = fingerprint_of_question(method, params);
        match self.transcript.answer_again(&fingerprint) {
            Some(answer) => self.child.upstream.send(&legacy::result(id, &answer)),
            None => self.keep_question(Question::new(id, method, params))?,
        }
        Ok(())
    }

    /// Keeps a question until it is answered: so many, and as long as there is memory.
    fn keep_question(&mut self, mut question: Question) -> Result<(), BridgeError> {
        if self.open.len() >= MOST_OPEN {
            return Err(BridgeError::TooManyRounds);
        }
        let held = self.child.share.take(question.length());
        question.held = Some(held.map_err(UpstreamError::NoRoom)?);
        self.open.push(question);
        Ok(())
    }

    /// The server asks what the client cannot be asked. Source: MCP 2026-07-28, basic/index, "Per-request protocol
    /// fields": 400 and `MissingRequiredClientCapability`.
    async fn lacks(&mut self, capability: &str) -> Result<Done, BridgeError> {
        let data = format!(r#"{{"requiredCapabilities":{capability}}}"#);
        let sentence = "the server needs a capability that this client has not declared";
        let text = legacy::error(Some(&self.reply_id), MISSING_CAPABILITY, sentence, Some(&data)).into();
        let status = http::StatusCode::BAD_REQUEST;
        self.outbox.finish(FinalMessage { status, text, session: None, retry_after: None }).await;
        Ok(Done::Answered)
    }

    /// Sends a question out on the stream of a legacy client's call, with an id that brings the answer back.
    async fn forward(&mut self, nonce: &str, id: &str, method: &str, params: &str) -> Result<(), BridgeError> {
        let address = self.mailbox().address();
        let (_, text) = {
            let sealed = |id: &str| seal_question(&self.bridge.keyring, self.owner(), nonce, &address, id);
            for_client(id, method, params, sealed)
        };
        self.event(text.into()).await
    }

    /// Puts a modern server's questions to a legacy client, one by one, on the stream of its call.
    pub(super) async fn ask_live(&mut self, mut required: InputRequired) -> Result<(), BridgeError> {
        self.round += 1;
        let Some(nonce) = self.call.session().filter(|_| self.call.events).map(|session| session.nonce.clone()) else {
            return Err(BridgeError::CannotAsk);
        };
        if self.round > MAX_ROUNDS {
            return Err(BridgeError::TooManyRounds);
        }
        self.open.clear();
        for (key, method, params) in std::mem::take(&mut required.requests) {
            let id = json::quote(&key);
            self.keep_question(Question { key, ..Question::new(&id, &method, &params) })?;
            self.forward(&nonce, &id, &method, &params).await?;
        }
        self.waits.store(true, Ordering::Relaxed);
        let held = self.memory_for(&required)?;
        self.required = Some((required, held));
        if self.open.is_empty() { self.call_again_with(&[]).await } else { Ok(()) }
    }

    /// Memory for what a server wants back.
    fn memory_for(&self, required: &InputRequired) -> Result<Held, UpstreamError> {
        let length = required.state.as_ref().map_or(0, String::len);
        self.child.share.take(length).map_err(UpstreamError::NoRoom)
    }

    /// Asks a modern server again, with the answers: the same process, which may be the only one that knows its state, or
    /// a fresh one if it has ended.
    async fn call_again_with(&mut self, answers: &[(String, String)]) -> Result<(), BridgeError> {
        let (required, _held) = self.required.take().ok_or(BridgeError::Lost)?;
        self.waits.store(false, Ordering::Relaxed);
        self.child.renew_if_ended().await?;
        self.mirror().await?;
        let message = self.call.message.under(&(self.round + 1).to_string());
        self.call.message = message.counted(&self.child.share);
        let message = &self.call.message;
        let text = match self.call.purpose {
            Purpose::Modern(_) => message.text().to_owned(),
            _ => translate::request_for_modern(message, &self.call.introduction, self.call.level),
        };
        self.child.upstream.send(&required.retry_of(&text, answers));
        self.asked = true;
        Ok(())
    }

    /// Whether a server that asks by its result is kept until it is called again. One elsewhere keeps itself.
    pub(super) fn can_keep(&self) -> bool {
        !matches!(self.child.upstream, Upstream::Http(_)) && self.call.may_park(self.policy())
    }

    /// Keeps a modern server that has asked by `result` until its client calls again; `None` if that cannot be said in a
    /// state that the client would carry, or is too long to be kept.
    pub(in crate::bridge) async fn keep(&mut self, mut required: InputRequired, result: &str) -> Option<Done> {
        let at = self.mailbox().address().to_string();
        let next = NextStep::Kept { at, round: self.round + 1, state: required.state.clone() };
        // How long its own state is good is for the server to say.
        let lifetime = self.bridge.config.limits.session_lifetime.as_secs();
        let state = RequestState::new(&self.call.message, UnixTime(self.bridge.clock.now().0 + lifetime), next);
        let state = json::quote(&state.seal(&self.bridge.keyring, self.owner()));
        let is_short = state.len() <= MAX_TRANSCRIPT && result.len() <= MAX_KEPT;
        let mut result = Object::parse(result).ok().filter(|_| is_short)?;
        result.set("requestState", &state);
        let text = legacy::result(&self.reply_id, &result.write());
        required.requests.clear();
        let held = self.memory_for(&required).ok()?;
        self.round += 1;
        self.required = Some((required, held));
        self.asked = false;
        self.last(FinalMessage::ok(text)).await;
        Some(Done::Parked)
    }

    /// Asks a modern client by the result of its call: the server waits, or is asked again from the start.
    pub(super) async fn ask_by_result(&mut self) -> Result<Done, BridgeError> {
        self.round += 1;
        if self.round > MAX_ROUNDS || self.transcript.rounds >= MAX_ROUNDS {
            return Err(BridgeError::TooManyRounds);
        }
        let (done, next) = if self.policy() == Questions::Park { self.park() } else { self.replay() };
        let now = self.bridge.clock.now().0;
        let lifetime = match done {
            Done::Parked => self.server.process.park_lease.as_secs(),
            Done::Answered => STATE_LIFETIME,
        };
        let state = RequestState::new(&self.call.message, UnixTime(now + lifetime), next);
        let state = state.seal(&self.bridge.keyring, self.owner());
        if state.len() > MAX_TRANSCRIPT {
            return Err(BridgeError::TooManyRounds);
        }
        let questions = self.open.iter().map(|q| (q.key.as_str(), q.method.as_str(), q.params.as_str()));
        let info = self.handshaken().server_info();
        let result = mrtr::input_required(questions, &state, info.as_deref());
        self.last(FinalMessage::ok(legacy::result(&self.reply_id, &result))).await;
        Ok(done)
    }

    fn park(&mut self) -> (Done, NextStep) {
        let mailbox = self.mailbox();
        (Done::Parked, NextStep::Parked { at: mailbox.address().to_string(), round: self.round })
    }

    fn replay(&mut self) -> (Done, NextStep) {
        let mut transcript = self.transcript.clone();
        transcript.rounds += 1;
        transcript.open =
            self.open.iter().map(|q| (q.key.clone(), fingerprint_of_question(&q.method, &q.params))).collect();
        (Done::Answered, NextStep::Replay(transcript))
    }

    /// The result that stands for an error by which a legacy server asks its client to visit a page first, for a
    /// modern client. Source: MCP 2025-11-25, client/elicitation.
    pub(super) fn url_elicitation(&self, answer: Answer<'_>) -> Option<String> {
        let (Purpose::Modern(modern), Answer::Error(error)) = (&self.call.purpose, answer) else { return None };
        if translate::error_code(error) != Some(mrtr::URL_ELICITATION_REQUIRED)
            || !mrtr::declares(&modern.capabilities, mrtr::ELICITATION_URL)
        {
            return None;
        }
        let pages = mrtr::url_elicitations(error)?;
        Some(ask_to_visit(&self.bridge, self.owner(), &self.call, &pages, self.handshaken().server_info().as_deref()))
    }

    /// Takes a note from another exchange.
    pub(in crate::bridge) async fn note(&mut self, note: Note) -> Result<Option<Done>, BridgeError> {
        match note {
            Note::Answer { id, failed, text } => self.take_answer(&id, failed, &text).await?,
            Note::Tell(text) => self.child.upstream.send(&text),
            Note::Cancelled(text) => {
                let said = Message::parse(text.into()).ok();
                self.cancelled = said.map(|said| said.with_param("requestId", self.call.id_at_server()));
                return Err(BridgeError::Cancelled);
            }
            Note::Left => return Err(BridgeError::Stalled),
            Note::Retry(retry) => self.refuse_retry(&retry).await,
            // Those are for a listener, and for a server that is held.
            Note::Changed(_) | Note::Task(_) | Note::Connection => {}
        }
        Ok(None)
    }

    async fn take_answer(&mut self, id: &str, failed: bool, text: &str) -> Result<(), BridgeError> {
        let Some(at) = self.open.iter().position(|question| question.id == id) else { return Ok(()) };
        if self.required.is_none() {
            self.open.remove(at);
            self.waits.store(!self.open.is_empty(), Ordering::Relaxed);
            let member = if failed { "error" } else { "result" };
            self.child.upstream.send(&format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{text}}}"#));
            return Ok(());
        }
        if failed {
            // A modern server knows no failed answers: the call ends as its client wanted it to.
            return Err(BridgeError::NotAnswered);
        }
        self.open[at].answer = Some(text.to_owned());
        if self.open.iter().any(|question| question.answer.is_none()) {
            return Ok(());
        }
        let answers: Vec<_> =
            self.open.drain(..).filter_map(|question| Some((question.key, question.answer?))).collect();
        self.call_again_with(&answers).await
    }

    /// A call that has come to this parked one: takes its answers, or says why not.
    pub(in crate::bridge) async fn resume(&mut self, retry: Retry) -> Result<Done, BridgeError> {
        let address = retry.reply_to.parse().map_err(|_| BridgeError::Lost)?;
        if retry.round != self.round {
            self.refuse_retry(&retry).await;
            return Ok(Done::Parked);
        }
        self.outbox = Outbox::remote(self.bridge.relay.clone(), address, self.bridge.config.limits.write_stall);
        self.reply_id = retry.id;
        self.reply_progress = retry.progress;
        if self.required.is_some() {
            self.call_again_with(&retry.answers).await?;
            return Ok(Done::Answered);
        }
        for (key, text) in &retry.answers {
            if let Some(at) = self.open.iter().position(|question| question.key == *key) {
                let question = self.open.remove(at);
                self.child.upstream.send(&legacy::result(&question.id, text));
            }
        }
        if self.open.is_empty() { Ok(Done::Answered) } else { self.ask_by_result().await }
    }

    /// Tells whoever called again in vain: the call was answered already, or asked about something else since.
    pub(super) async fn refuse_retry(&mut self, retry: &Retry) {
        let Ok(address) = retry.reply_to.parse() else { return };
        let outbox = Outbox::remote(self.bridge.relay.clone(), address, self.bridge.config.limits.write_stall);
        outbox.finish(BridgeError::from(BadState).last(Some(&retry.id))).await;
    }

    /// What the server says while its client is thinking: more questions are kept for the next round, an answer for
    /// whoever calls again.
    pub(super) async fn wait_parked(&mut self) -> Result<(), BridgeError> {
        let line = self.child.line().await?;
        match from_server(&line) {
            // A modern server that has asked owes no answer, and knows no questions of its own.
            Some(FromServer::Response { .. }) if self.required.is_some() => {}
            Some(FromServer::Response { id: Some(id), .. }) if json::same_scalar(id, self.call.id_at_server()) => {
                self.open.clear();
                let held = self.child.share.count(line.len());
                self.settled = Some(held.keep(line, ()));
            }
            Some(FromServer::Request { id, method, params }) => match mrtr::capability_for(&method, params) {
                Some(_) if self.required.is_none() => {
                    self.keep_question(Question::new(id, &method, params.unwrap_or("{}")))?;
                }
                _ => self.child.decline(id, &method),
            },
            Some(_) => {}
            None => self.child.count_invalid(&line)?,
        }
        Ok(())
    }
}
