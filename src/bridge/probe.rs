//! What a person gives is tried before it is saved: a fresh server that has it is asked something, or the service itself.
//! Nothing of it is kept, and nothing is left of the server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Bridge;
use super::error::BridgeError;
use super::exchange::child::Child;
use super::exchange::conversation::until_forced;
use super::exchange::handshake::{ClientKind, Handshake};
use crate::config::{HttpPlan, Inputs, Probe, Server};
use crate::mcp::era::Version;
use crate::mcp::json;
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::message::{Answer, FromServer, Message, from_server};
use crate::mcp::translate;
use crate::secret::Redactor;
use crate::tokens::{Entered, Probed};
use crate::upstream::UpstreamError;
use crate::user::{Caller, UserId};

/// How long a trial may take in all.
const DEADLINE: Duration = Duration::from_secs(20);

/// How many trials of one user there may be at a time.
const AT_ONCE: u8 = 2;

/// How much of an answer is shown, in characters.
const SHOWN: usize = 300;

/// How much of an answer is read, in bytes.
const READ: usize = 64 * 1024;

/// The largest result that is looked into, in bytes.
const LARGEST: usize = 1 << 20;

/// How many trials each user has under way; nobody who has none is here.
#[derive(Debug, Default)]
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
    /// It answered with an error, which says so.
    #[error("it answered with an error: {0}")]
    Told(String),
    /// It took too long.
    #[error("it did not answer within {} s", DEADLINE.as_secs())]
    Late,
    /// Nobody is there to ask.
    #[error("the bridge is stopping")]
    Stopped,
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self::Bridge(error.into())
    }
}

impl Bridge {
    /// Tries what `caller` entered for `server`, as the server's entry says. Whoever asks may leave: what was started is
    /// ended all the same.
    pub async fn probe(self: &Arc<Self>, caller: &Caller, server: &Arc<Server>, entered: &Entered) -> Probed {
        if server.probe.is_none() {
            return Probed::NoProbe;
        }
        let Some(turn) = self.probes.begin(&caller.user) else { return Probed::Busy };
        let credential = entered.credential(&server.token_setup);
        let (bridge, caller, server) = (Arc::clone(self), caller.clone(), Arc::clone(server));
        let (tell, told) = oneshot::channel();
        self.lifecycle.spawn(async move {
            let redactor = Redactor::new(credential.secrets());
            let tried = async {
                let values = server.request_values(&HeaderMap::new()).map_err(BridgeError::from)?;
                bridge.try_out(&server, Inputs::of(&caller, Some(credential), values), &redactor).await
            };
            // Whoever asked may have left.
            let _ = tell.send(probed(&server, tried.await, &redactor));
            drop(turn);
        });
        let stopped = |_| Probed::Unknown { sentence: "This could not be tried: the bridge is stopping".to_owned() };
        told.await.unwrap_or_else(stopped)
    }

    /// The answer to the server's probe.
    async fn try_out(
        self: &Arc<Self>,
        server: &Arc<Server>,
        inputs: Inputs,
        redactor: &Redactor,
    ) -> Result<String, Failure> {
        let deadline = Instant::now() + DEADLINE;
        let admitted = timeout_at(deadline, self.limits.admit(&inputs.user, &server.name, false)).await;
        let _permit = admitted.map_err(|_| Failure::Late)?.map_err(BridgeError::from)?;
        let request = match &server.probe {
            Some(Probe::Get(plan)) => {
                let got = timeout_at(deadline, self.get(plan, &inputs, redactor)).await;
                return got.map_err(|_| Failure::Late)?;
            }
            Some(Probe::Tool { name, arguments }) => {
                ("tools/call", format!(r#"{{"name":{},"arguments":{arguments}}}"#, json::quote(name)))
            }
            Some(Probe::Tools) | None => ("tools/list", "{}".to_owned()),
        };
        let mut child = Child::open(self, server, inputs)?;
        let hard = self.lifecycle.hard.clone();
        let answer = tokio::select! {
            answer = timeout_at(deadline, child.try_request(&request)) => answer.unwrap_or(Err(Failure::Late)),
            () = hard.cancelled() => Err(Failure::Stopped),
        };
        tokio::select! {
            () = child.close() => {}
            // Dropping a server is killing it.
            () = until_forced(&hard) => {}
        }
        answer
    }

    async fn get(&self, plan: &HttpPlan, inputs: &Inputs, redactor: &Redactor) -> Result<String, Failure> {
        let request = plan.fill_request(inputs).map_err(BridgeError::from)?;
        let (status, body) = self.http.get(&request, READ).await?;
        if !status.is_success() {
            return Err(Failure::Status(status));
        }
        // Where it is cut, a secret could be cut, too.
        let whole = if body.len() < READ { &body } else { redactor.whole(&body) };
        Ok(String::from_utf8_lossy(whole).into_owned())
    }
}

impl Child {
    /// The text of the answer to one request of the bridge's own, after the handshake.
    async fn try_request(&mut self, (method, params): &(&str, String)) -> Result<String, Failure> {
        let client_info = format!(r#"{{"name":"tollbridge","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let client = Introduction { version: Version::V2025_11_25, client_info, capabilities: "{}".to_owned() };
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
            Some(FromServer::Response { answer: Answer::Result(result), .. }) => said(result),
            Some(FromServer::Response { answer: Answer::Error(error), .. }) => {
                let error: Option<serde_json::Value> = serde_json::from_str(error).ok();
                let message = error.as_ref().and_then(|error| error["message"].as_str());
                Err(Failure::Told(message.unwrap_or_default().to_owned()))
            }
            _ => Err(UpstreamError::InvalidOutput.into()),
        }
    }
}

/// What a result says in words: the text of a tool, or the names of tools.
fn said(result: &str) -> Result<String, Failure> {
    if result.len() > LARGEST {
        return Ok(format!("{} bytes", result.len()));
    }
    let result: serde_json::Value = serde_json::from_str(result).map_err(|_| UpstreamError::InvalidOutput)?;
    let texts = |list: &str, member: &str, between: &str| {
        let members = result[list].as_array().into_iter().flatten();
        members.filter_map(|each| each[member].as_str()).collect::<Vec<_>>().join(between)
    };
    if !result["content"].is_array() {
        return Ok(format!("Its tools: {}", texts("tools", "name", ", ")));
    }
    let text = texts("content", "text", "\n");
    if result["isError"] == true { Err(Failure::Told(text)) } else { Ok(text) }
}

/// What came of it, for the person who entered it.
fn probed(server: &Server, tried: Result<String, Failure>, redactor: &Redactor) -> Probed {
    let name = server.display_name();
    match tried {
        Ok(answer) => Probed::Good { shown: shown(redactor, &answer) },
        Err(Failure::Bridge(BridgeError::Upstream(UpstreamError::TokenRefused))) => {
            Probed::Refused { sentence: format!("{name} refused this token") }
        }
        Err(Failure::Status(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))) => {
            Probed::Refused { sentence: format!("{name} refused this token ({})", status.as_u16()) }
        }
        Err(failure) => {
            let why = shown(redactor, &failure.to_string());
            Probed::Unknown { sentence: format!("This could not be tried with {name}: {why}") }
        }
    }
}

/// The beginning of an answer, without secrets and without control characters.
fn shown(redactor: &Redactor, answer: &str) -> String {
    redactor.redact(answer).chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
}
