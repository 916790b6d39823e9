//! The server: both eras. What each tool does: `tests/compatibility/matrix.rs`.

use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::handler::server::tool::InputResponses;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, CreateMessageRequest, CreateMessageRequestParams, ElicitRequest,
    ElicitRequestParams, Implementation, InputRequest, InputRequests, InputRequiredResult, ListRootsRequest,
    LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProtocolVersion,
    ResourceUpdatedNotificationParam, SamplingMessage, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService, stdio};
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{LOOK, until};

#[derive(Clone)]
struct QuickStart {
    /// The file whose changes are told.
    note: Option<String>,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

/// Where a tool and its client leave each other files, with this beginning.
#[derive(Deserialize, schemars::JsonSchema)]
struct Trace {
    trace: String,
}

type Answered = Result<CallToolResponse, ErrorData>;

fn says(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

/// Asks by the result, which is for modern clients alone.
fn asks(question: InputRequest) -> CallToolResponse {
    let questions = InputRequests::from([("question".to_owned(), question)]);
    InputRequiredResult::new(Some(questions), Some("asked".to_owned())).into()
}

fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

fn who() -> ElicitRequestParams {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: "Who is it?".to_owned(),
        requested_schema: serde_json::from_value(schema).expect("a schema"),
    }
}

fn something() -> CreateMessageRequestParams {
    CreateMessageRequestParams::new(vec![SamplingMessage::user_text("Say something.")], 10)
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn gone(error: impl ToString) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// What the client answers to this question: in the middle of the call, or by calling again.
async fn answer(
    context: &RequestContext<RoleServer>,
    answers: InputResponses,
    question: InputRequest,
) -> Result<Result<Value, CallToolResponse>, ErrorData> {
    if let Some(answer) = answers.0.and_then(|mut answers| answers.remove("question")) {
        return Ok(Ok(answer));
    }
    if is_modern(context) {
        return Ok(Err(asks(question)));
    }
    let answer = match question {
        InputRequest::Elicitation(question) => {
            serde_json::to_value(context.peer.create_elicitation(question.params).await.map_err(gone)?)
        }
        InputRequest::CreateMessage(question) => {
            serde_json::to_value(context.peer.create_message(question.params).await.map_err(gone)?)
        }
        InputRequest::ListRoots(_) => serde_json::to_value(context.peer.list_roots().await.map_err(gone)?),
        _ => unreachable!("there are three questions"),
    };
    Ok(Ok(answer.expect("JSON")))
}

#[tool_router]
impl QuickStart {
    #[tool(description = "The text again")]
    async fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }

    #[tool(description = "Three steps, each reported")]
    async fn steps(
        &self,
        Parameters(Trace { trace }): Parameters<Trace>,
        context: RequestContext<RoleServer>,
    ) -> Answered {
        for step in 1..=3 {
            let token = context.meta.get_progress_token().ok_or_else(|| gone("no progress is wanted"))?;
            let progress = ProgressNotificationParam::new(token, f64::from(step)).with_total(3.0);
            context.peer.notify_progress(progress).await.map_err(gone)?;
        }
        until(&format!("{trace}.seen")).await;
        Ok(says("three steps"))
    }

    #[tool(description = "Writes a log line")]
    async fn log(&self, context: RequestContext<RoleServer>) -> Answered {
        let line = LoggingMessageNotificationParam::new(LoggingLevel::Error, json!("a line"));
        context.peer.notify_logging_message(line).await.map_err(gone)?;
        Ok(says("logged"))
    }

    #[tool(description = "Waits until it is cancelled")]
    async fn wait(
        &self,
        Parameters(Trace { trace }): Parameters<Trace>,
        context: RequestContext<RoleServer>,
    ) -> Answered {
        fs::write(format!("{trace}.waits"), "").map_err(gone)?;
        context.ct.cancelled().await;
        fs::write(format!("{trace}.cancelled"), "").map_err(gone)?;
        Ok(says("cancelled"))
    }

    #[tool(description = "Asks as each era does")]
    async fn ask(&self, answers: InputResponses, context: RequestContext<RoleServer>) -> Answered {
        match answer(&context, answers, InputRequest::Elicitation(ElicitRequest::new(who()))).await? {
            Ok(answer) => {
                let name = answer["content"]["name"].as_str().unwrap_or_default();
                Ok(says(format!("hello {name}, from {}", std::process::id())))
            }
            Err(asked) => Ok(asked),
        }
    }

    #[tool(description = "Has the client's model say something")]
    async fn sample(&self, answers: InputResponses, context: RequestContext<RoleServer>) -> Answered {
        match answer(&context, answers, InputRequest::CreateMessage(CreateMessageRequest::new(something()))).await? {
            Ok(answer) => Ok(says(format!("it said {}", answer["content"]["text"].as_str().unwrap_or_default()))),
            Err(asked) => Ok(asked),
        }
    }

    #[tool(description = "Asks where the client works")]
    async fn roots(&self, answers: InputResponses, context: RequestContext<RoleServer>) -> Answered {
        match answer(&context, answers, InputRequest::ListRoots(ListRootsRequest::default())).await? {
            Ok(answer) => {
                let roots = answer["roots"].as_array().cloned().unwrap_or_default();
                let uris: Vec<_> = roots.iter().filter_map(|root| root["uri"].as_str()).collect();
                Ok(says(uris.join(" ")))
            }
            Err(asked) => Ok(asked),
        }
    }

    #[tool(description = "Fails")]
    async fn fail(&self) -> Answered {
        Ok(CallToolResult::error(vec![ContentBlock::text("it failed")]).into())
    }

    #[tool(description = "Two mebibytes")]
    async fn large(&self) -> String {
        "x".repeat(2 << 20)
    }

    #[tool(description = "Ends the server in the middle of the call")]
    async fn crash(&self) -> Answered {
        std::process::exit(1)
    }
}

#[tool_handler]
impl ServerHandler for QuickStart {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_logging().enable_resources();
        ServerConfig::new(capabilities.enable_resources_subscribe().build())
            .with_server_info(Implementation::new("quick-start", "1"))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    /// As older clients subscribe: on the connection, until it ends.
    async fn subscribe(
        &self,
        asked: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let mut changes = Changes::of(self.note.clone());
        tokio::spawn(async move {
            loop {
                changes.next().await;
                let update = ResourceUpdatedNotificationParam::new(asked.uri.clone());
                if context.peer.notify_resource_updated(update).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = Changes::of(self.note.clone());
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = changes.next() => {}
            }
            for uri in context.accepted().resource_subscriptions.iter().flatten() {
                context.sink().notify_resource_updated(uri.clone()).await.map_err(gone)?;
            }
        }
    }
}

/// When a file is written.
struct Changes {
    note: Option<String>,
    seen: Option<SystemTime>,
}

impl Changes {
    fn of(note: Option<String>) -> Self {
        let mut changes = Self { note, seen: None };
        changes.seen = changes.written_at();
        changes
    }

    fn written_at(&self) -> Option<SystemTime> {
        fs::metadata(self.note.as_ref()?).and_then(|about| about.modified()).ok()
    }

    async fn next(&mut self) {
        while self.written_at() == self.seen {
            tokio::time::sleep(LOOK).await;
        }
        self.seen = self.written_at();
    }
}

/// Serves whoever started it.
pub(super) async fn on_stdio(note: Option<&str>) {
    let server = QuickStart { note: note.map(str::to_owned) };
    server.serve(stdio()).await.expect("a handshake").waiting().await.expect("it ends");
}

/// Serves over Streamable HTTP.
pub(super) async fn over_http(port: &str, note: Option<&str>) {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("the port is free");
    let server = QuickStart { note: note.map(str::to_owned) };
    let manager = Arc::new(LocalSessionManager::default());
    let service =
        StreamableHttpService::new(move || Ok(server.clone()), manager, StreamableHttpServerConfig::default());
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
