//! Lines out of a byte stream, bounded: a line is handed on without being copied, and none grows over its limit.

use bytes::{Buf as _, Bytes, BytesMut};

/// How much is read at once, at least.
const CHUNK: usize = 8 * 1024;

/// How much is read at once into a line that is already long.
const LARGE_CHUNK: usize = 256 * 1024;

/// Bytes that have been read and not yet handed on.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    limit: usize,
}

/// Text without the byte order mark that some programs begin what they write with. Source: RFC 8259, section 8.1: a
/// parser may ignore it.
#[must_use]
pub fn without_mark(mut text: Bytes) -> Bytes {
    if text.starts_with(b"\xef\xbb\xbf") {
        text.advance(3);
    }
    text
}

/// A line is longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTooLong;

impl Lines {
    /// Lines of at most `limit` bytes, line end not counted.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, limit }
    }

    /// Where to read into; never without room.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(if self.buffer.len() < LARGE_CHUNK { CHUNK } else { LARGE_CHUNK });
        }
        &mut self.buffer
    }

    /// The next whole line, without its line end (LF or CRLF) and without a byte order mark.
    ///
    /// # Errors
    /// As soon as a line is known to be over the limit, whole or not.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > self.limit { Err(LineTooLong) } else { Ok(None) };
        };
        let end = self.searched + at;
        if end > self.limit {
            return Err(LineTooLong);
        }
        let mut line = self.buffer.split_to(end + 1);
        self.searched = 0;
        line.truncate(end);
        if line.ends_with(b"\r") {
            line.truncate(end - 1);
        }
        Ok(Some(without_mark(line.freeze())))
    }

    /// What is left when the stream has ended: a last line without a line end.
    pub fn rest(&mut self) -> Option<Bytes> {
        self.searched = 0;
        (!self.buffer.is_empty()).then(|| without_mark(self.buffer.split().freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, bytes: &[u8]) {
        lines.space().extend_from_slice(bytes);
    }

    #[test]
    fn lines_are_found_across_reads_and_lose_only_their_ends() {
        let mut lines = Lines::new(100);
        feed(&mut lines, b"{\"a\"");
        assert_eq!(lines.next_line(), Ok(None));
        feed(&mut lines, b":1}\r\n\n{}\nrest");
        assert_eq!(lines.next_line(), Ok(Some(Bytes::from_static(b"{\"a\":1}"))));
        assert_eq!(lines.next_line(), Ok(Some(Bytes::new())));
        assert_eq!(lines.next_line(), Ok(Some(Bytes::from_static(b"{}"))));
        assert_eq!(lines.next_line(), Ok(None));
        assert_eq!(lines.rest(), Some(Bytes::from_static(b"rest")));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_any_line() {
        let mut lines = Lines::new(100);
        feed(&mut lines, b"\xef\xbb\xbf{}\n\xef\xbb\xbf\n\xef\xbb\xbf1\n\xef\xbb\xbflast");
        for expected in ["{}", "", "1"] {
            assert_eq!(lines.next_line(), Ok(Some(Bytes::from(expected))));
        }
        assert_eq!(lines.rest(), Some(Bytes::from_static(b"last")));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_it_ends() {
        let mut lines = Lines::new(4);
        feed(&mut lines, b"12345");
        assert_eq!(lines.next_line(), Err(LineTooLong));
        let mut lines = Lines::new(4);
        feed(&mut lines, b"1234\n12345\n");
        assert_eq!(lines.next_line(), Ok(Some(Bytes::from_static(b"1234"))));
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }
}
