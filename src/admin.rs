//! What an operator's tools ask, on a listener of its own: does the process live, is it ready, what does it count.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{ACCEPT, ALLOW, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::lifecycle::Lifecycle;
use crate::metrics::{self, Metrics};
use crate::respond::{self, Body};

/// How long the check behind `/readyz` may take; probes give up after a second by default.
const CHECK_TIMEOUT: Duration = Duration::from_millis(900);

/// Says whether what requests need, the token store, is there.
type Check = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// `GET /livez`, `/readyz` and `/metrics`.
pub struct Admin {
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    check: Check,
}

impl Admin {
    /// Answers from these. Without a store the check is `|| async { true }`.
    #[must_use]
    pub fn new<Checking: Future<Output = bool> + Send + 'static>(
        lifecycle: Lifecycle,
        metrics: Arc<Metrics>,
        check: impl Fn() -> Checking + Send + Sync + 'static,
    ) -> Self {
        Self { lifecycle, metrics, check: Box::new(move || Box::pin(check())) }
    }

    /// The answer to one request. It tells a probe pass or fail, never why: the reason is in the log.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let (head, _) = request.into_parts();
        let path = head.uri.path();
        if !["/livez", "/readyz", "/metrics"].contains(&path) {
            return respond::text(StatusCode::NOT_FOUND, "not found\n");
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            let mut response = respond::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => respond::text(StatusCode::OK, "ok\n"),
            "/readyz" if self.is_ready().await => respond::text(StatusCode::OK, "ready\n"),
            "/readyz" => respond::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ if wants_plain(&head.headers) => {
                let content_type = HeaderValue::from_static(metrics::PLAIN_TYPE);
                respond::with_type(StatusCode::OK, content_type, self.metrics.render_plain())
            }
            _ => {
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                respond::with_type(StatusCode::OK, content_type, self.metrics.render())
            }
        }
    }

    /// Whether it is ready to be sent new requests: not stopping, and the check passes in time.
    pub async fn is_ready(&self) -> bool {
        !self.lifecycle.stopping.is_cancelled()
            && !self.lifecycle.hard.is_cancelled()
            && tokio::time::timeout(CHECK_TIMEOUT, (self.check)()).await.unwrap_or(false)
    }
}

/// Whether the text format that came before `OpenMetrics` is named, and asked for rather than that.
fn wants_plain(headers: &HeaderMap) -> bool {
    weight(headers, "text/plain") > weight(headers, "application/openmetrics-text")
}

/// How much this media type is wanted; 0 where it is not named. Source: RFC 9110, section 12.5.1.
fn weight(headers: &HeaderMap, media_type: &str) -> f32 {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let weights = values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(media_type))?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        weight.map_or(Some(1.0), |weight| weight.parse().ok())
    });
    weights.fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::metrics::Counter;

    fn admin<C: Future<Output = bool> + Send + 'static>(
        lifecycle: &Lifecycle,
        check: impl Fn() -> C + Send + Sync + 'static,
    ) -> Admin {
        Admin::new(lifecycle.clone(), Arc::new(Metrics::new(lifecycle.tasks.clone(), Counter::default())), check)
    }

    async fn ask(admin: &Admin, method: Method, path: &str) -> Response<Body> {
        admin.answer(Request::builder().method(method).uri(path).body(()).unwrap()).await
    }

    async fn status(admin: &Admin, path: &str) -> u16 {
        ask(admin, Method::GET, path).await.status().as_u16()
    }

    #[tokio::test]
    async fn the_process_is_ready_while_its_store_is() {
        let up = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&up);
        let admin = admin(&Lifecycle::default(), move || std::future::ready(seen.load(Ordering::Relaxed)));
        assert_eq!(status(&admin, "/readyz").await, 200);
        up.store(false, Ordering::Relaxed);
        assert_eq!(status(&admin, "/readyz").await, 503);
        up.store(true, Ordering::Relaxed);
        assert_eq!(status(&admin, "/readyz").await, 200);
    }

    #[tokio::test]
    async fn the_process_is_not_ready_from_the_first_stop_signal_on() {
        let lifecycle = Lifecycle::default();
        let admin = admin(&lifecycle, || async { true });
        assert_eq!(status(&admin, "/readyz").await, 200);
        lifecycle.stopping.cancel();
        assert_eq!(status(&admin, "/readyz").await, 503);
        assert_eq!(status(&admin, "/livez").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_not_ready_and_takes_no_life() {
        let admin = admin(&Lifecycle::default(), std::future::pending);
        let start = Instant::now();
        assert_eq!(status(&admin, "/readyz").await, 503);
        assert_eq!(start.elapsed().as_millis(), CHECK_TIMEOUT.as_millis());
        assert_eq!(status(&admin, "/livez").await, 200);
    }

    #[tokio::test]
    async fn a_connection_of_its_own_task_may_ask() {
        let admin = Arc::new(admin(&Lifecycle::default(), || async { true }));
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { status(&admin, "/readyz").await });
        assert_eq!(task.join_all().await, [200]);
    }

    #[tokio::test]
    async fn metrics_are_what_prometheus_reads() {
        let admin = admin(&Lifecycle::default(), || async { true });
        let response = ask(&admin, Method::GET, "/metrics").await;
        assert_eq!(response.headers()["content-type"], metrics::CONTENT_TYPE);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(b"# HELP tollbridge_") && text.ends_with(b"# EOF\n"));
    }

    #[tokio::test]
    async fn the_older_text_format_is_given_to_who_asks_for_nothing_newer() {
        let admin = admin(&Lifecycle::default(), || async { true });
        let ask = async |accept: &str| {
            let request = Request::builder().uri("/metrics").header("accept", accept).body(()).unwrap();
            let response = admin.answer(request).await;
            let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
            (content_type, response.into_body().collect().await.unwrap().to_bytes())
        };
        let (content_type, text) = ask("text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
        assert_eq!(content_type, metrics::PLAIN_TYPE);
        let text = std::str::from_utf8(&text).unwrap();
        assert!(text.contains("# TYPE tollbridge_junk_lines_total counter\ntollbridge_junk_lines_total 0\n"), "{text}");
        assert!(!text.contains("# EOF"));
        for older in ["Text/Plain", "text/plain;q=0.9, application/openmetrics-text;q=0.1", "text/html,text/plain; q=1"]
        {
            assert_eq!(ask(older).await.0, metrics::PLAIN_TYPE, "{older}");
        }
        let newer = [
            "*/*",
            "",
            "text/html",
            "text/plain;q=0",
            "text/plain;q=much",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.3",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text,text/plain",
        ];
        for newer in newer {
            assert_eq!(ask(newer).await.0, metrics::CONTENT_TYPE, "{newer}");
        }
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        let admin = admin(&Lifecycle::default(), || async { true });
        for path in ["/", "/livez/", "/metrics/x", "/LIVEZ", "/notion/mcp"] {
            assert_eq!(status(&admin, path).await, 404, "{path}");
        }
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            let response = ask(&admin, method, "/readyz").await;
            assert_eq!(response.status(), 405);
            assert_eq!(response.headers()["allow"], "GET, HEAD");
        }
        assert_eq!(ask(&admin, Method::HEAD, "/livez").await.status(), 200);
    }
}
