//! A `redis-server` of its own for a test: in a temporary directory, killed when the test is over.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::free_address;

/// A running server, on a unix socket and on a TCP port.
pub(crate) struct RedisServer {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server that keeps every write, with further `arguments`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut server = Self::stopped(arguments);
        server.resume();
        server
    }

    /// A server that is not running yet.
    pub(crate) fn stopped(arguments: &[&str]) -> Self {
        let port = free_address().port();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { directory: TempDir::new().unwrap(), port, arguments, child: None }
    }

    /// Starts the server again where it was, with what it kept.
    pub(crate) fn resume(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--unixsocket", "redis.sock"])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_mins(1);
        // One that wants a password is up as well.
        while self.raw::<()>(&["PING"]).is_err_and(|error| error.is_io_error() || error.code() == Some("LOADING")) {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the server without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// The URL of its unix socket.
    pub(crate) fn socket_url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
    }

    /// The URL of its TCP port.
    pub(crate) fn tcp_url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Asks the server past the store.
    pub(crate) fn raw<T: redis::FromRedisValue>(&self, command: &[impl redis::ToRedisArgs]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.socket_url())?.get_connection()?;
        let mut cmd = redis::Cmd::new();
        for argument in command {
            cmd.arg(argument);
        }
        cmd.query(&mut connection)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
