//! What a server writes to stderr, for the log: redacted, without control characters, at most so many lines a second.
//! It never reaches the client.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Instant;

use bytes::{Buf as _, BytesMut};

use crate::secret::{Credential, Redactor};
use crate::telemetry::encode_for_log;

/// How much of the end is kept, to be told if the server fails, in bytes.
const KEPT_BYTES: usize = 16 * 1024;

/// How many lines of it.
const KEPT_LINES: usize = 20;

/// How many lines of one server are put into the log in a second.
const LINES_PER_SECOND: u32 = 100;

/// The longest line that is read, in bytes. A longer one is not told at all: where it is cut, a token could be cut too,
/// and half a token is not recognised. Of a line that has not ended, the end is left out if a token may begin there.
const MAX_LINE: usize = 64 * 1024;

/// How much is read at once.
const CHUNK: usize = 4 * 1024;

/// One server's stderr.
pub struct ErrorLog {
    buffer: BytesMut,
    /// Whether the rest of a line that was too long is being passed over.
    skipping: bool,
    kept: VecDeque<Box<[u8]>>,
    kept_bytes: usize,
    credential: Option<Credential>,
    redactor: OnceLock<Option<Redactor>>,
    second: Option<Instant>,
    lines: u32,
}

impl ErrorLog {
    /// An empty log, in which nothing must be seen that is secret of `credential`.
    #[must_use]
    pub fn new(credential: Option<Credential>) -> Self {
        Self {
            buffer: BytesMut::new(),
            skipping: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            credential,
            redactor: OnceLock::new(),
            second: None,
            lines: 0,
        }
    }

    /// Where to read into.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(CHUNK);
        }
        &mut self.buffer
    }

    /// Takes in what has been read.
    pub fn note(&mut self) {
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            if !std::mem::take(&mut self.skipping) {
                self.line(&line);
            }
        }
        if self.buffer.len() > MAX_LINE {
            self.buffer.clear();
            self.skipping = true;
        }
    }

    /// Puts the last lines into the log.
    pub fn explain(&self) {
        for line in self.last_lines() {
            tracing::warn!(%line, "server stderr before it failed");
        }
    }

    fn last_lines(&self) -> impl Iterator<Item = String> {
        // The rest of a line that was too long may begin within a token.
        let unfinished = if self.skipping { &[] } else { self.buffer.as_ref() };
        let unfinished = self.redactor().map_or(unfinished, |redactor| redactor.whole(unfinished));
        let lines = self.kept.iter().map(AsRef::as_ref).chain([unfinished]);
        lines.filter(|line| !line.is_empty()).map(|line| self.readable(line))
    }

    fn line(&mut self, line: &[u8]) {
        if tracing::enabled!(tracing::Level::DEBUG) && self.may_log() {
            tracing::debug!(line = %self.readable(line), "server stderr");
        }
        self.kept.push_back(line.into());
        self.kept_bytes += line.len();
        while self.kept.len() > KEPT_LINES || self.kept_bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.len();
        }
    }

    fn readable(&self, line: &[u8]) -> String {
        let text = String::from_utf8_lossy(line);
        let told = self.redactor().map_or_else(|| text.as_ref().into(), |redactor| redactor.redact(&text));
        encode_for_log(&told).into_owned()
    }

    /// Made when it is first needed: most servers write nothing.
    fn redactor(&self) -> Option<&Redactor> {
        self.redactor
            .get_or_init(|| self.credential.as_ref().map(|credential| Redactor::new(credential.secrets())))
            .as_ref()
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        if self.second.is_none_or(|second| now.duration_since(second).as_secs() >= 1) {
            self.second = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn told(log: &ErrorLog) -> Vec<String> {
        log.last_lines().collect()
    }

    fn log_of(token: &str) -> ErrorLog {
        ErrorLog::new(Some(Credential::token(Secret::new(token.into()))))
    }

    fn write(log: &mut ErrorLog, bytes: &[u8]) {
        log.space().extend_from_slice(bytes);
        log.note();
    }

    #[test]
    fn the_last_lines_are_told_without_the_token() {
        let mut log = log_of("s3cret-token-value");
        write(&mut log, b"one\nusing s3cret-tok");
        write(&mut log, b"en-value\x1b[31m\nlast");
        let lines = told(&log);
        assert_eq!((lines.len(), lines[0].as_str(), lines[2].as_str()), (3, "one", "last"));
        assert!(!lines[1].contains("s3cret") && !lines[1].contains('\x1b'), "{lines:?}");
    }

    #[test]
    fn nothing_of_a_token_is_told_at_whichever_byte_a_server_stops_writing() {
        let token = "s3cret-token-value";
        let line = format!("using {token} for this");
        for end in 0..=line.len() {
            let mut log = log_of(token);
            write(&mut log, &line.as_bytes()[..end]);
            let lines = told(&log).concat();
            assert!(!lines.contains("s3"), "{end}: {lines}");
            assert!(end < 6 || lines.starts_with("using "), "what is no token is told: {lines}");
        }
    }

    #[test]
    fn nothing_of_a_token_is_told_where_a_line_that_is_too_long_is_cut() {
        let token = "s3cret-token-value";
        for rest in 0..token.len() {
            let mut log = log_of(token);
            write(&mut log, &vec![b'x'; MAX_LINE]);
            write(&mut log, &token.as_bytes()[..rest]);
            write(&mut log, &token.as_bytes()[rest..]);
            assert_eq!(told(&log), [""; 0], "{rest}");
            write(&mut log, b"\nnext");
            assert_eq!(told(&log), ["next"]);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_lines_and_bytes() {
        let mut log = ErrorLog::new(None);
        for n in 0..1000 {
            write(&mut log, format!("{n} {}\n", "x".repeat(3000)).as_bytes());
        }
        assert!(log.kept_bytes <= KEPT_BYTES && log.kept.len() <= KEPT_LINES);
        assert!(told(&log).last().is_some_and(|line| line.starts_with("999")));
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_bounded_memory() {
        let mut log = ErrorLog::new(None);
        for _ in 0..1000 {
            write(&mut log, &[b'x'; 1024]);
        }
        assert!(log.buffer.len() <= MAX_LINE);
        write(&mut log, b"\nnext\n");
        assert_eq!(told(&log), ["next"]);
    }
}
