//! Holes such as `<<token>>`: found and typed at load, filled at request time in one pass.

pub(super) mod fill;
pub(super) mod hole;
pub(super) mod input;
pub(super) mod placeholder;
pub(super) mod url_template;

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::secret::Secret;
use hole::{Hole, Unfit};
use input::{Input, Inputs};
use placeholder::Placeholder;

/// The longest argument or environment variable (with its name), bytes: the system takes no longer one
/// (`MAX_ARG_STRLEN` of Linux, without the final NUL). Headers and URLs have the same bound.
pub const MAX_VALUE: usize = 131_071;

/// A value with typed holes for what differs between users and requests. Its `Debug` says how it was written and never what.
pub struct Template {
    source: Source,
    segments: Vec<Segment>,
    fixed: usize,
}

/// How a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// As plain text.
    Plain,
    /// As `{"$env": "NAME"}`, with this name.
    Env(String),
    /// As `{"$userToken": "…"}`.
    UserToken,
    /// As `{"$userTokenFile": "…"}`.
    UserTokenFile,
    /// As `{"$header": {"name": "NAME", …}}`, with this name.
    Header(String),
    /// Not at all: it is the bridge's own.
    Bridge,
}

enum Segment {
    Text(Secret),
    Hole(Hole, Input),
}

/// What is wrong with a template, and with which part of its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The part, in bytes.
    pub part: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Fault {
    pub(super) fn new(part: Range<usize>, message: &str, help: &str) -> Self {
        Self { part, message: message.to_owned(), help: help.to_owned() }
    }
}

impl Template {
    /// Text without holes.
    pub(super) fn fixed(source: Source, text: &str) -> Self {
        Self::compile(source, text, &[], Hole::EnvText)
    }

    /// `text` with a hole of the same kind at each of `holes`.
    pub(super) fn compile(source: Source, text: &str, holes: &[Placeholder], hole: Hole) -> Self {
        let mut template = Self { source, segments: Vec::new(), fixed: 0 };
        let mut from = 0;
        for Placeholder { range, input } in holes {
            template.push_text(&text[from..range.start]);
            template.push_hole(hole, input.clone());
            from = range.end;
        }
        template.push_text(&text[from..]);
        template
    }

    /// A template without segments yet.
    pub(super) fn empty(source: Source) -> Self {
        Self { source, segments: Vec::new(), fixed: 0 }
    }

