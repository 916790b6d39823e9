//! The straight-line work of a call: meeting the server, the request, everything until the answer. It knows nothing of
//! cancelling; whoever owns it stops listening.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;

use super::answer::Answered;
use super::call::{Call, Purpose};
use super::changes::{Changes, next_change};
use super::child::Child;
use super::error::BridgeError;
use super::held::Task;
use super::meet::{Met, Refusal};
use super::questions::{BadState, Note, Owner, Question, RequestState, Transcript};
use super::sse::{Last, Outbox, Stalled};
use super::{Asked, Bridge};
use crate::config::{Questions, Server, Tasks};
use crate::long_work::by_length;
use crate::mcp::era::Version;
use crate::mcp::json;
use crate::mcp::legacy;
use crate::mcp::lists::List;
use crate::mcp::message::{Answer, FromServer, Message};
use crate::mcp::modern::{Level, ModernFault};
use crate::mcp::mrtr;
use crate::mcp::tasks::is_about_one as is_about_task;
use crate::mcp::translate;
use crate::relay::Mailbox;
use crate::upstream::{Upstream, UpstreamError};
use crate::user::Caller;

/// How long a server must be silent before its questions are put to a client that answers by calling again: those that
/// it asks at once come in one burst.
const SILENCE: Duration = Duration::from_millis(20);

/// A call in the making: what is asked, of which server, for whom.
pub(super) struct Talk {
    pub(super) bridge: Arc<Bridge>,
    pub(super) caller: Caller,
    pub(super) server: Arc<Server>,
    pub(super) call: Call,
    pub(super) child: Child,
    pub(super) outbox: Outbox,
    /// Where notes from other exchanges arrive, once any may.
    pub(super) mailbox: Option<Mailbox>,
    /// What the server turned out to be.
    pub(super) met: Option<Met>,
    /// The request's id and progress token as the client has them now: a call that goes on has new ones.
    pub(super) reply_id: String,
    pub(super) reply_progress: Option<String>,
    /// Whether the request is on its way to the server, so that a cancellation means something to it.
    pub(super) asked: bool,
    /// What the client said when it cancelled, of the id that the server knows.
    pub(super) cancelled: Option<Message>,
    /// Questions of the server that have no answer yet.
    pub(super) open: Vec<Question>,
    /// How often the client has been asked to call again.
    pub(super) round: u32,
    /// What an earlier call asked and was answered.
    pub(super) transcript: Transcript,
    /// Whether a legacy client's answer is waited for: a call that waits for who has left never ends by itself.
    pub(super) waits: Arc<AtomicBool>,
    /// What the server says of its lists, if anybody is told.
    pub(super) changes: Option<Box<Changes>>,
    /// What a modern server wants to know, while its client is asked.
    pub(super) required: Option<mrtr::InputRequired>,
    /// The server's answer, if it came while nobody listened.
    pub(super) settled: Option<Bytes>,
    /// The task that the call was answered with, if the server is held for one.
    pub(super) task: Option<Box<Task>>,
}

/// How far the work has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The client has its answer.
    Answered,
    /// The client has been asked, or has been answered with a task, and the server waits.
    Parked,
}

/// What is heard next.
enum Heard {
    Line(Bytes),
    Note(Note),
    /// It is time to say that this list has changed.
    Changed(List),
    Silence,
}

impl Talk {
    /// A call about to begin.
    pub(super) fn new(
        bridge: &Arc<Bridge>,
        asked: Asked,
        call: Call,
        child: Child,
        (outbox, transcript): (Outbox, Transcript),
    ) -> Self {
        let (reply_id, reply_progress) = (call.id().to_owned(), call.progress.clone());
        let call = Call { message: call.message.counted(&child.share), ..call };
        Self {
            bridge: Arc::clone(bridge),
            caller: asked.caller,
            server: asked.server,
            call,
            child,
            outbox,
            mailbox: None,
            met: None,
            reply_id,
            reply_progress,
            asked: false,
            cancelled: None,
            open: Vec::new(),
            round: 0,
            transcript,
            waits: Arc::default(),
            changes: None,
            required: None,
            settled: None,
            task: None,
        }
    }

    /// Works until the answer, or until the client must be asked.
    pub(super) async fn run(&mut self) -> Result<Done, BridgeError> {
        if self.met.is_none() {
            let greeting = self.child.greeting(self.call.client());
            match self.child.meet(&self.call.introduction, greeting).await? {
                Ok(met) => {
                    // One that is greeted by the request has started when it says something.
                    if !matches!(met, Met::Modern(None)) {
                        self.outbox.ready();
                    }
                    self.met = Some(met);
                }
                Err(refusal) => return self.refused(refusal).await,
            }
            if self.is_answered_by_meeting().await? {
                return Ok(Done::Answered);
            }
            self.request().await?;
        }
        self.until_answered().await
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { user: &self.caller.user, server: &self.server.name }
    }

