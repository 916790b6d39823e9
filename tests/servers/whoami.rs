//! `whoami`: a small real MCP server on stdio that can prove which token it was started with.
//!
//! The bridge starts one such process per request and puts the user's token into `WHOAMI_TOKEN`. The tool `whoami`
//! answers with the SHA-256 of that token, so that a caller can tell whose token the server saw without the token ever
//! being shown. The other tools show the rest of what a server does during a call: progress, log messages, a large
//! result, a failure. The demo and the tests use it.

#![expect(deprecated, reason = "logging is deprecated in 2026-07-28, but every client of today knows it")]

use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, ContentBlock, Implementation, LoggingLevel, LoggingMessageNotificationParam,
    ProgressNotificationParam, ServerCapabilities, ServerConfig, SetLevelRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use serde::Deserialize;

/// The variable that holds the user's token.
const TOKEN_VARIABLE: &str = "WHOAMI_TOKEN";
/// The largest result of `big`, so that a typo does not fill the memory.
const MAX_BYTES: usize = 64 << 20;

#[derive(Clone)]
struct Whoami;

#[derive(Deserialize, schemars::JsonSchema)]
struct Add {
    /// The first number.
    a: i64,
    /// The second number.
    b: i64,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Countdown {
    /// Where to start; one progress notification per step.
    from: u32,
    /// Milliseconds between two steps (default 100).
    delay_ms: Option<u64>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Big {
    /// The length of the text, at most 64 MiB.
    bytes: usize,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Log {
    /// How many messages.
    count: u32,
}

#[tool_router]
impl Whoami {
    #[tool(description = "The SHA-256 of the token that this server was started with, in hexadecimal")]
    async fn whoami(&self) -> Result<String, ErrorData> {
        match token() {
            Some(token) => Ok(sha256_hex(token.as_bytes())),
            None => Err(ErrorData::internal_error(format!("{TOKEN_VARIABLE} is not set"), None)),
        }
    }

    #[tool(description = "The sum of two numbers")]
    async fn add(&self, Parameters(Add { a, b }): Parameters<Add>) -> Result<String, ErrorData> {
        let sum = a.checked_add(b).ok_or_else(|| ErrorData::invalid_params("the sum does not fit 64 bits", None))?;
        Ok(sum.to_string())
    }

    #[tool(description = "Counts down to zero and reports each step as progress")]
    async fn countdown(
        &self,
        Parameters(Countdown { from, delay_ms }): Parameters<Countdown>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ErrorData> {
        let token = context.meta.get_progress_token();
        for step in 1..=from {
            tokio::time::sleep(Duration::from_millis(delay_ms.unwrap_or(100))).await;
            if let Some(token) = token.clone() {
                let progress = ProgressNotificationParam::new(token, f64::from(step))
                    .with_total(f64::from(from))
                    .with_message(format!("{} to go", from - step));
                context.peer.notify_progress(progress).await.map_err(gone)?;
            }
        }
        Ok("lift-off".to_owned())
    }

    #[tool(description = "A text of that many bytes")]
    async fn big(&self, Parameters(Big { bytes }): Parameters<Big>) -> Result<String, ErrorData> {
        if bytes > MAX_BYTES {
            return Err(ErrorData::invalid_params("at most 64 MiB", None));
        }
        Ok("x".repeat(bytes))
    }

    #[tool(description = "Sends that many log messages")]
    async fn log(
        &self,
        Parameters(Log { count }): Parameters<Log>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, ErrorData> {
        for number in 1..=count {
            let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, format!("message {number}").into());
            context.peer.notify_logging_message(message.with_logger("whoami")).await.map_err(gone)?;
        }
        Ok(format!("sent {count}"))
    }

    #[tool(description = "Always fails, as a tool does: a result that says so")]
    async fn fail(&self) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text("this tool always fails")])
    }
}

#[tool_handler]
impl ServerHandler for Whoami {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_logging().build())
            .with_server_info(Implementation::new("whoami", env!("CARGO_PKG_VERSION")))
            .with_instructions("Call `whoami` to see the SHA-256 of the token that this server was started with.")
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a stand-alone program; its environment is what it is asked about")]
fn token() -> Option<String> {
    std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())
}

fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn gone(error: rmcp::ServiceError) -> ErrorData {
    ErrorData::internal_error(format!("the client has gone: {error}"), None)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Whoami.serve(rmcp::transport::stdio()).await?.waiting().await?;
    Ok(())
}
