//! `subscriptions/listen`: what a server says of its own accord, as far as a modern client has asked for it.
//! Source: MCP 2026-07-28, basic/patterns/subscriptions.

pub(super) mod filter;
mod tag;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Stream, Work};
use crate::bridge::connect::link::Lack;
use crate::bridge::connect::told::{ConnectionWatch, changed};
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::Call;
use crate::bridge::exchange::child::Child;
use crate::bridge::exchange::course::span;
use crate::bridge::exchange::handshake::{ClientKind, Handshake};
use crate::bridge::exchange::renewed_token::NoOther;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::sse::response_channel;
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::config::{Listening, Tasks};
use crate::mcp::json::{self, Object};
use crate::mcp::legacy::{self, Initialized};
use crate::mcp::lists::List;
use crate::mcp::message::{Answer, FromServer, from_server};
use crate::mcp::modern::{self, ModernFault};
use crate::mcp::splice::{Spliced, Splicer, respliced, with_part};
use crate::mcp::translate;
use crate::metrics::End;
use crate::respond::{self, Body};
use filter::{Filter, TASKS};
pub(super) use tag::untagged;
use tag::{SUBSCRIPTION_ID, said_of, tagged};

/// The method.
pub(in crate::bridge) const LISTEN: &str = "subscriptions/listen";

/// The notification that says what is listened to; it comes before any other.
pub(super) const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// The notification that a resource has changed.
const UPDATED: &str = "notifications/resources/updated";

/// How long a server has to take note of a cancellation before it is ended.
const CANCEL_GRACE: Duration = Duration::from_millis(300);

/// How long a legacy server may take to agree to one subscription.
const AGREE: Duration = Duration::from_secs(10);

/// A modern client's subscription.
pub(super) struct Subscription {
    pub(super) stream: Stream,
    /// Its server; there is none for a subscription that no server is needed for, or whose user has no token.
    child: Option<Child>,
    /// Lets it hear that there is one now.
    watch: Option<ConnectionWatch>,
    call: Call,
    filter: Filter,
    /// Whether a modern server is listening for this request, so that a cancellation means something to it.
    asked: bool,
    /// Whether anything has been said to the client.
    has_said: bool,
    /// Whether the client has its final message.
    answered: bool,
    /// Why its user's token does not do any more.
    lack: Option<Lack>,
}

impl Bridge {
    /// Opens a subscription.
    pub(in crate::bridge) async fn subscribe(
        self: &Arc<Self>,
        incoming: IncomingMessage,
        mut call: Call,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        let mut filter = Filter::parse(&call.message).ok_or(BridgeError::Filter)?;
        if !filter.tasks.is_empty() {
            listen_to_tasks(&mut filter, &mut call, incoming.server.tasks)?;
        }
        if !call.events {
            return Err(BridgeError::NotAcceptable);
        }
        let values = incoming.server.request_values(&incoming.head.headers)?;
        let permit = Arc::new(self.limits.admit_stream(&incoming.caller.user).await?);
        let IncomingMessage { caller, server, mut course, .. } = incoming;
        let mut mailbox = self.mailbox(&caller.user, &server);
        // Before it is looked whether there is a token, so that no change is missed.
        let mut watch = ConnectionWatch::new(&mut mailbox, (&caller.user, &server));
        watch.look_later();
        let mut child = None;
        let hears_of_connection = if server.listen == Listening::Always || filter.needs_server() {
            match self.start_stream_server(&caller, &server, values).await? {
                Ok(started) => child = Some(started),
                Err(lack) if !server.leads_to_connecting() => {
                    let answer = self.without_token((&caller.user, &server), &call, &lack);
                    self.metrics.servers.token_missing(server.name.as_str());
                    course.finish(&answer);
                    let call = (&call.message, true);
                    span(&caller, &server, call.0)
                        .in_scope(|| course.report(&self.metrics, &server, call, End::Answered));
                    return Ok(respond::json(answer.status, answer.text.into_bytes()));
                }
                Err(_) => {}
            }
            child.is_none()
        } else {
            server.leads_to_connecting() && filter.hears_of_tools() && !self.is_connected(&caller.user, &server).await
        };
        if child.is_none() {
            // Nobody else would say that a list has changed.
            filter = Filter::of_tools(hears_of_connection && filter.hears_of_tools());
        }
        let watch = Some(watch).filter(|_| hears_of_connection);
        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) = response_channel(self.config.limits.write_stall, lost, self.share(&caller.user, &server));
        let form = self.form(&call);
        let stream = Stream { bridge: Arc::clone(self), caller, server, outbox, mailbox };
        let (asked, has_said, answered, lack) = Default::default();
        let subscription = Subscription { stream, child, watch, call, filter, asked, has_said, answered, lack };
        let lifetime = self.config.limits.session_lifetime;
        let guard = self.run_stream(Work::Subscription(Box::new(subscription)), permit, lifetime, connection);
        Ok(inbox.respond(form, guard).await)
    }
}

