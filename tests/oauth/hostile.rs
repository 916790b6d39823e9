//! A service with an MCP server that says whatever a test has it say, and keeps what it is sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Bridge, Home};
use crate::visit::Person;
use crate::{PROOF, PUBLIC_URL};

/// The host of the service, which the operator lets through. All others of this machine are others.
pub(crate) const HOST: &str = "127.0.0.2";

/// How long it waits for what it is sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it says.
pub(crate) struct Script {
    /// Where it is.
    pub(crate) base: String,
    /// With what its server refuses who has no token.
    pub(crate) challenge: String,
    /// What it says of its server, of itself, and to who registers or asks for a token.
    pub(crate) resource: Value,
    pub(crate) metadata: Value,
    pub(crate) registration: Value,
    pub(crate) token: Value,
    /// What it says instead, by path: a status, more headers, a body.
    pub(crate) instead: BTreeMap<String, (u16, String, String)>,
}

impl Script {
    /// That of a service that means well.
    fn good(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            challenge: format!("Bearer resource_metadata=\"{base}{RESOURCE}\", scope=\"read\""),
            resource: json!({ "resource": format!("{base}/mcp"), "authorization_servers": [base] }),
            metadata: json!({
                "issuer": base, "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"), "registration_endpoint": format!("{base}/register"),
                "revocation_endpoint": format!("{base}/revoke"), "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
            }),
            registration: json!({ "client_id": "a-client" }),
            token: json!({ "access_token": "a-token", "token_type": "Bearer", "refresh_token": "another" }),
            instead: BTreeMap::new(),
        }
    }

    /// Has it say this at `path` instead.
    pub(crate) fn says(&mut self, path: &str, status: u16, body: impl Into<String>) {
        self.instead.insert(path.to_owned(), (status, String::new(), body.into()));
    }

    /// Has it send whoever comes to `path` elsewhere.
    pub(crate) fn sends_on(&mut self, path: &str, to: &str) {
        self.instead.insert(path.to_owned(), (307, format!("Location: {to}\r\n"), String::new()));
    }

    fn answer(&self, path: &str) -> (u16, String, String) {
        let said = |status, value: &Value| (status, "Content-Type: application/json\r\n".to_owned(), value.to_string());
        match path {
            path if self.instead.contains_key(path) => self.instead[path].clone(),
            "/mcp" => (401, format!("WWW-Authenticate: {}\r\n", self.challenge), String::new()),
            RESOURCE => said(200, &self.resource),
            METADATA => said(200, &self.metadata),
            "/register" => said(201, &self.registration),
            "/token" => said(200, &self.token),
            "/revoke" => said(200, &json!({})),
            _ => (404, String::new(), String::new()),
        }
    }
}

pub(crate) const RESOURCE: &str = "/.well-known/oauth-protected-resource/mcp";
pub(crate) const METADATA: &str = "/.well-known/oauth-authorization-server";

/// A service in this process. It ends with it.
pub(crate) struct Hostile {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    /// The requests, each as a line and what came with it.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hostile {
    fn start() -> Self {
        let listener = TcpListener::bind((HOST, 0)).expect("an address of this machine");
        let address = listener.local_addr().expect("it listens");
        let script = Arc::new(Mutex::new(Script::good(&format!("http://{address}"))));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (told, kept) = (Arc::clone(&script), Arc::clone(&asked));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (told, kept) = (Arc::clone(&told), Arc::clone(&kept));
                // Who hangs up in the middle hears nothing.
                thread::spawn(move || drop(serve(connection, &told, &kept)));
            }
        });
        Self { address, script, asked }
    }

    /// From now on it says this, and has been asked nothing.
    pub(crate) fn does(&self, change: impl FnOnce(&mut Script)) {
        let mut script = Script::good(&format!("http://{}", self.address));
        change(&mut script);
        *self.script.lock().expect("no thread panics") = script;
        self.asked.lock().expect("no thread panics").clear();
    }

    /// What it was asked since, that begins so.
    pub(crate) fn asked(&self, begins: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("no thread panics");
        asked.iter().filter(|request| request.starts_with(begins)).cloned().collect()
    }
}

fn serve(mut connection: TcpStream, script: &Mutex<Script>, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let value = line.to_ascii_lowercase();
        length = value.strip_prefix("content-length:").map_or(Ok(length), |value| value.trim().parse()).unwrap_or(0);
        request += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    request += &String::from_utf8_lossy(&body);
    asked.lock().expect("no thread panics").push(request);
    let (status, headers, text) = script.lock().expect("no thread panics").answer(&path);
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    connection.write_all((head + &text).as_bytes())
}

/// A bridge whose server `guarded` is at a hostile service. Everybody is who a proxy says, so that there are many.
pub(crate) struct Siege {
    pub(crate) hostile: Hostile,
    pub(crate) bridge: Bridge,
    people: usize,
    _home: Home,
}

impl Siege {
    pub(crate) fn lay() -> Self {
        let (home, hostile) = (Home::new(), Hostile::start());
        let url = format!("http://{}/mcp", hostile.address);
        let oauth = json!({ "allowHosts": [HOST] });
        let bridge = home.serve_with(
            json!({
                "publicUrl": PUBLIC_URL,
                "allowedHosts": ["127.0.0.1"],
                "identity": [{
                    "kind": "trustedHeader", "header": "X-User", "trustedPeers": ["127.0.0.1"],
                    "secretHeader": "X-Proof", "secret": PROOF,
                }],
                "tokenStore": home.embedded(),
                "mcpServers": { "guarded": { "url": url, "oauth": oauth }, "other": { "url": url, "oauth": oauth } },
            }),
            &[("TOLLBRIDGE_LOG", "trace")],
        );
        Self { hostile, bridge, people: 0, _home: home }
    }

    /// Somebody who was never here.
    pub(crate) fn somebody(&mut self) -> Person {
        self.people += 1;
        Person::at(self.bridge.address()).named(&format!("user-{}", self.people))
    }
}
