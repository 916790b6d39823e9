//! Where users' tokens are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::load::{Loader, Zero};
use super::value::Setting;
use super::written::file::{self, Object, Time, Value};
use super::written::path::Path;
use super::{Server, ServerName};
use crate::secret::Secret;

/// The lines to add when there is no store and a server needs one.
const STORE: &str = "add \"tokenStore\": { \"kind\": \"embedded\", \"path\": \"./tollbridge-data\", \"keys\": \
                     [{ \"id\": \"k1\", \"file\": \"./tollbridge-data/k1.key\" }] } (`tollbridge keygen` makes the key)";

const KEYS: &str =
    "add \"keys\": [{ \"id\": \"k1\", \"file\": \"./tollbridge-data/k1.key\" }]; `tollbridge keygen` makes one";

/// What every key in Redis starts with, if the file does not say.
const PREFIX: &str = "tollbridge";

/// How long a command may take at all: time for a second try, and an end while somebody still waits.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);

/// The store that holds users' tokens.
#[derive(Debug)]
pub struct TokenStoreConfig {
    /// Which store.
    pub kind: TokenStoreKind,
    /// The sealing keys; the first seals, all open. Never empty.
    pub keys: Vec<SealingKey>,
}

/// A store to connect to.
#[derive(Debug)]
pub enum TokenStoreKind {
    /// SQLite in this directory: one node.
    Embedded {
        /// The directory that holds the database, created 0700 if missing.
        path: PathBuf,
        /// How long one command may take.
        timeout: Duration,
    },
    /// Redis or Valkey: any number of nodes.
    Redis {
        /// `redis://`, `rediss://` or `redis+unix://`, possibly with a password: a secret.
        url: Secret,
        /// What every key starts with.
        prefix: String,
        /// How long one command may take, with all its tries.
        timeout: Duration,
    },
}

impl TokenStoreKind {
    /// How long one command may take, if nobody says: longer than any healthy store near by takes, shorter than a
    /// client's patience.
    pub const TIMEOUT: Duration = Duration::from_millis(600);
}

/// One sealing key of the key ring.
#[derive(Debug)]
pub struct SealingKey {
    /// The id that travels with everything the key sealed: 1 to 32 of `A-Z a-z 0-9 _ -`.
    pub id: String,
    /// Where its 32 bytes are.
    pub source: KeySource,
}

/// Where a sealing key is kept.
#[derive(Debug)]
pub enum KeySource {
    /// A file, read at start.
    File(PathBuf),
    /// An environment variable's value, resolved at load.
    Value(Secret),
}

