//! A blocking MCP client on one keep-alive connection, no heavier than it must be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::direct::latency;
use crate::setting::Setting;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}"#;

/// How long one read may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    head: String,
    session: Option<String>,
    line: Vec<u8>,
    body: Vec<u8>,
}

/// An answer's head, as far as it matters here.
struct Head {
    status: u16,
    length: Option<usize>,
    session: Option<String>,
}

impl Client {
    pub(crate) fn modern(setting: &Setting) -> Result<Self, String> {
        Self::connect(setting, "tiny").map_err(|error| format!("cannot connect: {error}"))
    }

    /// A client of the server whose token a service gave.
    pub(crate) fn signed_in(setting: &Setting) -> Result<Self, String> {
        Self::connect(setting, "signed-in").map_err(|error| format!("cannot connect: {error}"))
    }

    /// A client of the server in a container.
    pub(crate) fn of_image(setting: &Setting) -> Result<Self, String> {
        Self::connect(setting, "image").map_err(|error| format!("cannot connect: {error}"))
    }

    /// A client with a session.
    pub(crate) fn legacy(setting: &Setting) -> Result<Self, String> {
        let mut client = Self::modern(setting)?;
        client.session = Some(String::new());
        let head = client.exchange(INITIALIZE, "", |_| {})?;
        client.session = head.session;
        if client.session.is_none() {
            return Err("initialize brought no session".to_owned());
        }
        client.exchange(INITIALIZED, "", |_| {})?;
        Ok(client)
    }

    fn connect(setting: &Setting, server: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(setting.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "POST /{server}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n",
            setting.address, setting.bearer
        );
        let stream = BufReader::with_capacity(1 << 16, stream);
        Ok(Self { stream, head, session: None, line: Vec::new(), body: Vec::new() })
    }

    /// One call, checked.
    pub(crate) fn call(&mut self, text: &str) -> Result<(), String> {
        self.tool("echo", &format!(r#"{{"text":"{text}"}}"#), false, |_| {})?;
        let expected = format!(r#""text":"{text}""#);
        if self.body.windows(expected.len()).any(|window| window == expected.as_bytes()) {
            return Ok(());
        }
        Err(format!("a wrong answer: {}", String::from_utf8_lossy(&self.body)))
    }

    /// How long a call with these arguments takes to be refused, for a header that does not fit: once it has been read.
    pub(crate) fn refused(&mut self, arguments: &str) -> Result<Duration, String> {
        let message = self.message("echo", arguments, "");
        let start = Instant::now();
        let head = self.post(&message, "other", |_| {}).map_err(|error| error.to_string())?;
        let took = start.elapsed();
        if head.status == 400 { Ok(took) } else { Err(format!("HTTP {} instead of 400", head.status)) }
    }

    /// A call with these arguments.
    pub(crate) fn call_with(&mut self, arguments: &str) -> Result<(), String> {
        self.tool("echo", arguments, false, |_| {})
    }

    /// The length of a large answer; with `stream` it comes as an event after a progress event.
    pub(crate) fn large(&mut self, bytes: usize, stream: bool) -> Result<usize, String> {
        if stream {
            self.tool("progress", &format!(r#"{{"steps":1,"bytes":{bytes}}}"#), true, |_| {})?;
        } else {
            self.tool("big", &format!(r#"{{"bytes":{bytes}}}"#), false, |_| {})?;
        }
        if stream != self.body.starts_with(b"data: ") {
            let start = String::from_utf8_lossy(&self.body[..self.body.len().min(80)]).into_owned();
            return Err(format!("the other form of answer: {start}"));
        }
        if self.body.len() < bytes { Err("a short answer".to_owned()) } else { Ok(self.body.len()) }
    }

    /// From each progress notification's write by the server to its read here.
    pub(crate) fn progress(&mut self, steps: usize) -> Result<Vec<Duration>, String> {
        let mut latencies = Vec::new();
        self.tool("progress", &format!(r#"{{"steps":{steps},"bytes":1}}"#), true, |piece| {
            latencies.extend(latency(piece));
        })?;
        if latencies.len() == steps { Ok(latencies) } else { Err("progress is missing, or came in lumps".to_owned()) }
    }

    fn tool(&mut self, name: &str, arguments: &str, progress: bool, seen: impl FnMut(&[u8])) -> Result<(), String> {
        let message = self.message(name, arguments, if progress { r#""progressToken":"p""# } else { "" });
        self.exchange(&message, name, seen).map(|_| ())
    }

    fn message(&self, name: &str, arguments: &str, token: &str) -> String {
        let meta = match (&self.session, token) {
            (None, "") => format!(r#","_meta":{{{META}}}"#),
            (None, _) => format!(r#","_meta":{{{token},{META}}}"#),
            (Some(_), "") => String::new(),
            (Some(_), _) => format!(r#","_meta":{{{token}}}"#),
        };
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}{meta}}}}}"#
        )
    }

    /// Posts a message and reads the whole answer into `body`; `seen` gets each piece as it comes.
    fn exchange(&mut self, message: &str, name: &str, seen: impl FnMut(&[u8])) -> Result<Head, String> {
        let head = self.post(message, name, seen).map_err(|error| format!("the connection to the bridge: {error}"))?;
        if head.status == 200 || head.status == 202 {
            return Ok(head);
        }
        Err(format!("HTTP {}: {}", head.status, String::from_utf8_lossy(&self.body)))
    }

    fn post(&mut self, message: &str, name: &str, mut seen: impl FnMut(&[u8])) -> std::io::Result<Head> {
        let era = match &self.session {
            None => format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {name}\r\n"),
            Some(session) if session.is_empty() => String::new(),
            Some(session) => format!("MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {session}\r\n"),
        };
        let request = format!("{}{era}Content-Length: {}\r\n\r\n{message}", self.head, message.len());
        self.stream.get_mut().write_all(request.as_bytes())?;
        let head = self.head()?;
        self.body.clear();
        match head.length.or((head.status == 202).then_some(0)) {
            Some(length) => self.take(length, &mut seen)?,
            None => loop {
                let size = usize::from_str_radix(self.line()?, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
                self.take(size, &mut seen)?;
                self.line()?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(head)
    }

    fn head(&mut self) -> std::io::Result<Head> {
        let status = self.line()?.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut head = Head { status, length: None, session: None };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("mcp-session-id") {
                head.session = Some(value.to_owned());
            }
        }
    }

    fn line(&mut self) -> std::io::Result<&str> {
        self.line.clear();
        if self.stream.read_until(b'\n', &mut self.line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = std::str::from_utf8(&self.line).map_err(|_| std::io::ErrorKind::InvalidData)?;
        Ok(line.trim_end())
    }

    fn take(&mut self, length: usize, seen: &mut impl FnMut(&[u8])) -> std::io::Result<()> {
        let start = self.body.len();
        self.body.resize(start + length, 0);
        self.stream.read_exact(&mut self.body[start..])?;
        seen(&self.body[start..]);
        Ok(())
    }
}
