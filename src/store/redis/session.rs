//! What is kept of sessions on Redis: one hash each, which expires as a whole.

use super::{Question, Redis};
use crate::store::StoreError;
use crate::store::record::Names;
use crate::store::session::{Fields, LEVEL, LISTENER, MAX_SUBSCRIPTIONS, Note, RESOURCE, REVOKED};

/// Writes a field and lets the hash expire; 0 if the field is a further resource and there are enough. What follows the
/// first four arguments are the fields that are no resources.
const NOTE: &str = "if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then \
    local count = redis.call('HLEN', KEYS[1]) \
    for i = 5, #ARGV do count = count - redis.call('HEXISTS', KEYS[1], ARGV[i]) end \
    if count >= tonumber(ARGV[4]) then return 0 end end \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) return 1";

/// Writes a field and lets the hash expire; 0 if the field does not hold what is expected, empty for nothing.
const REPLACE: &str = "if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[4] then return 0 end \
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) return 1";

impl Redis {
    /// What `read` makes of what is kept of the session.
    pub(in crate::store) async fn session<T>(
        &self,
        names: &Names,
        read: impl FnOnce(Fields) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut question = Question::new();
        self.ask_of_session(&mut question, names);
        self.link.ask(&question, |fields: Vec<Fields>| read(fields.concat())).await
    }

    /// Adds the questions whose answers are the fields of the session, one answer per name.
    pub(super) fn ask_of_session(&self, question: &mut Question, names: &Names) {
        for name in names.iter() {
            question.cmd("HGETALL").arg(self.session_key(name));
        }
    }

    /// Writes a field under the active name, in place of the older ones; whether there was room.
    pub(in crate::store) async fn note(&self, names: &Names, note: &Note) -> Result<bool, StoreError> {
        let most = if note.field.starts_with(RESOURCE) { MAX_SUBSCRIPTIONS.to_string() } else { String::new() };
        let mut question = Question::new();
        question.atomic();
        question.cmd("EVAL").arg(NOTE).arg(1).arg(self.session_key(names.active()));
        question.arg(&note.field).arg(&note.value).arg(milliseconds(note)).arg(most).arg(&[LEVEL, LISTENER, REVOKED]);
        for name in names.older().iter().filter(|_| note.field != REVOKED) {
            question.cmd("HDEL").arg(self.session_key(name)).arg(&note.field).ignore();
        }
        self.link.ask(&question, |[noted]: [bool; 1]| Ok(noted)).await
    }

    /// Writes a field under the active name if what it holds there is what was `seen`; whether it was.
    pub(in crate::store) async fn replace(
        &self,
        names: &Names,
        seen: Option<Vec<u8>>,
        note: &Note,
    ) -> Result<bool, StoreError> {
        let mut question = Question::new();
        question.cmd("EVAL").arg(REPLACE).arg(1).arg(self.session_key(names.active()));
        question.arg(&note.field).arg(&note.value).arg(milliseconds(note)).arg(seen.unwrap_or_default());
        self.link.ask(&question, |[replaced]: [bool; 1]| Ok(replaced)).await
    }

    /// Removes fields under every name.
    pub(in crate::store) async fn forget(&self, names: &Names, fields: Vec<String>) -> Result<(), StoreError> {
        let mut question = Question::new();
        for name in names.iter() {
            question.cmd("HDEL").arg(self.session_key(name)).arg(&fields).ignore();
        }
        self.link.ask(&question, |()| Ok(())).await
    }

    fn session_key(&self, name: &str) -> String {
        format!("{}:session:{{{name}}}", self.prefix)
    }
}

fn milliseconds(note: &Note) -> u64 {
    u64::try_from(note.lifetime.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}
