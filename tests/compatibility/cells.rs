//! The cells of the matrix that are tested each time: every client and every server, over both transports, with each other
//! where that is quick, and each server that is slow to start with a client of either era.

use super::matrix::{Transport, Way, does_what_the_table_says};

macro_rules! cells {
    ($($name:ident: $client:literal, $server:literal, $transport:ident;)*) => {
        $(#[test] fn $name() { does_what_the_table_says($client, $server, Transport::$transport, Way::Bridge); })*
    };
}

cells! {
    typescript_1_in_front_of_rmcp_on_stdio: "TypeScript 1.x", "rmcp", Stdio;
    typescript_1_in_front_of_go_over_http: "TypeScript 1.x", "Go", Http;
    typescript_1_in_front_of_python_1_on_stdio: "TypeScript 1.x", "Python 1.x", Stdio;
    typescript_1_in_front_of_typescript_2_over_http: "TypeScript 1.x", "TypeScript 2.x", Http;
    typescript_2_in_front_of_go_on_stdio: "TypeScript 2.x", "Go", Stdio;
    typescript_2_in_front_of_rmcp_over_http: "TypeScript 2.x", "rmcp", Http;
    typescript_2_in_front_of_typescript_1_over_http: "TypeScript 2.x", "TypeScript 1.x", Http;
    typescript_2_that_finds_out_in_front_of_rmcp_on_stdio: "TypeScript 2.x, auto", "rmcp", Stdio;
    typescript_2_that_finds_out_in_front_of_go_over_http: "TypeScript 2.x, auto", "Go", Http;
    typescript_2_that_finds_out_in_front_of_python_2_on_stdio: "TypeScript 2.x, auto", "Python 2.x", Stdio;
    python_1_9_in_front_of_go_on_stdio: "Python 1.9", "Go", Stdio;
    python_1_9_in_front_of_rmcp_over_http: "Python 1.9", "rmcp", Http;
    python_1_9_in_front_of_python_1_over_http: "Python 1.9", "Python 1.x", Http;
    python_1_in_front_of_rmcp_on_stdio: "Python 1.x", "rmcp", Stdio;
    python_1_in_front_of_go_over_http: "Python 1.x", "Go", Http;
    python_1_in_front_of_typescript_1_on_stdio: "Python 1.x", "TypeScript 1.x", Stdio;
    python_1_in_front_of_python_2_over_http: "Python 1.x", "Python 2.x", Http;
    python_2_in_front_of_go_on_stdio: "Python 2.x", "Go", Stdio;
    python_2_in_front_of_rmcp_over_http: "Python 2.x", "rmcp", Http;
    python_2_in_front_of_typescript_2_on_stdio: "Python 2.x", "TypeScript 2.x", Stdio;
    python_2_in_front_of_typescript_2_over_http: "Python 2.x", "TypeScript 2.x", Http;
    fastmcp_in_front_of_rmcp_on_stdio: "FastMCP 4", "rmcp", Stdio;
    fastmcp_in_front_of_go_over_http: "FastMCP 4", "Go", Http;
    fastmcp_in_front_of_fastmcp_over_http: "FastMCP 4", "FastMCP 4", Http;
    go_in_front_of_go_on_stdio: "Go", "Go", Stdio;
    go_in_front_of_rmcp_over_http: "Go", "rmcp", Http;
    go_in_front_of_fastmcp_on_stdio: "Go", "FastMCP 4", Stdio;
    go_in_front_of_python_1_over_http: "Go", "Python 1.x", Http;
    rmcp_in_front_of_rmcp_on_stdio: "rmcp", "rmcp", Stdio;
    rmcp_in_front_of_go_over_http: "rmcp", "Go", Http;
    rmcp_in_front_of_typescript_1_on_stdio: "rmcp", "TypeScript 1.x", Stdio;
    rmcp_in_front_of_typescript_2_on_stdio: "rmcp", "TypeScript 2.x", Stdio;
    rmcp_in_front_of_fastmcp_over_http: "rmcp", "FastMCP 4", Http;
    rmcp_in_front_of_python_2_over_http: "rmcp", "Python 2.x", Http;
    the_inspector_in_front_of_go_on_stdio: "Inspector CLI", "Go", Stdio;
    the_inspector_in_front_of_rmcp_over_http: "Inspector CLI", "rmcp", Http;
    mcp_remote_in_front_of_rmcp_on_stdio: "mcp-remote", "rmcp", Stdio;
    mcp_remote_in_front_of_go_over_http: "mcp-remote", "Go", Http;
    mcp_remote_in_front_of_typescript_1_over_http: "mcp-remote", "TypeScript 1.x", Http;
}

#[test]
fn typescript_1_over_http_sse_in_front_of_rmcp_on_stdio() {
    does_what_the_table_says("TypeScript 1.x", "rmcp", Transport::Stdio, Way::Sse);
}

#[test]
fn python_1_over_http_sse_in_front_of_go_over_http() {
    does_what_the_table_says("Python 1.x", "Go", Transport::Http, Way::Sse);
}

#[test]
fn the_table_names_every_client_and_every_server() {
    assert_eq!(super::table::of_the_documentation().len(), 2 * 11 * 7);
}
