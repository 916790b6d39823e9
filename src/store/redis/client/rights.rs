//! What the ACL of a Redis must allow, and what it does not.

/// How the refusal of a command that a script has called begins, in Redis 7 and in Redis 6.
const OF_A_SCRIPT: [&str; 2] = ["ACL failure in script", "The user executing the script "];
/// What the ACL user must be allowed, if the server does not say what.
pub(super) const UNKNOWN: &str = "what docs/operate.md lists";
/// Every command that is ever asked for, as the rule of an ACL.
const COMMANDS: [&str; 35] = [
    "+config|get",
    "+del",
    "+eval",
    "+get",
    "+hdel",
    "+hexists",
    "+hget",
    "+hgetall",
    "+hincrby",
    "+hlen",
    "+hmget",
    "+hset",
    "+hsetnx",
    "+info",
    "+pexpire",
    "+ping",
    "+pttl",
    "+publish",
    "+scan",
    "+select",
    "+sentinel|get-master-addr-by-name",
    "+sentinel|master",
    "+set",
    "+subscribe",
    "+time",
    "+wait",
    "+xadd",
    "+xrange",
    "+xtrim",
    "+zadd",
    "+zcard",
    "+zpopmin",
    "+zrem",
    "+zremrangebyscore",
    "+zscore",
];

/// The rule that would allow what the server says is denied; never the server's own words.
pub(super) fn denied(said: &str) -> &'static str {
    let command = said.split_once(" run the '").and_then(|(_, rest)| rest.split_once('\'')).map(|(command, _)| command);
    match command {
        Some(command) => COMMANDS.into_iter().find(|rule| rule[1..] == *command).unwrap_or(UNKNOWN),
        None if said.contains("channel") => "&PREFIX:node*",
        None if said.contains(" key") => "~PREFIX:*",
        None => UNKNOWN,
    }
}

/// Whether a command was refused that a script has called.
pub(super) fn is_of_a_script(said: &str) -> bool {
    OF_A_SCRIPT.iter().any(|start| said.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_acl_denies_is_named_as_the_rule_that_would_allow_it_in_the_words_of_every_version() {
        for (said, rule) in [
            ("this user has no permissions to run the 'hget' command or its subcommand", "+hget"),
            ("User bridge has no permissions to run the 'config|get' command", "+config|get"),
            ("ACL failure in script: User bridge has no permissions to run the 'zadd' command script: x", "+zadd"),
            ("this user has no permissions to access one of the keys used as arguments", "~PREFIX:*"),
            ("No permissions to access a key", "~PREFIX:*"),
            ("No permissions to access a channel", "&PREFIX:node*"),
            ("User bridge has no permissions to run the 'hunter2' command", UNKNOWN),
            ("hunter2", UNKNOWN),
        ] {
            assert_eq!(denied(said), rule, "{said}");
        }
    }
}
