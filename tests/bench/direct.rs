//! The yardstick: a fresh server per call without anything in between.
//!
//! `Command` without `pre_exec` and with an absolute path is `posix_spawn` (vfork); one blocking thread per call in
//! flight. Nothing is done that the call does not need: stderr is inherited, the environment is empty.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::figures::now;

const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}
"#;
const INITIALIZED: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";

pub(crate) struct Direct {
    program: PathBuf,
}

/// A server that has been started for one call.
struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Direct {
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned() }
    }

    /// Spawn, handshake, call, EOF, reap.
    pub(crate) fn call(&self, text: &str) -> Result<(), String> {
        let params = format!(r#"{{"name":"echo","arguments":{{"text":"{text}"}}}}"#);
        let mut server = self.open(&params, 1 << 10)?;
        let expected = format!(r#""text":"{text}""#);
        let answer = server.line()?;
        if !answer.windows(expected.len()).any(|window| window == expected.as_bytes()) {
            return Err(format!("a wrong answer: {}", String::from_utf8_lossy(answer)));
        }
        server.close()
    }

    /// The length of a large result.
    pub(crate) fn large(&self, bytes: usize) -> Result<usize, String> {
        let mut server = self.open(&format!(r#"{{"name":"big","arguments":{{"bytes":{bytes}}}}}"#), 1 << 16)?;
        let length = server.line()?.len();
        server.close()?;
        Ok(length)
    }

    /// From each progress notification's write to its read.
    pub(crate) fn progress(&self, steps: usize) -> Result<Vec<Duration>, String> {
        let params = format!(
            r#"{{"name":"progress","arguments":{{"steps":{steps},"bytes":1}},"_meta":{{"progressToken":"p"}}}}"#
        );
        let mut server = self.open(&params, 1 << 10)?;
        let mut latencies = Vec::new();
        while let Some(latency) = latency(server.line()?) {
            latencies.push(latency);
        }
        server.close()?;
        if latencies.len() == steps { Ok(latencies) } else { Err("progress is missing".to_owned()) }
    }

    fn open(&self, params: &str, buffer: usize) -> Result<Server, String> {
        let mut command = Command::new(&self.program);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        let stdout = BufReader::with_capacity(buffer, stdout);
        let mut server = Server { child, stdin, stdout, line: Vec::new() };
        server.write(INITIALIZE)?;
        server.line()?;
        let call =
            format!("{INITIALIZED}{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}\n");
        server.write(call.as_bytes())?;
        Ok(server)
    }
}

impl Server {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stdin.write_all(bytes).map_err(|error| format!("a server's stdin: {error}"))
    }

    fn line(&mut self) -> Result<&[u8], String> {
        self.line.clear();
        match self.stdout.read_until(b'\n', &mut self.line) {
            Ok(1..) => Ok(&self.line),
            Ok(0) => Err("a server left early".to_owned()),
            Err(error) => Err(format!("a server's stdout: {error}")),
        }
    }

    fn close(mut self) -> Result<(), String> {
        drop(self.stdin);
        let rest = self.stdout.read_to_end(&mut self.line).map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if rest == 0 && status.success() { Ok(()) } else { Err(format!("a server ended with {status}")) }
    }
}

/// How long ago a progress notification says it was written, if it is one.
pub(crate) fn latency(message: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(message).ok()?;
    let (_, written) = text.split_once(r#""message":""#)?;
    let nanoseconds: u128 = written.split('"').next()?.parse().ok()?;
    Some(Duration::from_nanos(u64::try_from(now().saturating_sub(nanoseconds)).unwrap_or(u64::MAX)))
}
