//! Which tools a caller may use (`tools` of a server): the others are neither listed nor called.

use bytes::Bytes;

use crate::bridge::error::BridgeError;
use crate::bridge::exchange::Exchange;
use crate::config::Server;
use crate::long_work::by_length;
use crate::mcp::json;
use crate::mcp::message::{FromServer, Message, from_server};
use crate::mcp::tools::{self, CALL, LIST};
use crate::user::Caller;

/// The longest name of a tool that is said again, in characters. Source: MCP 2025-11-25, server/tools, "Tool Names".
const MAX_NAME: usize = 128;

/// Refuses a call of a tool that is not there for `caller`, as a server refuses one that it has not.
///
/// # Errors
/// It is one, or its name cannot be read.
pub(in crate::bridge) fn check(server: &Server, caller: &Caller, message: &Message) -> Result<(), BridgeError> {
    let Some(rules) = server.access.tools.as_ref().filter(|_| message.method() == CALL) else { return Ok(()) };
    let name = message.param_string("name");
    if name.as_ref().is_some_and(|name| rules.permit(caller, name)) {
        return Ok(());
    }
    Err(BridgeError::UnknownTool(name.unwrap_or_default().chars().take(MAX_NAME).collect()))
}

/// The answer of `server` to a `tools/list`, as `caller` may see it.
///
/// # Errors
/// It cannot be read.
pub(in crate::bridge) fn shown(server: &Server, caller: &Caller, line: &Bytes) -> Result<Bytes, BridgeError> {
    let Some(rules) = &server.access.tools else { return Ok(line.clone()) };
    let shown = tools::only(line, |tool| rules.permit(caller, tool))?;
    // What is not the same for everybody is not to be kept for everybody.
    Ok(tools::kept_private(&shown))
}

impl Exchange {
    /// A line of the server, as the caller may see it.
    pub(in crate::bridge) fn shown(&self, line: Bytes) -> Result<Bytes, BridgeError> {
        if self.server.access.tools.is_none() || self.call.message.method() != LIST {
            return Ok(line);
        }
        match from_server(&line) {
            Some(FromServer::Response { id: Some(id), .. }) if json::same_scalar(id, self.call.id_at_server()) => {
                by_length(line.len(), || shown(&self.server, &self.caller, &line))
            }
            _ => Ok(line),
        }
    }
}
