//! MCP clients of both eras over [`super::http`].

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Bridge;
use super::http::{Connection, Reply};

/// The newest legacy revision.
pub const LEGACY: &str = "2025-11-25";
/// The modern revision.
pub const MODERN: &str = "2026-07-28";

/// How a client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Era {
    /// Stateless: version, client and capabilities in every request.
    Modern,
    /// A session that `initialize` opened; `None` before that, or for a client without one.
    Legacy(Option<String>),
}

/// An MCP client of one server, with a connection that it keeps while it can.
pub struct Client {
    address: SocketAddr,
    server: String,
    bearer: Option<String>,
    pub era: Era,
    /// What a modern client says that it can be asked.
    pub capabilities: Value,
    /// What a legacy client takes for the version.
    version: String,
    connection: Option<Connection>,
    next_id: u64,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Every message, in order, as the bytes that came.
    pub raw: Vec<Vec<u8>>,
}

impl Answer {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every message, parsed.
    pub fn messages(&self) -> Vec<Value> {
        self.raw.iter().map(|raw| serde_json::from_slice(raw).expect("a message is JSON")).collect()
    }

    /// The last message: the response.
    pub fn response(&self) -> Value {
        self.messages().pop().unwrap_or_else(|| panic!("no message in {self:?}"))
    }

    /// The text of a tool's result.
    pub fn text(&self) -> String {
        let response = self.response();
        let text = response.pointer("/result/content/0/text").and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("HTTP {}, no text in {response}", self.status)).to_owned()
    }

    /// The code of an error.
    pub fn error_code(&self) -> Option<i64> {
        self.response().pointer("/error/code").and_then(Value::as_i64)
    }
}

impl Client {
    /// A modern client.
    pub fn modern(bridge: &Bridge, server: &str, bearer: Option<&str>) -> Self {
        Self::new(bridge.address(), server, bearer, Era::Modern)
    }

    /// A legacy client that has no session.
    pub fn without_session(bridge: &Bridge, server: &str, bearer: Option<&str>) -> Self {
        Self::new(bridge.address(), server, bearer, Era::Legacy(None))
    }

    /// A legacy client that has done the handshake.
    pub async fn legacy(bridge: &Bridge, server: &str, bearer: Option<&str>) -> Self {
        let mut client = Self::without_session(bridge, server, bearer);
        let answer = client.initialize(LEGACY, json!({})).await.expect("initialize is answered");
        assert_eq!(answer.status, 200, "{answer:?}");
        client
    }

    /// A client at an address.
    pub fn new(address: SocketAddr, server: &str, bearer: Option<&str>, era: Era) -> Self {
        let (server, bearer) = (server.to_owned(), bearer.map(str::to_owned));
        let version = LEGACY.to_owned();
        Self { address, server, bearer, era, capabilities: json!({}), version, connection: None, next_id: 0 }
    }

    /// Where it sends its requests.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another client of the same session, with a connection of its own.
    pub fn twin(&self) -> Self {
        self.on(self.address)
    }

    /// Another connection of this client, which counts the ids of both: a request on it has the id that is next.
    pub fn fork(&mut self) -> Self {
        let fork = Self { next_id: self.next_id, ..self.twin() };
        self.next_id += 1;
        fork
    }

    /// The same client at another address, with a connection of its own.
    pub fn on(&self, address: SocketAddr) -> Self {
        let twin = Self::new(address, &self.server, self.bearer.as_deref(), self.era.clone());
        Self { capabilities: self.capabilities.clone(), version: self.version.clone(), ..twin }
    }

    /// Sends a notification or an answer; what it is answered with is a status.
    pub async fn tell(&mut self, message: &Value) -> io::Result<u16> {
        Ok(self.exchange(message.to_string().as_bytes()).await?.status)
    }

    /// The legacy handshake: `initialize`, take the session, `notifications/initialized`.
    pub async fn initialize(&mut self, version: &str, capabilities: Value) -> io::Result<Answer> {
        let params = json!({ "protocolVersion": version, "capabilities": capabilities,
            "clientInfo": { "name": "tollbridge-tests", "version": "1" } });
        let answer = self.request("initialize", params).await?;
        self.era = Era::Legacy(answer.header("mcp-session-id").map(str::to_owned));
        version.clone_into(&mut self.version);
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.exchange(initialized.to_string().as_bytes()).await?;
        Ok(answer)
    }

