//! What is remembered of servers between requests: their era, and which of their tools want parameters mirrored into
//! headers. What a user's token may have shaped is remembered for that user and that token alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;

use crate::config::{Inputs, Server, ServerName};
use crate::mcp::era::{Era, Version};
use crate::mcp::mirror::Tools;

/// What may be remembered of eras, in bytes: some forty thousand users.
const ERAS: usize = 4 * 1024 * 1024;

/// What may be remembered of tools, in bytes.
const TOOLS: usize = 8 * 1024 * 1024;

/// The share of the memory that one list of tools may take; a longer one is asked for again.
const LARGEST_SHARE: usize = 8;

/// What an entry takes besides its value, in bytes.
const OVERHEAD: usize = 96;

/// Which server a fact is about, and what the server is filled with: where that is somebody's token, also whose. A digest
/// with a key of this process, so that it tells nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FactKey([u8; 32]);

/// What has been learned.
pub struct ServerFacts {
    key: hmac::Key,
    eras: Memory<Era>,
    tools: Memory<Arc<Tools>>,
    /// The newest legacy version that each configured server is known to speak.
    versions: RwLock<HashMap<ServerName, Version>>,
}

impl ServerFacts {
    /// Nothing yet.
    ///
    /// # Panics
    /// If the system has no random bytes.
    #[must_use]
    pub fn nothing() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).expect("the system has random bytes");
        Self { key, eras: Memory::new(ERAS), tools: Memory::new(TOOLS), versions: RwLock::default() }
    }

    /// Whose memory is that of a server filled with these inputs.
    pub(super) fn key_of(&self, server: &Server, inputs: &Inputs) -> FactKey {
        let mut digest = hmac::Context::with_key(&self.key);
        let mut add = |part: &str| {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        };
        add(server.name.as_str());
        if inputs.credential.is_some() || server.names_user {
            [inputs.user.issuer(), inputs.user.subject()].into_iter().for_each(&mut add);
            add(inputs.email.as_deref().filter(|_| server.names_user).unwrap_or_default());
        }
        if let Some(credential) = &inputs.credential {
            let fields = credential.fields().iter();
            fields.flat_map(|field| [&*field.name, field.value.expose()]).for_each(&mut add);
        }
        inputs.headers.values().for_each(add);
        let mut key = [0; 32];
        key.copy_from_slice(digest.sign().as_ref());
        FactKey(key)
    }

    /// The era, if it is known. A server that has both is remembered as modern.
    pub(super) fn era(&self, key: FactKey) -> Option<Era> {
        self.eras.get(key)
    }

    /// Remembers the era.
    pub(super) fn learn_era(&self, key: FactKey, era: Era) {
        self.eras.insert(key, era, 0);
    }

    /// The newest legacy version that the server is known to speak, whoever's token it is filled with.
    pub(super) fn version(&self, server: &ServerName) -> Option<Version> {
        self.versions.read().unwrap_or_else(PoisonError::into_inner).get(server).copied()
    }

    /// Remembers that the server chose `chosen` when it was offered `offered`: one that chooses another than it is offered
    /// chooses the newest that it has.
    pub(super) fn learn_version(&self, server: &ServerName, offered: Version, chosen: Version) {
        let known = self.version(server);
        let newest = if offered == chosen { known.map_or(chosen, |known| known.max(chosen)) } else { chosen };
        if known != Some(newest) {
            self.versions.write().unwrap_or_else(PoisonError::into_inner).insert(server.clone(), newest);
        }
    }

    /// The tools, if they are known.
    pub(super) fn tools(&self, key: FactKey) -> Option<Arc<Tools>> {
        self.tools.get(key)
    }

    /// Remembers the tools.
    pub(super) fn learn_tools(&self, key: FactKey, tools: Arc<Tools>) {
        let size = tools.size();
        self.tools.insert(key, tools, size);
    }

    /// Forgets what turned out to be wrong.
    pub(super) fn forget(&self, key: FactKey) {
        self.eras.remove(key);
        self.tools.remove(key);
    }
}

/// A bounded memory. What is not asked for while half of it is filled anew is forgotten.
struct Memory<V> {
    budget: usize,
    generations: Mutex<Generations<V>>,
}

/// Each value with its size in bytes.
struct Generations<V> {
    young: HashMap<FactKey, (V, usize)>,
    old: HashMap<FactKey, (V, usize)>,
    /// The sum of the sizes of the young.
    size: usize,
}

