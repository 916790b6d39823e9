//! The configuration file as it is written, and what is wrong with it.

pub(super) mod choices;
pub(super) mod document;
pub mod file;
mod mask;
pub(super) mod path;
pub(super) mod problem;
pub(super) mod read;
pub(super) mod units;
