//! The handshake and the lists, answered in the place of a server that cannot be started without its user's token.

use serde_json::json;

use super::link::Lack;
use super::tool;
use crate::bridge::Bridge;
use crate::bridge::exchange::call::{Call, Purpose};
use crate::bridge::response::final_message::FinalMessage;
use crate::config::{Server, WithoutToken};
use crate::mcp::era::Version;
use crate::mcp::legacy::{self, Asked, Initialized};
use crate::mcp::session::Owner;
use crate::mcp::tools::LIST;
use crate::mcp::translate;
use crate::user::UserId;

/// Whether a server that may be started without what its user saves is, for this call.
pub(in crate::bridge) fn is_asked_without_token(server: &Server, call: &Call) -> bool {
    let is_handshake = matches!(call.purpose, Purpose::Initialize(_) | Purpose::Discover);
    server.without_token == WithoutToken::Start && (is_handshake || list(server, call.message.method()).is_some())
}

impl Bridge {
    /// The answer to a call of a user whose token does not do.
    pub(in crate::bridge) fn without_token(
        &self,
        (user, server): (&UserId, &Server),
        call: &Call,
        lack: &Lack,
    ) -> FinalMessage {
        let in_place = if server.leads_to_connecting() { self.in_place_of((user, server), call) } else { None };
        in_place.unwrap_or_else(|| FinalMessage::ok(self.lead_to_page((user, server), call, lack)))
    }

    /// What the server would be asked first, answered in its place.
    fn in_place_of(&self, (user, server): (&UserId, &Server), call: &Call) -> Option<FinalMessage> {
        let method = call.message.method();
        let result = match &call.purpose {
            Purpose::Initialize(asked) => return Some(self.initialize_in_place((user, server), call, asked)),
            Purpose::Discover => {
                let version = Version::NEWEST_LEGACY;
                translate::discover_result(&Initialized { version, result: initialize_result(server, version) })
            }
            Purpose::Legacy(_) => list(server, method)?,
            Purpose::Modern(_) => {
                let (list, info, mut result) = (list(server, method)?, server_info(server), String::new());
                translate::write_result_for_modern(method, &list, Some(&info), |part| result.push_str(part));
                result
            }
        };
        Some(FinalMessage::ok(legacy::result(call.id(), &result)))
    }

    /// The version is one that the server will speak as well, as far as is known: it takes part in the session later.
    fn initialize_in_place(&self, (user, server): (&UserId, &Server), call: &Call, asked: &Asked) -> FinalMessage {
        let version = match self.server_facts.version(&server.name) {
            Some(known) => known.min(asked.version),
            None => asked.version,
        };
        match self.begin_session(Owner { user, server: &server.name }, asked, version, None) {
            Ok(session) => {
                let text = legacy::result(call.id(), &initialize_result(server, version));
                FinalMessage { session: Some(session), ..FinalMessage::ok(text) }
            }
            Err(error) => error.last(Some(call.id())),
        }
    }
}

/// What the server says of itself, as far as its entry tells.
fn initialize_result(server: &Server, version: Version) -> String {
    let name = server.display_name();
    let how = server.token_setup.instructions.as_deref().unwrap_or_default();
    let instructions = format!("{name} is not connected yet: the tool `{}` gives the link. {how}", tool::NAME);
    let (version, instructions) = (json!(version.as_str()), json!(instructions.trim_end()));
    let capabilities = r#"{"tools":{"listChanged":true}}"#;
    format!(
        r#"{{"protocolVersion":{version},"capabilities":{capabilities},"serverInfo":{},"instructions":{instructions}}}"#,
        server_info(server)
    )
}

fn server_info(server: &Server) -> String {
    let (name, title) = (server.name.as_str(), server.display_name());
    json!({ "name": name, "title": title, "version": env!("CARGO_PKG_VERSION") }).to_string()
}

/// A list of the server: the one tool that there is, or nothing.
fn list(server: &Server, method: &str) -> Option<String> {
    match method {
        LIST => Some(format!(r#"{{"tools":[{}]}}"#, tool::definition(server))),
        "prompts/list" => Some(r#"{"prompts":[]}"#.into()),
        "resources/list" => Some(r#"{"resources":[]}"#.into()),
        "resources/templates/list" => Some(r#"{"resourceTemplates":[]}"#.into()),
        _ => None,
    }
}
