//! The client, which begins with `initialize`. What it does, and who judges what came of it: `tests/compatibility/matrix.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ElicitationAction, Implementation, ListRootsResult, LoggingLevel,
    LoggingMessageNotificationParam, ProgressNotificationParam, ResourceUpdatedNotificationParam, Root,
    SamplingMessage, SetLevelRequestParams, SubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData, RoleClient, ServiceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::error::Elapsed;

use super::{LOOK, until};

/// What it is told.
#[derive(Clone, Deserialize)]
struct Task {
    url: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    trace: String,
    note: String,
    only: Vec<String>,
    patience: f64,
    soon: f64,
}

/// What came instead.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What came of an operation: nothing more to say, or what came instead.
type Done = Result<(), Failure>;

const OPERATIONS: [&str; 12] = [
    "list",
    "call",
    "progress",
    "log",
    "cancel",
    "elicitation",
    "sampling",
    "roots",
    "subscribe",
    "error",
    "large",
    "crash",
];

/// What it answers, and what it was told of the server's own accord.
#[derive(Clone)]
struct Handler {
    task: Task,
    told: Arc<Mutex<BTreeMap<&'static str, Vec<Value>>>>,
}

impl Handler {
    /// Keeps what was told, and returns how much of its kind that is.
    fn tell(&self, kind: &'static str, what: Value) -> usize {
        let mut told = self.told.lock().expect("no panic holds it");
        let kind = told.entry(kind).or_default();
        kind.push(what);
        kind.len()
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().enable_sampling().enable_roots().build();
        ClientConfig::new(capabilities, Implementation::new("matrix", "1"))
    }

    async fn create_elicitation(
        &self,
        asked: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asked = serde_json::to_value(asked).expect("JSON");
        let fields = asked["requestedSchema"]["properties"].as_object().cloned().unwrap_or_default();
        let content: serde_json::Map<_, _> = fields.into_iter().map(|(name, _)| (name, json!("Ada"))).collect();
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.into()))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("words"), "m".to_owned()))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new("file:///work")]))
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        if self.tell("progress", json!([told.progress, told.total])) == 3 {
            fs::write(format!("{}.seen", self.task.trace), "").expect("it can be written");
        }
    }

    async fn on_logging_message(&self, told: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        self.tell("log", told.data);
    }

    async fn on_resource_updated(&self, told: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.tell("updated", json!(told.uri));
    }
}

/// One connection.
struct Client {
    service: RunningService<RoleClient, Handler>,
}

