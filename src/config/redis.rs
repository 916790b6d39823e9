//! A Redis that keeps users' tokens: where it is, and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use super::load::Loader;
use super::written::file::{self, Object, Value};
use super::written::path::Path;
use crate::secret::Secret;

/// What every key in Redis starts with, if the file does not say.
const PREFIX: &str = "tollbridge";

/// The most replicas that can be asked for.
const MOST_REPLICAS: usize = 16;

/// The keys of a store, as the file has them.
type Keys = Option<Vec<Option<Object<file::SealingKey>>>>;

/// Redis or Valkey, and how the bridge uses it.
#[derive(Debug)]
pub struct RedisStore {
    /// `redis://`, `rediss://` or `redis+unix://`, possibly with a password: a secret.
    pub url: Secret,
    /// Who says where the primary is, if it is not the host of `url`.
    pub sentinels: Option<RedisSentinels>,
    /// What TLS needs besides what the system trusts.
    pub tls: RedisTls,
    /// How many replicas must have what is saved or deleted before it counts as that.
    pub replicas: usize,
    /// What every key starts with.
    pub prefix: String,
    /// How long one command may take, with all its tries.
    pub timeout: Duration,
}

/// The Sentinels that watch a primary.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The name of the primary.
    pub primary: String,
    /// The URL of each Sentinel, possibly with a password: a secret. Never empty.
    pub urls: Vec<Secret>,
}

/// Files of TLS, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// The authorities that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that the bridge shows, with those that lead to its authority, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RedisTls {
    /// Whether no file is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.identity.is_none()
    }
}

