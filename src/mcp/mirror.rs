//! Parameters of tools that are mirrored into headers, where a tool's schema asks for it with `x-mcp-header`.
//! Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters".

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::headers::{HeaderMismatch, decode};
use super::json::{self, Invalid, Object, Reader};

/// What the names of mirrored headers begin with.
pub const PREFIX: &str = "mcp-param-";

/// The most parameters of one tool that are mirrored: each is a header, and servers take about a hundred.
const MAX_MIRRORED: usize = 64;

/// The longest path to such a parameter, in bytes of its keys.
const MAX_PATH: usize = 4096;

/// One parameter that is mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    header: HeaderName,
    path: Vec<String>,
}

/// What the tools of one server may take in memory while they are read, in bytes: a hundred thousand.
const MAX_SIZE: usize = 8 << 20;

/// How deep a schema is read.
const MAX_DEPTH: usize = 128;

/// The tools of a server, each with the parameters that it wants mirrored.
#[derive(Debug, Default)]
pub struct Tools {
    wanted: HashMap<String, Vec<Mirrored>>,
    size: usize,
}

impl Tools {
    /// Adds the tools of one page, the result of a `tools/list` as written, and returns where the next page begins. Those
    /// that would take too much memory are left out, and nothing follows them.
    pub fn add_page(&mut self, result: &str) -> Option<String> {
        let page = Object::parse(result).ok()?;
        let mut reader = Reader::new(page.get("tools")?, usize::MAX);
        let read = reader.array(|reader| {
            let tool = Object::parse(reader.value()?).unwrap_or_default();
            if let Some(name) = tool.get_string("name").filter(|_| self.size <= MAX_SIZE) {
                self.add(name.into_owned(), tool.get("inputSchema").map(mirrored).unwrap_or_default());
            }
            Ok(())
        });
        read.ok().filter(|()| self.size <= MAX_SIZE)?;
        page.get_string("nextCursor").map(std::borrow::Cow::into_owned)
    }

