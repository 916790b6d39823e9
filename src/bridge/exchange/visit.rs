//! A modern client is asked to visit a page, and then to call again. Source: MCP 2026-07-28, client/elicitation.

use super::call::Call;
use super::questions::Owner;
use super::request_state::{NextStep, RequestState, STATE_LIFETIME};
use crate::bridge::Bridge;
use crate::clock::UnixTime;
use crate::mcp::mrtr;

/// The result that asks the client of `call` to visit these pages, each the parameters of an `elicitation/create`.
pub(in crate::bridge) fn ask_to_visit(
    bridge: &Bridge,
    owner: Owner<'_>,
    call: &Call,
    pages: &[String],
    server_info: Option<&str>,
) -> String {
    let expires = UnixTime(bridge.clock.now().0 + STATE_LIFETIME);
    let state = RequestState::new(&call.message, expires, NextStep::Again).seal(&bridge.keyring, owner);
    let keys: Vec<String> = (0..pages.len()).map(|number| format!("url{number}")).collect();
    let questions = keys.iter().zip(pages).map(|(key, page)| (key.as_str(), "elicitation/create", page.as_str()));
    mrtr::input_required(questions, &state, server_info)
}
