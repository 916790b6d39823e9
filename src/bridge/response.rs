//! The way back to the client: events as they come, then one final message, or an error.

pub mod error;
pub(super) mod final_message;
pub(super) mod pending;
pub(super) mod reason;
pub(super) mod sse;
