//! The listener for operators: health, metrics and, where there is a token for it, their API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::StartError;
use crate::account::{Account, Operators};
use crate::admin::Admin;
use crate::auth::PeerAddr;
use crate::config::AdminConfig;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::store::TokenStore;
use crate::upstream::container::Containers;

/// How long the listener rests after an error.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(10);

/// Where operators are served, if anywhere; until the very end, so that probes see the stop.
pub(super) struct AdminListener(Option<(TcpListener, Option<Arc<Operators>>)>);

impl AdminListener {
    pub(super) async fn bind(config: Option<&AdminConfig>, account: Arc<Account>) -> Result<Self, StartError> {
        let Some(AdminConfig { listen, token }) = config else { return Ok(Self(None)) };
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| StartError::Listen { address: listen.to_string(), error })?;
        let operators = token.as_ref().map(|token| Arc::new(Operators::new(account, token)));
        tracing::info!(address = %listener.local_addr()?, api = operators.is_some(), "serving health and metrics");
        Ok(Self(Some((listener, operators))))
    }

    pub(super) async fn serve(
        self,
        needed: (Arc<TokenStore>, Arc<Containers>),
        metrics: Arc<Metrics>,
        lifecycle: &Lifecycle,
    ) {
        let Some((listener, operators)) = self.0 else { return std::future::pending().await };
        let (store, containers) = needed;
        let check = async move || {
            if !containers.are_cleared() {
                tracing::warn!("not ready: containers of requests that have ended are still there");
                return false;
            }
            let checked = async { store.check().await.and(store.check_writes().await) };
            checked.await.inspect_err(|error| tracing::warn!(%error, "not ready: the token store")).is_ok()
        };
        let admin = Arc::new(Admin::new(lifecycle.clone(), metrics, check));
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            let (admin, operators, hard) = (Arc::clone(&admin), operators.clone(), lifecycle.hard.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (admin, operators) = (Arc::clone(&admin), operators.clone());
                async move {
                    Ok::<_, Infallible>(match operators {
                        Some(operators) if Operators::has(request.uri().path()) => {
                            operators.answer(request, PeerAddr::Tcp(peer)).await
                        }
                        _ => admin.answer(request).await,
                    })
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
