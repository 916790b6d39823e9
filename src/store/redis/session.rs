//! What is kept of sessions on Redis: one hash each, which expires as a whole; for each user the hashes that there are,
//! by the time of their last write, and the sessions that were ended, by the time at which they expire.
//!
//! Each change is one script, so that what it rests on is so when it is made. A script that frees something before it
//! writes is let through by a Redis that is full, and no transaction is: that is how a session is ended there.

use redis::{Cmd, Pipeline, Value, from_redis_value};

use super::{CommandBatch, Redis};
use crate::clock::UnixTime;
use crate::store::StoreError;
use crate::store::session::{
    CLOCK_ERROR, Fields, MAX_ENDED, MAX_SESSION, MAX_SESSIONS, MAX_SUBSCRIPTIONS, Note, Overwrite, RESOURCE,
    SessionNames, Want, Written,
};

/// Stands among the ended sessions for all that expire no later than it says.
const ALL_BEFORE: &str = "";

/// What every script begins with. `KEYS` has three for each key of the ring, the active one's first: the user's
/// sessions, the user's ended sessions, the session's hash. `ARGV` has the same number of names of the session, then
/// when it expires, then how long that is from now, and what is left is `arg`.
macro_rules! script {
    ($($text:literal)+) => {
        concat!(
            "local ring, arg = #KEYS / 3, {}
            local name, expires, lifetime = ARGV[1], tonumber(ARGV[ring + 1]), tonumber(ARGV[ring + 2])
            for i = ring + 3, #ARGV do arg[#arg + 1] = ARGV[i] end
            local function last(key) if redis.call('PTTL', key) < lifetime then redis.call('PEXPIRE', key, lifetime) end end
            local ended, listener = false, ''
            for i = ring, 1, -1 do
                local before = tonumber(redis.call('ZSCORE', KEYS[3 * i - 1], '') or -1)
                ended = ended or before >= expires or redis.call('ZSCORE', KEYS[3 * i - 1], ARGV[i])
                listener = redis.call('HGET', KEYS[3 * i], 'listener') or listener
            end
            ",
            $($text),+
        )
    };
}

/// Writes a field, and how many bytes all of them take now in a field `size`: its name, its value, whether it must hold what was seen before, and what that is, the prefix of the
/// hashes of the user's sessions, and the most sessions, bytes and, if it is one, resources.
const NOTE: &str = script!(
    "if ended then return {-1, ''} end
    local field, value, state = arg[1], arg[2], KEYS[3]
    local held, found = redis.call('HGET', state, field) or '', ''
    for i = ring, 1, -1 do found = redis.call('HGET', KEYS[3 * i], field) or found end
    if arg[3] == '1' and found ~= arg[4] then return {0, ''} end
    local size = tonumber(redis.call('HGET', state, 'size') or 0) + #value - #held
    if held == '' then size = size + #field end
    if arg[8] ~= '' then
        local count = redis.call('HLEN', state)
        for _, other in ipairs({'level', 'listener', 'size'}) do count = count - redis.call('HEXISTS', state, other) end
        if size > tonumber(arg[7]) or held == '' and count >= tonumber(arg[8]) then return {0, ''} end
    end
    redis.call('HSET', state, field, value, 'size', size)
    redis.call('PEXPIRE', state, lifetime)
    for i = 2, ring do redis.call('HDEL', KEYS[3 * i], field) end
    local now = redis.call('TIME')
    redis.call('ZADD', KEYS[1], now[1] * 1000000 + now[2], name)
    last(KEYS[1])
    while redis.call('ZCARD', KEYS[1]) > tonumber(arg[6]) do
        redis.call('DEL', arg[5] .. redis.call('ZPOPMIN', KEYS[1])[1])
    end
    return {1, listener}"
);

/// Removes fields: their names.
const FORGET: &str = script!(
    "if ended then return {-1, ''} end
    for i = 1, ring do
        local state = KEYS[3 * i]
        for _, field in ipairs(arg) do
            local held = redis.call('HGET', state, field)
            if held then redis.call('HDEL', state, field) redis.call('HINCRBY', state, 'size', -#field - #held) end
        end
    end
    return {1, listener}"
);

/// Ends a session: from when on ended sessions are not over yet, and how many are remembered. What is removed first lets
/// the rest through where memory has run out.
const REVOKE: &str = script!(
    "for i = 1, ring do redis.call('DEL', KEYS[3 * i]) redis.call('ZREM', KEYS[3 * i - 2], ARGV[i]) end
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. arg[1])
    redis.call('ZADD', KEYS[2], expires, name)
    last(KEYS[2])
    if redis.call('ZCARD', KEYS[2]) > tonumber(arg[2]) then
        redis.call('ZADD', KEYS[2], redis.call('ZPOPMIN', KEYS[2], 2)[4], '')
    end
    return {1, listener}"
);