impl Loader<'_> {
    pub(super) fn token_store(&mut self, json: Json) -> Option<TokenStoreConfig> {
        let at = Path::root().key("tokenStore");
        if json.is_null() {
            return None;
        }
        if self.kind(&at, &json, &["embedded", "redis"])? == "embedded" {
            let file: file::Embedded = self.read(&at, json)?;
            let path =
                self.file_path(&at.key("path"), file.path, "name a directory, for example \"./tollbridge-data\"");
            let timeout = self.store_timeout(&at.key("timeout"), file.timeout.as_ref());
            let keys = self.sealing_keys(&at.key("keys"), file.keys);
            return Some(TokenStoreConfig { kind: TokenStoreKind::Embedded { path: path?, timeout }, keys });
        }
        let file: file::Redis = self.read(&at, json)?;
        let url = self.redis_url(&at.key("url"), file.url);
        let prefix = file.prefix.unwrap_or_else(|| PREFIX.to_owned());
        // Braces choose the slot of a key in a cluster; that is the store's to decide.
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'*' | b'?' | b'[' | b']');
        if !(1..=64).contains(&prefix.len()) || !prefix.bytes().all(plain) {
            let help = "use 1 to 64 letters, digits, `:`, `-` or `_`";
            self.report(&at.key("prefix"), "this cannot be the prefix of keys", help);
        }
        let timeout = self.store_timeout(&at.key("timeout"), file.timeout.as_ref());
        let keys = self.sealing_keys(&at.key("keys"), file.keys);
        Some(TokenStoreConfig { kind: TokenStoreKind::Redis { url: url?, prefix, timeout }, keys })
    }

    fn store_timeout(&mut self, at: &Path, written: Option<&Time>) -> Duration {
        let timeout = self.time(at, written, TokenStoreKind::TIMEOUT, Zero::Refused);
        if !TIMEOUTS.contains(&timeout) {
            self.report(at, "this time is too short or too long", "write a time from 100ms to 1m, or leave it out");
        }
        timeout
    }

    fn redis_url(&mut self, at: &Path, value: Option<Value>) -> Option<Secret> {
        const HELP: &str = "write redis://host:6379 or rediss://host:6379, best as { \"$env\": \"REDIS_URL\" }";
        if value.is_none() {
            self.required(at, None, HELP);
        }
        let setting = self.setting(at, value);
        let text = setting.known()?;
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("redis" | "rediss" | "redis+unix")) || url::Url::parse(text).is_err() {
            self.report(at, "this is not the URL of a Redis server", HELP);
            return None;
        }
        Some(Secret::new(text.to_owned()))
    }

    fn sealing_keys(&mut self, at: &Path, written: Option<Vec<Option<Object<file::SealingKey>>>>) -> Vec<SealingKey> {
        let written = written.unwrap_or_default();
        if written.is_empty() && matches!(self.document.kind(at), "nothing" | "a list") {
            self.report(at, "tokens are sealed, and there is no key", KEYS);
        }
        let mut ids = BTreeSet::new();
        let mut keys = Vec::new();
        for (index, key) in written.into_iter().enumerate().filter_map(|(index, key)| Some((index, key?.0))) {
            let at = at.index(index);
            let source = self.key_source(&at, key.file, key.value);
            let Some(id) = self.required(&at.key("id"), key.id, "name the key, for example \"k1\"") else { continue };
            let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if !plain || id.len() > 32 {
                self.report(&at.key("id"), "this cannot be the id of a key", "use 1 to 32 of A-Z a-z 0-9 _ -");
            } else if !ids.insert(id.clone()) {
                self.report(&at.key("id"), "another key has this id", "give each key its own id");
            }
            keys.extend(source.map(|source| SealingKey { id, source }));
        }
        keys
    }

    fn key_source(&mut self, at: &Path, file: Option<Value>, value: Option<Value>) -> Option<KeySource> {
        const HELP: &str = "write \"file\": \"…\", or \"value\": { \"$env\": \"NAME\" }";
        match (file, value) {
            (Some(_), Some(_)) => {
                self.report(at, "this key has both `file` and `value`", HELP);
                None
            }
            (None, None) => {
                if self.document.kind(&at.key("file")) == "nothing" && self.document.kind(&at.key("value")) == "nothing"
                {
                    self.report(at, "this key has neither `file` nor `value`", HELP);
                }
                None
            }
            (file @ Some(_), None) => self.file_path(&at.key("file"), file, HELP).map(KeySource::File),
            (None, Some(Value::Plain(_))) => {
                let message = "a key in the configuration file is not a secret";
                self.report(
                    &at.key("value"),
                    message,
                    "write \"value\": { \"$env\": \"NAME\" }, or keep it in a `file`",
                );
                None
            }
            (None, value @ Some(_)) => {
                let setting = self.setting(&at.key("value"), value);
                setting.known().map(|key| KeySource::Value(Secret::new(key.to_owned())))
            }
        }
    }

    /// A path relative to the file, which must be written.
    pub(super) fn file_path(&mut self, at: &Path, value: Option<Value>, help: &str) -> Option<PathBuf> {
        let setting = self.setting(at, value);
        match &setting {
            Setting::Absent => {
                self.required(at, None, help);
                None
            }
            Setting::Unknown => None,
            Setting::Known(text) => self.path_of(at, text, help),
        }
    }

    /// The path that `text` names, relative to the file.
    pub(super) fn path_of(&mut self, at: &Path, text: &str, help: &str) -> Option<PathBuf> {
        if text.trim().is_empty() || text.contains('\0') {
            self.report(at, "this is not a path", help);
            return None;
        }
        if text.starts_with("~/") {
            self.report(at, "no shell expands `~` here", "write the whole path, or one relative to this file");
            return None;
        }
        Some(self.located(text))
    }

    /// Without a store, no server may need a token.
    pub(super) fn demand_token_store(&mut self, servers: &BTreeMap<ServerName, Arc<Server>>) {
        let needy: Vec<String> =
            servers.values().filter(|s| s.requires_user_token).map(|s| format!("`{}`", s.name)).collect();
        if !needy.is_empty() {
            let verb = if needy.len() == 1 { "needs" } else { "need" };
            let message = format!("{} {verb} users' tokens, and nothing keeps them", needy.join(", "));
            self.report(&Path::root().key("tokenStore"), message, STORE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::load;

    #[test]
    fn a_command_may_take_as_long_as_the_file_says_of_either_kind_or_as_ever() {
        const KEYS: &str = r#""keys": [{ "id": "k1", "file": "k1.key" }]"#;
        for kind in [r#""kind": "embedded", "path": "d""#, r#""kind": "redis", "url": "redis://r""#] {
            for (written, meant) in [
                ("", TokenStoreKind::TIMEOUT),
                (r#""timeout": "100ms","#, Duration::from_millis(100)),
                (r#""timeout": "1m","#, Duration::from_mins(1)),
            ] {
                let text = format!(r#"{{ "tokenStore": {{ {kind}, {written} {KEYS} }}, "mcpServers": {{}} }}"#);
                let config = load(&text, &[]).unwrap_or_else(|problems| panic!("{problems}"));
                let (TokenStoreKind::Embedded { timeout, .. } | TokenStoreKind::Redis { timeout, .. }) =
                    config.token_store.unwrap().kind;
                assert_eq!(timeout, meant, "{text}");
            }
        }
    }
}
