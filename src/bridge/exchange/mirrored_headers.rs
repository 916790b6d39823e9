//! `Mcp-Param-…`: a call of a tool that wants parameters mirrored into headers: what a modern client sent is compared, and what a
//! modern server elsewhere needs is added. What the tools want is learned from a server that serves a request.

use std::sync::Arc;

use http::HeaderName;

use super::Exchange;
use super::call::Purpose;
use super::child::Child;
use super::handshake::Handshake;
use crate::bridge::error::BridgeError;
use crate::long_work::by_length;
use crate::mcp::headers::{self, HeaderMismatch};
use crate::mcp::json;
use crate::mcp::legacy::{self, Introduction};
use crate::mcp::message::{Answer, FromServer, Message, from_server};
use crate::mcp::mirror::{Tools, check, headers_for};
use crate::mcp::translate;
use crate::upstream::Upstream;

/// How many pages of tools are read; a server with more is not asked for the rest.
const MAX_PAGES: usize = 32;

impl Exchange {
    /// Checks the headers that mirror parameters, and makes those that the server needs.
    pub(in crate::bridge) async fn mirror(&mut self) -> Result<(), BridgeError> {
        let from_client = matches!(self.call.purpose, Purpose::Modern(_));
        let to_server = matches!((&self.child.upstream, self.handshaken()), (Upstream::Http(_), Handshake::Modern(_)));
        if self.call.message.method() != "tools/call" || !(from_client || to_server) {
            let name = self.call.mirrored.get(headers::NAME).filter(|_| to_server);
            if let Some(value) = name.cloned() {
                self.child.upstream.mirror(vec![(HeaderName::from_static(headers::NAME), value)]);
            }
            return Ok(());
        }
        let known = self.bridge.server_facts.tools(self.child.fact_key);
        let tools = match known {
            Some(tools) if self.checked(&tools, from_client) == Some(Ok(())) => tools,
            // An unknown tool, or headers that do not fit: perhaps the server has changed.
            _ => {
                let is_modern = matches!(self.handshaken(), Handshake::Modern(_));
                self.child.learn_tools(is_modern.then_some(&self.call.introduction)).await?
            }
        };
        self.checked(&tools, from_client).unwrap_or(Ok(()))?;
        if to_server {
            self.child.mirror(&self.call.message, &tools);
        }
        Ok(())
    }

    /// Whether the client's headers fit the call; `None` if the tool is not known.
    fn checked(&self, tools: &Tools, from_client: bool) -> Option<Result<(), HeaderMismatch>> {
        let call = &self.call.message;
        let wanted = tools.get(&call.param_string("name")?)?;
        Some(if from_client { check(wanted, &self.call.mirrored, call.param("arguments")) } else { Ok(()) })
    }
}

impl Child {
    /// Has the next message, a call of one of these tools, bear the headers that the tool wants.
    pub(in crate::bridge) fn mirror(&mut self, call: &Message, tools: &Tools) {
        let tool = call.param_string("name").filter(|_| call.method() == "tools/call");
        let wanted = tool.and_then(|name| tools.get(&name)).unwrap_or_default();
        self.upstream.mirror(headers_for(wanted, call.param("arguments")));
    }

    /// Asks the server for its tools, a modern one for this client. One that has none to tell has none that want
    /// anything.
    pub(in crate::bridge) async fn learn_tools(
        &mut self,
        client: Option<&Introduction>,
    ) -> Result<Arc<Tools>, BridgeError> {
        let mut tools = Tools::default();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            self.upstream.send(&list_tools(cursor.as_deref(), client));
            let line = self.answer_to(legacy::TOOLS_ID).await?;
            cursor = match from_server(&line) {
                Some(FromServer::Response { answer: Answer::Result(result), .. }) => {
                    by_length(result.len(), || tools.add_page(result))
                }
                _ => None,
            };
            if cursor.is_none() {
                break;
            }
        }
        let tools = Arc::new(tools);
        self.bridge.server_facts.learn_tools(self.fact_key, Arc::clone(&tools));
        Ok(tools)
    }
}

fn list_tools(cursor: Option<&str>, client: Option<&Introduction>) -> String {
    let params = cursor.map_or_else(|| "{}".to_owned(), |cursor| format!(r#"{{"cursor":{}}}"#, json::quote(cursor)));
    let request = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"tools/list","params":{params}}}"#, legacy::TOOLS_ID);
    match (client, Message::parse(request.clone().into())) {
        (Some(client), Ok(message)) => translate::request_for_modern(&message, client, None),
        _ => request,
    }
}
