//! One task owns a call to its end, whatever that is. `Conversation::run` is where every way to end meets; `Talk` is
//! the straight-line work, which knows nothing of cancelling.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answered, Reply};
use super::error::BridgeError;
use super::sse::{Last, Outbox, Stalled};
use crate::config::Server;
use crate::limits::Permit;
use crate::mcp::era::Version;
use crate::mcp::json::{self, Object};
use crate::mcp::legacy::{self, Initialized, Introduction};
use crate::mcp::message::{Answer, FromServer, Message};
use crate::mcp::modern::{Level, Modern};
use crate::mcp::translate;
use crate::metrics::{End, Metrics};
use crate::upstream::group::Graces;
use crate::upstream::{Upstream, UpstreamError};

/// How long a server has to take note of a cancellation before it is ended.
const CANCEL_GRACE: Duration = Duration::from_millis(300);

/// How long a server has to end by itself when the bridge stops at once.
const FORCED_GRACE: Duration = Duration::from_millis(200);

/// `Method not found`: what a server's own request is answered with when nobody can be asked.
const METHOD_NOT_FOUND: i64 = -32601;

/// What is asked of a fresh server, and how it is introduced to its client.
#[derive(Debug)]
pub(super) struct Call {
    /// The client's request.
    pub(super) message: Message,
    /// What the handshake says.
    pub(super) introduction: Introduction,
    /// What is done after the handshake.
    pub(super) purpose: Purpose,
}

/// What a call is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The handshake itself, for a legacy client; its answer begins a session.
    Initialize,
    /// The handshake, told as the answer to a modern client's `server/discover`.
    Discover,
    /// A legacy client's request; `Some` is the version its session agreed on.
    Legacy(Option<Version>),
    /// A modern client's request.
    Modern(Modern),
}

impl Call {
    /// The request's id as written.
    pub(super) fn id(&self) -> &str {
        self.message.id().unwrap_or("null")
    }

    fn disconnect_cancels(&self) -> bool {
        matches!(self.purpose, Purpose::Modern(_) | Purpose::Discover)
    }
}

/// A call, its server and its client.
pub(super) struct Conversation {
    /// What is asked.
    pub(super) call: Call,
    /// The configured server.
    pub(super) server: Arc<Server>,
    /// The fresh one.
    pub(super) upstream: Upstream,
    /// The way back to the client.
    pub(super) outbox: Outbox,
    /// Makes the final message of the server's answer.
    pub(super) reply: Reply,
    /// Cancelled when the client has left.
    pub(super) gone: CancellationToken,
    /// Cancelled when the bridge stops at once.
    pub(super) hard: CancellationToken,
    /// The right to run, given back when nothing of the server is left.
    pub(super) permit: Permit,
}

impl Conversation {
    /// Runs the call to its end and returns when nothing of its server is left.
    pub(super) async fn run(mut self, metrics: &Metrics) -> End {
        let began = Instant::now();
        let mut asked = false;
        let end = self.talk_until_an_end(&mut asked).await;
        metrics.ended(end);
        tracing::info!(end = end.as_str(), ms = began.elapsed().as_millis(), "request ended");
        self.close(end, asked).await;
        end
    }

    /// The one place where everything that can end a call is waited for.
    async fn talk_until_an_end(&mut self, asked: &mut bool) -> End {
        let Self { call, server, upstream, outbox, reply, gone, hard, .. } = self;
        let limits = &server.process;
        let deadline = tokio::time::sleep(limits.request_timeout);
        let abandoned = tokio::time::sleep(limits.abandoned_grace);
        let talk = Talk { call, upstream, outbox, reply, start_timeout: limits.start_timeout, asked }.run();
        tokio::pin!(deadline, abandoned, talk);
        let mut left = false;
        let (end, error) = loop {
            tokio::select! {
                biased;
                done = &mut talk => break match done {
                    Ok(()) => (End::Answered, None),
                    Err(BridgeError::Stalled) => (End::ClientLeft, None),
                    Err(error @ BridgeError::Upstream(UpstreamError::StartTimeout)) => (End::DeadlinePassed, Some(error)),
                    Err(error) => (End::UpstreamLeft, Some(error)),
                },
                () = gone.cancelled(), if !left => {
                    if call.disconnect_cancels() || limits.abandoned_grace.is_zero() {
                        break (End::ClientLeft, None);
                    }
                    left = true;
                    abandoned.as_mut().reset(Instant::now() + limits.abandoned_grace);
                }
                () = &mut abandoned, if left => break (End::ClientLeft, None),
                () = &mut deadline => break (End::DeadlinePassed, Some(BridgeError::Deadline)),
                () = hard.cancelled() => break (End::Stopped, Some(BridgeError::Stopped)),
            }
        };
        if let Some(error) = error {
            tracing::warn!(%error, "request failed");
            outbox.last(reply.failed(call, server, &error));
        }
        end
    }

