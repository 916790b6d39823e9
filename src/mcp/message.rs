//! One JSON-RPC message, parsed once; what travels on is the text that came.

mod from_server;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::long_work::by_length;
use crate::memory::Share;

use super::json::{self, Invalid, Members, Object, Places, Reader};

pub use from_server::{Answer, FromServer, from_server};

/// The most members of a client's message, of its `params` and of `params._meta`, each.
pub const MAX_MEMBERS: usize = 1000;

/// The deepest nesting of a client's message.
pub const MAX_DEPTH: usize = 64;

/// The longest id or progress token of a client, as written, bytes: it is said again wherever the request is meant.
pub const MAX_ID: usize = 4096;

/// The longest method of a client, bytes: it is a field of the log and a header.
pub const MAX_METHOD: usize = 256;

/// The members of a message that are read, and that no other may resemble.
const OF_MESSAGE: [&str; 4] = ["jsonrpc", "id", "method", "params"];

/// The same of `params`.
const OF_PARAMS: [&str; 4] = ["name", "uri", "arguments", META];

const META: &str = "_meta";
const PROGRESS_TOKEN: &str = "progressToken";

/// A message from a client: a view into the bytes that arrived.
#[derive(Debug, Clone)]
pub struct Message {
    text: Bytes,
    kind: Kind,
    method: String,
    parts: Box<Parts>,
}

/// Where the parts of a message stand.
#[derive(Debug, Clone, Default)]
struct Parts {
    id: Option<Range<usize>>,
    result: Option<Range<usize>>,
    error: Option<Range<usize>>,
    params: Option<Range<usize>>,
    /// The members of `params`.
    members: Places,
    /// The members of `params._meta`.
    meta: Option<Places>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a method and an id, and wants an answer.
    Request,
    /// It has a method and no id.
    Notification,
    /// It has no method: the answer to a question.
    Response,
}

