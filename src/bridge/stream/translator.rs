//! A legacy client of HTTP+SSE in front of a modern server: what either says, said in the era of the other. It knows
//! nothing of streams and processes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::subscription::{self, Filter};
use crate::mcp::json;
use crate::mcp::legacy::{self, Asked, Introduction, without_tasks};
use crate::mcp::message::{Answer, FromServer, Kind, Message};
use crate::mcp::modern::Level;
use crate::mcp::mrtr::InputRequired;
use crate::mcp::session;
use crate::mcp::translate;
use crate::store::{MAX_SUBSCRIPTIONS, MAX_URI};

const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;
const NOT_INITIALIZED: i64 = -32600;

/// How often one call may be asked about; a call that asks more never comes to an end.
const MAX_ROUNDS: u32 = 16;

/// Something that is to be said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    ToServer(String),
    ToClient(Bytes),
}

/// What has been agreed on, and what is open.
pub(super) struct Translator {
    /// What the server said of itself.
    discovered: String,
    client: Option<Introduction>,
    level: Option<Level>,
    /// What the client is subscribed to.
    resources: Vec<String>,
    /// How often the server has been asked to listen.
    listens: u32,
    /// Requests that have no answer yet, by their id as written.
    calls: BTreeMap<String, Call>,
    /// How many questions have been put to the client.
    questions: u64,
}

/// A request that has no answer yet.
struct Call {
    /// As the server knows it.
    text: String,
    /// How often its client has been asked.
    rounds: u32,
    required: Option<InputRequired>,
    /// Questions: the id that the client knows, the key that the server knows, and the answer.
    open: Vec<(String, String, Option<String>)>,
}

impl Translator {
    pub(super) fn new(discovered: String) -> Self {
        Self {
            discovered,
            client: None,
            level: None,
            resources: Vec::new(),
            listens: 0,
            calls: BTreeMap::new(),
            questions: 0,
        }
    }

    /// What becomes of a message of the client.
    pub(super) fn hear_client(&mut self, message: &Message) -> Vec<Said> {
        match message.kind() {
            Kind::Response => self.answer(message),
            // A call that is cancelled is not answered.
            Kind::Notification if message.method() == "notifications/cancelled" => {
                let id = message.param("requestId").map(str::to_owned);
                id.and_then(|id| self.calls.remove(&id));
                vec![Said::ToServer(message.text().to_owned())]
            }
            Kind::Notification => Vec::new(),
            Kind::Request => self.request(message),
        }
    }

    fn request(&mut self, message: &Message) -> Vec<Said> {
        let id = message.id().unwrap_or("null");
        let done = |result: &str| Said::ToClient(legacy::result(id, result).into());
        let failed = |code, why: &str| vec![Said::ToClient(legacy::error(Some(id), code, why, None).into())];
        if message.method() == "ping" {
            return vec![done("{}")];
        }
        if message.method() == "initialize" {
            let Some(asked) = Asked::parse(message) else {
                return failed(INVALID_PARAMS, "`params.protocolVersion` is required");
            };
            let result = translate::initialize_result(&self.discovered, asked.version);
            self.client = Some(Introduction {
                version: asked.version,
                client_info: asked.client_info.unwrap_or_else(|| session::brief_client_info(None)),
                capabilities: without_tasks(&asked.capabilities),
            });
            return std::iter::once(done(&result)).chain(self.listen()).collect();
        }
        let Some(client) = &self.client else { return failed(NOT_INITIALIZED, "initialize first") };
        match message.method() {
            "logging/setLevel" => match message.param_string("level").and_then(|l| Level::parse(&l)) {
                Some(level) => self.level = Some(level),
                None => return failed(INVALID_PARAMS, "`params.level` is not a log level"),
            },
            method @ ("resources/subscribe" | "resources/unsubscribe") => {
                let uri = message.param_string("uri").unwrap_or_default().into_owned();
                self.resources.retain(|subscribed| *subscribed != uri);
                if method == "resources/subscribe" {
                    if uri.is_empty() || uri.len() > MAX_URI || self.resources.len() >= MAX_SUBSCRIPTIONS {
                        return failed(INVALID_PARAMS, "`params.uri` is missing or too long, or there are too many");
                    }
                    self.resources.push(uri);
                }
            }
            _ => {
                let text = translate::request_for_modern(message, client, self.level);
                let call = Call { text: text.clone(), rounds: 0, required: None, open: Vec::new() };
                self.calls.insert(id.to_owned(), call);
                return vec![Said::ToServer(text)];
            }
        }
        std::iter::once(done("{}")).chain(self.listen()).collect()
    }

