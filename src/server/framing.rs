//! HTTP/1.1 requests, delimited in the only way in which every reader delimits them (RFC 9112, sections 2.2, 6 and 7.1).
//!
//! hyper is as lenient as the RFC allows: a line may end without CR, and of `Transfer-Encoding` and `Content-Length` the
//! first counts, also where the client wrote both. A proxy on the way may have read such bytes as another request, that of
//! another user. In their place hyper gets what no reader takes, which it answers with 400, and then the end of the
//! connection.

use memchr::memchr;
use tokio::io::ReadBuf;

use super::MAX_HEAD;

/// What is no part of a request wherever it stands, and the end of a head, for which hyper waits before it looks.
const SPOILT: &[u8] = b"\0\r\n\r\n";

/// The longest line that is kept, in bytes. hyper refuses a shorter head.
const MAX_LINE: usize = 2 * MAX_HEAD;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4); what follows has a framing of its own.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Follows the requests of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    at: At,
    /// What has come of a line that has not ended.
    line: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum At {
    /// The first line of a connection.
    Start,
    /// A request line.
    Request,
    /// A field of a head, or its end.
    Field(Length),
    /// This many bytes of a body.
    Body(u64),
    /// The size of a chunk.
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The end of a chunk.
    ChunkEnd,
    /// A trailer field, or the end of a chunked body.
    Trailer,
    /// Not HTTP/1.
    Http2,
    /// Nothing that counts, in the place of which this is still to be read.
    Refused(&'static [u8]),
}

/// How a head delimits its body.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// Not at all: there is none.
    Unsaid,
    Bytes(u64),
    Chunked,
}

/// Two readers could read it differently.
struct Ambiguous;

impl Framing {
    /// A connection that begins.
    pub(super) fn new() -> Self {
        Self { at: At::Start, line: Vec::new() }
    }

    /// Follows what has been read into a buffer behind its first `before` bytes, and takes out of it what two readers
    /// could read differently, with all that comes after it.
    pub(super) fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let mut followed = before;
        while followed < buf.filled().len() {
            if let Ok(more) = self.advance(&buf.filled()[followed..]) {
                followed += more;
            } else {
                self.at = At::Refused(SPOILT);
                buf.set_filled(followed);
                self.refuse(buf);
            }
        }
    }

    /// Whether nothing counts any more; then the buffer gets what there is to read instead, and at last nothing.
    pub(super) fn refuse(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let At::Refused(rest) = &mut self.at else { return false };
        let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        *rest = later;
        true
    }

    /// The next step through bytes of which there are some; says how many it took.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Ambiguous> {
        let content = |left: u64| {
            let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            (taken, left - taken as u64)
        };
        match self.at {
            At::Http2 | At::Refused(_) => Ok(bytes.len()),
            At::Body(left) => {
                let (taken, left) = content(left);
                self.at = At::body(left);
                Ok(taken)
            }
            At::Chunk(left) => {
                let (taken, left) = content(left);
                self.at = if left == 0 { At::ChunkEnd } else { At::Chunk(left) };
                Ok(taken)
            }
            _ => self.line(bytes),
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<usize, Ambiguous> {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            return if self.line.len() > MAX_LINE { Err(Ambiguous) } else { Ok(bytes.len()) };
        };
        let mut line = &bytes[..=end];
        let mut whole = std::mem::take(&mut self.line);
        if !whole.is_empty() {
            whole.extend_from_slice(line);
            line = &whole;
        }
        self.at = self.at.after(line.strip_suffix(b"\r\n").ok_or(Ambiguous)?)?;
        Ok(end + 1)
    }
}

impl At {
    fn body(left: u64) -> Self {
        if left == 0 { Self::Request } else { Self::Body(left) }
    }

    /// What follows this line.
    fn after(self, line: &[u8]) -> Result<Self, Ambiguous> {
        Ok(match (self, line.is_empty()) {
            (Self::Start, false) if line == PREFACE => Self::Http2,
            (Self::Start | Self::Request | Self::Field(Length::Unsaid) | Self::Trailer, true) => Self::Request,
            (Self::Start | Self::Request, false) => Self::Field(Length::Unsaid),
            (Self::Field(Length::Bytes(bytes)), true) => Self::body(bytes),
            (Self::Field(Length::Chunked) | Self::ChunkEnd, true) => Self::ChunkSize,
            (Self::Field(length), false) => Self::Field(length.with(line)?),
            (Self::ChunkSize, _) => match chunk_size(line)? {
                0 => Self::Trailer,
                size => Self::Chunk(size),
            },
            (Self::Trailer, false) => Self::Trailer,
            (Self::ChunkEnd, false) | (Self::Body(_) | Self::Chunk(_) | Self::Http2 | Self::Refused(_), _) => {
                return Err(Ambiguous);
            }
        })
    }
}