    /// Calls a tool.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> io::Result<Answer> {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Calls a tool and asks for progress, with the request's id as the token.
    pub async fn call_with_progress(&mut self, tool: &str, arguments: Value) -> io::Result<Answer> {
        let token = self.next_id + 1;
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": token } });
        self.request("tools/call", params).await
    }

    /// Sends a request and reads the whole answer.
    pub async fn request(&mut self, method: &str, params: Value) -> io::Result<Answer> {
        let message = self.message(method, params);
        self.exchange(message.as_bytes()).await
    }

    /// Posts a message as it is and reads the whole answer; headers are made from it as a client does.
    pub async fn exchange(&mut self, message: &[u8]) -> io::Result<Answer> {
        self.exchange_as(message, message).await
    }

    /// As [`Client::exchange`], with the headers of another message.
    pub async fn exchange_as(&mut self, message: &[u8], headers_of: &[u8]) -> io::Result<Answer> {
        let mut connection = self.ready().await?;
        let (path, headers) = (self.path(), self.headers(headers_of));
        let mut reply = connection.send("POST", &path, &headers, message).await?;
        let raw = reply.messages().await?;
        let close = reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let answer = Answer { status: reply.status, headers: reply.headers, raw };
        self.connection = (!close).then_some(connection);
        Ok(answer)
    }

    /// Posts a request on a connection of its own and hands the connection over, to read from it or to leave.
    pub async fn post(&mut self, method: &str, params: Value) -> io::Result<Connection> {
        let message = self.message(method, params);
        let mut connection = Connection::open(self.address).await?;
        connection.request("POST", &self.path(), &self.headers(message.as_bytes()), message.as_bytes()).await?;
        Ok(connection)
    }

    /// As [`Client::post`], and reads the answer's head; `connection` has to be kept beside it.
    pub async fn start<'a>(
        &mut self,
        connection: &'a mut Connection,
        method: &str,
        params: Value,
    ) -> io::Result<Reply<'a>> {
        let message = self.message(method, params);
        connection.send("POST", &self.path(), &self.headers(message.as_bytes()), message.as_bytes()).await
    }

    /// A request with the next id, and `_meta` as the era wants it.
    pub fn message(&mut self, method: &str, mut params: Value) -> String {
        self.next_id += 1;
        if self.era == Era::Modern {
            let meta = params.as_object_mut().expect("params are an object").entry("_meta").or_insert(json!({}));
            meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "tollbridge-tests", "version": "1" });
            meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }).to_string()
    }

    /// The endpoint's path.
    pub fn path(&self) -> String {
        format!("/{}/mcp", self.server)
    }

    /// The headers of a POST of `message`, without `Host` and `Content-Length`.
    pub fn headers(&self, message: &[u8]) -> Vec<(String, String)> {
        let mut headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
        ];
        if let Some(bearer) = &self.bearer {
            headers.push(("Authorization", format!("Bearer {bearer}")));
        }
        let view: Value = serde_json::from_slice(message).unwrap_or_default();
        match &self.era {
            Era::Legacy(Some(session)) => {
                headers.push(("Mcp-Session-Id", session.clone()));
                // The header is of 2025-06-18.
                if self.version.as_str() >= "2025-06-18" {
                    headers.push(("MCP-Protocol-Version", self.version.clone()));
                }
            }
            Era::Legacy(None) => {}
            Era::Modern => {
                headers.push(("MCP-Protocol-Version", MODERN.to_owned()));
                headers.push(("Mcp-Method", view["method"].as_str().unwrap_or_default().to_owned()));
                let name = ["name", "uri", "taskId"].into_iter().find_map(|key| view["params"][key].as_str());
                headers.extend(name.map(|name| ("Mcp-Name", name.to_owned())));
            }
        }
        headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The kept connection if it is still good, or a new one.
    async fn ready(&mut self) -> io::Result<Connection> {
        match self.connection.take() {
            Some(connection) if !closed(&connection) => Ok(connection),
            _ => Connection::open(self.address).await,
        }
    }
}

/// Whether the other side has ended a connection that nothing is expected on.
fn closed(connection: &Connection) -> bool {
    !matches!(connection.socket().try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
