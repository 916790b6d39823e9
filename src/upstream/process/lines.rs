//! Lines out of a byte stream, bounded: a line is handed on without being copied, and none grows over its limit.

use bytes::buf::Limit;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::memory::{Full, Held, Share};

/// How much is read at once, at least.
const CHUNK: usize = 8 * 1024;

/// How much is read at once at most: as much as there is of the line, so that a long one takes few reads.
const LARGE_CHUNK: usize = 256 * 1024;

/// Bytes that have been read and not yet handed on.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line end.
    searched: usize,
    limit: usize,
    /// What has been read, and what is read next.
    held: Held,
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
    /// Lines of at most `limit` bytes, line end not counted. What is read is a part of `share`.
    #[must_use]
    pub fn new(limit: usize, share: &Share) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, limit, held: share.empty() }
    }

    /// Takes memory for the next read. The line that was handed on last counts until then.
    ///
    /// # Errors
    /// Says where there is none.
    pub fn make_room(&mut self) -> Result<(), Full> {
        let chunk = self.buffer.len().clamp(CHUNK, LARGE_CHUNK);
        let wanted = self.buffer.len() + chunk;
        if self.held.bytes() > wanted + LARGE_CHUNK {
            self.held.shrink_to(wanted);
        }
        self.held.grow(wanted.saturating_sub(self.held.bytes()))?;
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(chunk);
        }
        Ok(())
    }

    /// Where to read into, once room has been made.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        let room = self.held.bytes().saturating_sub(self.buffer.len());
        (&mut self.buffer).limit(room)
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
    use crate::memory::Memory;
    use crate::metrics::Gauge;
    use crate::user::UserId;

    fn lines(limit: usize) -> Lines {
        let memory = Memory::new(Some(1 << 30), 1 << 20, Gauge::default());
        Lines::new(limit, &memory.share(&UserId::local("alice").unwrap(), 1 << 20))
    }

    fn feed(lines: &mut Lines, bytes: &[u8]) {
        lines.make_room().unwrap();
        lines.space().put_slice(bytes);
    }

    #[test]
    fn a_long_line_is_counted_before_it_is_read_and_until_the_next_is() {
        let mut lines = lines(1 << 20);
        let mut read = 0;
        while lines.make_room().is_ok() {
            let space = lines.space().remaining_mut().min(LARGE_CHUNK);
            lines.space().put_bytes(b'x', space);
            read += space;
        }
        assert!((1 << 19..=1 << 20).contains(&read), "{read} of 1 MiB");
        lines.buffer.truncate(read - 1);
        lines.buffer.put_u8(b'\n');
        assert_eq!(lines.next_line().unwrap().unwrap().len(), read - 1);
        assert!(lines.held.bytes() >= read);
        lines.make_room().unwrap();
        assert_eq!(lines.held.bytes(), CHUNK);
    }

    #[test]
    fn a_line_is_read_in_the_fewer_steps_the_longer_it_is() {
        let (mut lines, mut reads) = (lines(1 << 20), 0);
        while lines.buffer.len() < 100 << 10 {
            lines.make_room().unwrap();
            let space = lines.space().remaining_mut();
            lines.space().put_bytes(b'x', space);
            reads += 1;
        }
        assert!(reads <= 5, "{reads} reads of 100 KiB");
    }

    #[test]
    fn lines_are_found_across_reads_and_lose_only_their_ends() {
        let mut lines = lines(100);
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
        let mut lines = lines(100);
        feed(&mut lines, b"\xef\xbb\xbf{}\n\xef\xbb\xbf\n\xef\xbb\xbf1\n\xef\xbb\xbflast");
        for expected in ["{}", "", "1"] {
            assert_eq!(lines.next_line(), Ok(Some(Bytes::from(expected))));
        }
        assert_eq!(lines.rest(), Some(Bytes::from_static(b"last")));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_it_ends() {
        let mut long = lines(4);
        feed(&mut long, b"12345");
        assert_eq!(long.next_line(), Err(LineTooLong));
        let mut lines = lines(4);
        feed(&mut lines, b"1234\n12345\n");
        assert_eq!(lines.next_line(), Ok(Some(Bytes::from_static(b"1234"))));
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }
}
