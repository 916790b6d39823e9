//! What a user gets whose token for a server is missing, or does not do. The bridge answers the handshake and the lists in
//! the server's place, so that their client connects, and every call leads to the page where they save a token. No process
//! is started for it.

mod awaited;
pub(super) mod handshake;
pub(super) mod link;
pub(super) mod told;
pub(super) mod tool;
