//! Stands between a node and Redis, and stops at a command that a test names, or shuts altogether: so that a node can be
//! stopped or killed at that very point.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Redis, procs};

/// How long it waits for what a test will do.
const PATIENCE: Duration = Duration::from_mins(2);

/// Nobody panics who holds a lock.
const WHOLE: &str = "no panic holds it";

/// Where to stop: at a command that holds all of this, after so many others that do, before Redis has carried it out or
/// when it has. A command that an older Redis does not know, and that is sent otherwise then, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) holds: &'static [&'static str],
    pub(crate) passes: usize,
    pub(crate) is_done: bool,
}

/// A point that will be reached.
pub(crate) struct Stop {
    reached: Receiver<()>,
    release: Sender<()>,
}

impl Stop {
    /// Until it is reached.
    pub(crate) async fn wait(&self) {
        procs::eventually(PATIENCE, || self.reached.try_recv().ok()).await.expect("the point is reached");
    }

    /// Everything goes on.
    pub(crate) fn release(&self) {
        let _ = self.release.send(());
    }
}

struct Armed {
    point: Point,
    reached: Sender<()>,
    released: Receiver<()>,
}

/// What a script begins with that Redis knows since version 7.
const FLAGS: &str = "#!lua";

#[derive(Default)]
struct Shared {
    is_old: AtomicBool,
    armed: Mutex<Option<Armed>>,
    open: Mutex<Vec<TcpStream>>,
    is_shut: AtomicBool,
    turned_away: AtomicUsize,
}

/// A running gate. What it has begun it ends by itself.
pub(crate) struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Gate {
    pub(crate) fn to(redis: &Redis) -> Self {
        let said = redis.ask(&["EVAL", "#!lua\nreturn 1", "0"]);
        let redis = redis.address();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, shared) = (listener.local_addr().expect("bound"), Arc::<Shared>::default());
        shared.is_old.store(said.trim() != "1", Ordering::SeqCst);
        let leading = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if leading.is_shut.load(Ordering::SeqCst) {
                    leading.turned_away.fetch_add(1, Ordering::SeqCst);
                } else {
                    leading.lead(client, redis);
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Stops at this point, once.
    pub(crate) fn stop_at(&self, point: Point) -> Stop {
        let ((tell, reached), (release, released)) = (channel(), channel());
        *self.shared.armed.lock().expect(WHOLE) = Some(Armed { point, reached: tell, released });
        Stop { reached, release }
    }

    /// Cuts what is open, and lets nobody through.
    pub(crate) fn shut(&self) {
        self.shared.is_shut.store(true, Ordering::SeqCst);
        for open in self.shared.open.lock().expect(WHOLE).drain(..) {
            let _ = open.shutdown(Shutdown::Both);
        }
    }

    /// Lets everybody through again.
    pub(crate) fn open(&self) {
        self.shared.is_shut.store(false, Ordering::SeqCst);
    }

    /// How many connections found it shut.
    pub(crate) fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn lead(self: &Arc<Self>, client: TcpStream, redis: SocketAddr) {
        let Ok(redis) = TcpStream::connect(redis) else { return };
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        self.open.lock().expect(WHOLE).extend([clone(&client), clone(&redis)]);
        // What Redis answers next is held, if it is.
        let holds = Arc::new(Mutex::new(None));
        let (asks, answers) = ((clone(&client), clone(&redis)), (redis, client));
        let (shared, held) = (Arc::clone(self), Arc::clone(&holds));
        std::thread::spawn(move || {
            pass(asks, |asked| {
                let Some(armed) = shared.reached(asked) else { return };
                if armed.point.is_done {
                    *held.lock().expect(WHOLE) = Some(armed);
                } else {
                    wait(&armed);
                }
            });
        });
        std::thread::spawn(move || {
            pass(answers, |_| {
                let armed = holds.lock().expect(WHOLE).take();
                armed.iter().for_each(wait);
            });
        });
    }

    /// The point, if this command is where to stop.
    fn reached(&self, asked: &[u8]) -> Option<Armed> {
        let mut armed = self.armed.lock().expect(WHOLE);
        let point = &mut armed.as_mut()?.point;
        let has = |part: &&str| asked.windows(part.len()).any(|bytes| bytes == part.as_bytes());
        if !point.holds.iter().all(has) || self.is_old.load(Ordering::SeqCst) && has(&FLAGS) {
            return None;
        }
        if point.passes > 0 {
            point.passes -= 1;
            return None;
        }
        armed.take()
    }
}

fn wait(armed: &Armed) {
    let _ = armed.reached.send(());
    let _ = armed.released.recv_timeout(PATIENCE);
}

fn pass((mut from, mut to): (TcpStream, TcpStream), mut before: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        before(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
