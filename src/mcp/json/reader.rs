//! JSON text, gone through once from its beginning to its end: in a time that grows with its length alone, whatever its
//! shape, and with nothing kept of it but how deep it nests. What stands where is told to whoever reads, as written.
//! Source: RFC 8259.

use super::Invalid;

/// A place in JSON text: between two values, or before one.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many arrays and objects may be within each other.
    deepest: usize,
    /// Those around this place.
    around: Vec<Kind>,
}

/// What has values in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

impl<'a> Reader<'a> {
    /// The beginning of `text`, in which this many arrays and objects may be within each other.
    #[must_use]
    pub fn new(text: &'a str, deepest: usize) -> Self {
        Self { text, at: after_space(text.as_bytes(), 0), deepest, around: Vec::new() }
    }

    /// Whether the next value is an object.
    #[must_use]
    pub fn is_at_object(&self) -> bool {
        self.peek() == Some(b'{')
    }

    /// The next value, as written.
    ///
    /// # Errors
    /// It is none.
    pub fn value(&mut self) -> Result<&'a str, Invalid> {
        let (text, start, outside) = (self.bytes(), self.at, self.around.len());
        // Not `self.at` and `self.around`: to write each step to memory and read it again takes most of the time.
        let (mut at, mut within) = (start, None);
        loop {
            let mut goes_on = false;
            match byte(text, at) {
                b'[' => (at, goes_on) = self.enter(at, Kind::Array)?,
                b'{' => (at, goes_on) = self.enter(at, Kind::Object)?,
                _ => at = scalar(text, at)?,
            }
            if goes_on {
                within = self.around.last().copied();
            }
            while !goes_on && let Some(kind) = within {
                (at, goes_on) = behind(text, at, kind)?;
                if !goes_on {
                    self.around.pop();
                    within = self.around.get(outside..).and_then(|around| around.last().copied());
                }
            }
            match within {
                None => {
                    self.at = at;
                    return Ok(&self.text[start..at]);
                }
                Some(Kind::Object) => at = after_key(text, string(text, at)?)?,
                Some(Kind::Array) => {}
            }
        }
    }

    /// Has `read` read the next value, and returns it as written.
    ///
    /// # Errors
    /// As `read`.
    pub fn written(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Invalid>) -> Result<&'a str, Invalid> {
        let start = self.at;
        read(self)?;
        Ok(&self.text[start..self.at])
    }

    /// Goes through the object that is next: `member` is told each key, as written, and reads what belongs to it.
    ///
    /// # Errors
    /// It is none, or as `member`.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Result<(), Invalid>) -> Result<(), Invalid> {
        if !self.is_at_object() {
            return self.value().and(Err(Invalid::NotAnObject));
        }
        let (mut at, mut goes_on) = self.enter(self.at, Kind::Object)?;
        while goes_on {
            let key = &self.text[at..string(self.bytes(), at)?];
            self.at = after_key(self.bytes(), at + key.len())?;
            member(self, key)?;
            (at, goes_on) = self.go_on(self.at)?;
        }
        self.at = at;
        Ok(())
    }

    /// Goes through the array that is next: `element` reads each.
    ///
    /// # Errors
    /// It is none, or as `element`.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Invalid>) -> Result<(), Invalid> {
        if self.peek() != Some(b'[') {
            return self.value().and(Err(Invalid::NotAnArray));
        }
        let (mut at, mut goes_on) = self.enter(self.at, Kind::Array)?;
        while goes_on {
            self.at = at;
            element(self)?;
            (at, goes_on) = self.go_on(self.at)?;
        }
        self.at = at;
        Ok(())
    }

    /// The end of the text.
    ///
    /// # Errors
    /// There is something left.
    pub fn end(self) -> Result<(), Invalid> {
        if after_space(self.bytes(), self.at) == self.text.len() { Ok(()) } else { Err(Invalid::Syntax) }
    }

    /// Goes into the array or object that begins at `at`: to where its first value or key is, if there is one, else to its
    /// end.
    fn enter(&mut self, at: usize, kind: Kind) -> Result<(usize, bool), Invalid> {
        if self.around.len() == self.deepest {
            return Err(Invalid::TooDeep);
        }
        let at = after_space(self.bytes(), at + 1);
        if self.bytes().get(at) == Some(&kind.end()) {
            return Ok((at + 1, false));
        }
        self.around.push(kind);
        Ok((at, true))
    }

    /// Goes on behind a value in an array or object: to where the next value or key is, if another one follows, else to
    /// its end.
    fn go_on(&mut self, at: usize) -> Result<(usize, bool), Invalid> {
        let kind = *self.around.last().ok_or(Invalid::Syntax)?;
        let (at, goes_on) = behind(self.bytes(), at, kind)?;
        if !goes_on {
            self.around.pop();
        }
        Ok((at, goes_on))
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }
}

