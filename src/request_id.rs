//! The name of one request, which ties together every line of the log that is about it: the client's or a proxy's own,
//! if that is plain, or a new one. It goes back in `X-Request-Id` and stands in the data of errors. With it goes who sent
//! the request, as far as whatever writes that down needs it.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand;
use futures_util::future::Either;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tracing::{Instrument as _, field};

/// The header that carries it in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest that is taken from a request, in bytes.
const LONGEST: usize = 128;

/// How many random bytes a new one is made of.
const RANDOM: usize = 16;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The name of a request, and who sent it. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct RequestId(Arc<Known>);

/// What is known of a request.
#[derive(Debug)]
struct Known {
    name: Box<str>,
    /// The address of the other end of its connection.
    source: Option<IpAddr>,
    /// What its client calls itself, once that has been read.
    client: OnceLock<Box<str>>,
}

impl RequestId {
    /// The one that a request from `source` brings, if it brings one and that is plain, or a new one.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn of(headers: &HeaderMap, source: Option<IpAddr>) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let brought = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        let name = brought.filter(|text| is_plain(text)).map_or_else(random, Into::into);
        Self(Arc::new(Known { name, source, client: OnceLock::new() }))
    }

    /// That of the request which the running task serves; `None` in a task that serves none.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_get().ok()
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.name
    }

    /// The address that the request came from; `None` for one on a unix socket.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.0.source
    }

    /// What its client calls itself, if that is known by now.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.0.client.get().map(AsRef::as_ref)
    }

    /// The request's client calls itself so. The first name stays.
    pub fn introduce(&self, client: &str) {
        let _the_first_stays = self.0.client.set(client.into());
    }

    /// Answers this request, which came from `peer`: everything until then, and every line of the log about it, goes by its
    /// name, and so does the answer.
    pub async fn answer<B>(self, peer: impl fmt::Display, answering: impl Future<Output = Response<B>>) -> Response<B> {
        let name = self.header();
        let span = tracing::info_span!("request", request = %self, %peer, user = field::Empty);
        let mut response = self.scope(answering).instrument(span).await;
        response.headers_mut().insert(X_REQUEST_ID, name);
        response
    }

    /// Serves this request, in the task that polls the future.
    // No async function, which would hold the future twice: as what it was given, and as what it waits for.
    pub fn scope<F: Future>(self, serving: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, serving)
    }

    /// The same work, to be done in a task of its own for the request that the running task serves, if it serves one.
    pub fn handed_on<F: Future>(work: F) -> impl Future<Output = F::Output> {
        match Self::current() {
            Some(id) => Either::Left(id.scope(work)),
            None => Either::Right(work),
        }
    }

    /// As a header's value.
    ///
    /// # Panics
    /// Never: it is plain.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).expect("it is plain ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn random() -> Box<str> {
    let mut random = [0; RANDOM];
    rand::fill(&mut random).expect("the system has randomness");
    format!("{:032x}", u128::from_be_bytes(random)).into()
}

/// Whether it may stand in a log line, a header and JSON as it is.
fn is_plain(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@;".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of(&headers, None).to_string()
    }

    #[test]
    fn a_plain_name_is_kept_and_any_other_is_made_anew() {
        for plain in ["7", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "Root=1-67891233-abcdef012345678912345678"] {
            assert_eq!(of(&[plain.as_bytes()]), plain);
        }
        let long = [b'x'; LONGEST + 1];
        let others: [&[&[u8]]; 8] =
            [&[], &[b""], &[b"a b"], &[b"a\"b"], &[b"a\\b"], &[&long], &[b"\xff"], &[b"one", b"two"]];
        let made: std::collections::BTreeSet<String> = others.iter().map(|other| of(other)).collect();
        assert_eq!(made.len(), others.len(), "each is new: {made:?}");
        assert!(made.iter().all(|id| id.len() == 2 * RANDOM && is_plain(id)), "{made:?}");
    }

    #[test]
    fn work_that_is_handed_on_is_held_once() {
        let work = async {
            let room = [0_u8; 4096];
            std::future::ready(()).await;
            std::hint::black_box(room);
        };
        let bytes = size_of_val(&work);
        assert!((4096..2 * bytes).contains(&size_of_val(&RequestId::handed_on(work))));
    }
}
