//! What comes in: a request is checked, read, and answered here if it needs no server; `begin` starts one otherwise.

pub(super) mod batch;
mod begin;
mod local_answers;
pub(super) mod read;
pub(super) mod session;
pub(super) mod tool_access;