impl Client {
    async fn connect(task: &Task) -> Result<Self, Failure> {
        let handler = Handler { task: task.clone(), told: Arc::default() };
        let service = if let Some(url) = &task.url {
            handler.serve(StreamableHttpClientTransport::from_uri(url.as_str())).await?
        } else {
            let mut server = Command::new(&task.command[0]);
            server.args(&task.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut server = server.spawn()?;
            let pipes = (server.stdout.take().expect("piped"), server.stdin.take().expect("piped"));
            // It ends by the end of its input.
            tokio::spawn(async move { server.wait().await });
            handler.serve(pipes).await?
        };
        Ok(Self { service })
    }

    fn task(&self) -> &Task {
        &self.service.service().task
    }

    /// Calls a tool, and returns whether it failed, and its text.
    async fn tool(&self, name: &'static str, arguments: Value) -> Result<(bool, String), rmcp::ServiceError> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let result = self.service.call_tool(CallToolRequestParams::new(name).with_arguments(arguments)).await?;
        let text = result.content.first().and_then(|content| content.as_text()).map(|text| text.text.clone());
        Ok((result.is_error.unwrap_or_default(), text.unwrap_or_default()))
    }

    /// Calls a tool that says something that begins so.
    async fn says(&self, name: &'static str, arguments: Value, wanted: &str) -> Done {
        match self.tool(name, arguments).await? {
            (false, text) if text.starts_with(wanted) => Ok(()),
            (is_error, text) => Err(format!("{is_error}, {}", text.chars().take(200).collect::<String>()).into()),
        }
    }

    async fn run(&self, operation: &str) -> Done {
        match operation {
            "list" => self.list().await,
            "call" => self.call().await,
            "progress" => self.progress().await,
            "log" => self.log().await,
            "cancel" => self.cancel().await,
            "elicitation" => self.says("ask", json!({}), "hello Ada").await,
            "sampling" => self.says("sample", json!({}), "it said words").await,
            "roots" => self.says("roots", json!({}), "file:///work").await,
            "subscribe" => self.subscribe().await,
            "error" => self.error().await,
            "large" => self.large().await,
            "crash" => self.crash().await,
            operation => Err(format!("no operation is called {operation}").into()),
        }
    }

    async fn list(&self) -> Done {
        let tools = self.service.list_all_tools().await?;
        if tools.iter().any(|tool| tool.name == "echo") { Ok(()) } else { Err("no echo".into()) }
    }

    async fn call(&self) -> Done {
        self.says("echo", json!({ "text": "h\u{e4}llo" }), "h\u{e4}llo").await
    }

    async fn progress(&self) -> Done {
        self.says("steps", json!({ "trace": self.task().trace }), "three steps").await?;
        let mut progress = self.told("progress");
        // Its handlers run beside each other.
        progress.sort_by_key(Value::to_string);
        let is_all = progress == [1.0, 2.0, 3.0].map(|step| json!([step, 3.0]));
        if is_all { Ok(()) } else { Err(format!("progress {progress:?}").into()) }
    }

    async fn log(&self) -> Done {
        if self.service.peer_info().is_some_and(|info| info.capabilities.logging.is_some()) {
            self.service.set_level(SetLevelRequestParams::new(LoggingLevel::Info)).await?;
        }
        self.says("log", json!({}), "logged").await?;
        // FastMCP wraps what it logs.
        let is_told = || json!(self.told("log")).to_string().contains("a line");
        Ok(self.soon(so(is_told)).await?)
    }

    async fn cancel(&self) -> Done {
        let waiting = self.tool("wait", json!({ "trace": self.task().trace }));
        let [waits, cancelled] = ["waits", "cancelled"].map(|what| format!("{}.{what}", self.task().trace));
        tokio::select! {
            answer = waiting => return Err(format!("answered {answer:?}").into()),
            () = until(&waits) => {}
        }
        Ok(self.soon(until(&cancelled)).await?)
    }

    async fn error(&self) -> Done {
        match self.tool("fail", json!({})).await? {
            (true, text) if text.contains("it failed") => Ok(()),
            (is_error, text) => Err(format!("{is_error}, {text}").into()),
        }
    }

    async fn large(&self) -> Done {
        match self.tool("large", json!({})).await? {
            (false, text) if text.len() == 2 << 20 => Ok(()),
            (is_error, text) => Err(format!("{is_error}, {} bytes", text.len()).into()),
        }
    }

    async fn crash(&self) -> Done {
        drop(self.tool("crash", json!({})).await); // in whatever way
        until(&format!("{}.back", self.task().trace)).await;
        self.call().await
    }

    /// What it was told of a kind.
    fn told(&self, kind: &str) -> Vec<Value> {
        let told = self.service.service().told.lock().expect("no panic holds it");
        told.get(kind).cloned().unwrap_or_default()
    }

    async fn soon<T>(&self, what: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout(Duration::from_secs_f64(self.task().soon), what).await
    }

    async fn subscribe(&self) -> Done {
        let uri = format!("file://{}", self.task().note);
        self.service.subscribe(SubscribeRequestParams::new(uri.clone())).await?;
        // Who listens sees changes from when it began to, which nobody is told: it changes until one is seen.
        let is_told = || !self.told("updated").is_empty();
        loop {
            fs::write(&self.task().note, format!("{:?}", std::time::Instant::now()))?;
            if tokio::time::timeout(4 * LOOK, so(is_told)).await.is_ok() {
                let updated = self.told("updated");
                return if updated[0] == json!(uri) { Ok(()) } else { Err(format!("{updated:?}").into()) };
            }
        }
    }
}

/// Until it is so.
async fn so(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Does each operation, with a new connection after each that went wrong, and prints what came of each: "ok", or in a few
/// words what came instead.
pub(super) async fn visit(task: &str) {
    let task: Task = serde_json::from_str(task).expect("a task");
    let mut seen = BTreeMap::from([("connect", "ok".to_owned())]);
    let mut connected = None;
    for operation in OPERATIONS.into_iter().filter(|name| task.only.iter().any(|wanted| wanted == name)) {
        let client = match connected.take() {
            Some(client) => Ok(client),
            None => patiently(&task, Client::connect(&task)).await,
        };
        match client {
            Ok(client) => {
                let done = patiently(&task, client.run(operation)).await;
                let is_done = done.is_ok();
                seen.insert(operation, done.err().unwrap_or_else(|| "ok".to_owned()));
                connected = is_done.then_some(client);
            }
            Err(error) => {
                seen.insert("connect", error);
                break;
            }
        }
    }
    println!("{}", json!(seen));
}

/// What came of it, or in a few words what came instead.
async fn patiently<T>(task: &Task, what: impl Future<Output = Result<T, Failure>>) -> Result<T, String> {
    let words = |error: Failure| error.to_string().replace('\n', " ").chars().take(200).collect();
    match tokio::time::timeout(Duration::from_secs_f64(task.patience), what).await {
        Ok(done) => done.map_err(words),
        Err(_) => Err("no end".to_owned()),
    }
}
