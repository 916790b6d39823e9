//! A proxy between a store and its Redis, which does to connections what networks and other proxies do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running proxy; everything of it ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    _tasks: JoinSet<()>,
}

struct Faults {
    /// Where new connections lead.
    port: AtomicU16,
    /// Connections up to this number stay open and silent.
    silent: watch::Sender<usize>,
    /// How many connections were made.
    connections: AtomicUsize,
    /// Whether the next answer comes once more, before the one after it.
    repeat: AtomicBool,
    /// How many answers a connection lives for.
    lives: AtomicUsize,
    /// The answer to be repeated.
    repeated: Mutex<Vec<u8>>,
}

impl Proxy {
    /// Leads to the Redis at this port of loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults {
            port: AtomicU16::new(port),
            silent: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            repeat: AtomicBool::new(false),
            lives: AtomicUsize::new(usize::MAX),
            repeated: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let shared = faults.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(shared.clone().lead(client));
            }
        });
        Self { address, faults, _tasks: tasks }
    }

    /// The URL of a Redis behind it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.faults.connections.load(Ordering::SeqCst)
    }

    /// From now on the connections there are stay open and silent; new ones work.
    pub(crate) fn silence(&self) {
        self.faults.silent.send_replace(self.connections());
    }

    /// From now on new connections lead to another port.
    pub(crate) fn lead_to(&self, port: u16) {
        self.faults.port.store(port, Ordering::SeqCst);
    }

    /// The next answer comes once more, before the one after it, and so on.
    pub(crate) fn repeat_an_answer(&self) {
        self.faults.repeat.store(true, Ordering::SeqCst);
    }

    /// Cuts each connection instead of giving an answer, once it has given so many.
    pub(crate) fn cut_after(&self, answers: usize) {
        self.faults.lives.store(answers, Ordering::SeqCst);
    }
}

impl Faults {
    async fn lead(self: Arc<Self>, client: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.port.load(Ordering::SeqCst))).await else { return };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let questions = async {
            // Ends with either side.
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        };
        let answers = async {
            let mut bytes = vec![0; 64 * 1024];
            for given in 0.. {
                let Ok(length @ 1..) = from_server.read(&mut bytes).await else { return };
                if given >= self.lives.load(Ordering::SeqCst) {
                    return;
                }
                if *self.silent.borrow() >= number {
                    std::future::pending::<()>().await;
                }
                let answer = self.alter(&bytes[..length]);
                if to_client.write_all(&answer).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = questions => {}
            () = answers => {}
        }
    }

    fn alter(&self, answer: &[u8]) -> Vec<u8> {
        let mut repeated = self.repeated.lock().unwrap();
        if self.repeat.swap(false, Ordering::SeqCst) {
            answer.clone_into(&mut repeated);
            return answer.to_vec();
        }
        [std::mem::take(&mut *repeated), answer.to_vec()].concat()
    }
}
