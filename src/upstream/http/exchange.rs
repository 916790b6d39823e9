//! One HTTP exchange with a server, as a stream of events. Dropping it ends it.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::events::{Event, Events, TooLong};
use crate::mcp::headers::SESSION_ID;
use crate::memory::{Held, Share};
use crate::oauth::demanded_scopes;
use crate::upstream::process::lines::without_mark;
use crate::upstream::{Unreachable, UpstreamError};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// The longest answer that is read only so that its connection can be used again.
const SMALL: u64 = 64 * 1024;

/// The events of an exchange, in order.
pub(super) type ExchangeEvents = Pin<Box<dyn Stream<Item = ExchangeEvent> + Send>>;

/// One event of an exchange.
pub(super) enum ExchangeEvent {
    /// The head of an answer that is no error.
    Accepted {
        /// The session that it names.
        session: Option<HeaderValue>,
        /// Where it came from after redirects.
        moved: Option<Url>,
    },
    /// One event or body that may be a message, without line ends.
    Message(Bytes),
    /// The event that says where to send messages.
    Endpoint(Bytes),
    /// The end, as it should be.
    End,
    /// An HTTP status that is an error.
    Rejected(Rejection),
    /// Anything else that ends it.
    Failed(UpstreamError),
}

/// An HTTP status that is an error.
pub(super) struct Rejection {
    /// The status.
    pub(super) status: StatusCode,
    /// When to try again.
    pub(super) retry_after: Option<Duration>,
    /// Which scopes the server demands that its user has not allowed, if it does.
    pub(super) demands: Option<Vec<String>>,
    /// The body, if it is JSON.
    pub(super) body: Option<Bytes>,
}

/// An HTTP request, and what is expected of its answer.
pub(super) struct ExchangeRequest {
    /// The shared client.
    pub(super) client: Client,
    /// The method.
    pub(super) method: Method,
    /// Where. It may hold the user's token: never logged.
    pub(super) url: Url,
    /// Every header.
    pub(super) headers: HeaderMap,
    /// The message.
    pub(super) body: Option<Bytes>,
    /// What the answer should be.
    pub(super) expects: Expects,
    /// Whether it may be asked twice if the connection breaks before the answer.
    pub(super) repeatable: bool,
    /// By when the first event of a stream must have come.
    pub(super) first_event_by: Option<Instant>,
    /// The longest message, in bytes.
    pub(super) limit: usize,
    /// What is read is a part of it.
    pub(super) share: Share,
}

/// What an answer should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expects {
    /// No content.
    Nothing,
    /// One message or a stream of them.
    Messages,
    /// A stream.
    Stream,
}

enum State {
    Asking(Box<ExchangeRequest>),
    Whole(Response, usize, Share),
    Events(Box<Reading>),
    Ending,
    Over,
}

/// A stream of events that is being read.
struct Reading {
    response: Response,
    events: Events,
    /// What of it has been read.
    held: Held,
    first_event_by: Option<Instant>,
    limit: usize,
}

impl ExchangeRequest {
    /// Begins the exchange as soon as it is polled.
    pub(super) fn begin(self) -> ExchangeEvents {
        Box::pin(stream::unfold(State::Asking(Box::new(self)), step))
    }

    /// Asks, and asks again where redirected to.
    pub(super) async fn send(&self) -> Result<(Response, Option<Url>), UpstreamError> {
        let mut moved = None;
        for _ in 0..=MAX_REDIRECTS {
            let url = moved.as_ref().unwrap_or(&self.url);
            let response = match self.send_to(url).await {
                // An idle connection may be closed by the server while it is being written to.
                Err(UpstreamError::Ended) if self.repeatable => self.send_to(url).await?,
                sent => sent?,
            };
            match redirect(&response, url)? {
                None => return Ok((response, moved)),
                Some(next) => moved = Some(next),
            }
        }
        Err(UpstreamError::Redirect)
    }

    async fn send_to(&self, url: &Url) -> Result<Response, UpstreamError> {
        let request = self.client.request(self.method.clone(), url.clone()).headers(self.headers.clone());
        let request = match &self.body {
            Some(body) => request.body(body.clone()),
            None => request,
        };
        request.send().await.map_err(|error| failure(&error))
    }

    /// What the head of the answer says, and what comes after it.
    async fn answered(self: Box<Self>, response: Response, moved: Option<Url>) -> (ExchangeEvent, State) {
        let status = response.status();
        if !status.is_success() {
            return (ExchangeEvent::Rejected(rejection(response, self.limit, &self.share).await), State::Over);
        }
        let session = response.headers().get(SESSION_ID).cloned();
        let accepted = ExchangeEvent::Accepted { session, moved };
        let state = match (kind(response.headers()), self.expects) {
            (_, Expects::Nothing) => {
                discard(response).await;
                State::Ending
            }
            (Content::Events, _) => State::Events(Box::new(Reading {
                response,
                events: Events::new(self.limit),
                held: self.share.empty(),
                first_event_by: self.first_event_by,
                limit: self.limit,
            })),
            (Content::Json, Expects::Messages) => State::Whole(response, self.limit, self.share),
            // Accepted, and to be answered elsewhere.
            (Content::None, Expects::Messages) => State::Ending,
            (Content::Json | Content::None | Content::Other, _) => {
                return (ExchangeEvent::Failed(UpstreamError::NotMcp), State::Over);
            }
        };
        (accepted, state)
    }
}