impl Length {
    /// The length that a head has with this field, too. One that is no field is refused by hyper.
    fn with(self, field: &[u8]) -> Result<Self, Ambiguous> {
        let Some(colon) = memchr(b':', field) else { return Ok(self) };
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        let said = if name.eq_ignore_ascii_case(b"content-length") {
            Self::Bytes(number(value, 10)?)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Ambiguous);
            }
            Self::Chunked
        } else {
            return Ok(self);
        };
        if matches!(self, Self::Unsaid) { Ok(said) } else { Err(Ambiguous) }
    }
}

/// The size that a line says, whatever extension follows it.
fn chunk_size(line: &[u8]) -> Result<u64, Ambiguous> {
    let end = memchr(b';', line).unwrap_or(line.len());
    number(line[..end].trim_ascii_end(), 16)
}

/// Digits, and nothing but digits.
fn number(digits: &[u8], radix: u32) -> Result<u64, Ambiguous> {
    let text = str::from_utf8(digits).ok().filter(|text| text.chars().all(|c| c.is_digit(radix)));
    text.and_then(|text| u64::from_str_radix(text, radix).ok()).ok_or(Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper reads where bytes come in pieces of this size.
    fn followed(bytes: &str, size: usize) -> Vec<u8> {
        let (mut framing, mut read) = (Framing::new(), Vec::new());
        for piece in bytes.as_bytes().chunks(size).chain([b"".as_slice(); 10]) {
            let mut room = vec![0; size];
            let mut buf = ReadBuf::new(&mut room);
            if !framing.refuse(&mut buf) {
                buf.put_slice(piece);
                framing.follow(&mut buf, 0);
            }
            read.extend_from_slice(buf.filled());
        }
        read
    }

    fn request(fields: &str, body: &str) -> String {
        format!("POST /a/mcp HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
    }

    #[test]
    fn requests_that_all_read_alike_pass_whole_one_after_the_other() {
        let plain = [
            request("", ""),
            request("Content-Length: 5\r\n", "a\nb\rc"),
            request("content-LENGTH:\t 5 \r\nX-Content-Length: 7\r\n", "\0\0\0\0\0"),
            request(
                "Transfer-Encoding: Chunked\r\n",
                "5\r\n\n\n\r\n\n\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
            ),
            format!("\r\n\r\n{}", request("", "")),
        ];
        let mut all = plain.concat();
        all.push_str(&plain.concat());
        for size in 1..=all.len() {
            assert_eq!(followed(&all, size), all.as_bytes(), "pieces of {size}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_read_by_none_wherever_it_stands() {
        let bad = [
            request("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            request("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            request("Content-Length: 5\r\nContent-Length: 5\r\n", "12345"),
            request("Content-Length: +5\r\n", "12345"),
            request("Content-Length: 5, 5\r\n", "12345"),
            request("Content-Length:\r\n", ""),
            request("Content-Length: 99999999999999999999\r\n", "12345"),
            request("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            request("Transfer-Encoding: identity\r\n", ""),
            request("X: a\nY: b\r\n", ""),
            request("X: a\r\n", "").replace("\r\n\r\n", "\r\n\n"),
            request("", "").replacen("\r\n", "\n", 1),
            request("Transfer-Encoding: chunked\r\n", "5\n12345\r\n0\r\n\r\n"),
            request("Transfer-Encoding: chunked\r\n", "5\r\n123456\r\n0\r\n\r\n"),
            request("Transfer-Encoding: chunked\r\n", "0x5\r\n12345\r\n0\r\n\r\n"),
        ];
        let good = request("Content-Length: 5\r\n", "12345") + &request("Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
        for bad in bad {
            for all in [bad.clone(), format!("{good}{bad}")] {
                for size in 1..=all.len() {
                    let (read, before) = (followed(&all, size), all.len() - bad.len());
                    let good = read.strip_suffix(SPOILT).unwrap_or_else(|| panic!("{all:?} in pieces of {size}"));
                    assert!(all.as_bytes().starts_with(good) && good.len() >= before, "{all:?} in pieces of {size}");
                }
            }
        }
    }

    #[test]
    fn http_2_passes_as_it_is() {
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\0content-length: x\n";
        assert_eq!(followed(preface, 7), preface.as_bytes());
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut framing = Framing::new();
        for _ in 0..100 {
            let mut line = [b'x'; 4096];
            let mut buf = ReadBuf::new(&mut line);
            buf.set_filled(4096);
            framing.follow(&mut buf, 0);
        }
        assert!(framing.line.len() <= MAX_LINE + 4096);
    }
}