    /// Ends the server: told of a cancellation if it was asked and has not answered, then in the usual steps.
    async fn close(self, end: End, asked: bool) {
        let Self { call, server, mut upstream, outbox, hard, permit, .. } = self;
        drop(outbox);
        if end != End::Answered && end != End::UpstreamLeft && asked {
            upstream.send(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"{}"}}}}"#,
                call.id(),
                end.as_str(),
            ));
            let until_it_leaves = async { while upstream.receive().await.is_ok() {} };
            let _ = tokio::time::timeout(CANCEL_GRACE, until_it_leaves).await;
        }
        if matches!(end, End::UpstreamLeft | End::DeadlinePassed) {
            upstream.explain();
        }
        tokio::select! {
            () = upstream.close(Graces::from(&server.process)) => {}
            // Dropping a server is killing it.
            () = until_forced(&hard) => {}
        }
        drop(permit);
    }
}

/// Until a server that is being ended must be gone at once.
async fn until_forced(hard: &CancellationToken) {
    hard.cancelled().await;
    tokio::time::sleep(FORCED_GRACE).await;
}

/// The straight-line work of a call: handshake, request, everything until the answer.
struct Talk<'a> {
    call: &'a Call,
    upstream: &'a mut Upstream,
    outbox: &'a Outbox,
    reply: &'a Reply,
    start_timeout: Duration,
    /// Set once the request is on its way to the server.
    asked: &'a mut bool,
}