    /// Asks the server for everything that a legacy one would say unasked, in place of what was asked before.
    fn listen(&mut self) -> Vec<Said> {
        let Some(client) = &self.client else { return Vec::new() };
        let id = |number| format!(r#""{}listen:{number}""#, legacy::RESERVED);
        let before = (self.listens > 0).then(|| legacy::cancelled(&id(self.listens), "changed"));
        self.listens += 1;
        let wanted = Filter::of_session(true, self.resources.clone());
        let request = wanted.request(&id(self.listens), client, self.level);
        before.into_iter().chain([request]).map(Said::ToServer).collect()
    }

    /// What becomes of a line of the server; `None` if it is no message.
    pub(super) fn hear_server(&mut self, line: &Bytes) -> Option<Vec<Said>> {
        let said = match FromServer::parse(super::text(line))? {
            FromServer::Notification { method, .. } if method == subscription::ACKNOWLEDGED => Vec::new(),
            FromServer::Notification { .. } => vec![Said::ToClient(subscription::untagged(line))],
            FromServer::Request { id, .. } => {
                vec![Said::ToServer(legacy::error(Some(id), -32601, "the client cannot be asked", None))]
            }
            FromServer::Response { id: Some(id), answer } if self.calls.contains_key(id) => {
                let required = match answer {
                    Answer::Result(result) => InputRequired::parse(result),
                    Answer::Error(_) => None,
                };
                if let Some(required) = required {
                    self.ask(id, required)
                } else {
                    self.calls.remove(id);
                    vec![Said::ToClient(line.clone())]
                }
            }
            FromServer::Response { .. } => Vec::new(),
        };
        Some(said)
    }

    /// Puts a server's questions to the client, one by one.
    fn ask(&mut self, id: &str, required: InputRequired) -> Vec<Said> {
        let Some(call) = self.calls.get_mut(id) else { return Vec::new() };
        call.rounds += 1;
        if call.rounds > MAX_ROUNDS {
            return self.fail(id, "the server asks too many questions about one call");
        }
        let mut said = Vec::new();
        call.open.clear();
        for (key, method, params) in &required.requests {
            self.questions += 1;
            let question = format!(r#""{}question:{}""#, legacy::RESERVED, self.questions);
            let method = json::quote(method);
            let text = format!(r#"{{"jsonrpc":"2.0","id":{question},"method":{method},"params":{params}}}"#);
            said.push(Said::ToClient(text.into()));
            call.open.push((question, key.clone(), None));
        }
        call.required = Some(required);
        if said.is_empty() { self.call_again(id) } else { said }
    }

    /// The client answers a question; with the last answer the server is asked again.
    fn answer(&mut self, message: &Message) -> Vec<Said> {
        let answered = message.id().unwrap_or_default();
        let holds = |call: &Call| call.open.iter().any(|(question, ..)| json::same_scalar(question, answered));
        let Some(id) = self.calls.iter().find(|(_, call)| holds(call)).map(|(id, _)| id.clone()) else {
            return Vec::new();
        };
        let Some(Answer::Result(result)) = message.answer() else {
            // A modern server knows no failed answers: the call ends as its client wanted it to.
            return self.fail(&id, "the server's question was not answered");
        };
        let Some(call) = self.calls.get_mut(&id) else { return Vec::new() };
        for (question, _, answer) in &mut call.open {
            if json::same_scalar(question, answered) {
                *answer = Some(result.to_owned());
            }
        }
        if call.open.iter().any(|(_, _, answer)| answer.is_none()) { Vec::new() } else { self.call_again(&id) }
    }

    fn call_again(&mut self, id: &str) -> Vec<Said> {
        let Some(call) = self.calls.get_mut(id) else { return Vec::new() };
        let answers: Vec<_> = call.open.drain(..).filter_map(|(_, key, answer)| Some((key, answer?))).collect();
        let required = call.required.take();
        required.map(|required| Said::ToServer(required.retry_of(&call.text, &answers))).into_iter().collect()
    }

    fn fail(&mut self, id: &str, why: &str) -> Vec<Said> {
        self.calls.remove(id);
        vec![Said::ToClient(legacy::error(Some(id), INTERNAL_ERROR, why, None).into())]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A translator whose client has introduced itself.
    fn initialized() -> Translator {
        let mut translator = Translator::new(r#"{"capabilities":{"tools":{}}}"#.into());
        let params =
            json!({ "protocolVersion": "2024-11-05", "capabilities": { "roots": {} }, "clientInfo": { "name": "n" } });
        let said = ask(&mut translator, 0, "initialize", &params);
        assert_eq!(said[0]["result"]["protocolVersion"], "2024-11-05");
        assert_eq!(said[1]["method"], "subscriptions/listen");
        translator
    }

    fn hear_client(translator: &mut Translator, message: &Value) -> Vec<Said> {
        translator.hear_client(&Message::parse(message.to_string().into()).unwrap())
    }

    fn ask(translator: &mut Translator, id: u32, method: &str, params: &Value) -> Vec<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        read(hear_client(translator, &request))
    }

    fn read(said: Vec<Said>) -> Vec<Value> {
        let texts = said.into_iter().map(|said| match said {
            Said::ToServer(text) => Bytes::from(text),
            Said::ToClient(text) => text,
        });
        texts.map(|text| serde_json::from_slice(&text).unwrap()).collect()
    }

    fn answer(translator: &mut Translator, id: &Value, result: &Value) -> Vec<Value> {
        let line = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
        read(translator.hear_server(&line.into()).unwrap())
    }

    #[test]
    fn a_call_that_needs_input_is_asked_about_and_called_again() {
        let mut translator = initialized();
        let asked = ask(&mut translator, 1, "tools/call", &json!({ "name": "t" }));
        let meta = &asked[0]["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({ "roots": {} }));
        let request = json!({ "method": "roots/list", "params": {} });
        let required =
            json!({ "resultType": "input_required", "inputRequests": { "k": request }, "requestState": "s" });
        let question = answer(&mut translator, &json!(1), &required);
        assert_eq!(question[0]["method"], "roots/list");
        let reply = json!({ "jsonrpc": "2.0", "id": question[0]["id"], "result": { "roots": [] } });
        let again = read(hear_client(&mut translator, &reply));
        assert_eq!((&again[0]["id"], &again[0]["params"]["requestState"]), (&json!(1), &json!("s")));
        assert_eq!(again[0]["params"]["inputResponses"], json!({ "k": { "roots": [] } }));
        let done = answer(&mut translator, &json!(1), &json!({ "resultType": "complete", "content": [] }));
        assert_eq!(done[0]["id"], json!(1));
        assert!(answer(&mut translator, &json!(1), &json!({})).is_empty(), "answered once");
    }

    #[test]
    fn an_answer_that_failed_ends_the_call() {
        let mut translator = initialized();
        ask(&mut translator, 1, "tools/call", &json!({ "name": "t" }));
        let request = json!({ "method": "roots/list" });
        let required = json!({ "resultType": "input_required", "inputRequests": { "k": request } });
        let question = answer(&mut translator, &json!(1), &required);
        let reply = json!({ "jsonrpc": "2.0", "id": question[0]["id"], "error": { "code": -1, "message": "no" } });
        let failed = read(hear_client(&mut translator, &reply));
        assert_eq!((&failed[0]["id"], &failed[0]["error"]["code"]), (&json!(1), &json!(INTERNAL_ERROR)));
    }

    #[test]
    fn levels_and_subscriptions_become_another_listen() {
        let mut translator = initialized();
        let said = ask(&mut translator, 1, "resources/subscribe", &json!({ "uri": "a" }));
        let methods: Vec<_> = said.iter().map(|said| said["method"].as_str().unwrap_or_default()).collect();
        assert_eq!(methods, ["", "notifications/cancelled", "subscriptions/listen"]);
        assert_eq!(said[2]["params"]["notifications"]["resourceSubscriptions"], json!(["a"]));
        let said = ask(&mut translator, 2, "logging/setLevel", &json!({ "level": "error" }));
        assert_eq!(said[2]["params"]["_meta"]["io.modelcontextprotocol/logLevel"], "error");
        assert_eq!(ask(&mut translator, 3, "logging/setLevel", &json!({}))[0]["error"]["code"], json!(INVALID_PARAMS));
        let said = ask(&mut translator, 4, "resources/unsubscribe", &json!({ "uri": "a" }));
        assert_eq!(said[2]["params"]["notifications"].get("resourceSubscriptions"), None);
    }

    #[test]
    fn nothing_is_asked_of_the_server_before_its_client_is_known() {
        let mut translator = Translator::new("{}".into());
        assert_eq!(ask(&mut translator, 1, "tools/list", &json!({}))[0]["error"]["code"], json!(NOT_INITIALIZED));
        assert_eq!(ask(&mut translator, 2, "ping", &json!({}))[0]["result"], json!({}));
    }
}
