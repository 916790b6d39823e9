//! What a person gives is tried before it is saved: a fresh server that has it is asked something, or the service itself.
//! Nothing of it is kept, and nothing is left of the server.

use std::collections::HashMap;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument as _, field};

use super::Bridge;
use super::error::BridgeError;
use super::exchange::child::Child;
use super::exchange::conversation::until_forced;
use super::exchange::handshake::{ClientKind, Handshake};
use crate::audit::{Event, EventKind, Outcome};
use crate::config::{FillError, HttpPlan, Inputs, Probe, RequestValues, Server};
use crate::limits::Permit;
use crate::mcp::era::Version;
use crate::mcp::json;
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::message::{Answer, FromServer, Message, from_server};
use crate::mcp::translate;
use crate::request_id::RequestId;
use crate::secret::{Credential, Redactor};
use crate::tokens::{Entered, Probed, Prober, TRIAL_DEADLINE};
use crate::upstream::UpstreamError;
use crate::user::{Caller, UserId};

/// How many trials of one user there may be at a time.
const AT_ONCE: u8 = 2;

/// How much of an answer is shown, in characters.
const SHOWN: usize = 300;

/// How much of an answer is read, in bytes.
const READ: usize = 64 * 1024;

/// The largest result that is looked into, in bytes.
const LARGEST: usize = 1 << 20;

/// How many trials each user has under way; nobody who has none is here.
#[derive(Debug, Clone, Default)]
pub struct Probes(Arc<Mutex<HashMap<UserId, u8>>>);

/// One trial of a user.
struct Turn {
    user: UserId,
    running: Arc<Mutex<HashMap<UserId, u8>>>,
}

impl Probes {
    fn begin(&self, user: &UserId) -> Option<Turn> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(user.clone()).or_default();
        (*count < AT_ONCE).then(|| {
            *count += 1;
            Turn { user: user.clone(), running: Arc::clone(&self.0) }
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.user);
            }
        }
    }
}

/// Why a trial says nothing good.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// As any request fails.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The service answered with this status.
    #[error("it answered with HTTP status {0}")]
    Status(StatusCode),
    /// It answered with an error, which says this, or nothing.
    #[error("it answered with an error{}{}", if .0.is_empty() { "" } else { ": " }, .0)]
    Told(String),
    /// It took too long.
    #[error("it did not answer within {} s", TRIAL_DEADLINE.as_secs())]
    Late,
    /// Whoever asked has left.
    #[error("nobody waits for the answer")]
    Left,
    /// Nobody is there to ask.
    #[error("the bridge is stopping")]
    Stopped,
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self::Bridge(error.into())
    }
}

/// What is tried, and with what.
struct Trial {
    bridge: Arc<Bridge>,
    server: Arc<Server>,
    caller: Caller,
    credential: Credential,
    redactor: Redactor,
    /// What tells it from what else is tried, where that is written down.
    fingerprint: Option<String>,
}

/// A server that was started for a trial, and the right to run it.
struct Started {
    child: Child,
    _permit: Permit,
}

impl Prober for Bridge {
    fn probe(
        self: Arc<Self>,
        caller: &Caller,
        server: &Arc<Server>,
        entered: &Entered,
    ) -> Pin<Box<dyn Future<Output = Probed> + Send>> {
        if server.probe.is_none() {
            return Box::pin(ready(Probed::NoProbe));
        }
        let Some(turn) = self.probes.begin(&caller.user) else { return Box::pin(ready(Probed::Busy)) };
        let (tell, told) = oneshot::channel();
        let lifecycle = self.lifecycle.clone();
        let trial = Trial::new(self, caller, server, entered);
        let span = tracing::info_span!(
            parent: None,
            "trial",
            request = RequestId::current().map(field::display),
            user = %caller.user,
            server = %server.name,
        );
        lifecycle.spawn(RequestId::handed_on(trial.run(turn, tell)).instrument(span));
        let stopped = |_| Probed::Unknown { sentence: "This could not be tried: the bridge is stopping".to_owned() };
        Box::pin(async move { told.await.unwrap_or_else(stopped) })
    }
}