impl Talk<'_> {
    async fn run(mut self) -> Result<(), BridgeError> {
        let handshake = tokio::time::timeout(self.start_timeout, self.handshake());
        let initialized = match handshake.await.map_err(|_| UpstreamError::StartTimeout)?? {
            Ok(initialized) => initialized,
            Err(refusal) => return self.refused(&refusal),
        };
        match &self.call.purpose {
            Purpose::Initialize => self.last(self.reply.initialized(self.call, &initialized)?),
            Purpose::Discover => {
                let result = translate::discover_result(&initialized);
                self.last(Answered::ok(legacy::result(self.call.id(), &result)));
            }
            Purpose::Legacy(version) => {
                if version.is_some_and(|version| version != initialized.version) {
                    return Err(UpstreamError::VersionChanged.into());
                }
                self.upstream.send(legacy::INITIALIZED);
                self.upstream.send(self.call.message.text());
                self.until_answered(&initialized).await?;
            }
            Purpose::Modern(modern) => {
                self.upstream.send(legacy::INITIALIZED);
                if let Some(level) = modern.log_level.filter(|_| initialized.offers("logging")) {
                    self.set_level(level).await?;
                }
                self.upstream.send(&translate::request_for_legacy(&self.call.message));
                self.until_answered(&initialized).await?;
            }
        }
        Ok(())
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

    /// The server refused the handshake: for a legacy client's own `initialize` that is the answer.
    fn refused(&self, refusal: &str) -> Result<(), BridgeError> {
        if !matches!(self.call.purpose, Purpose::Initialize) {
            return Err(UpstreamError::Handshake.into());
        }
        let id = self.call.id();
        self.last(Answered::ok(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{refusal}}}"#)));
        Ok(())
    }

    async fn set_level(&mut self, level: Level) -> Result<(), BridgeError> {
        self.upstream.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"logging/setLevel","params":{{"level":"{}"}}}}"#,
            legacy::SET_LEVEL_ID,
            level.as_str()
        ));
        self.answer_to(legacy::SET_LEVEL_ID).await.map(drop)
    }

    /// The line that answers one of the bridge's own requests; nothing else of the server is for the client yet.
    async fn answer_to(&mut self, id: &str) -> Result<Bytes, BridgeError> {
        loop {
            let line = self.receive().await?;
            match FromServer::parse(text(&line)) {
                Some(FromServer::Response { id: Some(answered), .. }) if json::same_scalar(answered, id) => {
                    return Ok(line);
                }
                Some(FromServer::Request { id, method, .. }) => self.answer_question(id, &method),
                Some(_) => {}
                None => self.upstream.junk(&line)?,
            }
        }
    }

    /// Forwards what relates to the request until its answer has been forwarded too.
    async fn until_answered(&mut self, initialized: &Initialized) -> Result<(), BridgeError> {
        *self.asked = true;
        let progress_token = self.call.message.meta().and_then(|meta| meta.get("progressToken").map(str::to_owned));
        loop {
            let line = self.receive().await?;
            match FromServer::parse(text(&line)) {
                Some(FromServer::Response { id: Some(id), answer }) if json::same_scalar(id, self.call.id()) => {
                    let answered = Answered::by_server(self.call, initialized, &line, id, answer);
                    self.last(answered);
                    return Ok(());
                }
                Some(FromServer::Request { id, method, .. }) => self.answer_question(id, &method),
                Some(FromServer::Notification { method, params }) => {
                    if self.is_for_this_call(&method, params, progress_token.as_deref()) {
                        self.outbox.event(one_line(&line)).await.map_err(|Stalled| BridgeError::Stalled)?;
                    }
                }
                Some(FromServer::Response { .. }) => {}
                None => self.upstream.junk(&line)?,
            }
        }
    }

    /// A line that is UTF-8 and not empty.
    async fn receive(&mut self) -> Result<Bytes, UpstreamError> {
        loop {
            let line = self.upstream.receive().await?;
            if std::str::from_utf8(&line).is_err() {
                self.upstream.junk(&line)?;
            } else if !line.trim_ascii().is_empty() {
                return Ok(line);
            }
        }
    }

    /// Whether a notification relates to this request. Source: MCP 2026-07-28, basic/transports/streamable-http,
    /// "Receiving Messages"; changes of lists and resources never do.
    fn is_for_this_call(&self, method: &str, params: Option<&str>, progress_token: Option<&str>) -> bool {
        match method {
            "notifications/progress" => {
                let params = params.and_then(|text| Object::parse(text).ok());
                let token = params.as_ref().and_then(|params| params.get("progressToken"));
                matches!((token, progress_token), (Some(a), Some(b)) if json::same_scalar(a, b))
            }
            "notifications/message" => match &self.call.purpose {
                Purpose::Modern(modern) => {
                    modern.log_level.is_some_and(|least| translate::log_is_wanted(params, least))
                }
                Purpose::Legacy(_) => true,
                Purpose::Initialize | Purpose::Discover => false,
            },
            _ => false,
        }
    }

    /// Answers a question of the server: the bridge is alive, and the client cannot be asked.
    fn answer_question(&mut self, id: &str, method: &str) {
        let answer = if method == "ping" {
            legacy::result(id, "{}")
        } else {
            legacy::error(Some(id), METHOD_NOT_FOUND, "the client cannot be asked", None)
        };
        self.upstream.send(&answer);
    }

    fn last(&self, answered: Answered) {
        let Answered { status, text, session } = answered;
        self.outbox.last(Last { status, text, session, retry_after: None });
    }
}

/// A line that is known to be UTF-8.
pub(super) fn text(line: &Bytes) -> &str {
    std::str::from_utf8(line).unwrap_or_default()
}

/// A message without line ends, so that it is one event for every reader: a carriage return can only stand between its
/// tokens, where a space says the same.
pub(super) fn one_line(line: &Bytes) -> Bytes {
    if memchr::memchr(b'\r', line).is_none() {
        return line.clone();
    }
    line.iter().map(|b| if *b == b'\r' { b' ' } else { *b }).collect::<Vec<u8>>().into()
}
