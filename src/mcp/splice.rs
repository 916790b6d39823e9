//! A line with parts of it written anew, and everything else as it came.

use bytes::Bytes;

use super::json;

/// The text of a line that is known to be UTF-8.
#[must_use]
pub fn text(line: &Bytes) -> &str {
    std::str::from_utf8(line).unwrap_or_default()
}

/// A line with one part of it, a slice of it, replaced.
#[must_use]
pub fn with_part(line: &Bytes, part: &str, replacement: &str) -> Bytes {
    let at = json::range_in(text(line), part);
    [&line[..at.start], replacement.as_bytes(), &line[at.end..]].concat().into()
}

/// A line with its id and its outcome, both slices of it, replaced, in one copy.
#[must_use]
pub fn respliced(line: &Bytes, id: (&str, &str), outcome: &str, write: impl FnOnce(&mut String)) -> Bytes {
    let whole = text(line);
    let (id_at, outcome_at) = (json::range_in(whole, id.0), json::range_in(whole, outcome));
    let mut said = String::with_capacity(line.len() + 256);
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
    said.into()
}