/// Leaves the tasks in what is listened to if a fresh server knows them: what becomes of others is asked.
fn listen_to_tasks(filter: &mut Filter, call: &mut Call, kept: Tasks) -> Result<(), ModernFault> {
    if kept != Tasks::Off && !call.declares_tasks() {
        return Err(ModernFault::TasksUndeclared);
    }
    if kept != Tasks::Durable {
        filter.tasks.clear();
        let mut wanted =
            call.message.param("notifications").and_then(|all| Object::parse(all).ok()).unwrap_or_default();
        wanted.remove(TASKS);
        let wanted = wanted.write();
        call.message = call.message.with_param("notifications", &wanted);
    }
    Ok(())
}

impl Subscription {
    pub(super) async fn run(&mut self) -> Result<(), BridgeError> {
        if self.child.is_none() {
            self.acknowledge().await?;
            return self.hear_of_connection().await;
        }
        let (wanted, mut is_fresh) = (self.filter.clone(), false);
        loop {
            let Err(error) = self.hear_of_server().await else { return Ok(()) };
            is_fresh &= !self.has_said;
            match Box::pin(self.child().other_token(error, is_fresh)).await {
                Ok(fresh) if !self.has_said => self.child().refill(fresh).await?,
                // A client that subscribes anew gets another server.
                Ok(_) => return Ok(()),
                Err(NoOther::Error(error)) => return Err(error),
                Err(NoOther::Lack(lack)) => {
                    self.lack = Some(lack);
                    return Ok(());
                }
            }
            (self.filter, self.asked, is_fresh) = (wanted.clone(), false, true);
        }
    }

    /// Says what the server says.
    async fn hear_of_server(&mut self) -> Result<(), BridgeError> {
        let child = self.child.as_mut().expect("only with a server");
        match child.handshake_to_listen(&self.call.introduction, ClientKind::Modern).await? {
            Handshake::Legacy(initialized) => {
                self.stream.outbox.ready();
                self.agree(&initialized).await?;
                self.acknowledge().await?;
            }
            Handshake::Modern(_) => {
                child.upstream.send(self.call.message.text());
                self.asked = true;
            }
        }
        for line in std::mem::take(&mut self.child().waiting) {
            self.line(&line).await?;
        }
        while !self.answered {
            let child = self.child.as_mut().expect("it has been there all the time");
            let line = tokio::select! {
                line = child.line() => line?,
                // The server has the token of before. A client that subscribes anew gets another.
                () = changed(&mut self.stream.mailbox) => return self.tools_changed().await,
            };
            self.line(&line).await?;
        }
        Ok(())
    }

    /// Says that there are other tools whenever its user's token has changed.
    async fn hear_of_connection(&mut self) -> Result<(), BridgeError> {
        loop {
            let Some(watch) = self.watch.as_mut().filter(|_| self.filter.hears_of_tools()) else {
                return std::future::pending().await;
            };
            let Stream { bridge, caller, server, mailbox, .. } = &mut self.stream;
            let is_told = tokio::select! {
                () = changed(mailbox) => true,
                () = watch.due() => false,
            };
            let is_connected = bridge.is_connected(&caller.user, server).await;
            watch.seen(is_connected);
            if is_told || is_connected {
                self.tools_changed().await?;
            }
        }
    }

    /// Says that there are other tools, if its client has asked for that.
    async fn tools_changed(&mut self) -> Result<(), BridgeError> {
        if !self.filter.hears_of_tools() {
            return Ok(());
        }
        self.stream.event(tagged(&List::Tools.notification().into(), self.call.id())).await
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("only a server says and is told something")
    }

    /// Leaves of the filter what a legacy server announces, and what it agrees to be subscribed to. That it announces
    /// lists its operator may have said: servers of the Python SDK 1.x deny it unless they are told to promise it.
    async fn agree(&mut self, initialized: &Initialized) -> Result<(), BridgeError> {
        self.filter.leave_legacy();
        let always = self.stream.server.listen == Listening::Always;
        for list in List::ALL {
            let area = list.area();
            let announces = if always { initialized.offers(area) } else { initialized.promises(area, "listChanged") };
            self.filter.lists[list as usize] &= announces;
        }
        let mut agreed = Vec::new();
        if initialized.promises("resources", "subscribe") {
            for uri in std::mem::take(&mut self.filter.resources) {
                if self.subscribe_to(&uri).await? {
                    agreed.push(uri);
                }
            }
        }
        self.filter.resources = agreed;
        Ok(())
    }