impl<V: Clone> Memory<V> {
    fn new(budget: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), size: 0 };
        Self { budget, generations: Mutex::new(generations) }
    }

    fn get(&self, key: FactKey) -> Option<V> {
        self.with(|generations| {
            if let Some((value, _)) = generations.young.get(&key) {
                return Some(value.clone());
            }
            let (value, size) = generations.old.remove(&key)?;
            generations.insert(key, (value.clone(), size), self.budget);
            Some(value)
        })
    }

    fn insert(&self, key: FactKey, value: V, size: usize) {
        let size = size + OVERHEAD;
        self.with(|generations| {
            generations.remove(key);
            if size <= self.budget / LARGEST_SHARE {
                generations.insert(key, (value, size), self.budget);
            }
        });
    }

    fn remove(&self, key: FactKey) {
        self.with(|generations| generations.remove(key));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Generations<V>) -> T) -> T {
        // What is done under the lock leaves the maps whole at every step.
        work(&mut self.generations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V> Generations<V> {
    fn insert(&mut self, key: FactKey, entry: (V, usize), budget: usize) {
        if self.size + entry.1 > budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        self.size += entry.1;
        self.young.insert(key, entry);
    }

    fn remove(&mut self, key: FactKey) {
        self.old.remove(&key);
        if let Some((_, size)) = self.young.remove(&key) {
            self.size -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderName;

    use super::*;
    use crate::config::{self, LoadOptions, RequestValues};
    use crate::secret::{Credential, Secret};
    use crate::user::UserId;

    /// A server elsewhere with these headers.
    fn server(headers: &str) -> Arc<Server> {
        let text =
            format!(r#"{{ "mcpServers": {{ "s": {{ "url": "http://127.0.0.1:1/mcp", "headers": {headers} }} }} }}"#);
        let config = config::parse(&text, Path::new("/etc/tollbridge.json"), &LoadOptions::default());
        Arc::clone(&config.unwrap_or_else(|problems| panic!("{problems}")).servers["s"])
    }

    #[test]
    fn what_fills_a_server_is_part_of_what_is_remembered_of_it() {
        let facts = ServerFacts::nothing();
        let key = |server: &Server, user: &str, project: Option<&str>| {
            let project = project.map(|project| (HeaderName::from_static("x-project"), project.parse().unwrap()));
            let values = server.request_values(&project.into_iter().collect()).unwrap();
            facts.key_of(server, &Inputs::of(&UserId::local(user).unwrap().into(), None, values))
        };
        let plain = server("{}");
        assert_eq!(key(&plain, "alice", Some("a")), key(&plain, "bob", None), "nothing of them fills it");
        let named = server(r#"{ "X-User": { "$userToken": "<<user.id>>" } }"#);
        assert_ne!(key(&named, "alice", None), key(&named, "bob", None));
        let project = r#"{ "X-P": { "$header": { "name": "X-Project", "format": "[a-z]+", "default": "a" } } }"#;
        let project = server(project);
        assert_ne!(key(&project, "alice", Some("b")), key(&project, "alice", Some("c")));
        assert_eq!(
            key(&project, "alice", Some("a")),
            key(&project, "bob", None),
            "what is put in counts, not whose it is"
        );
    }

    #[test]
    fn what_a_token_may_have_shaped_is_remembered_for_that_user_and_token_alone() {
        let (facts, server) = (ServerFacts::nothing(), server("{}"));
        let key = |user: &str, token: Option<&str>| {
            let credential = token.map(|token| Credential::token(Secret::new(token.to_owned())));
            let caller = UserId::local(user).unwrap().into();
            facts.key_of(&server, &Inputs::of(&caller, credential, RequestValues::default()))
        };
        let known = key("alice", Some("one"));
        facts.learn_era(known, Era::Modern);
        assert_eq!(facts.era(key("alice", Some("one"))), Some(Era::Modern));
        for other in [key("alice", Some("two")), key("bob", Some("one")), key("alice", None)] {
            assert_eq!(facts.era(other), None);
        }
        assert_eq!(key("alice", None), key("bob", None), "without a token the server is the same for all");
        facts.forget(known);
        assert_eq!(facts.era(known), None);
    }

    #[test]
    fn the_newest_version_that_a_server_chose_is_known() {
        let (facts, server) = (ServerFacts::nothing(), server("{}"));
        let (old, new) = (Version::V2025_06_18, Version::V2025_11_25);
        assert_eq!(facts.version(&server.name), None);
        for (offered, chosen, known) in [(old, old, old), (new, new, new), (old, old, new), (new, old, old)] {
            facts.learn_version(&server.name, offered, chosen);
            assert_eq!(facts.version(&server.name), Some(known), "{offered:?} {chosen:?}");
        }
    }

    #[test]
    fn a_memory_is_bounded_and_keeps_what_is_used() {
        let memory = Memory::new(100 * OVERHEAD);
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            FactKey(bytes)
        };
        memory.insert(key(0), 0, 0);
        for number in 1..1000 {
            memory.insert(key(number), number, 0);
            assert_eq!(memory.get(key(0)), Some(0), "used all the time");
        }
        let held = memory.with(|generations| generations.young.len() + generations.old.len());
        assert!(held <= 100, "{held} entries");
        assert_eq!(memory.get(key(1)), None, "long forgotten");
        memory.insert(key(0), 0, 100 * OVERHEAD);
        assert_eq!(memory.get(key(0)), None, "larger than its share");
    }
}
