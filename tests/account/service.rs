//! A service elsewhere, which has its own mind about tokens. It speaks as much HTTP as a trial needs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What it answers to a request for a path with an `Authorization`: a status, headers and a body; `None`: nothing, ever.
type Mind = dyn Fn(&str, &str) -> Option<(u16, String, String)> + Send + Sync;

/// A running service; it stops with the runtime of its test.
pub(crate) struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    /// Starts one.
    pub(crate) async fn start(
        mind: impl Fn(&str, &str) -> Option<(u16, String, String)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (mind, seen): (Arc<Mind>, _) = (Arc::new(mind), Arc::clone(&asked));
        background(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mind, seen) = (Arc::clone(&mind), Arc::clone(&seen));
                background(async move { drop(serve(stream, &*mind, &seen).await) });
            }
        });
        Self { address, asked }
    }

    /// One that says the same to everybody.
    pub(crate) async fn that_says(status: u16, body: &str) -> Self {
        let body = body.to_owned();
        Self::start(move |_, _| Some((status, String::new(), body.clone()))).await
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The path and the `Authorization` of every request so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().expect("no panic holds it").clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own server ends with the runtime of its test")]
fn background(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn serve(stream: TcpStream, mind: &Mind, seen: &Mutex<Vec<(String, String)>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        let mut pairs = lines.iter().filter_map(|line| line.split_once(": "));
        pairs.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let authorization = header("authorization").unwrap_or_default();
    seen.lock().expect("no panic holds it").push((path.clone(), authorization.clone()));
    let Some((status, headers, body)) = mind(&path, &authorization) else {
        // Until the other end has had enough.
        return stream.read_u8().await.map(drop);
    };
    let head =
        format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await
}
