//! A server and a client as the documentation of rmcp has them, with its defaults.
//!
//! ```text
//! rmcp server [stdio|PORT [NOTE]]
//! rmcp client TASK
//! ```

#![expect(deprecated, reason = "what older clients and servers have")]
#![expect(clippy::disallowed_methods, reason = "a program of its own, not the bridge")]
#![expect(clippy::print_stdout, reason = "what came of it is its answer")]

#[path = "rmcp/client.rs"]
mod client;
#[path = "rmcp/server.rs"]
mod server;

use std::path::Path;
use std::time::Duration;

/// How often they look whether something outside of them has changed.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["server"] => server::on_stdio(None).await,
        ["server", "stdio", note @ ..] => server::on_stdio(note.first().copied()).await,
        ["server", port, note @ ..] => server::over_http(port, note.first().copied()).await,
        ["client", task] => client::visit(task).await,
        _ => panic!("neither server nor client: {arguments:?}"),
    }
}

/// Until there is such a file.
async fn until(file: &str) {
    while !Path::new(file).exists() {
        tokio::time::sleep(LOOK).await;
    }
}
