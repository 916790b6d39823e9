//! The list of tools that a server tells, with some left out: whole elements go from the bytes that came, each with its
//! comma, and everything else stays as it was written.

use bytes::Bytes;

use super::json::{self, Object, Reader};

/// The method that asks for the list.
pub const LIST: &str = "tools/list";
/// The method that calls a tool.
pub const CALL: &str = "tools/call";

/// A list that cannot be read, and so cannot be shown in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list of tools cannot be read")]
pub struct Unreadable;

/// `line`, the answer to a `tools/list`, with those tools alone whose names are wanted; as it came if that is all of
/// them, or if it is an error. A tool without a name that can be read is not wanted.
///
/// # Errors
/// The result holds no list of tools.
pub fn only(line: &Bytes, is_wanted: impl Fn(&str) -> bool) -> Result<Bytes, Unreadable> {
    let whole = std::str::from_utf8(line).map_err(|_| Unreadable)?;
    let message = Object::parse(whole).map_err(|_| Unreadable)?;
    let Some(result) = message.get("result") else { return Ok(line.clone()) };
    let written = Object::parse(result).ok().and_then(|result| result.get("tools")).ok_or(Unreadable)?;
    let (mut kept, mut first, mut behind, mut all_kept) = (Vec::new(), None, 0, true);
    let mut reader = Reader::new(written, usize::MAX);
    let read = reader.array(|reader| {
        let tool = reader.value()?;
        let place = json::range_in(whole, tool);
        first.get_or_insert(place.start);
        let name = Object::parse(tool).ok().and_then(|tool| tool.get_string("name"));
        if name.is_some_and(|name| is_wanted(&name)) {
            // With the comma before it and the white space around, unless it is the first.
            let start = if kept.is_empty() { place.start } else { behind };
            kept.extend_from_slice(&line[start..place.end]);
        } else {
            all_kept = false;
        }
        behind = place.end;
        Ok(())
    });
    read.map_err(|_| Unreadable)?;
    match first {
        Some(first) if !all_kept => Ok([&line[..first], &kept, &line[behind..]].concat().into()),
        _ => Ok(line.clone()),
    }
}

/// `line`, a result, with the word that only its own client may keep it, where its server lets everybody.
#[must_use]
pub fn kept_private(line: &Bytes) -> Bytes {
    let whole = std::str::from_utf8(line).unwrap_or_default();
    let result = Object::parse(whole).ok().and_then(|message| message.get_object("result"));
    let Some(scope) = result.and_then(|result| result.get("cacheScope")) else { return line.clone() };
    let at = json::range_in(whole, scope);
    [&line[..at.start], br#""private""#, &line[at.end..]].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> Result<String, Unreadable> {
        let said = only(&Bytes::from(line.to_owned()), |name| name.starts_with("show"))?;
        Ok(String::from_utf8(said.to_vec()).unwrap())
    }

    #[test]
    fn what_is_not_for_everybody_is_kept_by_its_own_client_alone() {
        let line =
            |scope: &str| Bytes::from(format!(r#"{{"x":1.0,"id":1,"result":{{"tools":[],"cacheScope" : {scope}}}}}"#));
        assert_eq!(kept_private(&line(r#""public""#)), line(r#""private""#));
        assert_eq!(kept_private(&line(r#""private""#)), line(r#""private""#));
        let without = Bytes::from(r#"{"id":1,"result":{"tools":[]}}"#);
        assert_eq!(kept_private(&without), without);
    }

    #[test]
    fn a_tool_goes_with_its_comma_and_everything_else_stays_as_it_came() {
        let line = |tools: &str| {
            format!(
                "{{\"x\" : 1e400,\"result\":{{\"b\":[{{\"name\":\"hide\"}}], \"tools\" :{tools},\"nextCursor\":\"\\u0041\" }} , \"id\":1,\"jsonrpc\":\"2.0\"}} "
            )
        };
        let (a, b) =
            (r#"{ "z":1.0,"name" : "\u0073how_a","inputSchema":{"name":"hide"} }"#, r#"{"name":"show","name2":-0}"#);
        let (h, odd) = (r#"{"name":"hide","d":"]},{"}"#, r#"{"name":["show"]}"#);
        for (tools, expected) in [
            (format!("[ {a} , {b}\t]"), format!("[ {a} , {b}\t]")),
            (format!("[ {h} , {a}\t,{b}]"), format!("[ {a}\t,{b}]")),
            (format!("[{a} , {h},\t{b} ]"), format!("[{a},\t{b} ]")),
            (format!("[{a} ,{h} , {h}  ]"), format!("[{a}  ]")),
            (format!("[ {h} ]"), "[  ]".to_owned()),
            ("[ ]".to_owned(), "[ ]".to_owned()),
            (format!("[{odd},7,null,{{}},{b},{{\"name\":\"show\",\"name\":\"hide\"}}]"), format!("[{b}]")),
        ] {
            assert_eq!(shown(&line(&tools)).unwrap(), line(&expected));
        }
    }

    #[test]
    fn a_result_that_is_no_list_of_tools_is_not_shown_and_an_error_is() {
        for result in
            ["null", "7", "{}", r#"{"tools":null}"#, r#"{"tools":{}}"#, r#"{"tools":[],"tools":[{"name":"hide"}]}"#]
        {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            assert_eq!(shown(&line), Err(Unreadable), "{line}");
        }
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"tools"}}"#;
        assert_eq!(shown(error).unwrap(), error);
        let both = r#"{"jsonrpc":"2.0","id":1,"error":{},"result":{"tools":[{"name":"hide"}]}}"#;
        assert_eq!(shown(both).unwrap(), both.replace(r#"{"name":"hide"}"#, ""));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_told_without_the_hidden(tools in prop::collection::vec(("(show|hide)[\\]\\[,{}\"\\\\ é]{0,4}", "[ \t]{0,2}"), 0..8)) {
            let element = |(name, space): &(String, String)| format!("{space}{{{space}\"name\":{}{space}}}", json::quote(name));
            let line = |list: &[String]| format!("{{\"id\":1,\"result\":{{\"tools\":[{}]}}}}", list.join(","));
            let all: Vec<String> = tools.iter().map(element).collect();
            let left: Vec<_> = tools.iter().filter(|(name, _)| name.starts_with("show")).map(element).collect();
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(value(&shown(&line(&all)).unwrap()), value(&line(&left)));
        }
    }
}
