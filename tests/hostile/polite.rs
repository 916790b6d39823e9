//! What others notice: a steady stream of polite requests, each with its own right answer, and the operator's probe.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::support::Client;

/// The pause between two requests of the polite stream, and between two probes: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Requests of the stream at once: one that stands still gets no longer.
const AT_ONCE: usize = 20;
/// For how long the stream is measured while nothing else happens.
const QUIET: Duration = Duration::from_secs(3);
/// The longest that an answer of the polite stream may take beside all that, and how many may be later: a stream that
/// stands still has fifty a second.
pub(super) const POLITE: Duration = Duration::from_secs(2);
pub(super) const LATE: usize = 3;
/// How soon `/livez` answers. A bridge that is not optimized takes ten times as long for whatever it reads.
const ALIVE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
/// How much slower than the slowest of a quiet time something may be where that is more.
const SLOWER: u32 = 3;
/// Whether the bridge is optimized: else it takes ten times as long for what others send, and that shows.
const IS_RELEASED: bool = !cfg!(debug_assertions);
/// One probe in so many may be later: the machine does other things, too.
const LATER: usize = 100;
/// In how many attempts it must be so once: the machine does other things, too.
const ATTEMPTS: usize = 3;

/// A steady stream of requests, of which each has its own right answer. It is sent from a thread that waits for nothing
/// else.
pub(super) struct PoliteStream {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<Result<Duration, String>>>,
}

impl PoliteStream {
    /// Starts one of twins of this client of `tiny`.
    pub(super) fn start(template: &Client) -> Self {
        let ((stop, stopped), template) = (oneshot::channel(), template.twin());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a machine that runs servers").block_on(polite_calls(&template, stopped))
        });
        Self { stop, thread }
    }

    /// How long each answer took, the slowest last.
    pub(super) fn stop(self) -> Vec<Duration> {
        // One that has failed has ended before.
        let _ = self.stop.send(());
        let calls = self.thread.join().expect("every call ends");
        let (good, bad): (Vec<_>, Vec<_>) = calls.into_iter().partition(Result::is_ok);
        assert!(bad.is_empty(), "{} polite calls are not answered, {} are: {:?}", bad.len(), good.len(), bad[0]);
        let mut latencies: Vec<_> = good.into_iter().flatten().collect();
        latencies.sort_unstable();
        latencies
    }
}

/// One call after the other at a steady pace, whatever became of those before; how long each took.
async fn polite_calls(template: &Client, mut stopped: oneshot::Receiver<()>) -> Vec<Result<Duration, String>> {
    let (mut requests, mut ticks) = (JoinSet::new(), tokio::time::interval(PACE));
    let mut done = Vec::new();
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => break,
        }
        if requests.len() >= AT_ONCE {
            done.extend(requests.join_next().await.map(|call| call.expect("no call panics")));
        }
        let mut client = template.twin();
        requests.spawn(async move {
            let (began, text) = (Instant::now(), format!("polite {number}"));
            let answer = client.call("echo", json!({ "text": text })).await.map_err(|error| error.to_string())?;
            let is_right = answer.response().pointer("/result/content/0/text") == Some(&json!(text));
            if is_right { Ok(began.elapsed()) } else { Err(format!("HTTP {}: {}", answer.status, answer.response())) }
        });
    }
    done.extend(requests.join_all().await);
    done
}

/// The operator's probe of `/livez`, from a thread that waits for nothing else.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(admin: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut latencies = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let mut stream = TcpStream::connect(admin).expect("the admin listener takes connections");
                stream
                    .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    .expect("it reads");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("it answers");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                latencies.push(began.elapsed());
                std::thread::sleep(PACE.saturating_sub(began.elapsed()));
            }
            latencies.sort_unstable();
            latencies
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every probe is answered")
    }
}

/// What others noticed of something, each the slowest last.
pub(super) struct Noticed {
    calls: Vec<Duration>,
    probes: Vec<Duration>,
}

impl Noticed {
    /// What others notice while nothing happens.
    pub(super) async fn of_nothing(template: &Client, admin: SocketAddr) -> Self {
        let (quiet, ()) = Self::of(template, admin, tokio::time::sleep(QUIET)).await;
        quiet.say("quiet");
        quiet
    }

    /// What others notice of a deed, and what came of it.
    pub(super) async fn of<T>(template: &Client, admin: SocketAddr, deed: impl Future<Output = T>) -> (Self, T) {
        let (polite, probe) = (PoliteStream::start(template), Probe::start(admin));
        let done = deed.await;
        let probes = probe.stop();
        (Self { calls: polite.stop(), probes }, done)
    }

    /// Says it in one line.
    pub(super) fn say(&self, of: &str) {
        let three = |sorted: &[Duration]| [50, 99, 100].map(|percent| at(sorted, percent));
        let (calls, probes) = (three(&self.calls), three(&self.probes));
        println!("{of}: {} polite calls p50, p99, slowest {calls:?}; /livez {probes:?}", self.calls.len());
    }

    /// Does it beside the stream and the probe, which must notice little of it in one of a few attempts.
    pub(super) async fn little_of<T>(template: &Client, admin: SocketAddr, what: &str, deed: impl AsyncFn() -> T) -> T {
        let mut attempt = 1;
        loop {
            let quiet = Self::of_nothing(template, admin).await;
            let (noticed, done) = Self::of(template, admin, deed()).await;
            noticed.say(what);
            let Err(much) = noticed.was_little(&quiet) else { return done };
            assert!(attempt < ATTEMPTS, "{much}");
            println!("{much}: once more");
            attempt += 1;
        }
    }

    /// Says if the probe had to wait or the stream stood still, for longer than this machine lets them without any deed.
    pub(super) fn was_little(&self, quiet: &Self) -> Result<(), String> {
        let late = |latencies: &[Duration], quiet: &[Duration], limit: Duration| {
            let limit = limit.max(at(quiet, 99) * SLOWER);
            latencies.iter().filter(|latency| **latency > limit).count()
        };
        let late_probes = late(&self.probes, &quiet.probes, ALIVE);
        if late_probes > LATE.max(self.probes.len() / LATER) {
            return Err(format!("{late_probes} of {} probes are late", self.probes.len()));
        }
        let late_calls = late(&self.calls, &quiet.calls, POLITE);
        if late_calls > LATE {
            return Err(format!("the polite stream stood still: {late_calls} of {} calls", self.calls.len()));
        }
        let (beside, before) = (at(&self.calls, 99), at(&quiet.calls, 99));
        if IS_RELEASED && beside > before * SLOWER {
            return Err(format!("99 of 100 polite calls within {beside:?}, {before:?} when it is quiet"));
        }
        Ok(())
    }
}

pub(super) fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
