//! Server-sent events out of the bytes of a body, as they come: all three line ends, a byte order mark, data over
//! several lines; `id` and `retry` say nothing here. Bounded. Source: WHATWG HTML, "Event stream interpretation".

use bytes::{Buf as _, Bytes, BytesMut};

/// What a line of data may have besides its data.
const FIELD: usize = "data: ".len();

/// A reader of one event stream.
pub(super) struct Events {
    pending: BytesMut,
    /// How much of `pending` holds no line end.
    searched: usize,
    at_start: bool,
    after_carriage_return: bool,
    kind: Option<Bytes>,
    data: Option<Data>,
    limit: usize,
}

/// An event that has data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; `None` is that of a message.
    pub(super) kind: Option<Bytes>,
    /// Its data. Where it stood on several lines there is a space: to JSON that is the same.
    pub(super) data: Bytes,
}

/// An event is over the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

enum Data {
    Line(Bytes),
    Lines(BytesMut),
}

impl Events {
    /// A reader of events of at most `limit` bytes of data.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            pending: BytesMut::new(),
            searched: 0,
            at_start: true,
            after_carriage_return: false,
            kind: None,
            data: None,
            limit,
        }
    }

    /// How many bytes wait for the rest of their event.
    pub(super) fn pending(&self) -> usize {
        let kind = self.kind.as_ref().map_or(0, Bytes::len);
        self.pending.len() + kind + self.data.as_ref().map_or(0, Data::len)
    }

    /// Takes more bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole event, if it has come.
    ///
    /// # Errors
    /// If it is over the limit, whole or not.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line)?;
            }
        }
        if self.pending.len() > self.limit + FIELD { Err(TooLong) } else { Ok(None) }
    }

    /// The next whole line. One that ends with a carriage return is whole at once, whatever follows: a line feed then
    /// belongs to it.
    fn next_line(&mut self) -> Option<Bytes> {
        if self.after_carriage_return && self.pending.has_remaining() {
            self.after_carriage_return = false;
            if self.pending[0] == b'\n' {
                self.pending.advance(1);
            }
        }
        let Some(offset) = memchr::memchr2(b'\n', b'\r', &self.pending[self.searched..]) else {
            self.searched = self.pending.len();
            return None;
        };
        let mut line = self.pending.split_to(self.searched + offset).freeze();
        self.after_carriage_return = self.pending.get_u8() == b'\r';
        self.searched = 0;
        if std::mem::take(&mut self.at_start) && line.starts_with(b"\xef\xbb\xbf") {
            line.advance(3);
        }
        Some(line)
    }

    fn field(&mut self, line: &Bytes) -> Result<(), TooLong> {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let mut value = line.slice((colon + 1).min(line.len())..);
        if value.starts_with(b" ") {
            value.advance(1);
        }
        match &line[..colon] {
            b"data" => self.add(value),
            b"event" => {
                self.kind = Some(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, value: Bytes) -> Result<(), TooLong> {
        let length = match &self.data {
            None => value.len(),
            Some(data) => data.len() + 1 + value.len(),
        };
        if length > self.limit {
            return Err(TooLong);
        }
        self.data = Some(match self.data.take() {
            None => Data::Line(value),
            Some(data) => {
                let mut lines = data.into_lines();
                lines.extend_from_slice(b" ");
                lines.extend_from_slice(&value);
                Data::Lines(lines)
            }
        });
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let kind = self.kind.take().filter(|kind| !kind.is_empty());
        let data = match self.data.take()? {
            Data::Line(line) => line,
            Data::Lines(lines) => lines.freeze(),
        };
        // An event without text primes clients that reconnect.
        (!data.is_empty()).then_some(Event { kind, data })
    }
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Line(line) => line.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    fn into_lines(self) -> BytesMut {
        match self {
            Self::Line(line) => BytesMut::from(&line[..]),
            Self::Lines(lines) => lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &[u8], piece: usize, limit: usize) -> Result<Vec<(Option<String>, String)>, TooLong> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let mut events = Events::new(limit);
        let mut read = Vec::new();
        for piece in stream.chunks(piece) {
            events.push(piece);
            while let Some(event) = events.next_event()? {
                read.push((event.kind.as_ref().map(text), text(&event.data)));
            }
        }
        Ok(read)
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let stream = "\u{feff}: hello\r\ndata: {\"a\":\r\ndata:1}\r\n\r\nid: 7\nretry: 5\nevent: endpoint\ndata: /x\n\n\
                      event: none\n\ndata\n\ndata:  \u{2028}\r\rdata: lost";
        let expected = [
            (None, "{\"a\": 1}".to_owned()),
            (Some("endpoint".to_owned()), "/x".to_owned()),
            (None, " \u{2028}".to_owned()),
        ];
        for piece in 1..=stream.len() {
            assert_eq!(read(stream.as_bytes(), piece, 100).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn an_event_that_ends_with_carriage_returns_does_not_wait_for_what_follows() {
        let mut events = Events::new(100);
        events.push(b"data: 1\r\r");
        assert_eq!(events.next_event().unwrap().unwrap().data, "1");
        events.push(b"\ndata: 2\r\n\r\n");
        assert_eq!(events.next_event().unwrap().unwrap().data, "2");
    }

    #[test]
    fn everything_that_waits_for_the_end_of_an_event_is_told() {
        let mut events = Events::new(100);
        events.push(b"event: kind\ndata: 12\ndat");
        assert_eq!(events.next_event().unwrap(), None);
        assert_eq!(events.pending(), "kind".len() + "12".len() + "dat".len());
    }

    #[test]
    fn an_event_over_the_limit_is_refused_before_it_is_whole() {
        assert_eq!(read(b"data: 12345678\n\n", 1, 8).unwrap(), [(None, "12345678".to_owned())]);
        for stream in [&b"data: 123456789\n\n"[..], b"data: 1234\ndata: 1234\n\n", b"data: 12345678901234567890"] {
            for piece in 1..=stream.len() {
                assert_eq!(read(stream, piece, 8), Err(TooLong), "pieces of {piece}");
            }
        }
    }
}
