//! What is remembered of servers between requests: their era, and which of their tools want parameters mirrored into
//! headers. What a user's token may have shaped is remembered for that user and that token alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;

use crate::config::ServerName;
use crate::mcp::era::Era;
use crate::mcp::mirror::Tools;
use crate::secret::Secret;
use crate::user::UserId;

/// What may be remembered of eras, in bytes: some forty thousand users.
const ERAS: usize = 4 * 1024 * 1024;

/// What may be remembered of tools, in bytes.
const TOOLS: usize = 8 * 1024 * 1024;

/// The share of the memory that one list of tools may take; a longer one is asked for again.
const LARGEST_SHARE: usize = 8;

/// What an entry takes besides its value, in bytes.
const OVERHEAD: usize = 96;

/// Whose a memory is: a server's, and where the server is filled with a token, also that user's and that token's. A
/// digest with a key of this process, so that it tells nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Whose([u8; 32]);

/// What has been learned.
pub struct Learned {
    key: hmac::Key,
    eras: Memory<Era>,
    tools: Memory<Arc<Tools>>,
}

impl Learned {
    /// Nothing yet.
    ///
    /// # Panics
    /// If the system has no random bytes.
    #[must_use]
    pub fn nothing() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system has random bytes");
        Self { key, eras: Memory::new(ERAS), tools: Memory::new(TOOLS) }
    }

    /// Whose memory is that of a server filled with this token.
    pub(super) fn whose(&self, server: &ServerName, user: &UserId, token: Option<&Secret>) -> Whose {
        let mut digest = hmac::Context::with_key(&self.key);
        let mut add = |part: &str| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        };
        add(server.as_str());
        if let Some(token) = token {
            [user.issuer(), user.subject(), token.expose()].into_iter().for_each(add);
        }
        let mut whose = [0; 32];
        whose.copy_from_slice(digest.sign().as_ref());
        Whose(whose)
    }

    /// The era, if it is known. A server that has both is remembered as modern.
    pub(super) fn era(&self, whose: Whose) -> Option<Era> {
        self.eras.get(whose)
    }

    /// Remembers the era.
    pub(super) fn learn_era(&self, whose: Whose, era: Era) {
        self.eras.insert(whose, era, 0);
    }

    /// The tools, if they are known.
    pub(super) fn tools(&self, whose: Whose) -> Option<Arc<Tools>> {
        self.tools.get(whose)
    }

    /// Remembers the tools.
    pub(super) fn learn_tools(&self, whose: Whose, tools: Arc<Tools>) {
        let size = tools.size();
        self.tools.insert(whose, tools, size);
    }

    /// Forgets what turned out to be wrong.
    pub(super) fn forget(&self, whose: Whose) {
        self.eras.remove(whose);
        self.tools.remove(whose);
    }
}

/// A bounded memory. What is not asked for while half of it is filled anew is forgotten.
struct Memory<V> {
    budget: usize,
    generations: Mutex<Generations<V>>,
}

/// Each value with its size in bytes.
struct Generations<V> {
    young: HashMap<Whose, (V, usize)>,
    old: HashMap<Whose, (V, usize)>,
    /// The sum of the sizes of the young.
    size: usize,
}

impl<V: Clone> Memory<V> {
    fn new(budget: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), size: 0 };
        Self { budget, generations: Mutex::new(generations) }
    }

    fn get(&self, whose: Whose) -> Option<V> {
        self.with(|generations| {
            if let Some((value, _)) = generations.young.get(&whose) {
                return Some(value.clone());
            }
            let (value, size) = generations.old.remove(&whose)?;
            generations.insert(whose, (value.clone(), size), self.budget);
            Some(value)
        })
    }

    fn insert(&self, whose: Whose, value: V, size: usize) {
        let size = size + OVERHEAD;
        self.with(|generations| {
            generations.remove(whose);
            if size <= self.budget / LARGEST_SHARE {
                generations.insert(whose, (value, size), self.budget);
            }
        });
    }

    fn remove(&self, whose: Whose) {
        self.with(|generations| generations.remove(whose));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Generations<V>) -> T) -> T {
        // What is done under the lock leaves the maps whole at every step.
        work(&mut self.generations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V> Generations<V> {
    fn insert(&mut self, whose: Whose, entry: (V, usize), budget: usize) {
        if self.size + entry.1 > budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        self.size += entry.1;
        self.young.insert(whose, entry);
    }

    fn remove(&mut self, whose: Whose) {
        self.old.remove(&whose);
        if let Some((_, size)) = self.young.remove(&whose) {
            self.size -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_may_have_shaped_is_remembered_for_that_user_and_token_alone() {
        let learned = Learned::nothing();
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let server = ServerName::parse("s").unwrap();
        let (one, two) = (Secret::new("one".to_owned()), Secret::new("two".to_owned()));
        let whose = |user, token| learned.whose(&server, user, token);
        learned.learn_era(whose(&alice, Some(&one)), Era::Modern);
        assert_eq!(learned.era(whose(&alice, Some(&one))), Some(Era::Modern));
        for other in [whose(&alice, Some(&two)), whose(&bob, Some(&one)), whose(&alice, None)] {
            assert_eq!(learned.era(other), None);
        }
        assert_eq!(whose(&alice, None), whose(&bob, None), "without a token the server is the same for all");
        learned.forget(whose(&alice, Some(&one)));
        assert_eq!(learned.era(whose(&alice, Some(&one))), None);
    }

    #[test]
    fn a_memory_is_bounded_and_keeps_what_is_used() {
        let memory = Memory::new(100 * OVERHEAD);
        let whose = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Whose(bytes)
        };
        memory.insert(whose(0), 0, 0);
        for number in 1..1000 {
            memory.insert(whose(number), number, 0);
            assert_eq!(memory.get(whose(0)), Some(0), "used all the time");
        }
        let held = memory.with(|generations| generations.young.len() + generations.old.len());
        assert!(held <= 100, "{held} entries");
        assert_eq!(memory.get(whose(1)), None, "long forgotten");
        memory.insert(whose(0), 0, 100 * OVERHEAD);
        assert_eq!(memory.get(whose(0)), None, "larger than its share");
    }
}
