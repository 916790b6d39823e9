//! The protocol without I/O: what a message says, which era it belongs to, and how one era is said in the other.

pub mod era;
pub mod extensions;
pub mod headers;
pub mod json;
pub mod legacy;
pub mod lists;
pub mod message;
pub mod mirror;
pub mod modern;
pub mod mrtr;
pub mod session;
pub mod splice;
pub mod tasks;
pub mod tools;
pub mod translate;
