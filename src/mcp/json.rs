//! JSON at the top level of one object, everything below it as the bytes that came: numbers keep their digits, strings
//! their escapes, objects their order.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The deepest nesting that is read from a client.
pub const MAX_DEPTH: usize = 64;

/// The members of one object: decoded keys, values as written. No key stands twice.
#[derive(Debug, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a str)>,
}

/// Why text is not an object that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON.
    #[error("the text is not JSON")]
    Syntax,
    /// JSON, but not an object.
    #[error("the JSON is not an object")]
    NotAnObject,
    /// A key stands twice.
    #[error("a key stands twice in one object")]
    DuplicateKey,
}

impl<'a> Object<'a> {
    /// Reads the top level of `text`.
    ///
    /// # Errors
    /// If it is not one object with distinct keys.
    pub fn parse(text: &'a str) -> Result<Self, ObjectError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = reader.deserialize_map(Members).map_err(|error| {
            if error.is_data() && error.to_string().starts_with(DUPLICATE) {
                ObjectError::DuplicateKey
            } else if error.is_data() {
                ObjectError::NotAnObject
            } else {
                ObjectError::Syntax
            }
        })?;
        reader.end().map_err(|_| ObjectError::Syntax)?;
        Ok(Self { members })
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
        self.write_into(&mut text);
        text
    }

    /// About how long the object is as text, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.members.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>() + 2
    }

    /// The object as text, after what is there already.
    pub fn write_into(&self, text: &mut String) {
        text.push('{');
        for (index, (key, value)) in self.members.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&quote(key));
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
    }
}

const DUPLICATE: &str = "duplicate key";

struct Members;

impl<'a> Visitor<'a> for Members {
    type Value = Vec<(Cow<'a, str>, &'a str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = Vec::with_capacity(4);
        while let Some(Key(key)) = map.next_key::<Key<'a>>()? {
            if members.iter().any(|(name, _)| *name == key) {
                return Err(A::Error::custom(DUPLICATE));
            }
            members.push((key, map.next_value::<&'a RawValue>()?.get()));
        }
        Ok(members)
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON string, decoded; `None` if the text is no string.
#[must_use]
pub fn string(text: &str) -> Option<Cow<'_, str>> {
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

/// Whether the brackets of `text` nest at most [`MAX_DEPTH`] deep. The text need not be JSON.
#[must_use]
pub fn depth_is_bounded(text: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']')) {
        match rest[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {
                rest = after_string(&rest[at + 1..]);
                continue;
            }
        }
        if depth > MAX_DEPTH {
            return false;
        }
        rest = &rest[at + 1..];
    }
    true
}

/// What follows a string whose opening quote has been read.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_written() {
        let text = r#"{"a":1.0,"b":18446744073709551616,"c":"\u0061","d":{"x":1e400}}"#;
        assert_eq!(Object::parse(text).unwrap().write(), text);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_also_when_it_is_escaped() {
        assert_eq!(Object::parse(r#"{"a":1,"\u0061":2}"#).unwrap_err(), ObjectError::DuplicateKey);
        assert!(Object::parse(r#"{"a":1,"A":2}"#).is_ok());
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        assert_eq!(Object::parse("[1]").unwrap_err(), ObjectError::NotAnObject);
        assert_eq!(Object::parse("7").unwrap_err(), ObjectError::NotAnObject);
        assert_eq!(Object::parse("{\"a\":}").unwrap_err(), ObjectError::Syntax);
        assert_eq!(Object::parse("{} {}").unwrap_err(), ObjectError::Syntax);
    }

    #[test]
    fn members_are_replaced_removed_and_added() {
        let mut object = Object::parse(r#"{"a":1,"b":2}"#).unwrap();
        object.set("b", "3");
        object.set("c", "4");
        object.remove("a");
        assert_eq!(object.write(), r#"{"b":3,"c":4}"#);
    }

    #[test]
    fn scalars_are_compared_by_what_they_say() {
        assert!(same_scalar("1", "1.0"));
        assert!(same_scalar("-0", "0"));
        assert!(same_scalar("123456789012345678901234567890", "1.2345678901234568e+29"));
        assert!(same_scalar(r#""a""#, r#""\u0061""#));
        assert!(!same_scalar("1", r#""1""#));
        assert!(!same_scalar("1", "2"));
        assert!(!same_scalar("123456789012345678901234567890", "123456789012345678901234567891"));
        assert!(!same_scalar("null", "true"));
    }

    #[test]
    fn depth_is_counted_outside_strings_only() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(depth_is_bounded(deep(MAX_DEPTH).as_bytes()));
        assert!(!depth_is_bounded(deep(MAX_DEPTH + 1).as_bytes()));
        assert!(depth_is_bounded(format!(r#"["\"{}"]"#, "[".repeat(100)).as_bytes()));
    }
}
