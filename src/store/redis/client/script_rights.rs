//! Which command of a script is denied: Redis 6 and 7.0 do not say it, so each is tried by itself.

use std::time::Duration;

use super::command_batch::CommandBatch;

/// How long the key is kept that is written for it.
const GONE: Duration = Duration::from_mins(1);

/// Every command that scripts call, in a form that changes nothing but `key`, which is soon gone.
pub(super) fn each_command(key: &str) -> CommandBatch {
    let mut batch = CommandBatch::new();
    batch.cmd("HSET").arg(key).arg("written").arg(1);
    batch.cmd("HSETNX").arg(key).arg("written").arg(1);
    batch.cmd("HINCRBY").arg(key).arg("written").arg(0);
    batch.cmd("PEXPIRE").arg(key).arg(GONE.as_millis());
    for command in ["HGET", "HDEL", "HEXISTS"] {
        batch.cmd(command).arg(key).arg("none");
    }
    for command in ["HLEN", "PTTL"] {
        batch.cmd(command).arg(key);
    }
    let none = format!("{key}:none");
    for command in ["GET", "DEL", "ZCARD", "ZPOPMIN"] {
        batch.cmd(command).arg(&none);
    }
    for command in ["ZSCORE", "ZREM"] {
        batch.cmd(command).arg(&none).arg("none");
    }
    batch.cmd("SET").arg(&none).arg(1).arg("XX");
    batch.cmd("ZADD").arg(&none).arg("XX").arg(1).arg("none");
    batch.cmd("ZREMRANGEBYSCORE").arg(&none).arg(0).arg(0);
    batch.cmd("TIME");
    batch
}