async fn step(state: State) -> Option<(ExchangeEvent, State)> {
    Some(match state {
        State::Asking(request) => match request.send().await {
            Ok((response, moved)) => request.answered(response, moved).await,
            Err(error) => (ExchangeEvent::Failed(error), State::Over),
        },
        State::Whole(response, limit, share) => match whole(response, limit, &share).await {
            Ok(body) => (ExchangeEvent::Message(one_line(body)), State::Ending),
            Err(error) => (ExchangeEvent::Failed(error), State::Over),
        },
        State::Events(mut reading) => match reading.next().await {
            Ok(Some(event)) => (event, State::Events(reading)),
            Ok(None) => (ExchangeEvent::End, State::Over),
            Err(error) => (ExchangeEvent::Failed(error), State::Over),
        },
        State::Ending => (ExchangeEvent::End, State::Over),
        State::Over => return None,
    })
}

impl Reading {
    /// The next event that is a message or names the endpoint; events of other types are for others.
    async fn next(&mut self) -> Result<Option<ExchangeEvent>, UpstreamError> {
        let event = match self.first_event_by {
            Some(deadline) => timeout_at(deadline, self.read()).await.map_err(|_| UpstreamError::NotMcp)?,
            None => self.read().await,
        };
        self.first_event_by = None;
        event
    }

    async fn read(&mut self) -> Result<Option<ExchangeEvent>, UpstreamError> {
        loop {
            let event = self.events.next_event().map_err(|TooLong| UpstreamError::LineTooLong(self.limit))?;
            match event {
                Some(Event { kind, data }) => match kind.as_deref() {
                    None | Some(b"message") => return Ok(Some(ExchangeEvent::Message(without_mark(data)))),
                    Some(b"endpoint") => return Ok(Some(ExchangeEvent::Endpoint(data))),
                    Some(_) => {}
                },
                None => match self.response.chunk().await {
                    Ok(Some(chunk)) => {
                        // The event that was handed on last counts until now.
                        self.held.shrink_to(self.events.pending());
                        self.held.grow(chunk.len()).map_err(UpstreamError::NoRoom)?;
                        self.events.push(&chunk);
                    }
                    Ok(None) => return Ok(None),
                    Err(_) => return Err(UpstreamError::Ended),
                },
            }
        }
    }
}

/// A whole body of at most `limit` bytes.
async fn whole(mut response: Response, limit: usize, share: &Share) -> Result<Bytes, UpstreamError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(UpstreamError::LineTooLong(limit));
    }
    let (mut body, mut held) = (BytesMut::new(), share.empty());
    while let Some(chunk) = response.chunk().await.map_err(|_| UpstreamError::Ended)? {
        if body.len() + chunk.len() > limit {
            return Err(UpstreamError::LineTooLong(limit));
        }
        held.grow(chunk.len()).map_err(UpstreamError::NoRoom)?;
        body.extend_from_slice(&chunk);
    }
    Ok(held.keep(body.freeze(), ()))
}

/// Reads what nobody needs, if that is little: the connection can then be used again.
async fn discard(response: Response) {
    if response.content_length().is_some_and(|length| length <= SMALL) {
        let _ = response.bytes().await;
    }
}

/// A body as one line: its line ends can only stand between the tokens of JSON, where a space says the same.
fn one_line(body: Bytes) -> Bytes {
    let body = without_mark(body);
    if memchr::memchr2(b'\n', b'\r', &body).is_none() {
        return body;
    }
    let mut line = BytesMut::from(body);
    line.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    line.freeze()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Events,
    None,
    Other,
}

fn kind(headers: &HeaderMap) -> Content {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Content::None };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Content::Json
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Content::Events
    } else {
        Content::Other
    }
}

async fn rejection(response: Response, limit: usize, share: &Share) -> Rejection {
    let status = response.status();
    let retry_after = crate::http_client::retry_after(response.headers());
    let is_forbidden = status == StatusCode::FORBIDDEN;
    let demands = is_forbidden.then(|| demanded_scopes(response.headers(), response.url())).flatten();
    let says_all = [401, 403, 429, 503].contains(&status.as_u16());
    let body = match kind(response.headers()) {
        Content::Json if !says_all => whole(response, limit, share).await.ok().map(one_line),
        Content::Json | Content::Events | Content::None | Content::Other => {
            discard(response).await;
            None
        }
    };
    Rejection { status, retry_after, demands, body }
}

/// Where a redirect leads; `None` if there is none that a message can follow.
fn redirect(response: &Response, from: &Url) -> Result<Option<Url>, UpstreamError> {
    // Not 303: that asks for a GET, which is no message.
    let follows = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(header::LOCATION).filter(|_| follows);
    let Some(location) = location else {
        return if response.status().is_redirection() { Err(UpstreamError::Redirect) } else { Ok(None) };
    };
    let to = location.to_str().ok().and_then(|text| same_origin(from, text));
    to.map(Some).ok_or(UpstreamError::Redirect)
}

/// `reference` seen from `base`, if that is of the same origin: what is sent there may carry the user's token.
pub(super) fn same_origin(base: &Url, reference: &str) -> Option<Url> {
    let url = base.join(reference.trim()).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (is_plain && url.origin().is_tuple() && url.origin() == base.origin()).then_some(url)
}

/// An error of the client by its kind alone: its text may hold the URL, and that the token.
pub(super) fn failure(error: &reqwest::Error) -> UpstreamError {
    if !error.is_connect() {
        return if error.is_timeout() {
            UpstreamError::Unreachable(Unreachable::Timeout)
        } else {
            UpstreamError::Ended
        };
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return UpstreamError::Unreachable(Unreachable::Tls);
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return UpstreamError::Unreachable(Unreachable::Refused);
        }
        // What an I/O error was made from is not its source.
        cause = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    UpstreamError::Unreachable(if error.is_timeout() { Unreachable::Timeout } else { Unreachable::Other })
}
