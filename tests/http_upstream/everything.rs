//! `@modelcontextprotocol/server-everything` over HTTP, in a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::{free_address, procs};

/// How long it may take to listen, and to say something.
const DEADLINE: Duration = Duration::from_mins(1);

/// How often a port that somebody else took first is replaced by another.
const ATTEMPTS: usize = 5;

/// Lets it say which path and headers each request has, without a change to it.
const TELLS: &str = "data:text/javascript,import { subscribe } from 'node:diagnostics_channel'; \
                     subscribe('http.server.request.start', \
                     ({ request }) => console.error('asked', request.url, JSON.stringify(request.headers)));";

/// A running server; stopped when dropped.
pub(super) struct Everything {
    process: Child,
    address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Everything {
    /// Starts it in a mode: `streamableHttp` or `sse`.
    pub(super) fn start(mode: &str) -> Self {
        (0..ATTEMPTS).find_map(|_| Self::try_start(mode)).expect("server-everything starts; ./scripts/test installs it")
    }

    fn try_start(mode: &str) -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools");
        let address = free_address();
        let mut process = Command::new(tools.join("node22"))
            .args(["--import", TELLS])
            .arg(tools.join("node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"))
            .arg(mode)
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/.tools/node22 is there; ./scripts/test installs it");
        let said = Arc::default();
        listen(process.stdout.take().expect("piped"), &said);
        listen(process.stderr.take().expect("piped"), &said);
        let server = Self { process, address, said };
        server.says(&format!("port {}", address.port())).then_some(server)
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whether it says this in time.
    pub(super) fn says(&self, text: &str) -> bool {
        procs::wait_for(DEADLINE, || self.said().contains(text).then_some(())).is_some()
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        self.said.lock().expect("no panic holds it").clone()
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listen(pipe: impl Read + Send + 'static, said: &Arc<Mutex<String>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            said.lock().expect("no panic holds it").push_str(&(line + "\n"));
        }
    });
}
