//! A URL with holes: in path segments and query values only, so that no token chooses where a request goes.

use std::ops::Range;

use url::Url;

use super::hole::Hole;
use super::placeholder::Placeholder;
use super::{Fault, Source, Template};

/// What stands for hole number `n` while the URL is parsed: nothing that a URL changes.
fn stand_in(n: usize) -> String {
    format!("zz0tollbridge0hole{n}zz")
}

/// The template of a URL, and the origin that every filling of it has.
pub(in crate::config) fn compile(
    source: Source,
    text: &str,
    holes: &[Placeholder],
) -> Result<(Template, String), Fault> {
    let kinds = kinds(text, holes)?;
    let mut sample = String::new();
    let mut from = 0;
    for (n, Placeholder { range: hole, .. }) in holes.iter().enumerate() {
        sample.push_str(&text[from..hole.start]);
        sample.push_str(&stand_in(n));
        from = hole.end;
    }
    sample.push_str(&text[from..]);
    let whole = 0..text.len();
    let url = Url::parse(&sample).map_err(|error| {
        Fault::new(whole.clone(), &format!("this is not a URL: {error}"), "write https://host/path")
    })?;
    let mut template = Template::empty(source);
    let mut rest = url.as_str();
    for (n, (kind, hole)) in kinds.into_iter().zip(holes).enumerate() {
        let Some((before, after)) = rest.split_once(&stand_in(n)) else {
            return Err(Fault::new(whole, "`..` removes a placeholder from this URL", "write the path without `..`"));
        };
        template.push_text(before);
        template.push_hole(kind, hole.input.clone());
        rest = after;
    }
    template.push_text(rest);
    Ok((template, url.origin().ascii_serialization()))
}

/// The kind of each hole, from the part of the URL it stands in.
fn kinds(text: &str, holes: &[Placeholder]) -> Result<Vec<Hole>, Fault> {
    if let Some((place, c)) = text.char_indices().find(|(_, c)| c.is_control() || c.is_whitespace() || *c == '\\') {
        let help = "take this character out";
        return Err(Fault::new(place..place + c.len_utf8(), "a URL has no spaces, control characters or `\\`", help));
    }
    let scheme =
        ["http://", "https://"].into_iter().find(|s| text.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s)));
    let Some(scheme) = scheme else {
        return Err(Fault::new(0..text.len(), "this is not an http or https URL", "write https://host/path"));
    };
    let authority =
        scheme.len()..text[scheme.len()..].find(['/', '?', '#']).map_or(text.len(), |end| end + scheme.len());
    if let Some(hole) = holes.iter().map(|hole| &hole.range).find(|hole| hole.start < authority.end) {
        let help = "a placeholder may stand in the path or in a query value";
        return Err(Fault::new(hole.clone(), "a placeholder cannot choose where the request goes", help));
    }
    if authority.is_empty() {
        return Err(Fault::new(0..text.len(), "this URL names no host", "write https://host/path"));
    }
    if text[authority.clone()].contains('@') {
        let help = "send credentials in `headers`: \"Authorization\": { \"$env\": \"NAME\" }";
        return Err(Fault::new(authority, "a URL here carries no user or password", help));
    }
    if let Some(hash) = text.find('#') {
        return Err(Fault::new(hash..text.len(), "what follows `#` is never sent", "take it out"));
    }
    let query = text.find('?').unwrap_or(text.len());
    holes.iter().map(|hole| kind(text, query, &hole.range)).collect()
}

fn kind(text: &str, query: usize, hole: &Range<usize>) -> Result<Hole, Fault> {
    if hole.start < query {
        return Ok(Hole::UrlPath);
    }
    let pair = text[query + 1..hole.start].rsplit('&').next().unwrap_or_default();
    if pair.contains('=') {
        Ok(Hole::UrlQuery)
    } else {
        Err(Fault::new(hole.clone(), "a placeholder cannot be the name of a query field", "write name=<<token>>"))
    }
}
