//! Programs connect accounts: what they are told, what they may change, and what operators may. The description of all of it,
//! `src/account/api/openapi.json`, is held to the answers.

#[path = "api/changes.rs"]
mod changes;
#[path = "api/described.rs"]
mod described;
#[path = "api/description.rs"]
mod description;
#[path = "api/hostile.rs"]
mod hostile;
#[path = "api/operators.rs"]
mod operators;
#[path = "api/program.rs"]
mod program;
#[path = "account/service.rs"]
#[expect(dead_code, reason = "more is asked of it in tests/account.rs")]
mod service;
mod support;
#[path = "account/visit.rs"]
#[expect(dead_code, reason = "a person does more on pages")]
mod visit;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{Bridge, Client, Home, bearer_identity, server, sha256_hex};

/// What the proxy of a [`visit::Person`] says, which no test here has.
const PROOF: &str = "";

/// The bearer tokens of alice and bob, and that of operators.
const ALICE: &str = "alices-key-0123456789abcdef";
const BOB: &str = "bobs-key-0123456789abcdef01";
const OPERATOR: &str = "the-operators-key-0123456789";

/// Where the token of `notes` is.
const NOTES: &str = "/api/v1/servers/notes/token";

/// A bridge with servers that take a token, `notes`, `strict`, one of bob's alone, `private`, and one that takes two values,
/// `pair`; and one that takes none, `open`. Operators have their API.
fn config(home: &Home, store: &Value, admin: SocketAddr) -> Value {
    let marker = format!("marker={}", home.marker());
    let whoami = |fields: &Value| {
        let mut entry = json!({
            "command": server("whoami"), "args": [marker],
            "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
        });
        entry.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        entry
    };
    json!({
        "identity": bearer_identity(&[("alice", ALICE), ("bob", BOB)]),
        "tokenStore": store,
        "admin": { "listen": admin.to_string(), "token": { "$env": "OPERATOR" } },
        "mcpServers": {
            "notes": whoami(&json!({ "probe": "tools/list", "tokenSetup": { "displayName": "Notes & more",
                "instructions": "Settings, then tokens.", "helpUrl": "https://notes.example/help" } })),
            "strict": whoami(&json!({ "tokenSetup": { "tokenFormat": "^ntn_[a-z0-9]+$", "expires": "90d" } })),
            "private": whoami(&json!({ "allow": ["bob"] })),
            "pair": whoami(&json!({ "env": { "WHOAMI_TOKEN": { "$userToken": "<<email>>:<<apiKey>>" } },
                "tokenSetup": { "fields": { "email": { "label": "Email", "secret": false }, "apiKey": {} } } })),
            "open": { "command": server("whoami"), "args": [marker] },
        },
    })
}

/// Starts a node with this configuration.
fn serve(home: &Home, config: Value) -> Bridge {
    home.serve_with(config, &[("OPERATOR", OPERATOR)])
}

/// What a server has got of its caller: the hash of a value, or a sentence.
async fn used(bridge: &Bridge, server: &str, bearer: &str) -> String {
    Client::modern(bridge, server, Some(bearer)).call("whoami", json!({})).await.expect("an answer").text()
}

fn hash(token: &str) -> String {
    sha256_hex(token.as_bytes())
}
