//! JSON at the top level of one object, everything below it as the bytes that came: numbers keep their digits, strings
//! their escapes, objects their order.

mod reader;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

pub use reader::Reader;

/// The most members of an object whose keys are told apart, unless fewer are wanted.
const MAX_MEMBERS: usize = 1 << 16;

/// Up to how many keys are compared with one another; more are looked up.
const FEW: usize = 16;

/// The members of one object: decoded keys, values as written. No key stands twice.
#[derive(Debug, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a str)>,
}

/// Why text is not what is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not JSON.
    #[error("the text is not JSON")]
    Syntax,
    /// Nested deeper than is wanted.
    #[error("the text nests too deep")]
    TooDeep,
    /// JSON, but not an object.
    #[error("the JSON is not an object")]
    NotAnObject,
    /// JSON, but not an array.
    #[error("the JSON is not an array")]
    NotAnArray,
    /// A key stands twice.
    #[error("a key stands twice in one object")]
    DuplicateKey,
    /// It has more members than are wanted.
    #[error("the object has too many members")]
    TooManyMembers,
}

impl<'a> Object<'a> {
    /// Reads the top level of `text`, in a time that grows with its length alone.
    ///
    /// # Errors
    /// If it is not one object with distinct keys, or has more than 65,536 members.
    pub fn parse(text: &'a str) -> Result<Self, Invalid> {
        Self::parse_up_to(MAX_MEMBERS, text)
    }

    /// The same of an object with at most `most` members.
    ///
    /// # Errors
    /// If it is not one object with distinct keys, or has more members.
    pub fn parse_up_to(most: usize, text: &'a str) -> Result<Self, Invalid> {
        let mut reader = Reader::new(text, usize::MAX);
        let members = Members::read(&mut reader, most, |reader, _| reader.value())?;
        reader.end()?;
        members.distinct()
    }

    fn repeats_a_key(&self) -> bool {
        let keys = || self.members.iter().map(|(key, _)| key);
        if self.members.len() <= FEW {
            return keys().enumerate().any(|(at, key)| keys().take(at).any(|before| before == key));
        }
        let mut seen = HashSet::with_capacity(self.members.len());
        !keys().all(|key| seen.insert(key))
    }

    /// The value of `key` as written.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.members.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The value of `key` if it is a string, decoded.
    #[must_use]
    pub fn get_string(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(string)
    }

    /// The value of `key` if it is an object.
    #[must_use]
    pub fn get_object(&self, key: &str) -> Option<Object<'a>> {
        self.get(key).and_then(|text| Object::parse(text).ok())
    }

    /// Every member, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a member out, if it is there.
    pub fn remove(&mut self, key: &str) {
        self.members.retain(|(name, _)| name != key);
    }

    /// Puts a member in, in the place of the one with the same key if there is one.
    pub fn set(&mut self, key: &'static str, value: &'a str) {
        match self.members.iter_mut().find(|(name, _)| name == key) {
            Some(member) => member.1 = value,
            None => self.members.push((Cow::Borrowed(key), value)),
        }
    }

    /// The object as text: members in order, values as written.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = String::with_capacity(self.length());
        self.write_by(|part| text.push_str(part));
        text
    }

    /// About how long the object is as text, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.members.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>() + 2
    }

    /// The object as text, part by part.
    pub fn write_by(&self, mut push: impl FnMut(&str)) {
        push("{");
        for (index, (key, value)) in self.members.iter().enumerate() {
            if index > 0 {
                push(",");
            }
            push(&quote(key));
            push(":");
            push(value);
        }
        push("}");
    }
}

/// The members of an object that has been gone through, whatever their keys.
#[derive(Debug, Default)]
pub struct Members<'a> {
    first: Vec<(Cow<'a, str>, &'a str)>,
    has_more: bool,
}

