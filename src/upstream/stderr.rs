//! What a server writes to stderr, for the log: redacted, without control characters, at most so many lines a second.
//! It never reaches the client.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};

use crate::secret::{Redactor, Secret};
use crate::telemetry::encode_for_log;

/// How much of the end is kept, to be told if the server fails, in bytes.
const KEPT_BYTES: usize = 16 * 1024;

/// How many lines of it.
const KEPT_LINES: usize = 20;

/// How many lines of one server are put into the log in a second.
const LINES_PER_SECOND: u32 = 100;

/// The longest line that is read, in bytes. A longer one is not told at all: where it is cut, a token could be cut too,
/// and half a token is not recognised.
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
    token: Option<Arc<Secret>>,
    redactor: OnceLock<Option<Redactor>>,
    second: Option<Instant>,
    lines: u32,
}

impl ErrorLog {
    /// An empty log; `token` is what must not be seen in it.
    #[must_use]
    pub fn new(token: Option<Arc<Secret>>) -> Self {
        Self {
            buffer: BytesMut::new(),
            skipping: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            token,
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
        for line in self.kept.iter().map(AsRef::as_ref).chain([self.buffer.as_ref()]).filter(|line| !line.is_empty()) {
            tracing::warn!(line = %self.readable(line), "server stderr before it failed");
        }
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
        let redactor = self.redactor.get_or_init(|| self.token.as_deref().map(Redactor::new));
        let told = redactor.as_ref().map_or_else(|| text.as_ref().into(), |redactor| redactor.redact(&text));
        encode_for_log(&told).into_owned()
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

    fn kept(log: &ErrorLog) -> Vec<String> {
        log.kept.iter().map(|line| log.readable(line)).collect()
    }

    #[test]
    fn the_last_lines_are_kept_without_the_token() {
        let mut log = ErrorLog::new(Some(Arc::new(Secret::new("s3cret-token-value".into()))));
        log.space().extend_from_slice(b"one\nusing s3cret-tok");
        log.note();
        log.space().extend_from_slice(b"en-value\x1b[31m\nlast");
        log.note();
        let lines = kept(&log);
        assert_eq!(lines.len(), 2);
        assert!(!lines[1].contains("s3cret") && !lines[1].contains('\x1b'), "{lines:?}");
    }

    #[test]
    fn what_is_kept_is_bounded_in_lines_and_bytes() {
        let mut log = ErrorLog::new(None);
        for n in 0..1000 {
            log.space().extend_from_slice(format!("{n} {}\n", "x".repeat(3000)).as_bytes());
            log.note();
        }
        assert!(log.kept_bytes <= KEPT_BYTES && log.kept.len() <= KEPT_LINES);
        assert!(kept(&log).last().is_some_and(|line| line.starts_with("999")));
    }

    #[test]
    fn a_line_without_end_is_passed_over_in_bounded_memory() {
        let mut log = ErrorLog::new(None);
        for _ in 0..1000 {
            log.space().extend_from_slice(&[b'x'; 1024]);
            log.note();
        }
        assert!(log.buffer.len() <= MAX_LINE);
        log.space().extend_from_slice(b"\nnext\n");
        log.note();
        assert_eq!(kept(&log), ["next"]);
    }
}