    pub(super) fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.fixed += text.len();
            self.segments.push(Segment::Text(Secret::new(text.to_owned())));
        }
    }

    pub(super) fn push_hole(&mut self, hole: Hole, input: Input) {
        self.segments.push(Segment::Hole(hole, input));
    }

    /// How it was written.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its text, if it has no holes.
    #[must_use]
    pub fn fixed_text(&self) -> Option<String> {
        let texts = self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => Some(text.expose()),
            Segment::Hole(..) => None,
        });
        texts.collect()
    }

    /// Whether it has holes: it is not the same for all.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Hole(..)))
    }

    /// Whether something that a user has saved goes into it.
    #[must_use]
    pub fn takes_credential(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Hole(_, Input::Field { .. })))
    }

    /// Whether a user's secret goes into it.
    #[must_use]
    pub fn holds_secret(&self) -> bool {
        let is_secret = |input: &Input| matches!(input, Input::Field { is_secret: true, .. });
        self.segments.iter().any(|segment| matches!(segment, Segment::Hole(_, input) if is_secret(input)))
    }

    /// The text for one request. The buffer has its full size from the start, so no half-written copy is left behind.
    pub(super) fn fill(&self, inputs: &Inputs) -> Result<Secret, (Unfit, &Input)> {
        let mut room = self.fixed;
        for segment in &self.segments {
            if let Segment::Hole(hole, input) = segment {
                let value = input.text(inputs);
                hole.admit(value).map_err(|unfit| (unfit, input))?;
                room += hole.room(value);
            }
        }
        let mut text = Zeroizing::new(String::with_capacity(room));
        for segment in &self.segments {
            match segment {
                Segment::Text(fixed) => text.push_str(fixed.expose()),
                Segment::Hole(hole, input) => hole.put(input.text(inputs), &mut text),
            }
        }
        Ok(Secret::new(std::mem::take(&mut *text)))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

/// The template of an environment variable: if its text is JSON, what fills it is escaped as that needs.
pub(super) fn env(source: Source, text: &str, holes: &[Placeholder]) -> Result<Template, Fault> {
    if let Some(nul) = text.find('\0') {
        return Err(Fault::new(nul..nul + 1, "an environment variable cannot hold NUL", "take it out"));
    }
    let kind = if is_json(text, holes)? { Hole::EnvJson } else { Hole::EnvText };
    Ok(Template::compile(source, text, holes, kind))
}

/// The template of an argument.
pub(super) fn arg(source: Source, text: &str, holes: &[Placeholder]) -> Result<Template, Fault> {
    if let Some(nul) = text.find('\0') {
        return Err(Fault::new(nul..nul + 1, "an argument cannot hold NUL", "take it out"));
    }
    if text.len() > MAX_VALUE {
        return Err(Fault::new(0..text.len(), "this argument is longer than the system takes", "pass a file's name"));
    }
    if let Some(first) = holes.first().filter(|hole| hole.range.start == 0) {
        let message = "an argument cannot begin with a placeholder: what starts with `-` would be an option";
        return Err(Fault::new(
            first.range.clone(),
            message,
            "put the option's name in front, as in `--key=<<token>>`",
        ));
    }
    Ok(Template::compile(source, text, holes, Hole::Arg))
}

/// The template of a header's value.
pub(super) fn header(source: Source, text: &str, holes: &[Placeholder]) -> Result<Template, Fault> {
    let outside = text.char_indices().find(|(_, c)| !(' '..='~').contains(c));
    let edge = if text.starts_with(' ') { Some(0) } else { text.ends_with(' ').then(|| text.len() - 1) };
    if let Some((place, length)) = outside.map(|(place, c)| (place, c.len_utf8())).or(edge.map(|place| (place, 1))) {
        let message = "a header's value is visible ASCII with spaces only inside";
        return Err(Fault::new(place..place + length, message, "take this character out"));
    }
    Ok(Template::compile(source, text, holes, Hole::Header))
}

/// Whether `text` is a JSON document with `holes` inside its strings.
fn is_json(text: &str, holes: &[Placeholder]) -> Result<bool, Fault> {
    if holes.is_empty() || !text.trim_start().starts_with(['{', '[', '"']) {
        return Ok(false);
    }
    let strings = strings(text);
    let around = |hole: &Range<usize>| strings.iter().find(|string| string.start < hole.start && hole.end < string.end);
    // Neither stand-in is part of an escape, so a document that parses with them parses with every escaped token.
    let mut sample = Zeroizing::new(String::with_capacity(text.len()));
    let mut from = 0;
    for Placeholder { range: hole, .. } in holes {
        sample.push_str(&text[from..hole.start]);
        sample.push_str(if around(hole).is_some() { "x" } else { "0" });
        from = hole.end;
    }
    sample.push_str(&text[from..]);
    if serde_json::from_str::<serde::de::IgnoredAny>(&sample).is_err() {
        let object = text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
        let message = "this looks like JSON but does not parse";
        return if object { Err(Fault::new(0..text.len(), message, "correct the JSON")) } else { Ok(false) };
    }
    for Placeholder { range: hole, .. } in holes {
        let Some(string) = around(hole) else {
            let message = "in JSON a placeholder must stand inside a string";
            return Err(Fault::new(hole.clone(), message, "put quotes around it: \"<<token>>\""));
        };
        if text[string.end..].trim_start().starts_with(':') {
            return Err(Fault::new(hole.clone(), "a placeholder cannot be part of a JSON key", "put it into a value"));
        }
    }
    Ok(true)
}

/// Where `text` has strings in the sense of JSON, with their quotes.
fn strings(text: &str) -> Vec<Range<usize>> {
    let mut strings = Vec::new();
    let (mut start, mut escaped) = (None, false);
    for (place, b) in text.bytes().enumerate() {
        match (start, b) {
            (None, b'"') => start = Some(place),
            (Some(from), b'"') if !escaped => {
                strings.push(from..place + 1);
                start = None;
            }
            _ => escaped = start.is_some() && b == b'\\' && !escaped,
        }
    }
    strings
}
