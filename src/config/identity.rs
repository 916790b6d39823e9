//! How callers are recognised.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::HeaderName;
use ipnet::IpNet;
use serde_json::Value as Json;

use super::load::Loader;
use super::written::file;
use super::written::path::Path;
use super::{BearerToken, IdentityMethod, Listen, TrustedHeader};
use crate::secret::Secret;
use crate::user::{self, Caller, LOCAL_ISSUER, UserId};

/// The shortest secret by which a proxy proves itself, in characters.
const MIN_SECRET: usize = 16;

/// What people put where a token should be; their hashes are refused.
const EXAMPLES: &[&str] = &[
    "",
    "123456",
    "12345678",
    "admin",
    "alice",
    "api-key",
    "apikey",
    "bearer",
    "bob",
    "change-me",
    "changeit",
    "changeme",
    "default",
    "demo",
    "dev",
    "example",
    "foo",
    "foobar",
    "hello",
    "hunter2",
    "key",
    "letmein",
    "local",
    "mcp",
    "my-secret-token",
    "my-token",
    "mysecret",
    "mytoken",
    "pass",
    "passw0rd",
    "password",
    "placeholder",
    "replace-me",
    "replaceme",
    "root",
    "sample",
    "secret",
    "secret-token",
    "supersecret",
    "test",
    "test-token",
    "test123",
    "todo",
    "token",
    "tollbridge",
    "user",
    "xxx",
    "your-token",
    "your-token-here",
];

/// The ways to recognise callers.
pub(super) const IDENTITY_KINDS: &[&str] = &["bearer", "trustedHeader", "local"];

/// Headers that can name no user, because they mean something else to HTTP or to MCP.
const TAKEN: &[&str] = &["authorization", "connection", "content-length", "content-type", "cookie", "host", "origin"];