/// Why bytes are not a message, with the id if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The id as written.
    pub id: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not UTF-8, or not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// An array: a batch, which only 2025-03-26 had.
    #[error("the body is a batch; send each message as its own POST")]
    Batch,
    /// A scalar.
    #[error("the body is not a JSON-RPC message")]
    NotAnObject,
    /// Two members of the message, of its `params`, or of `params._meta` have the same name.
    #[error("a key stands twice in the message or in its params")]
    DuplicateKey,
    /// A member is named like one that is read but for upper and lower case: there are readers that take it for that.
    #[error("a key of the message differs from `{0}` only by case")]
    Case(&'static str),
    /// One of those objects has more than [`MAX_MEMBERS`] members.
    #[error("the message, its params or their _meta have more than {MAX_MEMBERS} members")]
    TooManyMembers,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// `jsonrpc` is not "2.0".
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    /// The id is null, no string and no number, or longer than [`MAX_ID`].
    #[error("`id` must be a string or a number of up to {MAX_ID} bytes")]
    Id,
    /// The method is no string, longer than [`MAX_METHOD`], or missing where there is no answer either.
    #[error("`method` must be a string of up to {MAX_METHOD} bytes")]
    Method,
    /// `params` is no object.
    #[error("`params` must be an object")]
    Params,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// Says what is wrong with it, and its id if that much could be read.
    pub fn parse(body: Bytes) -> Result<Self, Malformed> {
        let without_id = |fault| Malformed { id: None, fault };
        let text = std::str::from_utf8(&body).map_err(|_| without_id(Fault::NotJson))?;
        let Read { whole, params, meta } = Read::of(text).map_err(|invalid| match invalid {
            Invalid::NotAnObject if text.trim_start().starts_with('[') => without_id(Fault::Batch),
            invalid => without_id(invalid.into()),
        })?;
        let object = whole.distinct().map_err(|invalid| without_id(invalid.into()))?;
        let id = object.get("id").filter(|id| is_id(id));
        let with_id = |fault| Malformed { id: id.map(str::to_owned), fault };
        if id.is_none() && object.get("id").is_some() {
            return Err(with_id(Fault::Id));
        }
        has_no_twin(&object, OF_MESSAGE).map_err(with_id)?;
        if object.get_string("jsonrpc").as_deref() != Some("2.0") {
            return Err(with_id(Fault::Version));
        }
        let (kind, method) = kind(&object).map_err(with_id)?;
        let parts = Box::new(Parts::of(&object, (params, meta), text).map_err(with_id)?);
        Ok(Self { kind, method, parts, text: body })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its method; empty for a response.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its id as written.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.parts.id.as_ref().map(|at| self.slice(at))
    }

    /// Its outcome, if it is a response.
    #[must_use]
    pub fn answer(&self) -> Option<Answer<'_>> {
        match (&self.parts.error, &self.parts.result) {
            (Some(error), _) => Some(Answer::Error(self.slice(error))),
            (None, Some(result)) => Some(Answer::Result(self.slice(result))),
            (None, None) => None,
        }
    }

    /// A member of its `params` as written.
    #[must_use]
    pub fn param(&self, key: &str) -> Option<&str> {
        self.parts.members.find(key, &self.text).map(|at| self.slice(&at))
    }

    /// A member of its `params` if it is a string, decoded.
    #[must_use]
    pub fn param_string(&self, key: &str) -> Option<Cow<'_, str>> {
        self.param(key).and_then(json::string)
    }

    /// A member of its `params._meta` as written.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.parts.meta.as_ref()?.find(key, &self.text).map(|at| self.slice(&at))
    }

    /// Its progress token as written, if that is one.
    #[must_use]
    pub fn progress_token(&self) -> Option<&str> {
        self.meta(PROGRESS_TOKEN).filter(|token| is_id(token))
    }

    /// The same request under another id, which is its progress token too if it has one.
    #[must_use]
    pub fn under(&self, id: &str) -> Self {
        let message = self.with(self.parts.id.clone(), id);
        if message.progress_token().is_some() { message.with_meta(PROGRESS_TOKEN, id) } else { message }
    }

    /// The same message, counted in `share` for as long as there is something of it.
    #[must_use]
    pub fn counted(self, share: &Share) -> Self {
        let held = share.count(self.text.len());
        Self { text: held.keep(self.text, ()), ..self }
    }

    /// The same message with another value of a member of `params` that it has.
    #[must_use]
    pub fn with_param(&self, key: &str, value: &str) -> Self {
        self.with(self.parts.members.find(key, &self.text), value)
    }

    /// The same of `params._meta`.
    #[must_use]
    pub fn with_meta(&self, key: &str, value: &str) -> Self {
        self.with(self.parts.meta.as_ref().and_then(|meta| meta.find(key, &self.text)), value)
    }

    /// The same message with `text` in one place.
    fn with(&self, at: Option<Range<usize>>, text: &str) -> Self {
        let Some(at) = at else { return self.clone() };
        let mut parts = self.parts.clone();
        parts.shift(&at, text.len());
        let copy = || [&self.text[..at.start], text.as_bytes(), &self.text[at.end..]].concat();
        let text = by_length(self.text.len(), copy);
        Self { text: text.into(), kind: self.kind, method: self.method.clone(), parts }
    }

    /// The top level of its `params`; empty if there are none.
    #[must_use]
    pub fn params_object(&self) -> Object<'_> {
        self.parts.members.object(&self.text)
    }

    /// The top level of its `params._meta`, if that is an object.
    #[must_use]
    pub fn meta_object(&self) -> Option<Object<'_>> {
        self.parts.meta.as_ref().map(|meta| meta.object(&self.text))
    }

    /// The whole message as it arrived.
    #[must_use]
    pub fn text(&self) -> &str {
        self.slice(&(0..self.text.len()))
    }

    /// The whole message with other `params`.
    #[must_use]
    pub fn with_params(&self, params: &str) -> String {
        let text = self.text();
        if let Some(at) = &self.parts.params {
            return format!("{}{params}{}", &text[..at.start], &text[at.end..]);
        }
        let end = text.rfind('}').expect("a message is an object");
        format!(r#"{},"params":{params}{}"#, &text[..end], &text[end..])
    }

    fn slice(&self, at: &Range<usize>) -> &str {
        json::slice(&self.text, at)
    }
}