impl<'a> Members<'a> {
    /// Goes through the object that is next and keeps its first `most` members: `value` is told each key, and reads what
    /// belongs to it.
    ///
    /// # Errors
    /// It is no object, or as `value`.
    pub fn read(
        reader: &mut Reader<'a>,
        most: usize,
        mut value: impl FnMut(&mut Reader<'a>, &str) -> Result<&'a str, Invalid>,
    ) -> Result<Self, Invalid> {
        let mut members = Self::default();
        reader.object(|reader, key| {
            members.has_more = members.first.len() == most;
            if members.has_more {
                return reader.value().map(drop);
            }
            let key = string(key).ok_or(Invalid::Syntax)?;
            let value = value(reader, &key)?;
            members.first.push((key, value));
            Ok(())
        })?;
        Ok(members)
    }

    /// The object, if all its members were kept and no key stands twice.
    ///
    /// # Errors
    /// Says which of both is not so.
    pub fn distinct(self) -> Result<Object<'a>, Invalid> {
        let object = Object { members: self.first };
        match (self.has_more, object.repeats_a_key()) {
            (true, _) => Err(Invalid::TooManyMembers),
            (_, true) => Err(Invalid::DuplicateKey),
            _ => Ok(object),
        }
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where the members of an object stand in the text that it is part of: an [`Object`] to be kept beside its bytes.
#[derive(Debug, Clone, Default)]
pub struct Places(Vec<(Name, Range<usize>)>);

/// A key: where it stands, or what it says if it is written with escapes.
#[derive(Debug, Clone)]
enum Name {
    Plain(Range<usize>),
    Escaped(Box<str>),
}

impl Places {
    /// Where the members of `object` stand in `whole`, the text that it was read from.
    #[must_use]
    pub fn of(object: &Object<'_>, whole: &str) -> Self {
        let name = |key: &Cow<'_, str>| match key {
            Cow::Borrowed(key) => Name::Plain(range_in(whole, key)),
            Cow::Owned(key) => Name::Escaped(key.as_str().into()),
        };
        Self(object.members.iter().map(|(key, value)| (name(key), range_in(whole, value))).collect())
    }

    /// Where the value of `key` stands in `whole`, the bytes of that text.
    #[must_use]
    pub fn find(&self, key: &str, whole: &[u8]) -> Option<Range<usize>> {
        let is_named = |name: &Name| match name {
            Name::Plain(at) => whole[at.clone()] == *key.as_bytes(),
            Name::Escaped(decoded) => **decoded == *key,
        };
        self.0.iter().find(|(name, _)| is_named(name)).map(|(_, value)| value.clone())
    }

    /// The object again; `whole` are the bytes of that text.
    #[must_use]
    pub fn object<'a>(&'a self, whole: &'a [u8]) -> Object<'a> {
        let name = |name: &'a Name| match name {
            Name::Plain(at) => slice(whole, at),
            Name::Escaped(decoded) => decoded,
        };
        Object { members: self.0.iter().map(|(key, at)| (Cow::Borrowed(name(key)), slice(whole, at))).collect() }
    }

    /// Takes note that what stood at `at` is now `length` bytes long.
    pub fn shift(&mut self, at: &Range<usize>, length: usize) {
        for (name, value) in &mut self.0 {
            if let Name::Plain(place) = name {
                shift(place, at, length);
            }
            shift(value, at, length);
        }
    }
}

/// Moves a place in a text whose part `at` is now `length` bytes long: one that holds the part grows, one after it moves.
pub fn shift(place: &mut Range<usize>, at: &Range<usize>, length: usize) {
    for end in [&mut place.start, &mut place.end] {
        if *end >= at.end {
            *end = *end - at.len() + length;
        }
    }
}

/// A part of bytes that were read as text, and so are UTF-8.
#[must_use]
pub fn slice<'a>(whole: &'a [u8], at: &Range<usize>) -> &'a str {
    std::str::from_utf8(&whole[at.clone()]).expect("what was read as JSON is UTF-8")
}

/// A JSON string, decoded; `None` if the text is no string.
#[must_use]
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    let plain = text.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr2(b'"', b'\\', plain.as_bytes()).is_none() {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str::<Key<'_>>(text).ok().map(|Key(decoded)| decoded)
}

/// `text` as a JSON string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether two scalars say the same: equal strings once decoded, or equal numbers however they are written.
#[must_use]
pub fn same_scalar(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (string(a), string(b)) {
        (Some(a), Some(b)) => a == b,
        // Integers are compared digit by digit: as floating point, two long ones may look alike.
        (None, None) if is_integer(a) && is_integer(b) => matches!((a, b), ("0" | "-0", "0" | "-0")),
        (None, None) => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a + 0.0).to_bits() == (b + 0.0).to_bits(),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a number is written without fraction and exponent.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Where `part` lies in `whole`; both must be slices of the same text.
#[must_use]
pub fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests;
