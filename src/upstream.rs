//! (to be written)

pub mod group;
pub mod orphans;