impl Parts {
    fn of(
        object: &Object<'_>,
        (params, meta): (Option<Members<'_>>, Option<Members<'_>>),
        whole: &str,
    ) -> Result<Self, Fault> {
        let place = |key| object.get(key).map(|part| json::range_in(whole, part));
        let mut parts = Self {
            id: place("id"),
            result: place("result"),
            error: place("error"),
            params: place("params"),
            ..Self::default()
        };
        let Some(params) = params else { return if parts.params.is_some() { Err(Fault::Params) } else { Ok(parts) } };
        let params = params.distinct()?;
        has_no_twin(&params, OF_PARAMS)?;
        parts.members = Places::of(&params, whole);
        if let Some(meta) = meta {
            parts.meta = Some(Places::of(&meta.distinct()?, whole));
        }
        Ok(parts)
    }

    /// Takes note that what stood at `at` is now `length` bytes long.
    fn shift(&mut self, at: &Range<usize>, length: usize) {
        let Self { id, result, error, params, members, meta } = self;
        for place in [id, result, error, params].into_iter().flatten() {
            json::shift(place, at, length);
        }
        members.shift(at, length);
        if let Some(meta) = meta {
            meta.shift(at, length);
        }
    }
}

/// A message that has been gone through, once, and what stands in it where more than the whole is looked for.
#[derive(Default)]
struct Read<'a> {
    whole: Members<'a>,
    /// Those of `params`, if that is an object.
    params: Option<Members<'a>>,
    /// Those of `params._meta`, if that is one.
    meta: Option<Members<'a>>,
}

impl<'a> Read<'a> {
    fn of(text: &'a str) -> Result<Self, Invalid> {
        let (mut params, mut meta) = (None, None);
        let mut reader = Reader::new(text, MAX_DEPTH);
        let whole = Members::read(&mut reader, MAX_MEMBERS, |reader, key| {
            members_of("params", &mut params, reader, key, |reader, key| {
                members_of(META, &mut meta, reader, key, |reader, _| reader.value())
            })
        })?;
        reader.end()?;
        Ok(Self { whole, params, meta })
    }
}

/// Reads what belongs to `key`: its members, too, if it is the one that is wanted and this is an object.
fn members_of<'a>(
    wanted: &str,
    members: &mut Option<Members<'a>>,
    reader: &mut Reader<'a>,
    key: &str,
    value: impl FnMut(&mut Reader<'a>, &str) -> Result<&'a str, Invalid>,
) -> Result<&'a str, Invalid> {
    if key != wanted || !reader.is_at_object() {
        return reader.value();
    }
    reader.written(|reader| {
        *members = Some(Members::read(reader, MAX_MEMBERS, value)?);
        Ok(())
    })
}

impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Syntax => Self::NotJson,
            Invalid::TooDeep => Self::TooDeep,
            Invalid::NotAnObject | Invalid::NotAnArray => Self::NotAnObject,
            Invalid::DuplicateKey => Self::DuplicateKey,
            Invalid::TooManyMembers => Self::TooManyMembers,
        }
    }
}

/// Refuses a key that a reader who does not tell upper from lower case would take for one of these.
fn has_no_twin(object: &Object<'_>, names: [&'static str; 4]) -> Result<(), Fault> {
    fn folded(text: &str) -> impl Iterator<Item = char> {
        text.chars().flat_map(char::to_uppercase)
    }
    let twin = |key: &str| names.into_iter().find(|name| *name != key && folded(name).eq(folded(key)));
    object.iter().find_map(|(key, _)| twin(key)).map_or(Ok(()), |name| Err(Fault::Case(name)))
}

/// Whether a value is a string or a number that is short enough to be said again.
fn is_id(text: &str) -> bool {
    let is_number = || text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    text.len() <= MAX_ID && (json::string(text).is_some() || is_number())
}

fn kind(object: &Object<'_>) -> Result<(Kind, String), Fault> {
    let has_id = object.get("id").is_some();
    match object.get("method") {
        Some(method) => {
            let method =
                json::string(method).filter(|method| method.len() <= MAX_METHOD).ok_or(Fault::Method)?.into_owned();
            Ok((if has_id { Kind::Request } else { Kind::Notification }, method))
        }
        None if has_id && (object.get("result").is_some() || object.get("error").is_some()) => {
            Ok((Kind::Response, String::new()))
        }
        None => Err(Fault::Method),
    }
}

/// One message as a line for a program's stdin: line ends between its tokens become spaces, and one ends it.
/// Source: 2025-11-25, basic/transports, "stdio": messages must not contain embedded newlines.
#[must_use]
pub fn line(text: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text.as_bytes());
    if memchr::memchr2(b'\n', b'\r', &line).is_some() {
        line.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
