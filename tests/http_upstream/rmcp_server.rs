//! A server made with rmcp, over its Streamable HTTP: modern requests stateless, legacy ones in sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{Implementation, ProgressNotificationParam, ServerCapabilities, ServerConfig};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What happens inside a server, for its test to see.
#[derive(Clone, Default)]
pub(super) struct Inside {
    /// A tool that waits has been called.
    pub(super) waits: Arc<Notify>,
    /// It has been cancelled.
    pub(super) cancelled: Arc<Notify>,
}

#[derive(Clone)]
struct Small(Inside);

#[derive(Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

#[tool_router]
impl Small {
    #[tool(description = "The text again")]
    async fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }

    #[tool(name = "gr\u{fc}\u{df}e", description = "A tool whose name no header can hold")]
    async fn greet(&self) -> String {
        "hallo".to_owned()
    }

    #[tool(description = "Three steps, each reported")]
    async fn steps(&self, context: RequestContext<RoleServer>) -> Result<String, ErrorData> {
        for step in 1..=3 {
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, f64::from(step));
                context.peer.notify_progress(progress).await.map_err(gone)?;
            }
        }
        Ok("done".to_owned())
    }

    #[tool(description = "Waits until it is cancelled")]
    async fn wait(&self, context: RequestContext<RoleServer>) -> String {
        self.0.waits.notify_one();
        context.ct.cancelled().await;
        self.0.cancelled.notify_one();
        "cancelled".to_owned()
    }

    #[tool(description = "Says that the list of tools has changed")]
    async fn change(&self, context: RequestContext<RoleServer>) -> Result<String, ErrorData> {
        context.peer.notify_tool_list_changed().await.map_err(gone)?;
        Ok("changed".to_owned())
    }
}

#[tool_handler]
impl ServerHandler for Small {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
            .with_server_info(Implementation::new("small", "1"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn gone(error: rmcp::ServiceError) -> ErrorData {
    ErrorData::internal_error(format!("the client has gone: {error}"), None)
}

/// A running server; it stops with the runtime of its test.
pub(super) struct RmcpServer {
    address: SocketAddr,
    /// What happens inside.
    pub(super) inside: Inside,
}

impl RmcpServer {
    /// Starts one; `sessions` is whether legacy clients get sessions and streams, or else stateless JSON.
    pub(super) async fn start(sessions: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("it is bound");
        let inside = Inside::default();
        let mut config = StreamableHttpServerConfig::default();
        config.legacy_session_mode = sessions;
        config.json_response = !sessions;
        let small = Small(inside.clone());
        let manager = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(small.clone()), manager, config);
        super::fixture::background(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                super::fixture::background(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, inside }
    }

    /// The URL of its endpoint.
    pub(super) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}
