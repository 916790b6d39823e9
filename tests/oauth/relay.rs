//! Stands between the bridge and a service, and does to its renewals what networks and other people's machines do. Everything
//! else passes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::procs;

/// How long it waits for what a test will do.
const PATIENCE: Duration = Duration::from_mins(2);

/// Nobody panics who holds a lock.
const WHOLE: &str = "no panic holds it";

/// What happens to a renewal.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It arrives so much later.
    Late(Duration),
    /// It does not arrive; this is answered, as the head of an answer without a body.
    Answered(String),
    /// The connection ends before the service has heard of it.
    CutBefore,
    /// The connection ends when the service has done what it was asked.
    CutAfter,
    /// This in the service's answer is written otherwise.
    Rewritten(&'static str, &'static str),
}

/// The next renewal, which the service has carried out, and whose answer waits.
pub(crate) struct Held {
    arrived: Receiver<()>,
    release: Sender<()>,
}

impl Held {
    /// Until the service has carried it out.
    pub(crate) async fn wait(&self) {
        procs::eventually(PATIENCE, || self.arrived.try_recv().ok()).await.expect("a renewal");
    }

    /// The answer goes on.
    pub(crate) fn release(&self) {
        let _ = self.release.send(());
    }
}

#[derive(Default)]
struct Shared {
    service: Mutex<Option<SocketAddr>>,
    /// What happens to the next renewals, one after the other.
    next: Mutex<VecDeque<Fault>>,
    /// What happens to every other.
    always: Mutex<Option<Fault>>,
    held: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// Renewals that have come, each as it was sent.
    came: Mutex<Vec<Vec<u8>>>,
    /// What the service was asked, and what it answered.
    passed: Mutex<Vec<Passed>>,
}

/// A request that the service has answered, and its answer.
#[derive(Clone)]
pub(crate) struct Passed {
    pub(crate) request: String,
    pub(crate) answer: String,
}

/// A running relay. What it has begun it ends by itself.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, shared) = (listener.local_addr().expect("bound"), Arc::<Shared>::default());
        let leading = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&leading);
                std::thread::spawn(move || shared.lead(client));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn lead_to(&self, service: SocketAddr) {
        *self.shared.service.lock().expect(WHOLE) = Some(service);
    }

    /// What happens to the renewal after those that something will happen to already.
    pub(crate) fn next(&self, fault: Fault) {
        self.shared.next.lock().expect(WHOLE).push_back(fault);
    }

    /// What happens to every renewal from now on.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        *self.shared.always.lock().expect(WHOLE) = fault;
    }

    /// Holds the answer of the next renewal.
    pub(crate) fn hold(&self) -> Held {
        let ((tell, arrived), (release, released)) = (channel(), channel());
        *self.shared.held.lock().expect(WHOLE) = Some((tell, released));
        Held { arrived, release }
    }

    /// What the service was asked and has answered whose first line begins so.
    pub(crate) fn passed(&self, begins: &str) -> Vec<Passed> {
        let passed = self.shared.passed.lock().expect(WHOLE);
        passed.iter().filter(|passed| passed.request.starts_with(begins)).cloned().collect()
    }

    /// The access token that the service gave last.
    pub(crate) fn newest(&self) -> Option<String> {
        let passed = self.shared.passed.lock().expect(WHOLE);
        let mut given = passed.iter().rev().filter(|passed| passed.request.starts_with("POST /token "));
        given.find_map(|given| given.answered("access_token"))
    }

    /// How many renewals have come.
    pub(crate) fn came(&self) -> usize {
        self.shared.came.lock().expect(WHOLE).len()
    }
}

impl Shared {
    /// One request of a connection, which then ends.
    fn lead(&self, mut client: TcpStream) -> Option<()> {
        let request = message(&client)?;
        let text = String::from_utf8_lossy(&request);
        let is_renewal = text.starts_with("POST /token ") && text.contains("grant_type=refresh_token");
        if !is_renewal {
            return client.write_all(&self.ask(&request)?).ok();
        }
        let (fault, held) = {
            let mut came = self.came.lock().expect(WHOLE);
            came.push(request.clone());
            let fault = self.next.lock().expect(WHOLE).pop_front().or_else(|| self.always.lock().expect(WHOLE).clone());
            (fault, self.held.lock().expect(WHOLE).take())
        };
        let mut answer = match &fault {
            Some(Fault::CutBefore) => return None,
            Some(Fault::Answered(first)) => {
                let answer = format!("HTTP/1.1 {first}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return client.write_all(answer.as_bytes()).ok();
            }
            Some(Fault::Late(by)) => {
                std::thread::sleep(*by);
                self.ask(&request)?
            }
            Some(Fault::CutAfter | Fault::Rewritten(..)) | None => self.ask(&request)?,
        };
        if let Some((tell, released)) = held {
            let _ = tell.send(());
            let _ = released.recv_timeout(PATIENCE);
        }
        match fault {
            Some(Fault::CutAfter) => return None,
            Some(Fault::Rewritten(from, to)) => answer = rewritten(&answer, from, to),
            _ => {}
        }
        client.write_all(&answer).ok()
    }

    /// What the service answers.
    fn ask(&self, request: &[u8]) -> Option<Vec<u8>> {
        let service = (*self.service.lock().expect(WHOLE))?;
        let mut service = TcpStream::connect(service).ok()?;
        let line = request.iter().position(|&byte| byte == b'\n')? + 1;
        service.write_all(&[&request[..line], b"Connection: close\r\n", &request[line..]].concat()).ok()?;
        let mut answer = Vec::new();
        service.read_to_end(&mut answer).ok()?;
        let [request, said] = [request, &answer].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.passed.lock().expect(WHOLE).push(Passed { request, answer: said });
        Some(answer)
    }
}

/// A head, and a body of the length that it says.
fn message(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let (mut bytes, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
        // There is one request of a connection.
        if !name.eq_ignore_ascii_case("connection") {
            bytes.extend(line.as_bytes());
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let head = bytes.len();
    bytes.resize(head + length, 0);
    reader.read_exact(&mut bytes[head..]).ok()?;
    Some(bytes)
}

fn rewritten(answer: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let body = body.replace(from, to);
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

impl Passed {
    /// What the answer has under this name, if it is JSON that does.
    pub(crate) fn answered(&self, name: &str) -> Option<String> {
        let (_, body) = self.answer.split_once("\r\n\r\n")?;
        let body: serde_json::Value = serde_json::from_str(body).ok()?;
        Some(body[name].as_str()?.to_owned())
    }
}
