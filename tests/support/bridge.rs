//! A running `tollbridge serve`, and its end.

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use serde_json::Value;

use super::home::{Home, TOLLBRIDGE};
use super::number;
use super::procs::{self, Process};

/// How long the program may take to serve, and to end.
const DEADLINE: Duration = Duration::from_mins(1);

/// How long a stop may take: less than running requests may go on by default, so that one that waits for them is seen.
const STOPPED: Duration = Duration::from_secs(20);

/// A running bridge. Dropping it stops it at once and fails the test if any descendant is left.
pub struct Bridge {
    started: Child,
    supervisor: u32,
    address: SocketAddr,
    log: Arc<Mutex<Vec<u8>>>,
    marker: String,
    own_home: Option<Home>,
}

impl Bridge {
    /// Starts a bridge that needs no key, in a directory of its own.
    pub fn start(config: Value) -> Self {
        let home = Home::without_key();
        let mut bridge = home.serve(config);
        bridge.own_home = Some(home);
        bridge
    }

    /// Starts a bridge with the configuration that `home` holds.
    pub fn start_in(home: &Home, environment: &[(&str, &str)]) -> Self {
        Self::start_with(home, environment, &[])
    }

    /// The same, with further arguments.
    pub fn start_with(home: &Home, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_as(home, Command::new(TOLLBRIDGE).envs(environment.iter().copied()), arguments)
    }

    /// Starts it as the child of another program, which runs what its last arguments say and ends as that does.
    pub fn start_under(home: &Home, launcher: &[&str], arguments: &[&str]) -> Self {
        let (program, launcher) = launcher.split_first().expect("a program");
        let mut bridge = Self::start_as(home, Command::new(program).args(launcher).arg(TOLLBRIDGE), arguments);
        bridge.supervisor = procs::children(bridge.started.id()).first().expect("the launcher's child").pid;
        bridge
    }

    /// The same, by a command to which the arguments of `serve` are added.
    pub fn start_as(home: &Home, command: &mut Command, arguments: &[&str]) -> Self {
        Self::start_logging_to(Stdio::piped(), home, command, arguments)
    }

    /// Starts a bridge with a stderr that has no room for another byte. Whoever reads what is answered makes room.
    pub fn start_unread(home: &Home) -> (Self, PipeReader) {
        let (reader, mut full) = std::io::pipe().expect("a pipe");
        fcntl_setfl(&full, OFlags::NONBLOCK).expect("a pipe of ours");
        while full.write(&[b'\n'; 4096]).is_ok() {}
        fcntl_setfl(&full, OFlags::empty()).expect("a pipe of ours");
        (Self::start_logging_to(full.into(), home, &mut Command::new(TOLLBRIDGE), &[]), reader)
    }

    fn start_logging_to(stderr: Stdio, home: &Home, command: &mut Command, arguments: &[&str]) -> Self {
        let mut started = command
            .args(["serve", "--config"])
            .arg(home.config())
            .args(arguments)
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("tollbridge starts");
        let log = Arc::default();
        if let Some(stderr) = started.stderr.take() {
            collect(stderr, Arc::clone(&log));
        }
        let mut stdout = BufReader::new(started.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("stdout is readable");
        let Some(address) = first.trim().strip_prefix("listening on http://").and_then(|a| a.parse().ok()) else {
            let _ = started.kill();
            let status = started.wait();
            let log = String::from_utf8_lossy(&log.lock().expect("no panic holds it")).into_owned();
            panic!("tollbridge does not listen: {first:?} {status:?}\n{log}");
        };
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { supervisor: started.id(), started, address, log, marker: home.marker().to_owned(), own_home: None }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a server's endpoint.
    pub fn url(&self, server: &str) -> String {
        format!("http://{}/{server}/mcp", self.address)
    }

    /// The supervisor.
    pub fn supervisor(&self) -> u32 {
        self.supervisor
    }

    /// The process that serves: the supervisor's child, started as `--worker`.
    pub fn worker(&self) -> u32 {
        let worker = procs::children(self.supervisor())
            .into_iter()
            .find(|child| procs::command_line(child.pid).iter().any(|argument| argument == "--worker"));
        worker.map_or(self.supervisor(), |worker| worker.pid)
    }

    /// Every process below the supervisor except the worker, zombies included.
    pub fn children(&self) -> Vec<Process> {
        let worker = self.worker();
        procs::descendants(self.supervisor()).into_iter().filter(|process| process.pid != worker).collect()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().expect("no panic holds it")).into_owned()
    }

    /// The same once it has this in it, or does not get it.
    pub fn log_with(&self, said: &str) -> String {
        procs::wait_for(DEADLINE, || self.log().contains(said).then_some(()));
        self.log()
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        procs::kill(self.supervisor(), signal);
    }

    /// Stops it as an operator does, and answers how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(STOPPED).expect("tollbridge ends after SIGTERM")
    }

    /// Where servers have spares by `TOLLBRIDGE_TEST_SPARES`, stops it: those that wait are no request's, and only then gone.
    pub fn end_spares(&mut self) {
        if number("TOLLBRIDGE_TEST_SPARES", 0) > 0 {
            self.stop();
        }
    }

    /// Stops it without any grace: a second signal, sent again and again since signals that wait are one.
    pub fn stop_at_once(&mut self) -> Option<ExitStatus> {
        procs::wait_for(DEADLINE, || {
            let ended = self.started.try_wait().expect("our child");
            if ended.is_none() {
                self.signal(Signal::TERM);
            }
            ended
        })
    }

    /// Waits until it has ended by whatever cause.
    pub fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        procs::wait_for(within, || self.started.try_wait().expect("our child"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let below = procs::descendants(self.supervisor());
        if self.stop_at_once().is_none() {
            let _ = self.started.kill();
            let _ = self.started.wait();
        }
        let left = || {
            let known = below.iter().filter(|process| process.is_alive()).map(|process| process.pid);
            known.chain(procs::with_marker(&self.marker)).collect::<Vec<_>>()
        };
        procs::wait_for(DEADLINE, || left().is_empty().then_some(()));
        let left: Vec<_> = left().into_iter().map(|pid| (pid, procs::command_line(pid))).collect();
        for (pid, _) in &left {
            procs::kill(*pid, Signal::KILL);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "processes outlive the bridge: {left:?}");
        }
    }
}

fn collect(mut stderr: ChildStderr, log: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut chunk = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stderr.read(&mut chunk) {
            log.lock().expect("no panic holds it").extend_from_slice(&chunk[..count]);
        }
    });
}
