//! A server elsewhere that is another one by the token that it is called with: modern or legacy, and with a tool that
//! wants a parameter in a header or not.

use serde_json::{Value, json};

use super::fixture::{Act, Request, answer, polite};
use super::support::mcp::MODERN;

/// Each user's token, and what it makes of the server: its era, and whether its tool wants a parameter in a header.
pub(super) const USERS: [(&str, &str, &str, bool); 4] = [
    ("alice", "a-bearer-token-of-alice-that-is-long-enough", "modern", true),
    ("bob", "a-bearer-token-of-bob-that-is-long-enough-too", "modern", false),
    ("carol", "a-bearer-token-of-carol-that-is-long-enough", "legacy", false),
    ("dora", "a-bearer-token-of-dora-that-is-long-enough-too", "legacy", false),
];

fn json_answer(id: &Value, outcome: &str, value: Value) -> Vec<Act> {
    let mut message = json!({ "jsonrpc": "2.0", "id": id });
    message[outcome] = value;
    answer(200, &[("Content-Type", "application/json")], message.to_string())
}

/// A modern server, whose tool wants a parameter in a header or not.
pub(super) fn modern(request: &Request, mirrors: bool) -> Vec<Act> {
    let id = &request.message["id"];
    let mut password = json!({ "type": "string" });
    if mirrors {
        password["x-mcp-header"] = json!("Leak");
    }
    let tool = json!({ "name": "x", "inputSchema": { "type": "object", "properties": { "password": password } } });
    match request.asks() {
        "server/discover" => json_answer(id, "result", json!({ "supportedVersions": [MODERN], "capabilities": {} })),
        "initialize" => json_answer(id, "error", json!({ "code": -32022, "message": "no such version" })),
        "tools/list" => json_answer(id, "result", json!({ "resultType": "complete", "tools": [tool] })),
        _ => {
            let text = [json!({ "type": "text", "text": "done" })];
            json_answer(id, "result", json!({ "resultType": "complete", "content": text }))
        }
    }
}

/// A legacy server that refuses whatever is of no session.
pub(super) fn legacy(request: &Request) -> Vec<Act> {
    let begins = request.asks() == "initialize" || request.header("mcp-session-id").is_some();
    if begins || request.method != "POST" {
        return polite(request);
    }
    json_answer(&request.message["id"], "error", json!({ "code": -32600, "message": "initialize first" }))
}

/// The server that this token makes of it.
pub(super) fn by_token(request: &Request) -> Vec<Act> {
    let (_, _, era, mirrors) = user_of(request);
    if era == "modern" { modern(request, mirrors) } else { legacy(request) }
}

/// Fails if a header is there that this user's own list of tools does not ask for, or one is missing or another's.
pub(super) fn has_its_own_headers(request: &Request) {
    let (user, .., mirrors) = user_of(request);
    let wanted = mirrors.then_some(user);
    assert_eq!(request.header("mcp-param-leak"), wanted, "{user}: {:?}", request.headers);
}

fn user_of(request: &Request) -> (&'static str, &'static str, &'static str, bool) {
    let token = request.header("x-token");
    USERS.into_iter().find(|(user, ..)| token == Some(user)).expect("a user's token")
}
