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
fn a_key_that_stands_twice_is_found_among_many_and_many_are_read_in_no_time() {
    // The quadratic way would take most of an hour for this.
    let keys = |count: usize| (0..count).map(|n| format!(r#""{n:x}":1"#)).collect::<Vec<_>>();
    let many = keys(1_000_000);
    assert!(Object::parse(&format!("{{{}}}", many.join(","))).is_ok());
    let twice = [many, keys(1)].concat();
    assert_eq!(Object::parse(&format!("{{{}}}", twice.join(","))).unwrap_err(), ObjectError::DuplicateKey);
    let some = format!("{{{}}}", keys(1000).join(","));
    assert!(Object::parse_up_to(1000, &some).is_ok());
    assert_eq!(Object::parse_up_to(999, &some).unwrap_err(), ObjectError::TooManyMembers);
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
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(depth_is_bounded(deep(MAX_DEPTH).as_bytes()));
    assert!(!depth_is_bounded(deep(MAX_DEPTH + 1).as_bytes()));
    assert!(depth_is_bounded(format!(r#"["\"{}"]"#, "[".repeat(100)).as_bytes()));
}
