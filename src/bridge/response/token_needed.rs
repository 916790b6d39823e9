//! What a person is told whose token for a server is missing or was refused: a sentence, and the link to the page where
//! they save one.

use http::{Response, StatusCode};

use crate::bridge::exchange::call::{Call, Purpose};
use crate::bridge::{Bridge, IncomingMessage};
use crate::config::Server;
use crate::mcp::{json, legacy};
use crate::respond::{self, Body};

/// The JSON-RPC code of "no token", or none that is good: an application's own, outside the range that JSON-RPC reserves.
const NO_TOKEN: i64 = 1401;

impl Bridge {
    /// The answer when the user has no token for the server: never a bare failure, always what to do.
    pub(in crate::bridge) fn without_token(&self, incoming: &IncomingMessage, call: &Call) -> Response<Body> {
        let link = setup_link(&self.config.public_url, &incoming.server);
        respond::json(StatusCode::OK, what_to_do(call, &not_connected(&incoming.server, &link), &link))
    }

    /// The same for a stream, which has no id to answer to.
    pub(in crate::bridge) fn stream_without_token(&self, server: &Server) -> Response<Body> {
        let link = setup_link(&self.config.public_url, server);
        let data = format!(r#"{{"setupUrl":{}}}"#, json::quote(&link));
        let error = legacy::error(None, NO_TOKEN, &not_connected(server, &link), Some(&data));
        respond::json(StatusCode::FORBIDDEN, error + "\n")
    }
}

fn not_connected(server: &Server, link: &str) -> String {
    format!("You have not connected {} yet: save your token at {link} and try again.", display_name(server))
}

/// The answer when the server refused the user's token.
pub(in crate::bridge) fn token_refused(call: &Call, server: &Server, link: &str) -> String {
    let name = display_name(server);
    let sentence = format!("Your token for {name} was refused: save a new one at {link} and try again.");
    what_to_do(call, &sentence, link)
}

/// The sentence and the link, in the form that the caller shows to a person.
fn what_to_do(call: &Call, sentence: &str, link: &str) -> String {
    if call.message.method() == "tools/call" {
        let kind = if matches!(call.purpose, Purpose::Modern(_)) { r#""resultType":"complete","# } else { "" };
        let text = json::quote(sentence);
        let result = format!(r#"{{{kind}"content":[{{"type":"text","text":{text}}}],"isError":true}}"#);
        return legacy::result(call.id(), &result);
    }
    let data = format!(r#"{{"setupUrl":{}}}"#, json::quote(link));
    legacy::error(Some(call.id()), NO_TOKEN, sentence, Some(&data))
}

/// Where a person saves their token for the server.
pub(in crate::bridge) fn setup_link(public_url: &url::Url, server: &Server) -> String {
    format!("{}/{}/connect", public_url.as_str().trim_end_matches('/'), server.name)
}

/// What people call the server.
pub(in crate::bridge) fn display_name(server: &Server) -> &str {
    server.token_setup.display_name.as_deref().unwrap_or(server.name.as_str())
}
