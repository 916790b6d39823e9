//! A line with parts of it written anew, and everything else as it came.

use std::collections::VecDeque;

use bytes::Bytes;

use super::json;
use crate::memory::Held;

/// From how many bytes on a part of a line is not copied: to take new memory for it costs more than the copy.
const LONG: usize = 64 << 10;

/// A message in pieces, one behind the other: what is long in it is where it was read.
#[derive(Debug, Clone, Default)]
pub struct Spliced(VecDeque<Bytes>);

impl Spliced {
    /// How long it is, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no message is empty")]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// The same message, counted until the last piece of it is dropped.
    #[must_use]
    pub fn kept(self, held: Held) -> Self {
        Self(held.keep_all(self.0, ()))
    }

    /// The pieces; empty if there is no message.
    #[must_use]
    pub fn into_pieces(self) -> VecDeque<Bytes> {
        self.0
    }

    /// The message in one piece: a copy, unless it is one already.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        match self.0.len() {
            0 | 1 => self.0.pop_front().unwrap_or_default(),
            _ => self.0.make_contiguous().concat().into(),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Spliced {
    fn from(text: T) -> Self {
        Self(VecDeque::from([text.into()]))
    }
}

/// What writes a line anew.
#[derive(Debug)]
pub struct Splicer<'a> {
    line: &'a Bytes,
    said: Spliced,
    /// What has been written behind the last piece.
    written: Vec<u8>,
}

impl<'a> Splicer<'a> {
    fn of(line: &'a Bytes) -> Self {
        let short = if line.len() < LONG { line.len() } else { 0 };
        Self { line, said: Spliced::default(), written: Vec::with_capacity(short + 256) }
    }

    /// Writes what comes next; what is long and a slice of the line is not copied.
    pub fn push_str(&mut self, part: &str) {
        if part.len() < LONG || !self.line.as_ptr_range().contains(&part.as_ptr()) {
            self.written.extend_from_slice(part.as_bytes());
            return;
        }
        self.end_piece();
        self.said.0.push_back(self.line.slice_ref(part.as_bytes()));
    }

    fn end_piece(&mut self) {
        if !self.written.is_empty() {
            self.said.0.push_back(std::mem::take(&mut self.written).into());
        }
    }

    fn done(mut self) -> Spliced {
        self.end_piece();
        self.said
    }
}

/// The text of a line that is known to be UTF-8.
#[must_use]
pub fn text(line: &Bytes) -> &str {
    std::str::from_utf8(line).unwrap_or_default()
}

/// A line with one part of it, a slice of it, replaced.
#[must_use]
pub fn with_part(line: &Bytes, part: &str, replacement: &str) -> Spliced {
    let whole = text(line);
    let at = json::range_in(whole, part);
    let mut said = Splicer::of(line);
    for part in [&whole[..at.start], replacement, &whole[at.end..]] {
        said.push_str(part);
    }
    said.done()
}

/// A line with its id and its outcome, both slices of it, replaced.
#[must_use]
pub fn respliced(line: &Bytes, id: (&str, &str), outcome: &str, write: impl FnOnce(&mut Splicer<'_>)) -> Spliced {
    let whole = text(line);
    let (id_at, outcome_at) = (json::range_in(whole, id.0), json::range_in(whole, outcome));
    let mut said = Splicer::of(line);
    if id_at.start < outcome_at.start {
        said.push_str(&whole[..id_at.start]);
        said.push_str(id.1);
        said.push_str(&whole[id_at.end..outcome_at.start]);
        write(&mut said);
        said.push_str(&whole[outcome_at.end..]);
    } else {
        said.push_str(&whole[..outcome_at.start]);
        write(&mut said);
        said.push_str(&whole[outcome_at.end..id_at.start]);
        said.push_str(id.1);
        said.push_str(&whole[id_at.end..]);
    }
    said.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::message::{Answer, FromServer, from_server};

    fn anew(line: &Bytes) -> Spliced {
        let Some(FromServer::Response { id: Some(id), answer: Answer::Result(result) }) = from_server(line) else {
            panic!("{line:?}")
        };
        respliced(line, (id, r#""seven""#), result, |said| {
            said.push_str(&result[..result.len() - 1]);
            said.push_str(r#","resultType":"complete"}"#);
        })
    }

    #[test]
    fn what_is_long_stays_where_it_was_read_and_the_rest_is_written_anew() {
        let long = "x".repeat(LONG);
        for (line, expected) in [
            (
                format!(r#"{{"id":7,"result":{{"text":"{long}"}},"jsonrpc":"2.0"}}"#),
                format!(r#"{{"id":"seven","result":{{"text":"{long}","resultType":"complete"}},"jsonrpc":"2.0"}}"#),
            ),
            (
                format!(r#"{{"jsonrpc":"2.0","result":{{"text":"{long}"}},"id":7}}"#),
                format!(r#"{{"jsonrpc":"2.0","result":{{"text":"{long}","resultType":"complete"}},"id":"seven"}}"#),
            ),
        ] {
            let line = Bytes::from(line);
            let said = anew(&line);
            let kept = said.0.iter().any(|piece| piece.len() > LONG && line.as_ptr_range().contains(&piece.as_ptr()));
            assert!(kept && said.len() == expected.len());
            assert_eq!(said.into_bytes(), expected);
        }
    }

    #[test]
    fn what_is_short_is_one_piece() {
        let line = Bytes::from(r#"{"jsonrpc":"2.0","id":7,"result":{"text":""}}"#);
        let said = anew(&line);
        assert_eq!(said.0.len(), 1);
        assert_eq!(said.into_bytes(), r#"{"jsonrpc":"2.0","id":"seven","result":{"text":"","resultType":"complete"}}"#);
    }
}
