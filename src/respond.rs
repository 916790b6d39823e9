//! Responses as all of ours look: never cached, never sniffed, and a body that is empty, whole or a stream of frames.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};

/// nginx's word for "do not buffer this response".
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The body of every response of ours.
#[derive(Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it, in one piece or several.
    Full(VecDeque<Bytes>),
    /// Frames as they come, each flushed by itself.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl Body {
    /// All of a body at once; empty bytes make an empty body.
    fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(VecDeque::from([bytes])) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(frames) => frames.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(pieces) => pieces.is_empty(),
            Self::Stream(frames) => frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Stream(frames) => frames.size_hint(),
        }
    }
}

/// A response with nothing in it.
#[must_use]
pub fn empty(status: StatusCode) -> Response<Body> {
    head(status, Body::Empty)
}

/// A JSON document.
#[must_use]
pub fn json(status: StatusCode, document: impl Into<Bytes>) -> Response<Body> {
    with_type(status, HeaderValue::from_static("application/json"), document)
}

/// A JSON document in pieces.
#[must_use]
pub fn json_in_pieces(status: StatusCode, pieces: VecDeque<Bytes>) -> Response<Body> {
    let mut response = head(status, Body::Full(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Plain text.
#[must_use]
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with_type(status, HeaderValue::from_static("text/plain; charset=utf-8"), text)
}

/// A page.
#[must_use]
pub fn html(status: StatusCode, page: impl Into<Bytes>) -> Response<Body> {
    with_type(status, HeaderValue::from_static("text/html; charset=utf-8"), page)
}

/// A document of any other type.
#[must_use]
pub fn with_type(status: StatusCode, content_type: HeaderValue, document: impl Into<Bytes>) -> Response<Body> {
    let mut response = head(status, Body::whole(document.into()));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A stream of server-sent events, 200, that no proxy should hold back. Each frame is one whole event or comment, or a
/// piece of one, already in the form of the wire.
#[must_use]
pub fn sse(events: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response<Body> {
    let mut response = head(StatusCode::OK, Body::Stream(Box::pin(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// A JSON document that goes out as it comes, 200.
#[must_use]
pub fn json_stream(pieces: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response<Body> {
    let mut response = head(StatusCode::OK, Body::Stream(Box::pin(pieces)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn head(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    async fn frames(mut body: Body) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        frames
    }

    #[test]
    fn no_response_is_cached_or_sniffed() {
        let events = http_body_util::Empty::new();
        let all = [
            empty(StatusCode::ACCEPTED),
            json(StatusCode::OK, "{}"),
            text(StatusCode::NOT_FOUND, "no such server"),
            sse(events),
        ];
        for response in &all {
            assert_eq!(header(response, "cache-control"), "no-store");
            assert_eq!(header(response, "x-content-type-options"), "nosniff");
        }
        let types = all.each_ref().map(|response| header(response, "content-type"));
        assert_eq!(types, ["", "application/json", "text/plain; charset=utf-8", "text/event-stream"]);
    }

    #[test]
    fn a_stream_of_events_asks_proxies_not_to_buffer() {
        let events = http_body_util::Empty::new();
        assert_eq!(header(&sse(events), "x-accel-buffering"), "no");
    }

    #[tokio::test]
    async fn a_whole_body_is_one_frame_of_known_length() {
        let response = json(StatusCode::OK, "{\"a\":1}");
        assert_eq!(response.body().size_hint().exact(), Some(7));
        assert!(!response.body().is_end_stream());
        assert_eq!(frames(response.into_body()).await, ["{\"a\":1}"]);
        assert!(text(StatusCode::OK, "").body().is_end_stream());
    }

    #[tokio::test]
    async fn a_body_in_pieces_has_the_length_of_all() {
        let pieces = ["{\"a\":", "1}"].map(|piece: &str| Bytes::from(piece));
        let response = json_in_pieces(StatusCode::OK, pieces.into());
        assert_eq!(response.body().size_hint().exact(), Some(7));
        assert_eq!(frames(response.into_body()).await, ["{\"a\":", "1}"]);
    }
}