    pub(super) fn met(&self) -> &Met {
        self.met.as_ref().expect("a server is met before it is asked anything")
    }

    /// What was asked for may be what the meeting told already.
    async fn is_answered_by_meeting(&mut self) -> Result<bool, BridgeError> {
        let answered = match (&self.call.purpose, self.met()) {
            (Purpose::Initialize(asked), met) => Answered::initialized(self, asked, met)?,
            (Purpose::Discover, Met::Legacy(initialized)) => {
                let result = self.promised(translate::discover_result(initialized));
                Answered::ok(legacy::result(&self.reply_id, &result))
            }
            _ => return Ok(false),
        };
        self.last(answered).await;
        Ok(true)
    }

    /// The server refused to meet: for a legacy client's own `initialize` that is the answer.
    async fn refused(&mut self, refusal: Refusal) -> Result<Done, BridgeError> {
        let refusal = match refusal {
            Refusal::Said(refusal) if matches!(self.call.purpose, Purpose::Initialize(_)) => refusal,
            Refusal::Said(_) => return Err(UpstreamError::Handshake.into()),
            Refusal::Shown(error) => return Err(error.into()),
        };
        let answered = Answered::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{refusal}}}"#, self.reply_id));
        self.last(answered).await;
        Ok(Done::Answered)
    }

    /// Sends the request in the server's era.
    pub(super) async fn request(&mut self) -> Result<(), BridgeError> {
        let message = &self.call.message;
        let text = match (&self.call.purpose, self.met()) {
            (Purpose::Legacy(session), Met::Legacy(initialized)) => {
                if session.as_ref().is_some_and(|session| session.version != initialized.version) {
                    return Err(UpstreamError::VersionChanged.into());
                }
                let keeps_tasks = self.server.tasks == Tasks::Durable;
                if keeps_tasks { message.text().to_owned() } else { translate::without_task(message) }
            }
            (Purpose::Legacy(_), Met::Modern(_)) => {
                translate::request_for_modern(message, &self.call.introduction, self.call.level)
            }
            // A state that is not the bridge's cannot be a legacy server's either.
            (_, Met::Legacy(_)) if self.brings_foreign_state() => return Err(BadState.into()),
            // The tasks of a legacy server are others.
            (_, Met::Legacy(_)) if is_about_task(message.method()) => return Err(ModernFault::RemovedMethod.into()),
            (_, Met::Legacy(_)) => translate::request_for_legacy(message),
            (_, Met::Modern(_)) => message.text().to_owned(),
        };
        if let Met::Legacy(initialized) = self.met() {
            let logs = initialized.offers("logging");
            let (level, overhears) = (self.call.level.filter(|_| logs), self.call.may_be_told_unasked(logs));
            // One elsewhere says so on a stream of its own.
            let is_here = !matches!(self.child.upstream, Upstream::Http(_));
            self.changes = Changes::of(&self.caller.user, &self.call, initialized).filter(|_| is_here);
            self.child.upstream.send(legacy::INITIALIZED);
            if let Some(level) = level {
                self.set_level(level).await?;
            }
            if overhears {
                self.child.upstream.overhear().await?;
            }
            if self.changes.is_some() {
                self.child.upstream.send(&Changes::ping());
            }
        }
        self.mirror().await?;
        self.child.upstream.send(&text);
        self.asked = true;
        Ok(())
    }

    fn brings_foreign_state(&self) -> bool {
        let state = self.call.message.param_string("requestState");
        state.is_some_and(|state| !RequestState::is_ours(&state))
    }

    async fn set_level(&mut self, level: Level) -> Result<(), BridgeError> {
        self.child.upstream.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"logging/setLevel","params":{{"level":"{}"}}}}"#,
            legacy::SET_LEVEL_ID,
            level.as_str()
        ));
        self.child.answer_to(legacy::SET_LEVEL_ID).await?;
        Ok(())
    }

    /// Forwards what relates to the request until its answer has been forwarded too.
    async fn until_answered(&mut self) -> Result<Done, BridgeError> {
        if let Some(line) = self.settled.take() {
            self.line(line).await?;
            return Ok(Done::Answered);
        }
        loop {
            let done = match self.hear().await {
                Ok(Heard::Silence) => Some(self.ask_by_result().await?),
                Ok(Heard::Note(note)) => self.note(note).await?,
                Ok(Heard::Changed(list)) => {
                    self.changes.iter().for_each(|changes| changes.tell(&self.bridge, list));
                    None
                }
                Ok(Heard::Line(line)) => self.line(line).await?,
                Err(error) => {
                    self.mend_after(error).await?;
                    None
                }
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    async fn hear(&mut self) -> Result<Heard, BridgeError> {
        let waiting = !self.open.is_empty() && self.call.is_modern();
        loop {
            let Self { child, changes, mailbox, required, .. } = self;
            tokio::select! {
                line = child.line(), if !child.has_ended => match line {
                    Ok(line) => return Ok(Heard::Line(line)),
                    // A modern server that has asked owes nothing: the answers go to a fresh one.
                    Err(_) if required.is_some() => child.has_ended = true,
                    Err(error) => return Err(error.into()),
                },
                note = receive_note(mailbox) => if let Some(note) = note {
                    return Ok(Heard::Note(note));
                },
                list = next_change(changes) => return Ok(Heard::Changed(list)),
                () = tokio::time::sleep(SILENCE), if waiting => return Ok(Heard::Silence),
            }
        }
    }

    async fn line(&mut self, line: Bytes) -> Result<Option<Done>, BridgeError> {
        self.outbox.ready();
        let line = self.shown(line)?;
        match from_server(&line) {
            // It has asked, and knows no questions of its own.
            Some(FromServer::Response { .. } | FromServer::Request { .. }) if self.required.is_some() => Ok(None),
            Some(FromServer::Response { id: Some(id), answer }) if json::same_scalar(id, self.call.id_at_server()) => {
                self.answered(&line, id, answer).await
            }
            Some(FromServer::Response { id: Some(id), .. }) if json::same_scalar(id, legacy::PING_ID) => {
                self.changes.iter_mut().for_each(|changes| changes.begin());
                Ok(None)
            }
            Some(FromServer::Request { id, method, params }) => self.question(id, &method, params).await,
            Some(FromServer::Notification { method, params }) => {
                self.changes.iter_mut().for_each(|changes| changes.heard(&method));
                if let Some(event) = self.for_this_call(&line, &method, params) {
                    self.event(event).await?;
                }
                Ok(None)
            }
            Some(FromServer::Response { .. }) => Ok(None),
            None => {
                self.child.junk(&line)?;
                Ok(None)
            }
        }
    }

    async fn answered(&mut self, line: &Bytes, id: &str, answer: Answer<'_>) -> Result<Option<Done>, BridgeError> {
        self.doubt_mirrors(answer);
        if self.refuses_before_work(answer) && self.mends().await? {
            return Ok(None);
        }
        if let (Met::Modern(_), Answer::Result(result)) = (self.met(), answer)
            && let Some(required) = mrtr::InputRequired::parse(result)
        {
            match &self.call.purpose {
                Purpose::Legacy(_) => {
                    self.ask_live(required).await?;
                    return Ok(None);
                }
                Purpose::Modern(_) if self.can_keep() => {
                    if let Some(done) = self.keep(required, result).await {
                        return Ok(Some(done));
                    }
                }
                Purpose::Modern(_) | Purpose::Initialize(_) | Purpose::Discover => {}
            }
        }
        if self.begins_task(line, id, answer).await {
            return Ok(Some(Done::Parked));
        }
        if let Some(result) = self.url_elicitation(answer) {
            self.last(Answered::ok(legacy::result(&self.reply_id, &result))).await;
            return Ok(Some(Done::Answered));
        }
        let answered = by_length(line.len(), || Answered::by_server(self, line, id, answer));
        self.last(answered).await;
        Ok(Some(Done::Answered))
    }

    pub(super) async fn event(&mut self, text: Bytes) -> Result<(), BridgeError> {
        self.outbox.event(text).await.map_err(|Stalled| BridgeError::Stalled)
    }

    pub(super) async fn last(&mut self, answered: Answered) {
        let Answered { status, text, session } = answered;
        self.outbox.last(Last { status, text, session, retry_after: None }).await;
    }

    /// Where notes from other exchanges arrive from now on.
    pub(super) fn mailbox(&mut self) -> &mut Mailbox {
        let Self { mailbox, bridge, caller, server, .. } = self;
        mailbox.get_or_insert_with(|| bridge.mailbox(&caller.user, server))
    }

    /// What becomes of questions that must be answered by calling again.
    pub(super) fn policy(&self) -> Questions {
        self.server.questions
    }

    /// The version that a legacy client is told, where the server does not choose it.
    pub(super) fn version_for_client(&self) -> Version {
        self.call.introduction.version
    }
}

/// The next note; waits for ever where none can come. `None` is a note that cannot be read.
async fn receive_note(mailbox: &mut Option<Mailbox>) -> Option<Note> {
    match mailbox {
        Some(mailbox) => Note::read(&mailbox.receive().await),
        None => std::future::pending().await,
    }
}

/// What a server says on a line.
pub(super) fn from_server(line: &Bytes) -> Option<FromServer<'_>> {
    by_length(line.len(), || FromServer::parse(text(line)))
}

/// A line that is known to be UTF-8.
pub(super) fn text(line: &Bytes) -> &str {
    std::str::from_utf8(line).unwrap_or_default()
}

/// A line with one part of it, a slice of it, said otherwise.
pub(super) fn with_part(line: &Bytes, part: &str, otherwise: &str) -> Bytes {
    let at = json::range_in(text(line), part);
    [&line[..at.start], otherwise.as_bytes(), &line[at.end..]].concat().into()
}
