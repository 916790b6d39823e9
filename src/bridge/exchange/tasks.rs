//! Tasks that live in the process that began them: the call that was answered with a task keeps its server, and whoever
//! asks about the task later, on whichever node, is forwarded there. Source: SEP-2663, the extension
//! `io.modelcontextprotocol/tasks`.
//!
//! Invariants: a server is held for one task, for no longer than its lease, and with the permit of the call that began it;
//! only what the user asks whose call that was is forwarded there.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use tokio::time::{Instant, sleep_until};

use super::Exchange;
use super::call::Call;
use super::conversation::Conversation;
use super::final_answer::status_of;
use super::handshake::Handshake;
use super::held_task::{Open, Task, open_task, seal_task};
use super::notes::{Note, TaskRequest};
use super::questions::Owner;
use crate::bridge::error::BridgeError;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::sse::Outbox;
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::mcp::json;
use crate::mcp::message::{Answer, FromServer, MAX_ID, Message, from_server};
use crate::mcp::splice::{Spliced, respliced, with_part};
use crate::mcp::tasks::Told;
use crate::metrics::End;
use crate::respond::Body;

/// How many requests about one task its server may owe an answer at once; others wait.
const MOST_OPEN: usize = 16;

impl Bridge {
    /// The answer to a request about a task whose process is held somewhere.
    ///
    /// # Errors
    /// There is no such task of this user and server, or no more.
    pub(super) async fn ask_about_task(
        self: &Arc<Self>,
        incoming: &IncomingMessage,
        call: &Call,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        let owner = Owner { user: &incoming.caller.user, server: &incoming.server.name };
        let id = incoming.message.param_string("taskId");
        let address = id.and_then(|id| open_task(&self.keyring, owner, &id)).ok_or(BridgeError::NoTask)?;
        let text = incoming.message.text().to_owned();
        let note = |reply_to| Note::Task(TaskRequest { reply_to, text });
        self.forward_to(incoming, call, (address, note), connection).await?.ok_or(BridgeError::TaskGone)
    }
}

impl Exchange {
    /// Whether the server has begun a task that it is to be held for; the call is answered with that, under an id that
    /// leads here.
    pub(super) async fn begins_task(&mut self, line: &Bytes, id: &str, answer: Answer<'_>) -> bool {
        let Answer::Result(result) = answer else { return false };
        if !matches!(self.handshaken(), Handshake::Modern(_)) || !self.call.may_begin_task(self.server.tasks) {
            return false;
        }
        let Some(told) = Told::begun(result).filter(|told| told.id().len() <= MAX_ID) else { return false };
        let address = self.mailbox().address();
        let sealed = seal_task(&self.bridge.keyring, self.owner(), &address);
        let mut task = Task::new(told.id(), sealed, self.server.process.task_lease, self.round + 1);
        let retold = task.retell(told);
        let text = respliced(line, (id, &self.reply_id), result, |text| text.push_str(&retold));
        self.last(FinalMessage::ok(text)).await;
        self.task = Some(Box::new(task));
        true
    }

    /// Asks the server about the task that it is held for.
    fn ask_about(&mut self, task: &mut Task, request: TaskRequest) {
        let (Ok(to), Ok(message)) = (request.reply_to.parse(), Message::parse(request.text.into())) else { return };
        task.newest += 1;
        let id = task.newest.to_string();
        self.child.upstream.send(message.under(&id).with_param("taskId", &task.id).text());
        task.open.push_back(Open {
            id,
            client_id: message.id().unwrap_or("null").to_owned(),
            cancels: message.method() == "tasks/cancel",
            outbox: Outbox::remote(self.bridge.relay.clone(), to, self.bridge.config.limits.write_stall),
            until: Instant::now() + self.server.process.request_timeout,
        });
    }

    /// What the server says while it is held for a task: answers go to whoever incoming.
    async fn task_line(&mut self, task: &mut Task, line: &Bytes) -> Result<(), BridgeError> {
        match from_server(line) {
            Some(FromServer::Response { id: Some(id), answer }) => {
                let at = task.open.iter().position(|open| json::same_scalar(id, &open.id));
                if let Some(open) = at.and_then(|at| task.open.remove(at)) {
                    let (status, text) = self.task_answer(&open, task, line, (id, answer));
                    open.outbox.finish(FinalMessage { status, text, session: None, retry_after: None }).await;
                }
            }
            Some(FromServer::Request { id, method, .. }) => self.child.decline(id, &method),
            // What it says unasked is for nobody: a client that wants to know asks.
            Some(_) => {}
            None => self.child.count_invalid(line)?,
        }
        Ok(())
    }

    /// An answer about the task as its client may see it.
    fn task_answer(
        &self,
        open: &Open,
        task: &mut Task,
        line: &Bytes,
        (id, answer): (&str, Answer<'_>),
    ) -> (StatusCode, Spliced) {
        let result = match answer {
            Answer::Error(error) => return (status_of(error, self), with_part(line, id, &open.client_id)),
            Answer::Result(result) => result,
        };
        if open.cancels {
            task.needs_no_more();
        }
        let text = match Told::of(result) {
            Some(told) => {
                let retold = task.retell(told);
                respliced(line, (id, &open.client_id), result, |text| text.push_str(&retold))
            }
            None => with_part(line, id, &open.client_id),
        };
        (StatusCode::OK, text)
    }
}

impl Conversation {
    /// Holds the server for its task, and leads to it whoever asks about that.
    pub(super) async fn hold(&mut self, mut task: Task) -> End {
        tracing::info!("the server is held for its task");
        // The call has been answered; a task is not cancelled as a call is.
        self.exchange.asked = false;
        let Some(mut mailbox) = self.exchange.mailbox.take() else { return End::Answered };
        let (end, error) = loop {
            tokio::select! {
                note = mailbox.receive(), if task.open.len() < MOST_OPEN => match Note::read(&note) {
                    Some(Note::Task(request)) => self.exchange.ask_about(&mut task, request),
                    Some(Note::Retry(retry)) => self.exchange.refuse_retry(&retry).await,
                    // Who asked and has left leaves the task as it is.
                    _ => {}
                },
                line = self.exchange.child.line() => {
                    let heard = match line {
                        Ok(line) => self.exchange.task_line(&mut task, &line).await,
                        Err(error) => Err(error.into()),
                    };
                    if let Err(error) = heard {
                        break (End::UpstreamLeft, error);
                    }
                }
                () = task.until_overdue() => if let Some(open) = task.open.pop_front() {
                    open.fail(&BridgeError::Deadline).await;
                },
                () = sleep_until(task.until()) => {
                    break (if task.is_over() { End::Answered } else { End::DeadlinePassed }, BridgeError::TaskGone);
                }
                () = self.hard.cancelled() => break (End::Stopped, BridgeError::Interrupted),
            }
        };
        // From here on it is gone for whoever asks.
        drop(mailbox);
        // All at once: where the other nodes cannot be reached, each is tried for seconds.
        join_all(task.open.drain(..).map(|open| open.fail(&error))).await;
        end
    }
}
