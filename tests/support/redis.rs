//! A redis-server of one's own: ephemeral port, temporary directory, gone when dropped.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::procs;

/// How long a redis-server may take to answer.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a port that somebody else took first is replaced by another.
const ATTEMPTS: usize = 5;

/// A running redis-server.
pub struct Redis {
    server: Child,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments, as `--name value`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("tollbridge-redis-").tempdir().expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        for _ in 0..ATTEMPTS {
            let port = free_address().port();
            let mut server = spawn(port, &directory, &arguments);
            let answers = procs::wait_for(DEADLINE, || match server.try_wait() {
                Ok(Some(_)) | Err(_) => Some(false),
                Ok(None) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(true),
            });
            if answers == Some(true) {
                return Self { server, port, arguments, directory };
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        panic!("redis-server does not start; is it installed?");
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Stops it in its tracks: connections stay, answers do not come.
    pub fn freeze(&self) {
        procs::kill(self.pid(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        procs::kill(self.pid(), Signal::CONT);
    }

    /// Ends it as a crash does.
    pub fn crash(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again on the same port, with what its arguments have it keep.
    pub fn restart(&mut self) {
        self.crash();
        self.server = spawn(self.port, &self.directory, &self.arguments);
        let answers = procs::wait_for(DEADLINE, || TcpStream::connect(self.address()).ok());
        assert!(answers.is_some(), "redis-server does not come back");
    }

    /// Its keys: those without an expiry, and those with one.
    pub fn keys(&self) -> (Vec<String>, Vec<String>) {
        let all = self.ask(&["--scan"]);
        all.lines().map(str::to_owned).partition(|key| self.ask(&["TTL", key]).trim() == "-1")
    }

    /// What it answers to a command.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        String::from_utf8(output.expect("redis-cli is installed").stdout).expect("text")
    }

    /// Everything it stores, as the bytes of its own dump.
    pub fn stored_bytes(&self) -> Vec<u8> {
        let saved = Command::new("redis-cli").args(["-p", &self.port.to_string(), "SAVE"]).output();
        assert!(saved.is_ok_and(|output| output.status.success()), "redis-cli SAVE");
        std::fs::read(self.directory.path().join("dump.rdb")).expect("what it saved")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.crash();
    }
}

fn spawn(port: u16, directory: &TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .args(["--rdbcompression", "no"])
        .arg("--dir")
        .arg(directory.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// An address on loopback that nobody listens on. It is below the ports that the kernel hands out by itself, and every
/// call answers another one, so nobody takes it before it is used.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000 + 10_000)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("below 30000"))))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}
