//! Tollbridge: every HTTP request gets a fresh MCP server that saw only its user's token.
//!
//! The life of a request is `bridge`; everything else is what it takes. The modules stand in layers, top first:
//! a module uses only groups below its own, and modules of one group never import each other. The comments that
//! open each group are read by `tests/layers.rs`, which fails on an import that goes up or sideways.

// A conversation holds what connects to Redis and to servers elsewhere: that it may move between threads is seen deep.
#![recursion_limit = "256"]

// layer: the program
pub mod cli;

// layer: the parent of the process that serves
pub mod supervisor;

// layer: wiring, the only place that builds long-lived things
pub mod app;

// layer: connections
pub mod server;

// layer: paths
pub mod routes;

// layer: what we do
pub mod account;
pub mod admin;
pub mod bridge;

// layer: what it takes
pub mod auth;
pub mod limits;
pub mod relay;
pub mod tokens;
pub mod upstream;

// layer: the bridge as a client of services
pub mod oauth;

// layer: what it writes down
pub mod audit;

// layer: what that takes
pub mod mcp;
pub mod store;

// layer: plain data
pub mod config;

// layer: what is shared out
pub mod memory;

// layer: know nothing of ours
pub mod cgroup_paths;
pub mod clock;
pub mod control;
pub mod descendants;
pub mod heap;
pub mod http_client;
pub mod keyring;
pub mod lifecycle;
pub mod long_work;
pub mod metrics;
pub mod rate_limit;
pub mod request_id;
pub mod respond;
pub mod secret;
pub mod service_manager;
pub mod telemetry;
pub mod user;

// layer: what is replaced while it is read
pub mod swap;

// layer: the system
pub mod privilege;
pub mod sys;
