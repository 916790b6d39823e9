use proptest::prelude::*;

use super::*;

#[test]
fn values_stay_as_written() {
    let text = r#"{"a":1.0,"b":18446744073709551616,"c":"\u0061","d":{"x":1e400}}"#;
    assert_eq!(Object::parse(text).unwrap().write(), text);
}

#[test]
fn a_key_that_stands_twice_is_refused_also_when_it_is_escaped() {
    assert_eq!(Object::parse(r#"{"a":1,"\u0061":2}"#).unwrap_err(), Invalid::DuplicateKey);
    assert!(Object::parse(r#"{"a":1,"A":2}"#).is_ok());
}

#[test]
fn what_is_no_object_is_told_from_what_is_no_json() {
    assert_eq!(Object::parse("[1]").unwrap_err(), Invalid::NotAnObject);
    assert_eq!(Object::parse("7").unwrap_err(), Invalid::NotAnObject);
    assert_eq!(Object::parse("{\"a\":}").unwrap_err(), Invalid::Syntax);
    assert_eq!(Object::parse("{} {}").unwrap_err(), Invalid::Syntax);
}

#[test]
fn a_key_that_stands_twice_is_found_among_many_and_many_are_read_in_no_time() {
    // The quadratic way would take most of a minute for this.
    let keys = |count: usize| (0..count).map(|n| format!(r#""{n:x}":1"#)).collect::<Vec<_>>();
    let many = keys(MAX_MEMBERS);
    assert!(Object::parse(&format!("{{{}}}", many.join(","))).is_ok());
    let twice = [&many[1..], &keys(2)[1..]].concat();
    assert_eq!(Object::parse(&format!("{{{}}}", twice.join(","))).unwrap_err(), Invalid::DuplicateKey);
    let more = keys(1_000_000);
    assert_eq!(Object::parse(&format!("{{{}}}", more.join(","))).unwrap_err(), Invalid::TooManyMembers);
    let some = format!("{{{}}}", keys(1000).join(","));
    assert!(Object::parse_up_to(1000, &some).is_ok());
    assert_eq!(Object::parse_up_to(999, &some).unwrap_err(), Invalid::TooManyMembers);
}

#[test]
fn an_object_is_kept_beside_its_text_also_when_a_part_of_that_changes() {
    let text = r#" {"a":{"b":12,"\u0063":[3]},"d":4}"#;
    let inner = Object::parse(text).unwrap().get_object("a").unwrap();
    let mut places = Places::of(&inner, text);
    assert_eq!(places.object(text.as_bytes()).write(), r#"{"b":12,"c":[3]}"#);
    let at = places.find("b", text.as_bytes()).unwrap();
    places.shift(&at, 1);
    let text = text.replace("12", "9");
    assert_eq!(places.object(text.as_bytes()).write(), r#"{"b":9,"c":[3]}"#);
    assert_eq!(places.find("c", text.as_bytes()).map(|at| slice(text.as_bytes(), &at)), Some("[3]"));
    assert_eq!(places.find("d", text.as_bytes()), None);
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
    let read = |text: &str| Reader::new(text, 64).value().map(drop);
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(read(&deep(64)), Ok(()));
    assert_eq!(read(&deep(65)), Err(Invalid::TooDeep));
    assert_eq!(read(&format!(r#"["\"{}"]"#, "[".repeat(100))), Ok(()));
}

#[test]
fn keys_are_told_as_they_are_written_and_values_as_they_are_read() {
    let text = r#" { "a" : [1, {"b":[]} ] , "\u0061" :{} , "c":"\\\"" } "#;
    let mut reader = Reader::new(text, 64);
    let mut seen = Vec::new();
    let read = reader.object(|reader, key| {
        let mut elements = 0;
        let value = reader.written(|reader| match key {
            r#""a""# => reader.array(|reader| {
                elements += 1;
                reader.value().map(drop)
            }),
            _ => reader.value().map(drop),
        })?;
        seen.push((key, value, elements));
        Ok(())
    });
    assert_eq!(read.and_then(|()| reader.end()), Ok(()));
    assert_eq!(seen, [(r#""a""#, r#"[1, {"b":[]} ]"#, 2), (r#""\u0061""#, "{}", 0), (r#""c""#, r#""\\\"""#, 0)]);
}

/// Text that is JSON, or nearly.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"a\":",
        "\"\"",
        "\\",
        "\\n",
        "\\u00e9",
        "\\u00g",
        "\\x",
        "\u{7f}",
        "\u{1}",
        "0",
        "-",
        "-0",
        "12",
        "01",
        "1.5",
        "1.",
        ".5",
        "1e5",
        "1E+05",
        "1e",
        "2e-",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n\t\r ",
        "\u{c}",
        "é世",
        "a plain text that is longer than one look, and longer than two of them",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 4000 } else { 100_000 }))]

    #[test]
    fn what_is_json_to_serde_is_json_to_us_and_nothing_else(text in pieces(), around in 0..4_usize) {
        let text = ["@", "\"@\"", "[@]", "{\"k\":@}"][around].replace('@', &text);
        let mut reader = Reader::new(&text, usize::MAX);
        let ours = reader.value().and_then(|value| reader.end().map(|()| value)).ok();
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).ok();
        prop_assert_eq!(ours, theirs.map(serde_json::value::RawValue::get));
    }

    #[test]
    fn an_object_has_the_members_that_serde_finds_in_it(members in prop::collection::vec((".{0,3}", -9..9_i32), 0..6)) {
        let text: Vec<String> = members.iter().map(|(key, value)| format!("{} : {value}", quote(key))).collect();
        let text = format!("{{{}}}", text.join(" ,"));
        let all: std::collections::BTreeMap<_, _> = members.iter().cloned().collect();
        match Object::parse(&text) {
            Ok(object) => {
                let ours: std::collections::BTreeMap<String, i32> =
                    object.iter().map(|(key, value)| (key.to_owned(), value.parse().unwrap())).collect();
                prop_assert_eq!(ours, all);
            }
            Err(error) => prop_assert!(error == Invalid::DuplicateKey && all.len() < members.len()),
        }
    }
}
