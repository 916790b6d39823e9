//! What a server tells in the middle of a call, and what of it is for the call's client: what relates to its request.
//! Source: MCP 2026-07-28, basic/transports/streamable-http, "Receiving Messages".

use bytes::Bytes;

use super::Exchange;
use super::call::Purpose;
use crate::mcp::extensions;
use crate::mcp::json::{self, Object};
use crate::mcp::splice::with_part;
use crate::mcp::translate;

impl Exchange {
    /// What a notification is to the client: nothing unless it relates to this request. Changes of lists and resources
    /// never do; an extension's own are nobody else's.
    pub(super) fn for_this_call(&self, line: &Bytes, method: &str, params: Option<&str>) -> Option<Bytes> {
        match method {
            "notifications/progress" => {
                let params = Object::parse(params?).ok()?;
                let token = params.get("progressToken")?;
                let wanted = self.reply_progress.as_deref()?;
                json::same_scalar(token, self.call.id_at_server()).then(|| with_part(line, token, wanted).into_bytes())
            }
            "notifications/message" => {
                let wanted = match &self.call.purpose {
                    Purpose::Modern(_) => self.call.level.is_some_and(|least| translate::log_is_wanted(params, least)),
                    Purpose::Legacy(_) => true,
                    Purpose::Initialize(_) | Purpose::Discover => false,
                };
                wanted.then(|| line.clone())
            }
            _ => extensions::has_notification(method).then(|| line.clone()),
        }
    }
}