impl Trial {
    fn new(bridge: Arc<Bridge>, caller: &Caller, server: &Arc<Server>, entered: &Entered) -> Self {
        let credential = entered.credential(&server.token_setup);
        let fingerprint = || bridge.store.fingerprint(&caller.user, &server.name, &entered.fields);
        Self {
            redactor: Redactor::new(credential.secrets()),
            fingerprint: bridge.audit.is_on().then(fingerprint),
            credential,
            server: Arc::clone(server),
            caller: caller.clone(),
            bridge,
        }
    }

    /// Tells what came of it, and returns when nothing of its server is left.
    async fn run(self, turn: Turn, mut tell: oneshot::Sender<Probed>) {
        let hard = self.bridge.lifecycle.hard.clone();
        let mut started = None;
        let tried = tokio::select! {
            tried = timeout(TRIAL_DEADLINE, self.ask(&mut started)) => tried.unwrap_or(Err(Failure::Late)),
            () = hard.cancelled() => Err(Failure::Stopped),
            () = tell.closed() => Err(Failure::Left),
        };
        let probed = self.probed(tried);
        self.write_down(&probed);
        // Whoever is told may try something else at once, and does not wait for a server that is slow to end.
        drop(turn);
        let _ = tell.send(probed);
        if let Some(Started { child, _permit }) = started {
            tokio::select! {
                () = child.close() => {}
                // Dropping a server is killing it.
                () = until_forced(&hard) => {}
            }
        }
    }

