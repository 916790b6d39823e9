//! The work of a call in a straight line: the handshake, the request, everything until the answer. It knows nothing of
//! cancelling; its owner drops it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Purpose;
use super::final_answer::{by_server, initialized};
use super::handshake::{Handshake, Refusal, check_version};
use super::list_changes::{Changes, next_change};
use super::notes::Note;
use super::request_state::{BadState, RequestState};
use super::{Done, Exchange};
use crate::bridge::error::BridgeError;
use crate::bridge::response::final_message::FinalMessage;
use crate::config::Tasks;
use crate::long_work::by_length;
use crate::mcp::json;
use crate::mcp::legacy;
use crate::mcp::lists::List;
use crate::mcp::message::{Answer, FromServer, from_server};
use crate::mcp::modern::{Level, ModernFault};
use crate::mcp::mrtr;
use crate::mcp::tasks::is_about_one as is_about_task;
use crate::mcp::translate;
use crate::metrics::Phase;
use crate::relay::Mailbox;
use crate::upstream::{Upstream, UpstreamError};

/// How long a server must be silent before its questions are put to a client that answers by calling again: those that
/// it asks at once come in one burst.
const SILENCE: Duration = Duration::from_millis(20);

/// What happens next.
enum Event {
    Line(Bytes),
    Note(Note),
    /// It is time to say that this list has changed.
    Changed(List),
    Silence,
}

impl Exchange {
    /// Works until the answer, or until the client must be asked.
    pub(super) async fn work(&mut self) -> Result<Done, BridgeError> {
        if self.handshake.is_none() {
            let first_message = self.child.first_message(self.call.client());
            let began = Instant::now();
            let shaken = self.child.perform_handshake(&self.call.introduction, first_message).await;
            self.course.spent(Phase::Handshake, began);
            match shaken? {
                Ok(handshake) => {
                    // One that is greeted by the request has started when it says something.
                    if !matches!(handshake, Handshake::Modern(None)) {
                        self.outbox.ready();
                    }
                    self.handshake = Some(handshake);
                }
                Err(refusal) => return self.refused(refusal).await,
            }
            if self.is_answered_by_handshake().await? {
                return Ok(Done::Answered);
            }
            self.request().await?;
        }
        self.until_answered().await
    }

    /// What was asked for may be what the meeting told already.
    async fn is_answered_by_handshake(&mut self) -> Result<bool, BridgeError> {
        let answered = match (&self.call.purpose, self.handshaken()) {
            (Purpose::Initialize(asked), handshake) => initialized(self, asked, handshake)?,
            (Purpose::Discover, Handshake::Legacy(initialized)) => {
                let result = self.promised(translate::discover_result(initialized));
                FinalMessage::ok(legacy::result(&self.reply_id, &result))
            }
            _ => return Ok(false),
        };
        self.last(answered).await;
        Ok(true)
    }

