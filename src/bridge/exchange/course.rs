//! How one request goes: what the metrics count of it, and its one line in the log.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::Instant;
use tracing::{Span, field};

use crate::auth::PeerAddr;
use crate::bridge::incoming::session::learn_client;
use crate::bridge::response::final_message::FinalMessage;
use crate::bridge::{Connection, IncomingMessage};
use crate::config::Server;
use crate::mcp::message::Message;
use crate::mcp::modern;
use crate::mcp::tools::CALL;
use crate::metrics::{End, Metrics, Phase, era_label, method_group};
use crate::request_id::RequestId;
use crate::telemetry::{encode_for_log, millis, shorten_for_log};
use crate::user::Caller;

/// What is known so far.
pub(in crate::bridge) struct Course {
    began: Instant,
    peer: PeerAddr,
    /// Bytes of the request.
    received: usize,
    /// Bytes of what went out.
    sent: usize,
    /// That of the response, once something went out.
    status: Option<StatusCode>,
    took: [Option<Duration>; Phase::ALL.len()],
}

impl Course {
    /// A message has come over this connection.
    pub(in crate::bridge) fn begin(connection: &Connection, message: &Message) -> Self {
        Self {
            began: Instant::now(),
            peer: connection.peer,
            received: message.text().len(),
            sent: 0,
            status: None,
            took: [None; Phase::ALL.len()],
        }
    }

    /// What has been done since then is this phase, which comes once or goes on.
    pub(in crate::bridge) fn spent(&mut self, phase: Phase, since: Instant) {
        *self.took[phase as usize].get_or_insert_default() += since.elapsed();
    }

    /// So many bytes go out, as part of a response that is none of a failure.
    pub(in crate::bridge) fn send(&mut self, bytes: usize) {
        self.sent += bytes;
        self.status.get_or_insert(StatusCode::OK);
        self.took[Phase::FirstByte as usize].get_or_insert_with(|| self.began.elapsed());
    }

    /// The final message goes out.
    pub(in crate::bridge) fn finish(&mut self, message: &FinalMessage) {
        self.status.get_or_insert(message.status);
        self.send(message.text.len());
    }

    /// The request, which was let in, has ended so.
    pub(in crate::bridge) fn report(&mut self, metrics: &Metrics, server: &Server, call: (&Message, bool), end: End) {
        let (message, is_modern) = call;
        self.spent(Phase::Total, self.began);
        // One that a reload has taken out is not counted any more.
        if let Some(counts) = metrics.servers.of(server.name.as_str()) {
            counts.ended(method_group(message.method()), is_modern, end);
            counts.received.inc_by(self.received as u64);
            counts.sent.inc_by(self.sent as u64);
            let took = Phase::ALL.into_iter().filter_map(|phase| Some((phase, self.took[phase as usize]?)));
            took.for_each(|(phase, time)| counts.took(phase, time));
        }
        self.log(message, is_modern, end);
    }

    fn log(&self, message: &Message, is_modern: bool, end: End) {
        let request = RequestId::current();
        let tool = if message.method() == CALL { message.param_string("name") } else { None };
        let ms = |phase| self.took[phase as usize].map(millis);
        tracing::info!(
            tool = tool.as_deref().map(shorten_for_log),
            client = request.as_ref().and_then(RequestId::client).map(shorten_for_log),
            era = era_label(is_modern),
            peer = %self.peer,
            status = self.status.map(|status| status.as_u16()),
            end = end.as_str(),
            ms = ms(Phase::Total),
            queue_ms = ms(Phase::Queue),
            store_ms = ms(Phase::Store),
            start_ms = ms(Phase::Start),
            handshake_ms = ms(Phase::Handshake),
            first_byte_ms = ms(Phase::FirstByte),
            bytes_in = self.received,
            bytes_out = self.sent,
            "request ended"
        );
    }
}

impl IncomingMessage {
    /// This message needed no server of its own: it ends with this response.
    pub(in crate::bridge) fn answered<B>(mut self, response: Response<B>) -> Response<B> {
        let Self { caller, server, head, session, message, course, .. } = &mut self;
        if let Some(session) = session {
            learn_client(&session.client_info);
        }
        course.spent(Phase::Total, course.began);
        course.status = Some(response.status());
        let is_modern = modern::is_modern(&head.headers, Some(message));
        span(caller, server, message).in_scope(|| course.log(message, is_modern, End::Answered));
        response
    }
}

/// Where all that is said of a call stands, from when it is no longer one with its connection.
pub(in crate::bridge) fn span(caller: &Caller, server: &Server, message: &Message) -> Span {
    tracing::info_span!(
        parent: None,
        "call",
        request = RequestId::current().map(field::display),
        user = %caller.user,
        server = %server.name,
        method = %encode_for_log(shorten_for_log(message.method())),
    )
}
