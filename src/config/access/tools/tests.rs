use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::user::UserId;

fn rule(allow: Option<&[&str]>, deny: &[&str]) -> Rule {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Rule { allow: allow.map(names), deny: names(deny) }
}

fn caller(groups: &[&str]) -> Caller {
    Caller {
        groups: groups.iter().map(|&group| group.to_owned()).collect::<Arc<[_]>>(),
        ..UserId::local("alice").unwrap().into()
    }
}

/// The definition of a pattern, letter by letter.
fn says(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => says(rest, name) || !name.is_empty() && says(pattern, &name[1..]),
        ([one, rest @ ..], [other, after @ ..]) => one == other && says(rest, after),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_pattern_says_what_its_definition_says(pattern in "[ab\u{e9}*]{0,8}", name in "[ab\u{e9}*]{0,10}") {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(matches(&pattern, &name), says(&letters(&pattern), &letters(&name)));
    }
}

#[test]
fn what_is_denied_is_denied_also_where_it_is_allowed() {
    let searching = rule(Some(&["search_*", "read"]), &["*_all"]);
    for (tool, permitted) in
        [("search_web", true), ("read", true), ("search_all", false), ("write", false), ("Read", false)]
    {
        assert_eq!(searching.permits(tool), permitted, "{tool}");
    }
    assert!(rule(None, &["a"]).permits("b") && !rule(Some(&[]), &[]).permits("b"));
}

#[test]
fn who_is_in_groups_with_rules_may_use_what_any_of_them_permits_and_nothing_else() {
    let groups =
        [("read", rule(Some(&["get_*"]), &["get_secret"])), ("write", rule(Some(&["put_*", "get_secret"]), &[]))];
    let groups = groups.into_iter().map(|(group, rule)| (group.to_owned(), rule)).collect();
    let tools = Tools { general: rule(Some(&["ping"]), &[]), groups };
    for (groups, permitted) in [
        (&[][..], &["ping"][..]),
        (&["other"], &["ping"]),
        (&["read"], &["get_it"]),
        (&["write", "other"], &["put_it", "get_secret"]),
        (&["read", "write"], &["get_it", "get_secret", "put_it"]),
    ] {
        let caller = caller(groups);
        let found: Vec<_> =
            ["get_it", "get_secret", "ping", "put_it"].into_iter().filter(|tool| tools.permit(&caller, tool)).collect();
        let mut permitted = permitted.to_vec();
        permitted.sort_unstable();
        assert_eq!(found, permitted, "{groups:?}");
    }
}
