//! What an operator's tools ask, on a listener of its own: does the process live, is it ready, what does it count.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{ALLOW, HeaderValue};
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
            _ => {
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                respond::with_type(StatusCode::OK, content_type, self.metrics.render())
            }
        }
    }

    /// Whether it is ready to be sent new requests: not stopping, and the check passes in time.
    pub async fn is_ready(&self) -> bool {
        !self.lifecycle.drain.is_cancelled()
            && !self.lifecycle.hard.is_cancelled()
            && tokio::time::timeout(CHECK_TIMEOUT, (self.check)()).await.unwrap_or(false)
    }
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
        lifecycle.drain.cancel();
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