impl Kind {
    fn end(self) -> u8 {
        match self {
            Self::Array => b']',
            Self::Object => b'}',
        }
    }
}

// Where what begins at a place ends.

/// What stands there; behind the end, a byte that stands nowhere in JSON.
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

#[inline]
fn after_space(text: &[u8], mut at: usize) -> usize {
    while byte(text, at) <= b' '
        && let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at)
    {
        at += 1;
    }
    at
}

/// Behind a value in an array or object that ends at `at`: where the next value or key is, if another one follows, else
/// its end.
#[inline]
fn behind(text: &[u8], at: usize, kind: Kind) -> Result<(usize, bool), Invalid> {
    let at = after_space(text, at);
    match byte(text, at) {
        b',' => Ok((after_space(text, at + 1), true)),
        end if end == kind.end() => Ok((at + 1, false)),
        _ => Err(Invalid::Syntax),
    }
}

/// The value of a key that ends at `at`.
fn after_key(text: &[u8], at: usize) -> Result<usize, Invalid> {
    let at = after_space(text, at);
    if text.get(at) == Some(&b':') { Ok(after_space(text, at + 1)) } else { Err(Invalid::Syntax) }
}

fn scalar(text: &[u8], at: usize) -> Result<usize, Invalid> {
    match text.get(at) {
        Some(b'"') => string(text, at),
        Some(b'-' | b'0'..=b'9') => number(text, at),
        Some(b't') => word(text, at, b"true"),
        Some(b'f') => word(text, at, b"false"),
        Some(b'n') => word(text, at, b"null"),
        _ => Err(Invalid::Syntax),
    }
}

fn word(text: &[u8], at: usize, word: &[u8]) -> Result<usize, Invalid> {
    if text[at..].starts_with(word) { Ok(at + word.len()) } else { Err(Invalid::Syntax) }
}

fn string(text: &[u8], at: usize) -> Result<usize, Invalid> {
    if text.get(at) != Some(&b'"') {
        return Err(Invalid::Syntax);
    }
    let mut at = at + 1;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += escape(&text[at + 1..]).ok_or(Invalid::Syntax)?,
            Some(0x20..) => at += plain(&text[at..]),
            _ => return Err(Invalid::Syntax),
        }
    }
}

fn number(text: &[u8], at: usize) -> Result<usize, Invalid> {
    let mut at = at + usize::from(text[at] == b'-');
    at = if byte(text, at) == b'0' { at + 1 } else { digits(text, at)? };
    if !matches!(byte(text, at), b'.' | b'e' | b'E') {
        return Ok(at);
    }
    if byte(text, at) == b'.' {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = digits(text, at + 1 + usize::from(sign))?;
    }
    Ok(at)
}

/// At least one.
fn digits(text: &[u8], at: usize) -> Result<usize, Invalid> {
    let mut end = at;
    while text.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end > at { Ok(end) } else { Err(Invalid::Syntax) }
}

/// How many bytes an escape takes up, told what follows its backslash; `None` if that is none.
fn escape(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => rest.get(1..5)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// How many bytes of a string come before the next one that ends it, escapes, or must not stand in it.
fn plain(text: &[u8]) -> usize {
    // Most strings are short.
    const NEAR: usize = 16;
    const CHUNK: usize = 32;
    // As numbers: the compiler looks at a whole chunk at once.
    let special = |byte: &u8| u8::from(*byte < 0x20) | u8::from(*byte == b'"') | u8::from(*byte == b'\\');
    let is_special = |byte: &u8| special(byte) > 0;
    if let Some(near) = text.iter().take(NEAR).position(is_special) {
        return near;
    }
    let mut at = NEAR.min(text.len());
    while let Some(chunk) = text[at..].first_chunk::<CHUNK>()
        && chunk.iter().fold(0, |any, byte| any | special(byte)) == 0
    {
        at += CHUNK;
    }
    at + text[at..].iter().position(is_special).unwrap_or(text.len() - at)
}
