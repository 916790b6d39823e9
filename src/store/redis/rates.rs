//! How often users have called, on Redis: one hash for each user with a field for each rate, which expires as soon as it says
//! nothing any more. The time is that of Redis, so that the clocks of the nodes do not matter.

use std::time::Duration;

use redis::{Value, from_redis_value};

use super::{CommandBatch, Redis, session};
use crate::config::ServerName;
use crate::store::StoreError;
use crate::store::rates::{Counted, RateLimit, Rates, TooSoon};
use crate::store::record::Names;
use crate::store::session::{Fields, SessionNames, Want};

/// The field of all calls of a user; no server's name starts so, nor as that of the last call, `@last`.
const OF_USER: &str = "@user";

/// Counts a call, if it keeps every rate. `KEYS` has the user's hash under each name, the one to write first. `ARGV` has for
/// each rate a field, the microseconds from one call to the next, and those of as many as may come at once. A field holds when
/// its user would have made as many calls at the regular rate; where that is later than can be, the rate or the clock was
/// another, and this call begins anew with nothing left after it. The last of `ARGV` names the call: one that is sent again,
/// because the answer was late, counts once. Answers which rate the call does not keep, and for how many
/// microseconds; 0 if it keeps all, -1 if it could not be counted: a Redis that takes no writes still has tokens to look up.
const COUNT: &str = "local time = redis.call('TIME')
    local now, last, late, which, written = time[1] * 1000000 + time[2], 0, 0, 0, {'@last', ARGV[#ARGV]}
    if redis.call('HGET', KEYS[1], '@last') == ARGV[#ARGV] then return {0, 0} end
    for i = 1, #ARGV - 1, 3 do
        local interval, full, at = tonumber(ARGV[i + 1]), now + ARGV[i + 2], now
        for _, key in ipairs(KEYS) do
            local due = tonumber(redis.call('HGET', key, ARGV[i]) or 0) or 0
            if due > full then due = full - interval end
            at = math.max(at, due)
        end
        at = at + interval
        if at - full > late then late, which = at - full, (i + 2) / 3 end
        last = math.max(last, at)
        written[#written + 1], written[#written + 2] = ARGV[i], string.format('%.0f', at)
    end
    if which > 0 then return {which, late} end
    local answer = redis.pcall('HSET', KEYS[1], unpack(written))
    if type(answer) == 'table' and answer.err then return {-1, 0} end
    local lifetime = math.ceil((last - now) / 1000)
    if redis.call('PTTL', KEYS[1]) < lifetime then redis.call('PEXPIRE', KEYS[1], lifetime) end
    return {0, 0}";

/// Says that the node `ARGV[1]` is there for the next `ARGV[2]` microseconds, and answers how many are.
const NOTE_NODE: &str = "local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
    return redis.call('ZCARD', KEYS[1])";

impl Redis {
    /// Counts a call, and asks what is kept of the session that it is made in.
    pub(in crate::store) async fn count_call<T>(
        &self,
        names: &Names,
        (server, rates): (&ServerName, &Rates),
        session: Option<&SessionNames>,
        read: impl FnOnce(Counted, Option<Fields>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut batch = CommandBatch::new();
        if let Some(session) = session {
            self.ask_of_session(&mut batch, session, Want::SessionStatus);
        }
        self.ask_to_count(&mut batch, names, (server, rates));
        let read = |mut answers: Vec<Value>| {
            let counted = take_counted(&mut answers, rates)?;
            let fields = match session {
                Some(session) => session::kept(answers, session, Want::SessionStatus)?,
                None => None,
            };
            read(counted, fields)
        };
        self.link.ask(&batch, read).await
    }

    /// Adds the command whose answer [`take_counted`] reads, if there is a rate.
    pub(super) fn ask_to_count(&self, batch: &mut CommandBatch, names: &Names, (server, rates): (&ServerName, &Rates)) {
        if !rates.is_any() {
            return;
        }
        let keys: Vec<String> = names.iter().map(|name| self.rates(name)).collect();
        batch.cmd("EVAL").arg(COUNT).arg(keys.len()).arg(keys);
        for (limit, rate) in rates.each() {
            let field = match limit {
                RateLimit::OfUser => OF_USER,
                RateLimit::AtServer => server.as_str(),
            };
            batch.arg(field).arg(micros(rate.interval)).arg(micros(rate.full()));
        }
        let name = batch.name().to_owned();
        batch.arg(name);
    }

    /// Says that a node is there for so long, and how many are.
    pub(in crate::store) async fn note_node(&self, node: &str, lifetime: Duration) -> Result<u32, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("EVAL").arg(NOTE_NODE).arg(1).arg(format!("{}:nodes", self.prefix));
        batch.arg(node).arg(micros(lifetime));
        self.link.ask(&batch, |[nodes]: [u32; 1]| Ok(nodes)).await
    }

    /// The key of how often a user has called.
    fn rates(&self, name: &str) -> String {
        format!("{}:rates:{{{name}}}", self.prefix)
    }
}

/// The last of the answers, if it is that to [`Redis::ask_to_count`], and what it says.
pub(super) fn take_counted(answers: &mut Vec<Value>, rates: &Rates) -> Result<Counted, StoreError> {
    if rates.is_any() { counted(answers.pop(), rates) } else { Ok(Counted::Passed) }
}

fn counted(answer: Option<Value>, rates: &Rates) -> Result<Counted, StoreError> {
    let answer = answer.ok_or(StoreError::Shape)?;
    let (which, late): (i64, u64) = from_redis_value(answer).map_err(|_| StoreError::Shape)?;
    match usize::try_from(which) {
        Err(_) => Ok(Counted::Not),
        Ok(0) => Ok(Counted::Passed),
        Ok(which) => {
            let (limit, _) = rates.each().nth(which - 1).ok_or(StoreError::Shape)?;
            Ok(Counted::TooSoon(TooSoon { limit, wait: Duration::from_micros(late) }))
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
