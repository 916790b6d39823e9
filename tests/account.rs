//! People connect their own accounts on the pages of the bridge: what they see, what is saved, and what is refused.
//! The pages in a real browser are in `tests/account_walk.rs`.
//!
//! Attacks, and where each is tried; those with a star in a browser too:
//! - what a service answers, as markup: [`probe`]
//! - forged forms*, frames*, markup in what is shown*, redirects elsewhere, signing somebody in as another: [`forgeries`]
//! - a session or cookie that somebody else has set, a link that somebody else has sent, guessing: [`sessions`]
//! - how long it takes to look a token up: `src/auth/bearer.rs`

#[path = "account/changes.rs"]
mod changes;
#[path = "account/corpus.rs"]
mod corpus;
#[path = "account/forgeries.rs"]
mod forgeries;
#[path = "account/pages.rs"]
mod pages;
#[path = "account/probe.rs"]
mod probe;
#[path = "account/service.rs"]
mod service;
#[path = "account/sessions.rs"]
mod sessions;
mod support;
#[path = "account/visit.rs"]
mod visit;
#[path = "account/written_down.rs"]
mod written_down;

use serde_json::{Value, json};
use support::{Bridge, Client, Home, bearer_identity, server, sha256_hex};

/// What the proxy says to prove itself.
const PROOF: &str = "a-secret-that-only-the-proxy-knows";

/// The bearer tokens of alice and bob.
const ALICE: &str = "alices-key-0123456789abcdef";
const BOB: &str = "bobs-key-0123456789abcdef01";

/// Everybody is alice.
fn alone() -> Value {
    json!([{ "kind": "local", "user": "alice" }])
}

/// A proxy says who somebody is.
fn proxied() -> Value {
    json!([{
        "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["127.0.0.1"],
        "secretHeader": "X-Proof", "secret": PROOF,
    }])
}

/// They sign in.
fn signed_in() -> Value {
    bearer_identity(&[("alice", ALICE), ("bob", BOB)])
}

/// A bridge with a server that takes a token, `notes`, and one that takes none, `open`.
fn config(home: &Home, identity: &Value, store: &Value) -> Value {
    let marker = format!("marker={}", home.marker());
    json!({
        "identity": identity,
        "tokenStore": store,
        "mcpServers": {
            "notes": {
                "command": server("whoami"), "args": [marker.clone()],
                "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
                "tokenSetup": { "displayName": "Notes & more", "instructions": "Settings, then tokens.",
                    "helpUrl": "https://notes.example/help" },
            },
            "strict": {
                "command": server("whoami"), "args": [marker.clone()],
                "env": { "WHOAMI_TOKEN": { "$userToken": "<<token>>" } },
                "tokenSetup": { "tokenFormat": "^ntn_[a-z0-9]+$" },
            },
            "open": { "command": server("whoami"), "args": [marker] },
        },
    })
}

/// A node with a store of its own.
fn node(home: &Home, identity: &Value) -> Bridge {
    home.serve(config(home, identity, &home.embedded()))
}

/// What the server `notes` has got of its caller: the hash of a token, or a sentence.
async fn used(bridge: &Bridge, bearer: Option<&str>) -> String {
    Client::modern(bridge, "notes", bearer).call("whoami", json!({})).await.expect("an answer").text()
}

fn hash(token: &str) -> String {
    sha256_hex(token.as_bytes())
}
