//! What the Redis at the other end is: a master by itself that evicts nothing, or not one to trust with tokens.

use redis::aio::MultiplexedConnection;
use redis::{Value, from_redis_value};

use super::command_batch::CommandBatch;
use crate::store::StoreError;

/// The parts of `INFO` that say so. Only Redis 7 takes several at once.
const SECTIONS: [&str; 3] = ["server", "replication", "memory"];

/// Asks Redis what it is, and whether it said all of it: some services leave fields out.
///
/// # Errors
/// It could not be asked, or it is a Sentinel, a node of a cluster, a replica, or one that evicts.
pub(super) async fn look(wire: &MultiplexedConnection) -> Result<bool, StoreError> {
    let mut batch = CommandBatch::new();
    for section in SECTIONS {
        batch.cmd("INFO").arg(section);
    }
    let sections: Vec<String> =
        from_redis_value(Value::Array(batch.put(wire).await?)).map_err(|_| StoreError::Shape)?;
    judge(&sections.concat())
}

/// What `info` says of who wrote it.
fn judge(info: &str) -> Result<bool, StoreError> {
    // Valkey names it otherwise.
    let mode = field(info, "redis_mode").or_else(|| field(info, "server_mode"));
    match mode {
        Some("sentinel") => return Err(StoreError::Sentinel),
        Some("cluster") => return Err(StoreError::Cluster),
        _ => {}
    }
    let role = field(info, "role");
    if role.is_some_and(|role| role != "master") {
        return Err(StoreError::Replica);
    }
    let policy = field(info, "maxmemory_policy");
    if let Some(policy) = policy.filter(|&policy| policy != "noeviction") {
        return Err(StoreError::Evicts(policy.chars().filter(|c| !c.is_control()).take(32).collect()));
    }
    Ok(mode.is_some() && role.is_some() && policy.is_some())
}

/// The value of `name` in what `INFO` answers.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\n\
        # Memory\r\nmaxmemory_policy:noeviction\r\n";

    #[test]
    fn a_master_by_itself_that_evicts_nothing_is_trusted() {
        assert_eq!(judge(GOOD), Ok(true));
        assert_eq!(judge(&GOOD.replace("redis_mode", "server_mode")), Ok(true));
        assert_eq!(judge("role:master\r\n"), Ok(false), "what is not said is not held against it");
    }

    #[test]
    fn whatever_else_answers_is_refused_by_its_name() {
        for (said, says, error) in [
            ("standalone", "sentinel", StoreError::Sentinel),
            ("standalone", "cluster", StoreError::Cluster),
            ("master", "slave", StoreError::Replica),
            ("noeviction", "volatile-ttl", StoreError::Evicts("volatile-ttl".into())),
        ] {
            assert_eq!(judge(&GOOD.replace(said, says)), Err(error));
        }
    }
}
