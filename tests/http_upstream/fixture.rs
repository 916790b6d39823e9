//! An HTTP server that does what it is told, byte for byte, for what no real server does: break off, hang, redirect,
//! refuse.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) message: Value,
    /// The number of the connection that it came over.
    pub(super) connection: usize,
}

impl Request {
    /// A header's value; the name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The method of its message.
    pub(super) fn asks(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }
}

/// What is done about a request, in order.
#[derive(Clone)]
pub(super) enum Act {
    /// Bytes are written.
    Write(Vec<u8>),
    /// Nothing is done until this is notified.
    Wait(Arc<Notify>),
    /// What waits for this goes on.
    Notify(Arc<Notify>),
    /// What comes out of here is written as it comes, until the client leaves.
    Follow(Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<u8>>>>),
    /// The connection ends.
    Close,
    /// The connection ends with RST.
    Reset,
}

/// Writes an answer with a body of a type.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<Act> {
    let body = body.as_ref();
    let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    vec![Act::Write([head.as_bytes(), b"\r\n", body].concat())]
}

/// Begins a stream of events, with the first bytes of it; it ends with the connection.
pub(super) fn events(first: impl AsRef<[u8]>) -> Vec<Act> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    vec![Act::Write([head, first.as_ref()].concat())]
}

/// What a well-behaved server of the legacy era says to anything but requests: opens, accepts and ends sessions.
pub(super) fn polite(request: &Request) -> Vec<Act> {
    match (request.method.as_str(), reply(request)) {
        ("DELETE", _) => answer(200, &[], ""),
        ("POST", None) => answer(202, &[], ""),
        ("POST", Some(reply)) => {
            let session = [("Content-Type", "application/json"), ("Mcp-Session-Id", "session-of-fixture")];
            answer(200, &session[..if request.asks() == "initialize" { 2 } else { 1 }], reply.to_string())
        }
        _ => answer(405, &[], ""),
    }
}

/// A server of 2024 at the URL of any GET, which says that messages go to `endpoint`. What they are answered goes to
/// the newest stream: the end of the one before may not have been seen yet.
pub(super) fn of_2024(endpoint: &str) -> impl Fn(&Request) -> Vec<Act> + Send + Sync + use<> {
    let first = format!("event: endpoint\ndata: {endpoint}\n\n");
    let newest = Mutex::new(None);
    move |request| match (request.method.as_str(), request.target.starts_with("/message")) {
        ("GET", false) => {
            let (sender, receiver) = mpsc::unbounded_channel();
            *newest.lock().expect("no panic holds it") = Some(sender);
            [events(&first), vec![Act::Follow(Arc::new(tokio::sync::Mutex::new(receiver))), Act::Close]].concat()
        }
        ("POST", true) => {
            if let (Some(reply), Some(stream)) = (reply(request), &*newest.lock().expect("no panic holds it")) {
                let _ = stream.send(format!("event: message\ndata: {reply}\n\n").into_bytes());
            }
            answer(202, &[("Content-Type", "text/plain")], "Accepted")
        }
        _ => answer(405, &[], ""),
    }
}

/// The answer to a request; `None` for what has no answer.
fn reply(request: &Request) -> Option<Value> {
    let id = &request.message["id"];
    let result = match request.asks() {
        _ if id.is_null() => return None,
        "" => return None,
        "initialize" => json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {}, "logging": {} },
            "serverInfo": { "name": "fixture", "version": "1" } }),
        _ => json!({ "content": [{ "type": "text", "text": "done" }], "tools": [] }),
    };
    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

type Behaviour = dyn Fn(&Request) -> Vec<Act> + Send + Sync;

/// A running server; it stops with the runtime of its test.
pub(super) struct Fixture {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    news: Arc<Notify>,
}

impl Fixture {
    /// Starts one that behaves so.
    pub(super) async fn start(behaviour: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let news = Arc::new(Notify::new());
        let (behaviour, requests): (Arc<Behaviour>, _) = (Arc::new(behaviour), Arc::clone(&seen));
        let signal = Arc::clone(&news);
        background(async move {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                // As servers do; else a small packet may be held back for 40 ms.
                let _ = stream.set_nodelay(true);
                let (behaviour, requests) = (Arc::clone(&behaviour), Arc::clone(&requests));
                let signal = Arc::clone(&signal);
                let see = move |request| {
                    requests.lock().expect("no panic holds it").push(request);
                    signal.notify_waiters();
                };
                background(async move { drop(serve(stream, number, &*behaviour, see).await) });
            }
        });
        Self { address, seen, news }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic holds it").clone()
    }

    /// The first request that was this: an HTTP method, or the method of a message.
    pub(super) async fn until(&self, what: &str) -> Request {
        self.until_again(what, 1).await
    }

    /// The request that was this for the `count`th time.
    pub(super) async fn until_again(&self, what: &str, count: usize) -> Request {
        let seen = async {
            loop {
                let news = self.news.notified();
                let asked = self.asked();
                let at = asked.iter().enumerate().filter(|(_, asked)| *asked == what).nth(count - 1);
                if let Some((at, _)) = at {
                    return self.seen()[at].clone();
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), seen).await;
        waited.unwrap_or_else(|_| panic!("{what} does not come {count} times: {:?}", self.asked()))
    }

    /// What every request so far was: its HTTP method, or that of its message.
    pub(super) fn asked(&self) -> Vec<String> {
        let what = |request: &Request| match (request.method.as_str(), request.asks()) {
            ("POST", "") => "answer".to_owned(),
            ("POST", method) | (method, _) => method.to_owned(),
        };
        self.seen().iter().map(what).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own server ends with the runtime of its test")]
pub(super) fn background(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn serve(
    stream: TcpStream,
    connection: usize,
    behaviour: &Behaviour,
    see: impl Fn(Request),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, connection).await? {
        see(request.clone());
        for act in behaviour(&request) {
            match act {
                Act::Write(bytes) => stream.get_mut().write_all(&bytes).await?,
                Act::Wait(signal) => signal.notified().await,
                Act::Notify(signal) => signal.notify_one(),
                Act::Follow(source) => follow(&mut stream, &source).await?,
                Act::Close => return Ok(()),
                Act::Reset => {
                    return socket2::SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
                }
            }
        }
    }
    Ok(())
}

async fn follow(
    stream: &mut BufReader<TcpStream>,
    source: &tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut source = source.lock().await;
    loop {
        tokio::select! {
            Some(bytes) = source.recv() => stream.get_mut().write_all(&bytes).await?,
            left = stream.fill_buf() => return left.map(|_| ()),
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(|line| line.split(' ')).into_iter().flatten().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    let message = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Request { method, target, headers, message, connection }))
}
