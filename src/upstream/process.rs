//! Local processes: how one request's server is started, confined, watched and ended with everything that it started.
//! Containers are started through it, too: the client of their engine is a process.

// starting one
mod command_line;
pub mod exec_as;
pub mod gate;
pub mod group;
pub mod held;
mod spawn_error;

// what it is confined to
pub mod cgroup;
pub mod confinement;
mod directory_size;
pub mod oom;
pub mod token_files;
mod users;

// what it says
pub(super) mod invalid_output;
pub mod lines;
pub mod stderr;

// what it leaves behind
mod cleanup;
pub mod instance;
pub mod orphans;
mod remove_tree;

// what holds on this host
pub mod host_checks;
pub mod python_checks;

pub use spawn_error::SpawnError;
