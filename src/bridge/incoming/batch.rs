//! Batches, which the revision 2025-03-26 had and no other: each request of one gets its own fresh server and permit, and
//! each answer goes out as it comes, as an event or as an element of an array. Source: MCP 2025-03-26, basic/index, "Batching".

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::{ACCEPT, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use tracing::Instrument as _;

use tokio::sync::Mutex;

use super::read;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::course::Course;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::response::sse::{Outbox, ResponseForm, response_channel};
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::config::Server;
use crate::long_work::by_length;
use crate::mcp::era::Version;
use crate::mcp::json::Reader;
use crate::mcp::message::{Fault, Kind, Malformed, Message};
use crate::mcp::modern;
use crate::mcp::session::Session;
use crate::request_id::RequestId;
use crate::respond::{self, Body};
use crate::user::Caller;

/// How many messages of one batch are answered at once. One after the other waits for a permit, like any request, and no
/// more answers than these wait for their client.
const AT_ONCE: usize = 4;

/// The most messages of one batch: each may need a process.
const MAX_MESSAGES: usize = 100;

impl Bridge {
    /// Answers an array of messages, for sessions of the one revision that has them.
    pub(in crate::bridge) async fn batch(
        self: &Arc<Self>,
        head: Parts,
        (caller, server): (Caller, Arc<Server>),
        body: &Bytes,
        connection: &Connection,
    ) -> Result<Response<Body>, BridgeError> {
        let refused = || BridgeError::Malformed(Malformed { id: None, fault: Fault::Batch });
        let session =
            if modern::is_modern(&head.headers, None) { None } else { self.session(&head, &caller.user, &server)? };
        let session = session.filter(|session| session.version == Version::V2025_03_26).ok_or_else(refused)?;
        let messages = by_length(body.len(), || messages(body))?;
        if !messages.iter().any(|message| message.kind() == Kind::Request) {
            for message in messages {
                let incoming = one_of(&head, (&caller, &server), &session, message, connection);
                self.document(incoming, connection).await;
            }
            return Ok(respond::empty(StatusCode::ACCEPTED));
        }
        let events = read::accepts_events(&head);
        let form = ResponseForm {
            accepts_events: true,
            accepts_json: read::accepts_json(&head),
            commit_delay: Some(self.config.limits.commit_delay),
            keep_alive: self.config.limits.keep_alive,
        };
        let gone = connection.gone.child_token();
        let guard = gone.clone().drop_guard();
        let (outbox, inbox) = response_channel(
            self.config.limits.write_stall,
            BridgeError::Lost.document(None),
            self.share(&caller.user, &server),
        );
        outbox.ready();
        let (bridge, connection) = (Arc::clone(self), Connection { peer: connection.peer, gone: gone.clone() });
        let turn = Arc::<Mutex<()>>::default();
        let answered = async move {
            let one = |message| {
                let incoming = one_of(&head, (&caller, &server), &session, message, &connection);
                bridge.document(IncomingMessage { turn: Some(Arc::clone(&turn)), ..incoming }, &connection)
            };
            let answers = stream::iter(messages).map(one).buffer_unordered(AT_ONCE);
            tokio::select! {
                () = send(answers, &outbox) => {}
                () = gone.cancelled() => {}
            }
        };
        self.lifecycle.spawn(RequestId::handed_on(answered).in_current_span());
        Ok(if events { inbox.respond(form, guard.into()).await } else { inbox.array(form.keep_alive, guard.into()) })
    }

    /// The answer to one message of a batch, if it has one.
    async fn document(self: &Arc<Self>, incoming: IncomingMessage, connection: &Connection) -> Option<Bytes> {
        let id = incoming.message.id().filter(|_| incoming.message.kind() == Kind::Request).map(str::to_owned);
        let name = incoming.server.name.clone();
        let response = match self.serve(incoming, connection).await {
            Ok(response) => response,
            Err(error) => self.refuse((name.as_str(), connection), &error, id.as_deref()),
        };
        id?;
        response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes)
    }
}

/// One message of a batch, asked for by itself. Its answer is a document; how the answers go out together is for the
/// batch to say.
fn one_of(
    head: &Parts,
    (caller, server): (&Caller, &Arc<Server>),
    session: &Session,
    message: Message,
    connection: &Connection,
) -> IncomingMessage {
    let mut head = head.clone();
    head.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    IncomingMessage {
        caller: caller.clone(),
        server: Arc::clone(server),
        head,
        session: Some(session.clone()),
        course: Course::begin(connection, &message),
        message,
        turn: None,
    }
}

/// The messages of a batch.
fn messages(body: &Bytes) -> Result<Vec<Message>, BridgeError> {
    let malformed = |fault| BridgeError::Malformed(Malformed { id: None, fault });
    let text = std::str::from_utf8(body).map_err(|_| malformed(Fault::NotJson))?;
    let (mut list, mut count) = (Vec::new(), 0);
    let mut reader = Reader::new(text, usize::MAX);
    let read = reader.array(|reader| {
        count += 1;
        list.extend(Some(reader.value()?).filter(|_| count <= MAX_MESSAGES));
        Ok(())
    });
    read.and_then(|()| reader.end()).map_err(|invalid| malformed(invalid.into()))?;
    if !(1..=MAX_MESSAGES).contains(&count) {
        return Err(malformed(Fault::NotAnObject));
    }
    let messages = list.into_iter().map(|message| Message::parse(body.slice_ref(message.as_bytes())));
    let messages: Vec<Message> = messages.collect::<Result<_, _>>().map_err(BridgeError::Malformed)?;
    // The handshake must come before its session, and stands alone.
    let begins = messages.iter().any(|message| message.method() == "initialize");
    if begins { Err(malformed(Fault::Batch)) } else { Ok(messages) }
}

/// Sends answers as they come; the last of them is the end.
async fn send(answers: impl Stream<Item = Option<Bytes>>, outbox: &Outbox) {
    let mut answers = std::pin::pin!(answers.filter_map(std::future::ready));
    let mut held = answers.next().await;
    // One is always held back, to be the last.
    while let Some(next) = answers.next().await {
        if let Some(earlier) = held.replace(next)
            && outbox.event(earlier).await.is_err()
        {
            return outbox.finish_silently();
        }
    }
    let text = held.unwrap_or_default().into();
    outbox.finish(FinalMessage { status: StatusCode::OK, text, session: None, retry_after: None }).await;
}