    async fn subscribe_to(&mut self, uri: &str) -> Result<bool, BridgeError> {
        let child = self.child();
        child.upstream.send(&legacy::change_subscription(uri, true));
        let Ok(line) = tokio::time::timeout(AGREE, child.answer_to(legacy::SUBSCRIBE_ID)).await else {
            return Ok(false);
        };
        let line = line?;
        Ok(matches!(from_server(&line), Some(FromServer::Response { answer: Answer::Result(_), .. })))
    }

    async fn acknowledge(&mut self) -> Result<(), BridgeError> {
        let (id, agreed) = (self.call.id(), self.filter.write());
        let params = format!(r#"{{"_meta":{{"{SUBSCRIPTION_ID}":{id}}},"notifications":{agreed}}}"#);
        self.has_said = true;
        self.stream.event(notification(ACKNOWLEDGED, &params)).await
    }

    async fn line(&mut self, line: &Bytes) -> Result<(), BridgeError> {
        match from_server(line) {
            Some(FromServer::Notification { method, params }) => {
                let acknowledges = self.asked && method == ACKNOWLEDGED;
                if acknowledges || self.filter.wants(&method, params) {
                    self.has_said = true;
                    return self.stream.event(tagged(line, self.call.id())).await;
                }
            }
            Some(FromServer::Response { id: Some(id), answer }) if json::same_scalar(id, self.call.id_at_server()) => {
                let wanted = self.call.id();
                let (error, text) = match answer {
                    Answer::Error(error) => (translate::error_code(error), with_part(line, id, wanted)),
                    Answer::Result(result) => {
                        let result_for_client = |said: &mut Splicer<'_>| said.push_str(&said_of(result, wanted));
                        (None, respliced(line, (id, wanted), result, result_for_client))
                    }
                };
                self.last(status_of(error), text).await;
            }
            Some(FromServer::Request { id, method, .. }) => self.child().decline(id, &method),
            Some(FromServer::Response { .. }) => {}
            None => self.child().count_invalid(line)?,
        }
        Ok(())
    }

    async fn last(&mut self, status: StatusCode, text: Spliced) {
        self.answered = true;
        self.stream.outbox.finish(FinalMessage { status, text, session: None, retry_after: None }).await;
    }

    /// The subscription ends without an error unless there was one.
    pub(super) async fn finish(&mut self, error: Option<&BridgeError>) {
        if self.answered {
            return;
        }
        let (id, Stream { bridge, caller, server, .. }) = (self.call.id(), &self.stream);
        let lack = self.lack.take().or_else(|| Lack::of_refusal(server, error?));
        let last = match (lack, error) {
            (Some(lack), _) => bridge.without_token((&caller.user, server), &self.call, &lack),
            (None, Some(error)) if !matches!(error, BridgeError::Stopped) => error.last(Some(id)),
            (None, _) => {
                let result = format!(r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION_ID}":{id}}}}}"#);
                FinalMessage::ok(legacy::result(id, &result))
            }
        };
        self.answered = true;
        self.stream.outbox.finish(last).await;
    }

    /// Lets a server that still listens know that nobody wants to hear it.
    pub(super) async fn into_child(self, end: End) -> Option<Child> {
        let Self { stream, child, call, asked, .. } = self;
        drop(stream);
        let mut child = child?;
        if asked && matches!(end, End::ClientLeft | End::DeadlinePassed | End::Stopped) {
            child.upstream.send(&legacy::cancelled(call.id_at_server(), end.as_str()));
            let until_it_leaves = async { while child.upstream.receive().await.is_ok() {} };
            let _ = tokio::time::timeout(CANCEL_GRACE, until_it_leaves).await;
        }
        Some(child)
    }
}

/// The status of the answer by which a server ends a subscription.
fn status_of(error: Option<i64>) -> StatusCode {
    match error {
        Some(modern::UNSUPPORTED_VERSION..=modern::HEADER_MISMATCH) => StatusCode::BAD_REQUEST,
        Some(-32601) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// The notification that a resource has changed.
pub(super) fn updated(uri: &str) -> Bytes {
    notification(UPDATED, &format!(r#"{{"uri":{}}}"#, json::quote(uri)))
}

fn notification(method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into()
}