    fn add(&mut self, name: String, wanted: Vec<Mirrored>) {
        let key = |key: &String| size_of::<String>() + key.capacity();
        let parameter = |mirrored: &Mirrored| {
            size_of::<Mirrored>() + mirrored.header.as_str().len() + mirrored.path.iter().map(key).sum::<usize>()
        };
        let size = key(&name) + size_of::<Vec<Mirrored>>() + wanted.iter().map(parameter).sum::<usize>();
        if self.wanted.insert(name, wanted).is_none() {
            self.size += size;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.wanted.len()
    }

    /// What they take in memory, in bytes, to the nearest allocation.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The mirrored parameters of a tool; `None` if there is no such tool.
    #[must_use]
    pub fn get(&self, tool: &str) -> Option<&[Mirrored]> {
        self.wanted.get(tool).map(Vec::as_slice)
    }
}

/// The parameters that a schema wants mirrored; none if its annotations break the rules, as for a client.
fn mirrored(schema: &str) -> Vec<Mirrored> {
    if memchr::memmem::find(schema.as_bytes(), b"x-mcp-header").is_none() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut reader = Reader::new(schema, MAX_DEPTH);
    if walk(&mut reader, &mut Vec::new(), &mut found) != Ok(true) {
        return Vec::new();
    }
    let mut names: Vec<&HeaderName> = found.iter().map(|mirrored: &Mirrored| &mirrored.header).collect();
    names.sort_by_key(|name| name.as_str());
    if names.windows(2).any(|pair| pair[0] == pair[1]) { Vec::new() } else { found }
}

/// Follows the chains of `properties`; false if an annotation is no good.
fn walk(reader: &mut Reader<'_>, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> Result<bool, Invalid> {
    if !reader.is_at_object() {
        return reader.value().map(|_| true);
    }
    let (mut annotation, mut kind, mut is_good) = (None, None, true);
    reader.object(|reader, key| {
        match json::string(key).as_deref() {
            Some("x-mcp-header") => annotation = Some(reader.value()?),
            Some("type") => kind = json::string(reader.value()?),
            Some("properties") if reader.is_at_object() => reader.object(|reader, key| {
                path.push(json::string(key).ok_or(Invalid::Syntax)?.into_owned());
                is_good &= walk(reader, path, found)?;
                path.pop();
                Ok(())
            })?,
            _ => drop(reader.value()?),
        }
        Ok(())
    })?;
    let Some(annotation) = annotation else { return Ok(is_good) };
    let primitive = matches!(kind.as_deref(), Some("string" | "integer" | "boolean"));
    let name = json::string(annotation).filter(|name| !name.is_empty() && primitive && !path.is_empty());
    let header = name.and_then(|name| HeaderName::try_from(format!("{PREFIX}{name}")).ok());
    let is_short = found.len() < MAX_MIRRORED && path.iter().map(String::len).sum::<usize>() <= MAX_PATH;
    let Some(header) = header.filter(|_| is_short) else { return Ok(false) };
    found.push(Mirrored { header, path: path.clone() });
    Ok(is_good)
}

/// Compares the headers of a call with its arguments.
///
/// # Errors
/// Names the first header that is missing, malformed or different.
pub fn check(wanted: &[Mirrored], headers: &HeaderMap, arguments: Option<&str>) -> Result<(), HeaderMismatch> {
    for (Mirrored { header, .. }, value) in wanted.iter().zip(values(wanted, arguments)) {
        let name = || header.as_str().to_owned();
        let mut said = headers.get_all(header).iter();
        let (said, again) = (said.next(), said.next());
        match (value, said) {
            (None, None) => {}
            (None, Some(_)) => return Err(HeaderMismatch::Parameter(name())),
            (Some(_), None) => return Err(HeaderMismatch::ParameterMissing(name())),
            (Some(value), Some(said)) => {
                let said = said.to_str().ok().filter(|_| again.is_none()).and_then(decode);
                if !said.is_some_and(|said| says(&said, &value)) {
                    return Err(HeaderMismatch::Parameter(name()));
                }
            }
        }
    }
    Ok(())
}

/// The headers that mirror the arguments of a call.
#[must_use]
pub fn headers_for(wanted: &[Mirrored], arguments: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let one = |(Mirrored { header, .. }, value): (&Mirrored, Option<Value>)| {
        let text = match value? {
            Value::String(text) => encode(&text),
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
            _ => return None,
        };
        Some((header.clone(), HeaderValue::try_from(text).ok()?))
    };
    wanted.iter().zip(values(wanted, arguments)).filter_map(one).collect()
}

/// A value as a header carries it: as it is if it is plain, else in base64.
fn encode(text: &str) -> String {
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~'))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

/// What the arguments have at each wanted path, gone through once. Of arrays and objects, which no header says, it is
/// only told that they are there.
fn values(wanted: &[Mirrored], arguments: Option<&str>) -> Vec<Option<Value>> {
    let (mut found, all) = (vec![None; wanted.len()], (0..wanted.len()).collect::<Vec<_>>());
    if let Some(text) = arguments.filter(|_| !wanted.is_empty()) {
        // What is no JSON has nothing anywhere.
        let _ = gather(&mut Reader::new(text, MAX_DEPTH), wanted, (&all, 0), &mut found);
    }
    let value = |text: &str| match text.as_bytes()[0] {
        b'[' | b'{' => Value::Array(Vec::new()),
        _ => serde_json::from_str(text).unwrap_or_default(),
    };
    found.into_iter().map(|text| text.map(value).filter(|value| !value.is_null())).collect()
}

/// Finds what the next value has at the rest of those paths whose first `depth` keys lead to it.
fn gather<'a>(
    reader: &mut Reader<'a>,
    wanted: &[Mirrored],
    (paths, depth): (&[usize], usize),
    found: &mut [Option<&'a str>],
) -> Result<(), Invalid> {
    if paths.is_empty() || !reader.is_at_object() {
        return reader.value().map(drop);
    }
    reader.object(|reader, key| {
        let key = json::string(key).ok_or(Invalid::Syntax)?;
        let here = paths.iter().copied().filter(|&path| wanted[path].path[depth] == key);
        let (end, further): (Vec<_>, Vec<_>) = here.partition(|&path| wanted[path].path.len() == depth + 1);
        // Of a key that stands twice the last counts.
        for &path in &further {
            found[path] = None;
        }
        let text = reader.written(|reader| gather(reader, wanted, (&further, depth + 1), found))?;
        for path in end {
            found[path] = Some(text);
        }
        Ok(())
    })
}

/// Whether a header says what the body says; numbers are compared as numbers.
fn says(said: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => said == text,
        Value::Bool(flag) => said == if *flag { "true" } else { "false" },
        Value::Number(number) => {
            said == number.to_string()
                || matches!((said.parse::<f64>(), number.as_f64()), (Ok(a), Some(b)) if a.to_bits() == b.to_bits())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"tools":[{"name":"q","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}},{"name":"plain","inputSchema":{"type":"object"}},{"name":"bad","inputSchema":{"properties":{"f":{"type":"number","x-mcp-header":"F"}}}}],"nextCursor":"c"}"#;

    fn tools() -> Tools {
        let mut tools = Tools::default();
        assert_eq!(tools.add_page(LIST).as_deref(), Some("c"));
        tools
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_call_whose_headers_mirror_its_arguments_passes() {
        let tools = tools();
        let (wanted, body) = (tools.get("q").unwrap(), r#"{"region":"eu","deep":{"n":42}}"#);
        assert_eq!(check(wanted, &headers(&[("mcp-param-region", "eu"), ("mcp-param-n", "42.0")]), Some(body)), Ok(()));
        assert_eq!(check(wanted, &headers(&[]), Some(r#"{"region":null}"#)), Ok(()));
        let encoded = headers(&[("mcp-param-region", "=?base64?5LiW55WM?=")]);
        assert_eq!(check(wanted, &encoded, Some(r#"{"region":"世界"}"#)), Ok(()));
    }

    #[test]
    fn a_missing_different_or_unexpected_header_is_named() {
        let tools = tools();
        let wanted = tools.get("q").unwrap();
        let missing = HeaderMismatch::ParameterMissing("mcp-param-region".into());
        assert_eq!(check(wanted, &headers(&[]), Some(r#"{"region":"eu"}"#)), Err(missing));
        let different = Err(HeaderMismatch::Parameter("mcp-param-region".into()));
        assert_eq!(check(wanted, &headers(&[("mcp-param-region", "us")]), Some(r#"{"region":"eu"}"#)), different);
        assert_eq!(check(wanted, &headers(&[("mcp-param-region", "us")]), Some("{}")), different);
        assert_eq!(
            check(wanted, &headers(&[("mcp-param-region", "=?base64?*?=")]), Some(r#"{"region":"eu"}"#)),
            different
        );
    }

    #[test]
    fn tools_without_good_annotations_want_nothing() {
        let tools = tools();
        assert_eq!(tools.get("plain"), Some(&[][..]));
        assert_eq!(tools.get("bad"), Some(&[][..]));
        assert_eq!(tools.get("unknown"), None);
    }

    #[test]
    fn annotations_without_end_want_nothing() {
        let list = |key: &str, count: usize| {
            let one = |n| format!(r#""{n}":{{"type":"string","x-mcp-header":"H{n}"}}"#);
            let many: Vec<String> = (0..count).map(one).collect();
            let inner = format!(r#"{{"properties":{{{}}}}}"#, many.join(","));
            format!(r#"{{"tools":[{{"name":"t","inputSchema":{{"properties":{{"{key}":{inner}}}}}}}]}}"#)
        };
        let wanted = |key, count| {
            let mut tools = Tools::default();
            tools.add_page(&list(key, count));
            tools.get("t").map(<[_]>::len)
        };
        assert_eq!(wanted("deep", MAX_MIRRORED), Some(MAX_MIRRORED));
        assert_eq!(wanted("deep", MAX_MIRRORED + 1), Some(0));
        assert_eq!(wanted(&"k".repeat(MAX_PATH + 1), 1), Some(0));
    }

    #[test]
    fn headers_are_made_from_arguments_and_pass_their_own_check() {
        let tools = tools();
        let (wanted, body) = (tools.get("q").unwrap(), r#"{"region":" ü ","deep":{"n":-7}}"#);
        let made: HeaderMap = headers_for(wanted, Some(body)).into_iter().collect();
        assert_eq!(made["mcp-param-region"], "=?base64?IMO8IA==?=");
        assert_eq!(check(wanted, &made, Some(body)), Ok(()));
    }
}
