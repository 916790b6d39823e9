//! A small HTTP/1.1 client that changes nothing: requests are the bytes one gives it, bodies and events the bytes that
//! came. For what a polite client does not do as well: leave in the middle, stop reading, pipeline, send nonsense.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long a single read may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// One connection, used for one exchange after the other.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// An answer's head; its body is still on the connection.
pub struct Reply<'a> {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    connection: &'a mut Connection,
    framing: Framing,
    events: Events,
}

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    /// Bytes left of this chunk.
    Chunked(usize),
    UntilClose,
    Done,
}

/// A server-sent event; `data` is what a WHATWG parser makes of its data lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub data: Vec<u8>,
    pub kind: Option<String>,
    pub id: Option<String>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The socket itself, to half-close, reset or starve it.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Ends the connection with RST.
    pub fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))
    }

    /// Sends a request with `Host` and `Content-Length` added, and reads the answer's head.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<Reply<'_>> {
        self.request(method, path, headers, body).await?;
        self.reply().await
    }

    /// Sends a request and reads nothing. Who refuses it by its head may close before all of it is written, and says why.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<()> {
        let host = self.socket().peer_addr()?;
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        let _ = write!(bytes, "Content-Length: {}\r\n\r\n", body.len());
        match self.write(&[bytes.as_bytes(), body].concat()).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Reads the next answer's head.
    pub async fn reply(&mut self) -> io::Result<Reply<'_>> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| invalid(&first))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let framing = match (value("transfer-encoding"), value("content-length")) {
            (Some("chunked"), _) => Framing::Chunked(0),
            (_, Some(length)) => Framing::Length(length.parse().map_err(|_| invalid(length))?),
            _ if matches!(status, 202 | 204 | 304) => Framing::Done,
            _ => Framing::UntilClose,
        };
        Ok(Reply { status, headers, connection: self, framing, events: Events::default() })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        patient(self.stream.read_until(b'\n', &mut line)).await?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_| invalid("a head that is no text"))
    }

    async fn some(&mut self, at_most: usize) -> io::Result<Vec<u8>> {
        let available = patient(self.stream.fill_buf()).await?;
        let piece = available[..available.len().min(at_most)].to_vec();
        self.stream.consume(piece.len());
        Ok(piece)
    }
}

impl Reply<'_> {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether the body is a stream of events.
    pub fn is_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The next piece of the body as it came; `None` at its clean end. An end that is not clean is an error.
    pub async fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let piece = match self.framing {
            Framing::Done | Framing::Length(0) => return Ok(None),
            Framing::UntilClose => self.connection.some(usize::MAX).await?,
            Framing::Length(left) => {
                let piece = self.connection.some(left).await?;
                self.framing = Framing::Length(left - piece.len());
                piece
            }
            Framing::Chunked(mut left) => {
                if left == 0 {
                    let size = self.connection.line().await?;
                    left = usize::from_str_radix(&size, 16).map_err(|_| invalid(&size))?;
                }
                if left == 0 {
                    self.connection.line().await?;
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                let piece = self.connection.some(left).await?;
                left -= piece.len();
                if left == 0 && !piece.is_empty() {
                    self.connection.line().await?;
                }
                self.framing = Framing::Chunked(left);
                piece
            }
        };
        match (piece.is_empty(), self.framing) {
            (false, _) => Ok(Some(piece)),
            (true, Framing::UntilClose) => Ok(None),
            (true, _) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The rest of the body.
    pub async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next event; comments are counted and passed over. `None` at the clean end of the body. An event that does
    /// not come is an error, however many comments do.
    pub async fn event(&mut self) -> io::Result<Option<Event>> {
        let next = async {
            loop {
                if let Some(event) = self.events.pop() {
                    return Ok(Some(event));
                }
                match self.piece().await? {
                    Some(piece) => self.events.push(&piece),
                    None => return Ok(None),
                }
            }
        };
        tokio::time::timeout(2 * PATIENCE, next).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// How many comments have come so far.
    pub fn comments(&self) -> usize {
        self.events.comments
    }

    /// Every message of the answer as the bytes that came: the events' data, or the body.
    pub async fn messages(&mut self) -> io::Result<Vec<Vec<u8>>> {
        if !self.is_stream() {
            let body = self.body().await?;
            return Ok(if body.is_empty() { Vec::new() } else { vec![body] });
        }
        let mut messages = Vec::new();
        while let Some(event) = self.event().await? {
            messages.push(event.data);
        }
        Ok(messages)
    }
}

/// A parser of event streams as WHATWG has it: LF, CR and CRLF end a line, data lines are joined by LF.
#[derive(Debug, Default)]
pub struct Events {
    pending: Vec<u8>,
    searched: usize,
    event: Event,
    has_data: bool,
    ready: std::collections::VecDeque<Event>,
    comments: usize,
}

impl Events {
    /// Takes more bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(offset) = memchr::memchr2(b'\n', b'\r', &self.pending[self.searched..]) {
            let end = self.searched + offset;
            if self.pending[end] == b'\r' && end + 1 == self.pending.len() {
                break; // A line feed may follow.
            }
            let crlf = self.pending[end] == b'\r' && self.pending[end + 1] == b'\n';
            let line = self.pending[start..end].to_vec();
            self.line(&line);
            start = end + if crlf { 2 } else { 1 };
            self.searched = start;
        }
        self.pending.drain(..start);
        self.searched = self.pending.len() - usize::from(self.pending.last() == Some(&b'\r'));
    }

    /// The next whole event.
    pub fn pop(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// How many comments have come.
    pub fn comments(&self) -> usize {
        self.comments
    }

    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"" => self.comments += 1,
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.has_data = true;
                self.event.data.extend_from_slice(value);
            }
            b"event" => self.event.kind = Some(String::from_utf8_lossy(value).into_owned()),
            b"id" => self.event.id = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
}

async fn patient<T>(read: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
