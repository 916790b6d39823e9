//! `<<token>>` holes: found and typed at load, filled at request time in one pass.

/// A value with typed holes for the user's token.
#[derive(Debug)]
pub struct Template;

/// Why a token cannot be put into a launch plan.
#[derive(Debug, thiserror::Error)]
pub enum FillError {}