    /// The answer to the server's probe; `started` is the server that it took, whatever becomes of the answer.
    async fn ask(&self, started: &mut Option<Started>) -> Result<String, Failure> {
        let inputs = |values| Inputs::of(&self.caller, Some(self.credential.clone()), values);
        let admitted = self.bridge.limits.admit(&self.caller.user, &self.server.name, false).await;
        let permit = admitted.map_err(BridgeError::from)?;
        let request = match &self.server.probe {
            Some(Probe::Get(plan)) => return self.get(plan, &inputs(RequestValues::default())).await,
            Some(Probe::Tool { name, arguments }) => {
                ("tools/call", format!(r#"{{"name":{},"arguments":{arguments}}}"#, json::quote(name)))
            }
            Some(Probe::Tools) | None => ("tools/list", "{}".to_owned()),
        };
        let values = self.server.request_values(&HeaderMap::new()).map_err(BridgeError::from)?;
        let child = Child::open(&self.bridge, &self.server, inputs(values), Duration::ZERO).await?;
        started.insert(Started { child, _permit: permit }).child.try_request(&request).await
    }

    async fn get(&self, plan: &HttpPlan, inputs: &Inputs) -> Result<String, Failure> {
        let request = plan.fill_request(inputs).map_err(BridgeError::from)?;
        let (status, body) = self.bridge.http.get(&request, READ).await?;
        if !status.is_success() {
            return Err(Failure::Status(status));
        }
        // Where it is cut, a secret could be cut, too.
        let whole = if body.len() < READ { &body } else { self.redactor.whole(&body) };
        Ok(String::from_utf8_lossy(whole).into_owned())
    }

    /// What came of it, for the person who entered it.
    fn probed(&self, tried: Result<String, Failure>) -> Probed {
        let name = self.server.display_name();
        let refused = |status| Probed::Refused { sentence: format!("{name} refused this token ({status})") };
        match tried {
            Ok(answer) => Probed::Good { shown: self.shown(&answer) },
            Err(Failure::Bridge(BridgeError::Upstream(UpstreamError::TokenRefused(status)))) => refused(status),
            Err(Failure::Bridge(BridgeError::Upstream(UpstreamError::ScopeMissing(_)))) => refused(403),
            Err(Failure::Status(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))) => {
                refused(status.as_u16())
            }
            Err(Failure::Bridge(BridgeError::Fill(unfit))) if unfit != FillError::NoEmail => {
                Probed::Refused { sentence: format!("This cannot be used with {name}: {unfit}") }
            }
            Err(failure) => {
                let why = self.shown(failure.to_string().trim_end_matches(['.', '\n']));
                Probed::Unknown { sentence: format!("This could not be tried with {name}: {why}") }
            }
        }
    }

    /// The beginning of an answer, without secrets and without control characters. None is part of a secret, so what
    /// stands between the parts of one must not become what makes it whole once it has been looked for.
    fn shown(&self, answer: &str) -> String {
        let plain: String = answer.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.redactor.redact(&plain).chars().take(SHOWN).collect()
    }

    /// Writes down that the token went out, and what came of it.
    fn write_down(&self, probed: &Probed) {
        let outcome = match probed {
            Probed::Good { .. } => Outcome::Done,
            Probed::Refused { .. } => Outcome::Refused,
            Probed::Unknown { .. } | Probed::Busy | Probed::NoProbe => Outcome::Unknown,
        };
        tracing::info!(?outcome, "what a user entered was tried");
        let (user, server) = (Some(&self.caller.user), Some(&self.server.name));
        let fingerprint = self.fingerprint.as_deref();
        self.bridge.audit.note(&Event { user, server, outcome, fingerprint, ..Event::of(EventKind::TokenProbed) });
    }
}

impl Child {
    /// The text of the answer to one request of the bridge's own, after the handshake.
    async fn try_request(&mut self, (method, params): &(&str, String)) -> Result<String, Failure> {
        let client = own_introduction();
        let handshake = self.handshake_to_listen(&client, ClientKind::WithoutSession).await?;
        let request = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"{method}","params":{params}}}"#, legacy::PROBE_ID);
        let message = Message::parse(request.into()).map_err(BridgeError::Malformed)?;
        if matches!(handshake, Handshake::Modern(_)) {
            let tools = self.learn_tools(Some(&client)).await?;
            self.mirror(&message, &tools);
            self.upstream.send(&translate::request_for_modern(&message, &client, None));
        } else {
            self.upstream.send(message.text());
        }
        let line = self.answer_to(legacy::PROBE_ID).await?;
        match from_server(&line) {
            Some(FromServer::Response { answer: Answer::Result(result), .. }) => said(method, result),
            Some(FromServer::Response { answer: Answer::Error(error), .. }) => {
                let error: Option<Value> = serde_json::from_str(error).ok();
                let message = error.as_ref().and_then(|error| error["message"].as_str());
                Err(Failure::Told(message.unwrap_or_default().to_owned()))
            }
            _ => Err(UpstreamError::InvalidOutput.into()),
        }
    }
}

/// How the bridge introduces itself where it asks something of its own.
pub(super) fn own_introduction() -> Introduction {
    let client_info = format!(r#"{{"name":"tollbridge","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    Introduction { version: Version::V2025_11_25, client_info, capabilities: "{}".to_owned() }
}

/// What the result of a method says in words: the names of tools, or what a tool says.
fn said(method: &str, result: &str) -> Result<String, Failure> {
    if result.len() > LARGEST {
        return Ok(format!("{} bytes", result.len()));
    }
    let result: Value = serde_json::from_str(result).map_err(|_| UpstreamError::InvalidOutput)?;
    let texts = |list: &str, member: &str, between: &str| {
        let members = result[list].as_array().into_iter().flatten();
        members.filter_map(|each| each[member].as_str()).collect::<Vec<_>>().join(between)
    };
    if method == "tools/list" {
        result["tools"].as_array().ok_or(UpstreamError::InvalidOutput)?;
        let names = texts("tools", "name", ", ");
        return Ok(if names.is_empty() { "It has no tools".to_owned() } else { format!("Its tools: {names}") });
    }
    let text = match &result["structuredContent"] {
        structured @ Value::Object(_) if texts("content", "text", "").is_empty() => structured.to_string(),
        _ => texts("content", "text", "\n"),
    };
    if result["resultType"] == "input_required" {
        Err(BridgeError::CannotAsk.into())
    } else if result["isError"] == true {
        Err(Failure::Told(text))
    } else {
        Ok(text)
    }
}