impl Loader<'_> {
    /// The store, and its keys as they are written.
    pub(super) fn redis_store(&mut self, at: &Path, file: file::Redis) -> (Option<RedisStore>, Keys) {
        let url = self.redis_url(&at.key("url"), file.url);
        let sentinels = self.sentinels(at, url.as_ref(), file.sentinels);
        let tls = file.tls.map_or_else(RedisTls::default, |Object(tls)| self.redis_tls(&at.key("tls"), tls));
        let urls = url.iter().chain(sentinels.iter().flat_map(|sentinels| &sentinels.urls));
        if !tls.is_empty() && url.is_some() && !urls.into_iter().any(|url| url.expose().starts_with("rediss://")) {
            let help = "write rediss://host:6379, or leave `tls` out";
            self.report(&at.key("tls"), "TLS is not used with this `url`", help);
        }
        let replicas = file.replicas.unwrap_or(usize::from(sentinels.is_some()));
        if replicas > MOST_REPLICAS {
            let help = format!("write a number from 0 to {MOST_REPLICAS}");
            self.report(&at.key("replicas"), "there are never so many replicas", help);
        }
        let prefix = file.prefix.unwrap_or_else(|| PREFIX.to_owned());
        // Braces choose the slot of a key in a cluster; that is the store's to decide.
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'*' | b'?' | b'[' | b']');
        if !(1..=64).contains(&prefix.len()) || !prefix.bytes().all(plain) {
            let help = "use 1 to 64 letters, digits, `:`, `-` or `_`";
            self.report(&at.key("prefix"), "this cannot be the prefix of keys", help);
        }
        let timeout = self.store_timeout(&at.key("timeout"), file.timeout.as_ref());
        (url.map(|url| RedisStore { url, sentinels, tls, replicas, prefix, timeout }), file.keys)
    }

    /// The Sentinels, where there are any, of the primary that `url` names in place of a host.
    fn sentinels(
        &mut self,
        at: &Path,
        url: Option<&Secret>,
        written: Option<Vec<Option<Value>>>,
    ) -> Option<RedisSentinels> {
        let (written, at_list) = (written?, at.key("sentinels"));
        if written.is_empty() {
            self.report(&at_list, "this names no Sentinel", "write [\"redis://host:26379\"], or leave it out");
        }
        let values = written.into_iter().enumerate().filter_map(|(index, value)| Some((index, value?)));
        let urls: Vec<_> =
            values.filter_map(|(index, value)| self.redis_url(&at_list.index(index), Some(value))).collect();
        let parsed = url::Url::parse(url?.expose()).ok()?;
        let primary = parsed.host_str().filter(|_| parsed.port().is_none() && parsed.scheme() != "redis+unix");
        if primary.is_none() {
            let help = "write redis://USER:PASSWORD@NAME, where NAME is what the Sentinels call the primary";
            self.report(&at.key("url"), "with `sentinels` this names a primary, and neither a port nor a socket", help);
        }
        Some(RedisSentinels { primary: primary?.to_owned(), urls })
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

    fn redis_tls(&mut self, at: &Path, tls: file::RedisTls) -> RedisTls {
        const HELP: &str = "name a file in PEM, for example \"./redis.pem\"";
        let mut file = |name: &str, value: Option<Value>| {
            let path = value.map(|value| self.file_path(&at.key(name), Some(value), HELP));
            (path.is_some(), path.flatten())
        };
        let (_, ca) = file("ca", tls.ca);
        let ((has_certificate, certificate), (has_key, key)) =
            (file("certificate", tls.certificate), file("key", tls.key));
        if has_certificate != has_key {
            let lacks = if has_key { "certificate" } else { "key" };
            self.report(at, format!("this has no `{lacks}`"), "write both `certificate` and `key`, or neither");
        }
        RedisTls { ca, identity: certificate.zip(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenStoreKind;
    use crate::config::testing::load;

    /// The store that these fields make, or where the first of them is wrong.
    fn store(fields: &str) -> Result<RedisStore, String> {
        const KEYS: &str = r#""keys": [{ "id": "k1", "file": "k1.key" }]"#;
        let text = format!(r#"{{ "tokenStore": {{ "kind": "redis", {fields}, {KEYS} }}, "mcpServers": {{}} }}"#);
        match load(&text, &[]) {
            Ok(config) => match config.token_store.unwrap().kind {
                TokenStoreKind::Redis(store) => Ok(store),
                TokenStoreKind::Embedded { .. } => panic!("not Redis"),
            },
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn files_of_tls_are_named_relative_to_the_file_and_a_certificate_goes_with_its_key() {
        let tls = |fields: &str| store(&format!(r#""url": "rediss://r", "tls": {{ {fields} }}"#));
        assert_eq!(tls("").unwrap().tls, RedisTls::default());
        let whole = tls(r#""ca": "ca.pem", "certificate": "b.pem", "key": "/k/b.key""#).unwrap().tls;
        assert!(whole.ca.unwrap().ends_with("ca.pem"));
        let (certificate, key) = whole.identity.unwrap();
        assert!(certificate.is_absolute() && certificate.ends_with("b.pem"), "{certificate:?}");
        assert_eq!(key, PathBuf::from("/k/b.key"));
        assert!(tls(r#""certificate": "b.pem""#).unwrap_err().contains("this has no `key`"));
        assert!(tls(r#""key": "b.key""#).unwrap_err().contains("this has no `certificate`"));
        let plain = store(r#""url": "redis://r", "tls": { "ca": "ca.pem" }"#).unwrap_err();
        assert!(plain.contains("TLS is not used with this `url`"), "{plain}");
    }

    #[test]
    fn with_sentinels_the_url_names_the_primary_and_one_replica_is_waited_for() {
        let with = |url: &str, rest: &str| {
            store(&format!(r#""url": "{url}", "sentinels": ["redis://s1:26379", "rediss://:pw@s2"]{rest}"#))
        };
        let told = with("redis://user:pw@my-Primary.1/2", "").unwrap();
        let sentinels = told.sentinels.unwrap();
        let urls: Vec<_> = sentinels.urls.iter().map(Secret::expose).collect();
        assert_eq!((&*sentinels.primary, &urls[..]), ("my-Primary.1", &["redis://s1:26379", "rediss://:pw@s2"][..]));
        assert_eq!(told.replicas, 1);
        assert_eq!(with("redis://p", r#", "replicas": 0"#).unwrap().replicas, 0);
        // The files of TLS may be for the Sentinels alone.
        assert!(with("redis://p", r#", "tls": { "ca": "ca.pem" }"#).is_ok());
        assert_eq!(store(r#""url": "redis://r""#).unwrap().replicas, 0);
        for url in ["redis://p:6379", "redis+unix:///p"] {
            let refused = with(url, "").unwrap_err();
            assert!(refused.contains("with `sentinels` this names a primary"), "{refused}");
        }
        assert!(store(r#""url": "redis://p", "sentinels": []"#).unwrap_err().contains("this names no Sentinel"));
        assert!(store(r#""url": "redis://p", "replicas": 17"#).unwrap_err().contains("never so many replicas"));
    }
}
