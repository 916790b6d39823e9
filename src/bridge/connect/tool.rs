//! `connect_account`: the one tool of a server that is not connected. It gives the link, and can wait until the token is
//! there. Once it is, the bridge says so.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::link::{Lack, tool_result};
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::Call;
use crate::bridge::exchange::course::span;
use crate::bridge::exchange::notes::Note;
use crate::bridge::exchange::questions::call_key;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::pending::PendingResponse;
use crate::bridge::response::sse::{Guard, Outbox, ResponseForm, response_channel};
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::config::Server;
use crate::limits::Permit;
use crate::mcp::json::Object;
use crate::mcp::legacy;
use crate::mcp::message::Message;
use crate::mcp::tools::CALL;
use crate::metrics::{Counted, End};
use crate::relay::Mailbox;
use crate::request_id::RequestId;

/// The name of the tool. On a server with a user's token it is never a tool of the server's own.
pub(super) const NAME: &str = "connect_account";

/// How long a call that wants to wait does.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often it looks whether the token is there.
const LOOK: Duration = Duration::from_secs(1);

/// How often its client hears that it goes on.
const PROGRESS: Duration = Duration::from_secs(5);

/// Whether a message calls the tool.
pub(in crate::bridge) fn is_called(server: &Server, message: &Message) -> bool {
    message.method() == CALL
        && server.leads_to_connecting()
        && message.param_string("name").is_some_and(|name| name == NAME)
}

/// The tool as it stands in the list.
pub(super) fn definition(server: &Server) -> String {
    let name = server.display_name();
    json!({
        "name": NAME,
        "title": format!("Connect {name}"),
        "description": format!("Connect {name}: gives the link where the user saves their token; call it again when done."),
        "inputSchema": { "type": "object", "properties": {
            "wait": { "type": "boolean", "description": "Wait up to two minutes until the user has done so." },
        } },
        "annotations": { "readOnlyHint": true },
    })
    .to_string()
}

fn wants_to_wait(message: &Message) -> bool {
    let arguments = message.param("arguments").and_then(|arguments| Object::parse(arguments).ok());
    arguments.is_some_and(|arguments| arguments.get("wait") == Some("true"))
}

impl Bridge {
    /// The answer to a call that needs a token and has none that does, or that asks whether there is one.
    pub(in crate::bridge) async fn connect(
        self: &Arc<Self>,
        mut incoming: IncomingMessage,
        (call, lack): (Call, Option<Lack>),
        permit: Permit,
        connection: &Connection,
    ) -> PendingResponse {
        let (user, server) = (&incoming.caller.user, &incoming.server);
        let lost = BridgeError::Lost.document(Some(call.id()));
        let (outbox, inbox) = response_channel(self.config.limits.write_stall, lost, self.share(user, server));
        let mut form = self.form(&call);
        let (gone, permit) = (connection.gone.child_token(), Arc::new(permit));
        let guard = Guard::new(&gone, &permit);
        match lack {
            Some(lack) if is_called(server, &call.message) && wants_to_wait(&call.message) => {
                self.wait_until_connected(incoming, call, lack, (outbox, gone, permit));
            }
            lack => {
                if lack.is_some() {
                    tracing::info!(%user, server = %server.name, "no token: the client was told how to get one");
                }
                form = ResponseForm { accepts_events: false, ..form };
                let answer = lack.map(|lack| self.without_token((user, server), &call, &lack));
                let answer = answer.unwrap_or_else(|| self.connected(server, &call));
                incoming.course.finish(&answer);
                outbox.finish(answer).await;
                let (server, call) = (&incoming.server, (&call.message, call.is_modern()));
                span(&incoming.caller, server, call.0)
                    .in_scope(|| incoming.course.report(&self.metrics, server, call, End::Answered));
            }
        }
        PendingResponse { inbox, form, guard, subscription: None }
    }

    /// What a call of the tool says where there is a token. Nobody knows here whether the service takes it.
    fn connected(&self, server: &Server, call: &Call) -> FinalMessage {
        let (name, link) = (server.display_name(), self.config.connect_link(&server.name));
        let text = format!("{name} is connected. If it refuses your token, save another at {link} and try again.");
        FinalMessage::ok(legacy::result(call.id(), &tool_result(call, &text, false)))
    }

    fn wait_until_connected(
        self: &Arc<Self>,
        incoming: IncomingMessage,
        call: Call,
        lack: Lack,
        (outbox, gone, permit): (Outbox, CancellationToken, Arc<Permit>),
    ) {
        let mailbox = call.session().map(|session| {
            let mut mailbox = self.mailbox(&incoming.caller.user, &incoming.server);
            mailbox.listen_as(call_key(&session.nonce, call.id()));
            mailbox
        });
        let span = span(&incoming.caller, &incoming.server, &call.message);
        outbox.ready();
        let waiting = Waiting { bridge: Arc::clone(self), incoming, call, seen: Ok(lack), outbox, mailbox };
        let waiting = async move {
            waiting.run(gone).await;
            drop(permit);
        };
        self.lifecycle.spawn(RequestId::handed_on(waiting).instrument(span));
    }
}

