//! How a server is added to a person's application: links that open it, and what to paste. Each has the address of this
//! bridge, and nothing secret: where the bridge's own token goes, a name stands for it.

use serde_json::{Value, json};
use url::form_urlencoded;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::config::{Config, IdentityMethod, Server};

/// What to open, to type and to paste for one server.
pub(super) struct Clients {
    /// The server's address.
    pub address: String,
    /// Opens VS Code. Source: code.visualstudio.com, "MCP developer guide", URL handler.
    pub vscode: String,
    /// Opens Cursor. Source: docs.cursor.com, "MCP install links".
    pub cursor: String,
    /// A line for a terminal, for Claude Code.
    pub claude_code: String,
    /// What goes into `claude_desktop_config.json`.
    pub claude_desktop: String,
    /// Whether the application needs the user's token for the bridge.
    pub needs_token: bool,
}

impl Clients {
    pub(super) fn of(config: &Config, server: &Server) -> Self {
        let needs_token = config.identity.iter().any(|method| matches!(method, IdentityMethod::Bearer { .. }));
        let (name, address) = (server.name.as_str(), config.server_url(&server.name));
        Self {
            vscode: vscode(name, &address, needs_token),
            cursor: cursor(name, &address, needs_token),
            claude_code: claude_code(name, &address, needs_token),
            claude_desktop: claude_desktop(name, &address, needs_token),
            address,
            needs_token,
        }
    }
}

fn vscode(name: &str, address: &str, needs_token: bool) -> String {
    let mut entry = json!({ "name": name, "type": "http", "url": address });
    if needs_token {
        entry["headers"] = json!({ "Authorization": "Bearer ${input:token}" });
        let description = "Your token for the bridge";
        let input = json!({ "id": "token", "type": "promptString", "description": description, "password": true });
        entry["inputs"] = json!([input]);
    }
    format!("vscode:mcp/install?{}", escaped(&entry.to_string()))
}

fn cursor(name: &str, address: &str, needs_token: bool) -> String {
    let mut entry = json!({ "url": address });
    if needs_token {
        entry["headers"] = json!({ "Authorization": "Bearer ${env:TOLLBRIDGE_TOKEN}" });
    }
    let entry = escaped(&BASE64_STANDARD.encode(entry.to_string()));
    format!("cursor://anysphere.cursor-deeplink/mcp/install?name={name}&config={entry}")
}

fn claude_code(name: &str, address: &str, needs_token: bool) -> String {
    let header = if needs_token { r#" --header "Authorization: Bearer YOUR_TOKEN""# } else { "" };
    format!("claude mcp add --transport http {name} {address}{header}")
}

fn claude_desktop(name: &str, address: &str, needs_token: bool) -> String {
    let mut arguments = vec!["-y", "mcp-remote", address];
    if address.starts_with("http://") {
        arguments.push("--allow-http");
    }
    if needs_token {
        arguments.extend(["--header", "Authorization:${AUTH}"]);
    }
    let mut entry = json!({ "command": "npx", "args": arguments });
    if needs_token {
        entry["env"] = json!({ "AUTH": "Bearer YOUR_TOKEN" });
    }
    let document: Value = json!({ "mcpServers": { name: entry } });
    serde_json::to_string_pretty(&document).expect("text is JSON")
}

/// Text as it may stand in the query of any URL.
fn escaped(text: &str) -> String {
    // What was a plus is escaped by now.
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
