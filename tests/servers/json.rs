//! Just enough JSON for the test servers: top-level fields as the bytes that came.

/// The value of a field of `object`, as it was written. Looks at the top level only and at no more than it needs.
pub(crate) fn field<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut at = after_space(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    loop {
        at = after_space(object, at);
        let key_end = end_of_value(object, at)?;
        let key = object.get(at + 1..key_end - 1)?;
        at = after_space(object, key_end);
        if object.get(at) != Some(&b':') {
            return None;
        }
        at = after_space(object, at + 1);
        let end = end_of_value(object, at)?;
        if key == name.as_bytes() {
            return object.get(at..end);
        }
        at = after_space(object, end);
        if object.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
}

/// The value at the end of a path of fields.
pub(crate) fn path<'a>(object: &'a [u8], names: &[&str]) -> Option<&'a [u8]> {
    names.iter().try_fold(object, |object, name| field(object, name))
}

fn after_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the value that starts at `at` ends. Trusts its input to be JSON; never looks beyond it.
fn end_of_value(text: &[u8], mut at: usize) -> Option<usize> {
    let (mut depth, start) = (0_usize, at);
    loop {
        match *text.get(at)? {
            b'"' => {
                at += 1;
                while *text.get(at)? != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                return (at > start).then_some(at);
            }
            _ if depth == 0 => {
                at += 1;
                continue;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}
