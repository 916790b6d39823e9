//! A test's own processes, found by a marker in their arguments.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tollbridge::descendants::Process;

const SOON: Duration = Duration::from_secs(10);

/// The program of an example, which `cargo test` builds beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "run `cargo build --examples` first");
    program
}

/// The processes that have this test's marker as their first argument.
pub struct Marked {
    marker: String,
    seen: Mutex<BTreeSet<i32>>,
}

impl Marked {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let marker = format!("marker-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { marker, seen: Mutex::default() }
    }

    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Process ids and what each is, of all that are alive.
    pub fn alive(&self) -> Vec<(i32, String)> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let alive: Vec<_> = pids.filter_map(|pid| Some((pid, self.role(pid)?))).collect();
        self.seen.lock().unwrap().extend(alive.iter().map(|(pid, _)| *pid));
        alive
    }

    fn role(&self, pid: i32) -> Option<String> {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let mut args = line.split('\0').skip(1);
        (args.next()? == self.marker).then(|| args.next().unwrap_or_default().to_owned())
    }

    /// Waits until exactly these are alive.
    pub fn wait_for(&self, roles: &[&str]) {
        let mut wanted: Vec<_> = roles.iter().map(ToString::to_string).collect();
        wanted.sort();
        wait_until(SOON, || {
            let mut roles: Vec<_> = self.alive().into_iter().map(|(_, role)| role).collect();
            roles.sort();
            (roles == wanted).then_some(()).ok_or(roles)
        });
    }

    /// Waits until none is alive, and no zombie is left of any that was seen.
    pub fn wait_until_gone(&self) {
        self.wait_for(&[]);
        wait_until(SOON, || {
            let seen = self.seen.lock().unwrap();
            let left: Vec<_> = seen.iter().filter_map(|&pid| Process::read(Pid::from_raw(pid)?)).collect();
            // What fell to init is init's to reap.
            left.iter().all(|process| process.ended && process.parent == 1).then_some(()).ok_or(left)
        });
    }
}

/// Looks again and again until it holds.
pub fn wait_until<T, Seen: std::fmt::Debug>(limit: Duration, mut look: impl FnMut() -> Result<T, Seen>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "still {seen:?} after {limit:?}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
