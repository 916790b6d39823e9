//! The listener for operators: health, metrics and, where there is a token for it, their API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::StartError;
use crate::account::Operators;
use crate::admin::Admin;
use crate::auth::PeerAddr;
use crate::config::AdminConfig;
use crate::lifecycle::Lifecycle;
use crate::respond;
use crate::swap::Swap;

/// How long the listener rests after an error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(10);

/// Where operators are served, if anywhere; until the very end, so that probes see the stop.
pub(super) struct AdminListener {
    listener: Option<TcpListener>,
    operators: Arc<Swap<Option<Operators>>>,
}

impl AdminListener {
    pub(super) async fn bind(config: Option<&AdminConfig>, operators: Option<Operators>) -> Result<Self, StartError> {
        let api = operators.is_some();
        let operators = Arc::new(Swap::new(Arc::new(operators)));
        let Some(AdminConfig { listen, .. }) = config else { return Ok(Self { listener: None, operators }) };
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| StartError::Listen { address: listen.to_string(), error })?;
        tracing::info!(address = %listener.local_addr()?, api, "serving health and metrics");
        Ok(Self { listener: Some(listener), operators })
    }

    /// The API, which may become another.
    pub(super) fn operators(&self) -> Arc<Swap<Option<Operators>>> {
        Arc::clone(&self.operators)
    }

    pub(super) async fn serve(self, admin: Arc<Admin>, lifecycle: &Lifecycle) {
        let Some(listener) = self.listener else { return std::future::pending().await };
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            let (admin, operators, hard) = (Arc::clone(&admin), self.operators.load(), lifecycle.hard.clone());
            let tasks = lifecycle.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (admin, operators, tasks) = (Arc::clone(&admin), Arc::clone(&operators), tasks.clone());
                let answering = async move {
                    match &*operators {
                        Some(operators) if Operators::has(request.uri().path()) => {
                            operators.answer(request, PeerAddr::Tcp(peer)).await
                        }
                        _ => admin.answer(request).await,
                    }
                };
                async move {
                    // What an operator changes is changed to its end, whoever leaves meanwhile.
                    let answered = tasks.to_the_end(answering).await;
                    Ok::<_, Infallible>(answered.unwrap_or_else(|| respond::empty(StatusCode::INTERNAL_SERVER_ERROR)))
                }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false);
            let served = http.serve_connection(TokioIo::new(stream), service);
            lifecycle.spawn(async move {
                tokio::select! {
                    _ = timeout(CONNECTION, served) => {}
                    () = hard.cancelled() => {}
                }
            });
        }
    }
}