impl Loader<'_> {
    pub(super) fn identity(&mut self, written: Option<Vec<Json>>, listen: Option<&Listen>) -> Vec<IdentityMethod> {
        let at = Path::root().key("identity");
        let local = listen.is_none_or(Listen::is_local);
        let absent = written.is_none();
        let entries = written.unwrap_or_default();
        if entries.is_empty() {
            if absent && local {
                let caller = default_user().map(Caller::from);
                return caller.map(IdentityMethod::Local).into_iter().collect();
            }
            let message = if local {
                "nobody could use this bridge: no way to recognise callers is configured".to_owned()
            } else {
                format!("others can reach {}, and no way to recognise callers is configured", self.reachable())
            };
            let help = "add \"identity\": [{ \"kind\": \"bearer\", \"tokens\": [{ \"user\": \"…\", \"sha256\": \"…\" }] }] \
                        (`tollbridge keygen` makes a token), or listen on 127.0.0.1 and leave `identity` out";
            self.report(&at, message, help);
        }
        let numbered = entries.into_iter().enumerate().filter(|(_, entry)| !entry.is_null());
        let mut methods = Vec::new();
        for (index, entry) in numbered {
            methods.extend(self.identity_method(&at.index(index), entry, local));
        }
        self.refuse_shared_tokens(&methods);
        methods
    }

    /// The address that others can reach, for people.
    fn reachable(&self) -> String {
        self.options.bound.as_ref().map_or_else(
            || "this address".to_owned(),
            |bound| format!("{bound}, where this process listens until it is restarted"),
        )
    }

    fn identity_method(&mut self, at: &Path, entry: Json, local: bool) -> Option<IdentityMethod> {
        match self.kind(at, &entry, IDENTITY_KINDS)? {
            "bearer" => {
                let file = self.read(at, entry)?;
                Some(self.bearer(at, file))
            }
            "trustedHeader" => {
                let file = self.read(at, entry)?;
                self.trusted_header(at, file).map(IdentityMethod::TrustedHeader)
            }
            _ => {
                let file: file::Local = self.read(at, entry)?;
                if !local {
                    let help = "listen on 127.0.0.1, or recognise callers by `bearer` or `trustedHeader`";
                    let message =
                        format!("`local` takes everybody for one user, and others can reach {}", self.reachable());
                    self.report(at, message, help);
                }
                let groups = self.groups(&at.key("groups"), file.groups);
                let email = self.email(&at.key("email"), file.email);
                let user = self.user(&at.key("user"), None, file.user)?;
                Some(IdentityMethod::Local(Caller { user, groups, email }))
            }
        }
    }

    /// The `kind` of the object at `at`, one of `kinds`.
    pub(super) fn kind(&mut self, at: &Path, entry: &Json, kinds: &[&'static str]) -> Option<&'static str> {
        if !entry.is_object() {
            let found = self.document.kind(at);
            self.report(at, format!("expected an object, found {found}"), "write { \"kind\": …, … }");
            return None;
        }
        let at = at.key("kind");
        let help = format!("write one of: {}", kinds.join(", "));
        let kind = match entry.get("kind") {
            Some(Json::String(kind)) => kind.as_str(),
            Some(_) => "",
            None => {
                self.report(&at, "this field is missing", help);
                return None;
            }
        };
        let known = kinds.iter().find(|known| **known == kind).copied();
        if known.is_none() {
            self.report(&at, "this is an unknown kind", help);
        }
        known
    }

    fn user(&mut self, at: &Path, issuer: Option<&str>, name: Option<String>) -> Option<UserId> {
        let name = self.required(at, name, "name the user, for example \"alice\"")?;
        match UserId::new(issuer.unwrap_or(LOCAL_ISSUER), &name) {
            Ok(user) => Some(user),
            Err(error) => {
                self.report(at, error.to_string(), "write a shorter, plain name");
                None
            }
        }
    }

    fn email(&mut self, at: &Path, written: Option<String>) -> Option<Arc<str>> {
        let email = user::email(&written?);
        if email.is_none() {
            self.report(at, "this is not an email address", "write for example \"alice@example.com\"");
        }
        email
    }

    fn issuer(&mut self, at: &Path, issuer: Option<&str>) {
        if let Some(Err(error)) = issuer.map(|issuer| UserId::new(issuer, "user")) {
            let message = error.to_string().replace("a user name", "an issuer");
            self.report(&at.key("issuer"), message, "write a shorter, plain name, or leave it out");
        }
    }

    fn bearer(&mut self, at: &Path, file: file::Bearer) -> IdentityMethod {
        self.issuer(at, file.issuer.as_deref());
        let issuer = file.issuer.filter(|issuer| UserId::new(issuer, "user").is_ok());
        let at = at.key("tokens");
        let written = file.tokens.unwrap_or_default();
        if written.is_empty() && matches!(self.document.kind(&at), "nothing" | "a list") {
            self.report(&at, "no token is listed: nobody could call", "add { \"user\": \"…\", \"sha256\": \"…\" }");
        }
        let (mut tokens, mut incomplete) = (Vec::new(), Vec::new());
        for (index, token) in written.into_iter().enumerate().filter_map(|(index, token)| Some((index, token?.0))) {
            let at = at.index(index);
            let user = self.user(&at.key("user"), issuer.as_deref(), token.user);
            let sha256 = self.sha256(&at.key("sha256"), token.sha256);
            let groups = self.groups(&at.key("groups"), token.groups);
            let email = self.email(&at.key("email"), token.email);
            let Some(user) = user else { continue };
            let caller = Caller { user, groups, email };
            match sha256 {
                Some(sha256) => tokens.push(BearerToken { caller, sha256 }),
                None => incomplete.push(caller),
            }
        }
        IdentityMethod::Bearer { tokens, incomplete }
    }

    fn sha256(&mut self, at: &Path, value: Option<file::Value>) -> Option<[u8; 32]> {
        const HELP: &str =
            "write the SHA-256 of the token as 64 hex digits or in base64; `tollbridge keygen` prints it";
        if value.is_none() {
            self.required(at, None, HELP);
        }
        let setting = self.setting(at, value);
        let Some(hash) = parse_sha256(setting.known()?) else {
            self.report(at, "this is not a SHA-256", HELP);
            return None;
        };
        let help = "make a token of 256 random bits with `tollbridge keygen` and write its hash";
        if hash.iter().all(|b| *b == hash[0]) {
            self.report(at, "this is an example, not the hash of a token", help);
            return None;
        }
        if EXAMPLES.iter().any(|word| digest::digest(&digest::SHA256, word.as_bytes()).as_ref() == hash) {
            self.report(at, "this is the hash of a token that anybody would guess", help);
            return None;
        }
        Some(hash)
    }

    /// One token for two users would be the first's alone.
    fn refuse_shared_tokens(&mut self, methods: &[IdentityMethod]) {
        let tokens = methods.iter().flat_map(|method| match method {
            IdentityMethod::Bearer { tokens, .. } => tokens.as_slice(),
            _ => &[],
        });
        let mut owners: BTreeMap<[u8; 32], &UserId> = BTreeMap::new();
        let mut shared = None;
        for token in tokens {
            let user = &token.caller.user;
            if let Some(first) = owners.insert(token.sha256, user) {
                shared = Some(if first == user {
                    (format!("the same token of {} is listed twice", user.subject()), "keep one of them")
                } else {
                    let help = "make each their own with `tollbridge keygen --bearer`";
                    (format!("{} and {} have the same token", first.subject(), user.subject()), help)
                });
            }
        }
        if let Some((message, help)) = shared {
            self.report(&Path::root().key("identity"), message, help);
        }
    }

    fn trusted_header(&mut self, at: &Path, file: file::TrustedHeader) -> Option<TrustedHeader> {
        self.issuer(at, file.issuer.as_deref());
        let header = self.header_name(&at.key("header"), file.header);
        let secret_header = self.header_name(&at.key("secretHeader"), file.secret_header);
        if header.is_some() && header == secret_header {
            self.report(&at.key("secretHeader"), "this is the header that names the user", "use another header");
        }
        let at_groups = at.key("groupsHeader");
        let groups_header = file.groups_header.and_then(|name| self.header_name(&at_groups, Some(name)));
        if groups_header.is_some() && (groups_header == header || groups_header == secret_header) {
            self.report(&at_groups, "this header already names the user or holds the secret", "use another header");
        }
        let at_email = at.key("emailHeader");
        let email_header = file.email_header.and_then(|name| self.header_name(&at_email, Some(name)));
        let taken = [&header, &secret_header, &groups_header];
        if email_header.is_some() && taken.contains(&&email_header) {
            self.report(&at_email, "this header already says something else", "use another header");
        }
        let (trusted_peers, trust_unix_socket) = self.peers(&at.key("trustedPeers"), file.trusted_peers);
        let secret = self.proxy_secret(&at.key("secret"), file.secret);
        Some(TrustedHeader {
            header: header?,
            issuer: file.issuer.unwrap_or_else(|| LOCAL_ISSUER.to_owned()),
            trusted_peers,
            trust_unix_socket,
            secret_header: secret_header?,
            secret: secret?,
            allow_comma: file.allow_comma.unwrap_or(false),
            groups_header,
            email_header,
        })
    }

    fn header_name(&mut self, at: &Path, name: Option<String>) -> Option<HeaderName> {
        let name = self.required(at, name, "name the header, for example \"X-Forwarded-User\"")?;
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            self.report(at, "this is not the name of a header", "use letters, digits and `-`");
            return None;
        };
        if TAKEN.contains(&header.as_str()) || header.as_str().starts_with("mcp-") {
            self.report(
                at,
                "HTTP or MCP uses this header itself",
                "use a header of the proxy's own, as X-Forwarded-User",
            );
            return None;
        }
        if header.as_str().contains('_') {
            self.report(at, "proxies confuse `_` with `-` in the names of headers", "use `-`");
            return None;
        }
        Some(header)
    }

    fn peers(&mut self, at: &Path, written: Option<Vec<Option<String>>>) -> (Vec<IpNet>, bool) {
        const HELP: &str = "write a network (10.0.0.0/8), an address (127.0.0.1) or \"unix\"";
        let written = written.unwrap_or_default();
        if written.is_empty() && matches!(self.document.kind(at), "nothing" | "a list") {
            self.report(at, "no peer is trusted: the header would never count", HELP);
        }
        let (mut networks, mut unix) = (Vec::new(), false);
        for (index, peer) in written.into_iter().enumerate().filter_map(|(index, peer)| Some((index, peer?))) {
            let network = peer.parse().ok().or_else(|| peer.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip)));
            match network {
                _ if peer == "unix" => unix = true,
                Some(network) => networks.push(network),
                None => self.report(&at.index(index), "this is not a network", HELP),
            }
        }
        (networks, unix)
    }

    fn proxy_secret(&mut self, at: &Path, value: Option<file::Value>) -> Option<Secret> {
        const HELP: &str = "write { \"$env\": \"NAME\" } and set that variable to at least 16 random characters";
        if value.is_none() {
            self.required(at, None, HELP);
        }
        let setting = self.setting(at, value);
        let secret = setting.known()?;
        let first = secret.chars().next();
        if secret.chars().count() < MIN_SECRET || secret.chars().all(|c| Some(c) == first) {
            self.report(at, "this secret is too easy to guess", HELP);
            return None;
        }
        if !secret.bytes().all(|b| (0x21..0x7f).contains(&b)) {
            self.report(at, "this secret does not fit into a header", "use visible ASCII without spaces");
            return None;
        }
        Some(Secret::new(secret.to_owned()))
    }
}

/// The user of a bridge on loopback whose file says nothing of identity.
pub(super) fn default_user() -> Option<UserId> {
    UserId::local("local").ok()
}

/// 32 bytes as 64 hex digits, or in either alphabet of base64, with or without padding.
fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
        }
        return Some(bytes);
    }
    let standard = text.strip_suffix('=').unwrap_or(text).replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(standard).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_the_same_in_every_form() {
        let hash = digest::digest(&digest::SHA256, b"tb_x");
        let hex = hash.as_ref().iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
        let base64 = base64::engine::general_purpose::STANDARD.encode(hash.as_ref());
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash.as_ref());
        for text in [&hex, &hex.to_uppercase(), &base64, &url] {
            assert_eq!(parse_sha256(text).unwrap(), hash.as_ref(), "{text}");
        }
        for text in ["", "00", &hex[1..], &base64[4..], "zz"] {
            assert_eq!(parse_sha256(text), None, "{text}");
        }
    }
}