/// A call that waits until its user's token is there.
struct Waiting {
    bridge: Arc<Bridge>,
    incoming: IncomingMessage,
    call: Call,
    /// What was lacking when it looked last, or that nobody knew.
    seen: Result<Lack, BridgeError>,
    outbox: Outbox,
    /// Where a legacy client's cancellation arrives.
    mailbox: Option<Mailbox>,
}

impl Waiting {
    async fn run(mut self, gone: CancellationToken) {
        let live = Counted::new(&self.bridge.metrics.live_requests);
        let announced = self.announce().await;
        let end = self.until_an_end(&gone).await;
        if let Some(key) = announced {
            // What could not be taken back leads nowhere, and not for long.
            let _ = self.bridge.relay.withdraw(&key).await;
        }
        drop(live);
        let call = (&self.call.message, self.call.is_modern());
        self.incoming.course.report(&self.bridge.metrics, &self.incoming.server, call, end);
    }

    /// Lets a cancellation that another node takes find the call; answers under which key.
    async fn announce(&self) -> Option<String> {
        let (session, mailbox) = (self.call.session()?, self.mailbox.as_ref()?);
        let key = call_key(&session.nonce, self.call.id());
        let _only_this_node_can_cancel = self.bridge.relay.announce(&key, &mailbox.address(), PATIENCE).await;
        Some(key)
    }

    /// The one place where everything that can end the waiting is waited for.
    async fn until_an_end(&mut self, gone: &CancellationToken) -> End {
        let lifecycle = self.bridge.lifecycle.clone();
        let began = Instant::now();
        let (mut look, mut progress) = (interval_at(began + LOOK, LOOK), interval_at(began, PROGRESS));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = tokio::time::sleep_until(began + PATIENCE);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = gone.cancelled() => return self.leave(),
                () = cancelled(&mut self.mailbox) => return self.leave(),
                () = lifecycle.soft.cancelled() => return self.finish(End::Stopped).await,
                () = &mut over => return self.finish(End::DeadlinePassed).await,
                _ = look.tick() => if let Some(end) = self.look().await {
                    return end;
                },
                _ = progress.tick() => if self.tell(began.elapsed()).await.is_err() {
                    return self.leave();
                },
            }
        }
    }

    /// Looks whether the token is there, and says so. A store that fails is asked again.
    async fn look(&mut self) -> Option<End> {
        let (user, server) = (&self.incoming.caller.user, &self.incoming.server);
        match self.bridge.tokens.awaited_access_token(user, server).await {
            Ok(_) => {
                let answer = self.bridge.connected(server, &self.call);
                self.last(answer).await;
                return Some(End::Answered);
            }
            Err(error) => self.seen = self.bridge.lack(&self.incoming.server, &error),
        }
        None
    }

    /// Says that it waits, and where its person is waited for.
    async fn tell(&mut self, so_far: Duration) -> Result<(), BridgeError> {
        let Some(token) = &self.call.progress else { return Ok(()) };
        let server = &self.incoming.server;
        let text = match &self.seen {
            Ok(lack) => lack.with_link(server, &self.bridge.config.connect_link(&server.name)),
            Err(error) => error.to_string(),
        };
        let text = json!(text);
        let (seconds, total) = (so_far.as_secs(), PATIENCE.as_secs());
        let event = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{seconds},"total":{total},"message":{text}}}}}"#
        );
        self.incoming.course.send(event.len());
        self.outbox.event(event.into()).await.map_err(|_| BridgeError::Stalled)
    }

    async fn last(&mut self, answer: FinalMessage) {
        self.incoming.course.finish(&answer);
        self.outbox.finish(answer).await;
    }

    /// Answers as a call that does not wait.
    async fn finish(&mut self, end: End) -> End {
        let (user, server, call) = (&self.incoming.caller.user, &self.incoming.server, &self.call);
        let answer = match &self.seen {
            Ok(lack) => self.bridge.without_token((user, server), call, lack),
            Err(error) if call.session().is_some() => error.last_in_session(Some(call.id())),
            Err(error) => error.last(Some(call.id())),
        };
        self.last(answer).await;
        end
    }

    fn leave(&self) -> End {
        self.outbox.finish_silently();
        End::ClientLeft
    }
}

/// Until the client takes its call back.
async fn cancelled(mailbox: &mut Option<Mailbox>) {
    let Some(mailbox) = mailbox else { return std::future::pending().await };
    while !matches!(Note::read(&mailbox.receive().await), Some(Note::Cancelled(_))) {}
}
