//! A test's own processes, found by a marker in their arguments.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tollbridge::descendants::Process;

const SOON: Duration = Duration::from_mins(1);

/// The program of an example, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "run `cargo build --examples` first");
    program
}

/// The processes that have this test's marker as an argument; the next one says what each is.
pub(crate) struct Marked {
    marker: String,
    /// Process ids and when each began: the next one may have the same number.
    seen: Mutex<BTreeSet<(i32, u64)>>,
}

impl Marked {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let marker = format!("marker-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { marker, seen: Mutex::default() }
    }

    pub(crate) fn marker(&self) -> &str {
        &self.marker
    }

    /// Process ids and what each is, of all that are alive.
    pub(crate) fn alive(&self) -> Vec<(i32, String)> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let alive: Vec<_> = pids.filter_map(|pid| Some((pid, self.role(pid)?))).collect();
        let born = alive.iter().filter_map(|&(pid, _)| Some((pid, Process::read(Pid::from_raw(pid)?)?.born)));
        self.seen.lock().unwrap().extend(born);
        alive
    }

    fn role(&self, pid: i32) -> Option<String> {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some(line.split('\0').skip_while(|arg| *arg != self.marker).nth(1)?.to_owned())
    }

    /// Waits until exactly these are alive.
    pub(crate) fn wait_for(&self, roles: &[&str]) {
        let mut wanted: Vec<_> = roles.iter().map(ToString::to_string).collect();
        wanted.sort();
        wait_until(SOON, || {
            let mut roles: Vec<_> = self.alive().into_iter().map(|(_, role)| role).collect();
            roles.sort();
            (roles == wanted).then_some(()).ok_or(roles)
        });
    }

    /// Waits until none is alive, and no zombie is left of any that was seen.
    pub(crate) fn wait_until_gone(&self) {
        self.wait_for(&[]);
        wait_until(SOON, || {
            let seen = self.seen.lock().unwrap();
            let left: Vec<_> = seen
                .iter()
                .filter_map(|&(pid, born)| Process::read(Pid::from_raw(pid)?).filter(|process| process.born == born))
                .collect();
            // What fell to init is init's to reap.
            left.iter().all(|process| process.ended && process.parent == 1).then_some(()).ok_or(left)
        });
    }
}

/// Looks again and again until it holds.
pub(crate) fn wait_until<T, Seen: std::fmt::Debug>(limit: Duration, mut look: impl FnMut() -> Result<T, Seen>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        // A look that begins too late is the last one: time may pass between a look and the clock.
        let is_late = Instant::now() >= deadline;
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(!is_late, "still {seen:?} after {limit:?}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a process was given.
pub(crate) struct Seen {
    pub(crate) environment: BTreeSet<String>,
    pub(crate) files: BTreeSet<u32>,
    pub(crate) directory: PathBuf,
    pub(crate) group: u32,
    pub(crate) blocked: u64,
    pub(crate) ignored: u64,
    pub(crate) open_files: u64,
    pub(crate) core: u64,
}

impl Seen {
    pub(crate) fn of(pid: u32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap();
        let (status, limits, stat) = (read("status"), read("limits"), read("stat"));
        let line = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        // libc keeps 32 and 33 for itself, and ignores them in what it spawns.
        let signals = |name| u64::from_str_radix(line(&status, name).unwrap().trim(), 16).unwrap() & !(3 << 31);
        let soft = |name| line(&limits, name).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        let files = std::fs::read_dir(proc.join("fd")).unwrap();
        Self {
            environment: read("environ").split_terminator('\0').map(str::to_owned).collect(),
            files: files.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect(),
            directory: std::fs::read_link(proc.join("cwd")).unwrap(),
            group: stat.rsplit(')').next().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap(),
            blocked: signals("SigBlk:"),
            ignored: signals("SigIgn:"),
            open_files: soft("Max open files"),
            core: soft("Max core file size"),
        }
    }
}