impl Redis {
    /// What `read` makes of what is kept of the session; of nothing if it was ended.
    pub(in crate::store) async fn session<T>(
        &self,
        names: &SessionNames,
        want: Want,
        read: impl FnOnce(Option<Fields>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut question = CommandBatch::new();
        self.ask_of_session(&mut question, names, want);
        self.link.ask(&question, |answers: Vec<Value>| read(kept(answers, names, want)?)).await
    }

    /// Adds the questions whose answers [`kept`] reads.
    pub(super) fn ask_of_session(&self, pipe: &mut Pipeline, names: &SessionNames, want: Want) {
        for (user, session) in names.pairs() {
            pipe.cmd("ZSCORE").arg(self.ended(user)).arg(session);
            pipe.cmd("ZSCORE").arg(self.ended(user)).arg(ALL_BEFORE);
            match want {
                Want::SessionStatus => pipe.cmd("HMGET").arg(self.state(user, session)).arg(&Want::STANDING),
                Want::All => pipe.cmd("HGETALL").arg(self.state(user, session)),
            };
        }
    }

    /// Writes a field under the active name, in place of the older ones.
    pub(in crate::store) async fn note(&self, names: &SessionNames, note: &Note) -> Result<Written, StoreError> {
        let most = if note.field.starts_with(RESOURCE) { MAX_SUBSCRIPTIONS.to_string() } else { String::new() };
        let (is_compared, seen) = match &note.over {
            Overwrite::Anything => (0, &[][..]),
            Overwrite::Only(seen) => (1, seen.as_deref().unwrap_or_default()),
        };
        let mut script = self.script(NOTE, names);
        script.arg(&note.field).arg(&note.value).arg(is_compared).arg(seen);
        script.arg(self.state(names.active().0, "")).arg(MAX_SESSIONS).arg(MAX_SESSION).arg(most);
        self.run(script).await
    }

    /// Removes fields under every name.
    pub(in crate::store) async fn forget(
        &self,
        names: &SessionNames,
        fields: Vec<String>,
    ) -> Result<Written, StoreError> {
        let mut script = self.script(FORGET, names);
        script.arg(&fields);
        self.run(script).await
    }

    /// Ends a session and forgets it; the sealed address of its listener.
    pub(in crate::store) async fn revoke(
        &self,
        names: &SessionNames,
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut script = self.script(REVOKE, names);
        script.arg(now.0.saturating_sub(CLOCK_ERROR.as_secs())).arg(MAX_ENDED);
        match self.run(script).await? {
            Written::Kept(listener) => Ok(listener),
            Written::Refused | Written::Ended => Ok(None),
        }
    }

    /// A script with what all of them want.
    fn script(&self, text: &str, names: &SessionNames) -> Cmd {
        let mut script = redis::cmd("EVAL");
        script.arg(text).arg(3 * names.pairs().len());
        for (user, session) in names.pairs() {
            script.arg(self.sessions(user)).arg(self.ended(user)).arg(self.state(user, session));
        }
        for (_, session) in names.pairs() {
            script.arg(session);
        }
        let lifetime = (names.lifetime + CLOCK_ERROR).as_millis();
        script.arg(names.expires.0).arg(u64::try_from(lifetime).unwrap_or(u64::MAX).min(1 << 52));
        script
    }

    async fn run(&self, script: Cmd) -> Result<Written, StoreError> {
        let mut question = CommandBatch::new();
        question.add_command(script);
        self.link
            .ask(&question, |[(verdict, listener)]: [(i8, Vec<u8>); 1]| match verdict {
                1 => Ok(Written::Kept(Some(listener).filter(|listener| !listener.is_empty()))),
                0 => Ok(Written::Refused),
                _ => Ok(Written::Ended),
            })
            .await
    }

    /// The key of the hash of one session of a user; with an empty name, its prefix.
    fn state(&self, user: &str, session: &str) -> String {
        format!("{}:session:{{{user}}}:{session}", self.prefix)
    }

    /// The key of a user's sessions that have a hash, by the time of their last write.
    fn sessions(&self, user: &str) -> String {
        format!("{}:sessions:{{{user}}}", self.prefix)
    }

    /// The key of a user's ended sessions, by when they expire.
    fn ended(&self, user: &str) -> String {
        format!("{}:ended:{{{user}}}", self.prefix)
    }
}

/// What the answers to [`Redis::ask_of_session`] say: the fields of the session, or nothing if it was ended.
pub(super) fn kept(answers: Vec<Value>, names: &SessionNames, want: Want) -> Result<Option<Fields>, StoreError> {
    let shape = |_| StoreError::Shape;
    let mut answers = answers.into_iter();
    let (mut ended, mut fields) = (false, Fields::new());
    for _ in names.pairs() {
        let mut next = || answers.next().ok_or(StoreError::Shape);
        let (itself, all_before, held) = (next()?, next()?, next()?);
        let itself: Option<f64> = from_redis_value(itself).map_err(shape)?;
        let all_before: Option<u64> = from_redis_value(all_before).map_err(shape)?;
        ended |= itself.is_some() || all_before.is_some_and(|expires| names.expires.0 <= expires);
        match want {
            Want::SessionStatus => {
                let values: [Option<Vec<u8>>; 2] = from_redis_value(held).map_err(shape)?;
                let held = Want::STANDING.into_iter().zip(values);
                fields.extend(held.filter_map(|(field, value)| Some((field.to_owned(), value?))));
            }
            Want::All => fields.extend(from_redis_value::<Fields>(held).map_err(shape)?),
        }
    }
    Ok((!ended).then_some(fields))
}
