//! JSON of one length and of every shape that costs a reader something.

/// How many keys an object of a client may have.
const MOST_KEYS: usize = 1000;

/// Objects of about so many bytes, the cheapest first.
pub(crate) fn shapes(size: usize) -> Vec<(&'static str, String)> {
    let fill = |text: &str| text.repeat(size / text.len());
    let keys: Vec<String> = (0..size / 10).map(|n| format!(r#""{n:05x}":1"#)).collect();
    let escaped: Vec<String> = (0..size / 17).map(|n| format!(r#""\u0061{n:06}":1"#)).collect();
    let long: Vec<String> =
        (0..MOST_KEYS).map(|n| format!(r#""{n}{}":1"#, "k".repeat(size / MOST_KEYS - 10))).collect();
    let nested = format!("{}{}", "[".repeat(50), "]".repeat(50));
    vec![
        ("one string", format!(r#"{{"a":"{}"}}"#, fill("x"))),
        ("one string, not ASCII", format!(r#"{{"a":"{}"}}"#, fill("é世"))),
        ("escapes", format!(r#"{{"a":"{}"}}"#, fill(r"\n"))),
        ("escapes here and there", format!(r#"{{"a":"{}"}}"#, fill(r"a\nbc"))),
        ("escapes by number", format!(r#"{{"a":"{}"}}"#, fill(r"\u0041"))),
        ("one number", format!(r#"{{"a":{}}}"#, fill("7"))),
        ("short numbers", format!(r#"{{"a":[{}1]}}"#, fill("1,"))),
        ("numbers of every form", format!(r#"{{"a":[{}1]}}"#, fill("-1.5e+10,0,12.25,"))),
        ("short strings", format!(r#"{{"a":[{}""]}}"#, fill(r#""","#))),
        ("words", format!(r#"{{"a":[{}1]}}"#, fill("true,null,false,"))),
        ("spaces", format!(r#"{{"a":{}1}}"#, fill(" "))),
        ("short keys", format!("{{{}}}", keys.join(","))),
        ("escaped keys", format!("{{{}}}", escaped.join(","))),
        ("long keys", format!("{{{}}}", long.join(","))),
        ("nested", format!(r#"{{"a":[{}1]}}"#, fill(&format!("{nested},")))),
        ("shallow", format!(r#"{{"a":[{}1]}}"#, fill("[],"))),
        ("objects", format!(r#"{{"a":[{}1]}}"#, fill(r#"{"a":{}},"#))),
    ]
}