    /// The server refused to meet: for a legacy client's own `initialize` that is the answer.
    async fn refused(&mut self, refusal: Refusal) -> Result<Done, BridgeError> {
        let refusal = match refusal {
            Refusal::Message(refusal) if matches!(self.call.purpose, Purpose::Initialize(_)) => refusal,
            Refusal::Message(_) => return Err(UpstreamError::Handshake.into()),
            Refusal::Failure(error) => return Err(error.into()),
        };
        let answered = FinalMessage::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{refusal}}}"#, self.reply_id));
        self.last(answered).await;
        Ok(Done::Answered)
    }

    /// The request in the server's era.
    fn text_for_server(&self) -> Result<String, BridgeError> {
        let message = &self.call.message;
        Ok(match (&self.call.purpose, self.handshaken()) {
            (Purpose::Legacy(session), Handshake::Legacy(initialized)) => {
                if let Some(session) = session {
                    check_version(session, initialized)?;
                }
                let keeps_tasks = self.server.tasks == Tasks::Durable;
                if keeps_tasks { message.text().to_owned() } else { translate::without_task(message) }
            }
            (Purpose::Legacy(_), Handshake::Modern(_)) => {
                translate::request_for_modern(message, &self.call.introduction, self.call.level)
            }
            // A state that is not the bridge's cannot be a legacy server's either.
            (_, Handshake::Legacy(_)) if self.brings_foreign_state() => return Err(BadState.into()),
            // The tasks of a legacy server are others.
            (_, Handshake::Legacy(_)) if is_about_task(message.method()) => {
                return Err(ModernFault::RemovedMethod.into());
            }
            (_, Handshake::Legacy(_)) => translate::request_for_legacy(message),
            (_, Handshake::Modern(_)) => message.text().to_owned(),
        })
    }

    /// Sends the request in the server's era.
    pub(in crate::bridge) async fn request(&mut self) -> Result<(), BridgeError> {
        let text = by_length(self.call.message.text().len(), || self.text_for_server())?;
        let mut listens_during_call = false;
        if let Handshake::Legacy(initialized) = self.handshaken() {
            let logs = initialized.offers("logging");
            let level = self.call.level.filter(|_| logs);
            listens_during_call = self.call.may_be_told_unasked(logs);
            // One elsewhere says so on a stream of its own.
            let is_here = !matches!(self.child.upstream, Upstream::Http(_));
            self.changes = Changes::of(&self.caller.user, &self.call, initialized).filter(|_| is_here);
            self.child.upstream.send(legacy::INITIALIZED);
            if let Some(level) = level {
                self.set_level(level).await?;
            }
        }
        self.mirror().await?;
        if listens_during_call {
            // Last of all: with the next answer the session is over.
            self.child.upstream.listen_during_call().await?;
        }
        if self.changes.is_some() {
            self.child.upstream.send(&Changes::ping());
        }
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
            let done = match self.next_event().await {
                Ok(Event::Silence) => Some(self.ask_by_result().await?),
                Ok(Event::Note(note)) => self.note(note).await?,
                Ok(Event::Changed(list)) => {
                    self.changes.iter().for_each(|changes| changes.tell(&self.bridge, list));
                    None
                }
                Ok(Event::Line(line)) => self.line(line).await?,
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

    async fn next_event(&mut self) -> Result<Event, BridgeError> {
        let waiting = !self.open.is_empty() && self.call.is_modern();
        loop {
            let Self { child, changes, mailbox, required, .. } = self;
            tokio::select! {
                line = child.line(), if !child.has_ended => match line {
                    Ok(line) => return Ok(Event::Line(line)),
                    // A modern server that has asked owes nothing: the answers go to a fresh one.
                    Err(_) if required.is_some() => child.has_ended = true,
                    Err(error) => return Err(error.into()),
                },
                note = receive_note(mailbox) => if let Some(note) = note {
                    return Ok(Event::Note(note));
                },
                list = next_change(changes) => return Ok(Event::Changed(list)),
                () = tokio::time::sleep(SILENCE), if waiting => return Ok(Event::Silence),
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
                self.child.count_invalid(&line)?;
                Ok(None)
            }
        }
    }

    async fn answered(&mut self, line: &Bytes, id: &str, answer: Answer<'_>) -> Result<Option<Done>, BridgeError> {
        self.doubt_mirrors(answer);
        if self.refuses_before_work(answer) && self.mends().await? {
            return Ok(None);
        }
        if let (Handshake::Modern(_), Answer::Result(result)) = (self.handshaken(), answer)
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
            self.last(FinalMessage::ok(legacy::result(&self.reply_id, &result))).await;
            return Ok(Some(Done::Answered));
        }
        let answered = by_length(line.len(), || by_server(self, line, id, answer));
        self.last(answered).await;
        Ok(Some(Done::Answered))
    }
}

/// The next note; waits for ever where none can come. `None` is a note that cannot be read.
async fn receive_note(mailbox: &mut Option<Mailbox>) -> Option<Note> {
    match mailbox {
        Some(mailbox) => Note::read(&mailbox.receive().await),
        None => std::future::pending().await,
    }
}
