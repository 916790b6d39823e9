//! What follows from the events of an exchange: messages to pass on, the session, another transport, failures.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use http::{HeaderValue, Method, StatusCode};
use url::Url;

use super::exchange::{ExchangeEvent, Expects, Rejection, same_origin};
use super::outgoing::{MessageKind, answers, error_for, negotiated};
use super::{Exchange, HttpServer, Purpose, SseFallback, Transport};
use crate::upstream::UpstreamError;

impl HttpServer {
    /// What any exchange hears next. A server that does not take what it is owed is not listened to meanwhile.
    pub(super) async fn next_event(&mut self) -> (usize, ExchangeEvent) {
        let Self { exchanges, turn, share, .. } = self;
        let only_delivers = share.is_full() && exchanges.iter().any(Exchange::delivers);
        poll_fn(|context| {
            let count = exchanges.len();
            let order = (0..count).map(|n| (*turn + n) % count);
            for at in order.filter(|at| !only_delivers || exchanges[*at].delivers()).collect::<Vec<_>>() {
                if let Poll::Ready(event) = exchanges[at].events.get_mut().poll_next_unpin(context) {
                    *turn = at + 1;
                    return Poll::Ready((at, event.unwrap_or(ExchangeEvent::End)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes note of what was event; the answer is what there is to pass on.
    pub(super) fn handle(&mut self, at: usize, event: ExchangeEvent) -> Result<Option<Bytes>, UpstreamError> {
        match event {
            ExchangeEvent::Accepted { session, moved } => {
                self.accepted(at, session, moved);
                Ok(None)
            }
            ExchangeEvent::Message(message) => {
                self.note(at, &message);
                Ok(Some(message))
            }
            ExchangeEvent::Endpoint(text) => self.found_endpoint(at, &text).map(|()| None),
            ExchangeEvent::End => {
                let exchange = self.exchanges.swap_remove(at);
                match exchange.purpose {
                    Purpose::Sse => self.without_sse(UpstreamError::Ended).map(|()| None),
                    _ if exchange.may_end() => Ok(None),
                    _ => Err(UpstreamError::Ended),
                }
            }
            ExchangeEvent::Failed(error) => {
                let exchange = self.exchanges.swap_remove(at);
                match exchange.purpose {
                    Purpose::Sse => self.without_sse(error).map(|()| None),
                    Purpose::ListenDuringCall { .. } | Purpose::EndSession => Ok(None),
                    _ if exchange.is_answered() => Ok(None),
                    _ => Err(error),
                }
            }
            ExchangeEvent::Rejected(rejection) => {
                let exchange = self.exchanges.swap_remove(at);
                self.rejected(exchange, rejection)
            }
        }
    }

    /// Whether what was heard last is an answer, and the server may have said something before it that is still on its
    /// way on another connection.
    pub(super) fn is_answer_overtaking(&self, at: usize) -> bool {
        self.exchanges.get(at).is_some_and(Exchange::is_answered) && self.listens_during_call()
    }

    pub(super) fn listens_during_call(&self) -> bool {
        self.exchanges.iter().any(|exchange| matches!(exchange.purpose, Purpose::ListenDuringCall { open: true }))
    }

    /// Begins to end the session, whose last request has its answer. Its stream ends with it, and has told all before.
    pub(super) fn end_session(&mut self) {
        if self.session.is_none() {
            return;
        }
        let mut request = self.request(Method::DELETE, self.url.clone(), None, Expects::Nothing);
        request.repeatable = false;
        self.session = None;
        self.begin(Purpose::EndSession, request);
    }

    fn accepted(&mut self, at: usize, session: Option<HeaderValue>, moved: Option<Url>) {
        match &mut self.exchanges[at].purpose {
            Purpose::Post(message) => {
                if message.opens_session() {
                    self.session = session.map(|mut id| {
                        id.set_sensitive(true);
                        id
                    });
                }
                if matches!(self.transport, Transport::Undecided) {
                    self.transport = Transport::Streamable;
                }
            }
            Purpose::PostToEndpoint(_) => return,
            Purpose::ListenDuringCall { open } => *open = true,
            Purpose::Sse | Purpose::Listen | Purpose::EndSession => {}
        }
        if let Some(url) = moved {
            self.url = url;
        }
    }

    fn note(&mut self, at: usize, message: &Bytes) {
        let exchange = &mut self.exchanges[at];
        exchange.newest = Some(message.clone());
        if let Purpose::Post(asked) = &exchange.purpose
            && asked.opens_session()
            && asked.id().is_some_and(|id| answers(message, id))
        {
            self.version = negotiated(message);
        }
    }

    fn found_endpoint(&mut self, at: usize, text: &[u8]) -> Result<(), UpstreamError> {
        let (Purpose::Sse, Transport::Sse { endpoint: endpoint @ None, .. }) =
            (&self.exchanges[at].purpose, &mut self.transport)
        else {
            return Ok(());
        };
        *endpoint = std::str::from_utf8(text).ok().and_then(|text| same_origin(&self.url, text));
        if endpoint.is_none() {
            self.exchanges.swap_remove(at);
            return self.without_sse(UpstreamError::NotMcp);
        }
        self.memory.remember();
        Ok(())
    }

    /// A status that is an error: an answer all the same, a reason to speak HTTP+SSE, or a failure.
    fn rejected(&mut self, exchange: Exchange, rejection: Rejection) -> Result<Option<Bytes>, UpstreamError> {
        let Rejection { status, retry_after, demands, body } = rejection;
        if matches!(exchange.purpose, Purpose::ListenDuringCall { .. } | Purpose::EndSession) {
            return Ok(None);
        }
        let error = match status {
            // What is said beside a request says nothing of that: the server may be at work, and is not to be asked again.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !exchange.says_something_beside() => {
                let refused = UpstreamError::TokenRefused(status.as_u16());
                return Err(demands.map_or(refused, UpstreamError::ScopeMissing));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                return Err(UpstreamError::Busy { retry_after });
            }
            status => UpstreamError::Status(status.as_u16()),
        };
        let message = match exchange.purpose {
            Purpose::Sse => return self.without_sse(error).map(|()| None),
            Purpose::Listen if status == StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
            Purpose::Listen | Purpose::ListenDuringCall { .. } | Purpose::EndSession => return Err(error),
            Purpose::Post(message) | Purpose::PostToEndpoint(message) => message,
        };
        let is_lost_session = status == StatusCode::NOT_FOUND && self.session.is_some();
        if let (Some(body), Some(id)) = (&body, message.id())
            && (answers(body, id) || !is_lost_session)
            && let Some(answer) = error_for(body, id)
        {
            if matches!(self.transport, Transport::Undecided) {
                self.transport = Transport::Streamable;
            }
            return Ok(Some(answer));
        }
        if is_lost_session {
            return Err(UpstreamError::Ended);
        }
        match message.about {
            MessageKind::Request(_) if self.may_be_sse(status) => {
                self.queue.push_front(message);
                self.transport = Transport::Sse { endpoint: None, fallback: SseFallback::Refused(status) };
                Ok(None)
            }
            // Nobody waits for what becomes of it.
            MessageKind::Notification | MessageKind::Cancellation(_) => {
                tracing::debug!(status = status.as_u16(), "the server does not accept a notification");
                Ok(None)
            }
            MessageKind::Request(_) | MessageKind::Answer => Err(error),
        }
    }

    /// Source: 2025-11-25, basic/transports, "Backwards Compatibility".
    fn may_be_sse(&self, status: StatusCode) -> bool {
        let says_so = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        matches!(self.transport, Transport::Undecided) && says_so.contains(&status)
    }

    /// The stream of HTTP+SSE failed.
    fn without_sse(&mut self, error: UpstreamError) -> Result<(), UpstreamError> {
        let Transport::Sse { endpoint: None, fallback } = self.transport else { return Err(error) };
        match fallback {
            SseFallback::Fail => {
                self.queue.clear();
                Err(error)
            }
            // That nobody is there says nothing of what they speak.
            SseFallback::SpeakStreamable if matches!(error, UpstreamError::Unreachable(_)) => Err(error),
            SseFallback::SpeakStreamable => {
                self.memory.forget();
                self.transport = Transport::Streamable;
                Ok(())
            }
            SseFallback::Refused(status) => {
                self.transport = Transport::Undecided;
                self.queue.pop_front();
                Err(UpstreamError::Status(status.as_u16()))
            }
        }
    }
}

impl Exchange {
    pub(super) fn request_id(&self) -> Option<&str> {
        match &self.purpose {
            Purpose::Post(message) => message.id(),
            _ => None,
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        match (&self.newest, self.request_id()) {
            (Some(newest), Some(id)) => answers(newest, id),
            _ => false,
        }
    }

    /// Whether it is the delivery of a notification over Streamable HTTP.
    pub(super) fn notifies(&self) -> bool {
        matches!(&self.purpose, Purpose::Post(message) if message.id().is_none())
    }

    /// Whether it is the delivery of anything but a request.
    fn says_something_beside(&self) -> bool {
        let (Purpose::Post(message) | Purpose::PostToEndpoint(message)) = &self.purpose else { return false };
        message.id().is_none()
    }

    /// Whether it only takes something to the server, and brings nothing.
    pub(super) fn delivers(&self) -> bool {
        self.notifies() || matches!(self.purpose, Purpose::PostToEndpoint(_))
    }

    /// Whether it is the delivery of a cancellation.
    pub(super) fn cancels(&self) -> bool {
        match &self.purpose {
            Purpose::Post(message) | Purpose::PostToEndpoint(message) => {
                matches!(message.about, MessageKind::Cancellation(_))
            }
            Purpose::Sse | Purpose::Listen | Purpose::ListenDuringCall { .. } | Purpose::EndSession => false,
        }
    }

    /// Whether it ends the session.
    pub(super) fn ends_session(&self) -> bool {
        matches!(self.purpose, Purpose::EndSession)
    }

    /// Whether it may end as it does: whoever waits for an answer has it.
    fn may_end(&self) -> bool {
        match &self.purpose {
            Purpose::Post(message) => message.id().is_none() || self.is_answered(),
            Purpose::PostToEndpoint(_) | Purpose::ListenDuringCall { .. } | Purpose::EndSession => true,
            Purpose::Sse | Purpose::Listen => false,
        }
    }
}
