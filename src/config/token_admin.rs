//! What the commands below `tollbridge token` need of the file: where the tokens are, who may be a user, and which servers
//! take a token. Of the variables that it names only those of the token store are looked up, and no program is looked for:
//! an operator's shell has neither the environment nor the PATH of the service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;
use std::time::Duration;

use serde_json::Value as Json;

use super::identity::{IDENTITY_KINDS, default_user};
use super::load::{LoadOptions, Loader, text_of};
use super::written::file::{self, Object};
use super::written::path::Path;
use super::written::problem::Problems;
use super::{AuditConfig, ServerName, TokenSetup, TokenStoreConfig};
use crate::user::{LOCAL_ISSUER, UserId};

/// The part of a configuration that is about users' tokens.
#[derive(Debug)]
pub struct TokenAdmin {
    /// Where they are kept, if anywhere.
    pub token_store: Option<TokenStoreConfig>,
    /// Where it is written down who changes them, if anywhere.
    pub audit: Option<AuditConfig>,
    /// All servers, disabled ones too, with how a person gets a token; `None` for a server that takes none.
    pub servers: BTreeMap<ServerName, Option<TokenSetup>>,
    /// Those of them whose users sign in at a service, and paste nothing.
    pub sign_in_only: BTreeSet<ServerName>,
    /// The users whom the file names.
    pub users: BTreeSet<UserId>,
    /// Issuers who name users of their own: those whom a reverse proxy recognises.
    pub issuers: BTreeSet<String>,
    /// How long a legacy session lasts.
    pub session_lifetime: Duration,
}

impl TokenAdmin {
    /// Whether a caller may be recognised as this user.
    #[must_use]
    pub fn may_call(&self, user: &UserId) -> bool {
        self.users.contains(user) || self.issuers.contains(user.issuer())
    }
}

/// Reads what `tollbridge token` needs of the configuration in `file`.
///
/// # Errors
/// Everything that is wrong with it, as far as it is looked at.
pub fn load_token_admin(file: &FilePath, options: &LoadOptions) -> Result<TokenAdmin, Problems> {
    parse(&text_of(file)?, file, options)
}

fn parse(text: &str, file: &FilePath, options: &LoadOptions) -> Result<TokenAdmin, Problems> {
    let mut loader = Loader::begin(text, file, options)?;
    let read = loader.file().map(|file| loader.token_admin(file));
    loader.end(read)
}

impl Loader<'_> {
    fn token_admin(&mut self, file: file::File) -> TokenAdmin {
        let token_store = file.token_store.and_then(|json| self.token_store(json));
        let audit = file.audit.and_then(|Object(audit)| self.audit(audit, token_store.as_ref()));
        let (mut users, mut issuers) = (BTreeSet::new(), BTreeSet::new());
        for (index, entry) in file.identity.into_iter().flatten().enumerate() {
            self.users(&Path::root().key("identity").index(index), entry, &mut users, &mut issuers);
        }
        if users.is_empty() && issuers.is_empty() {
            users.extend(default_user());
        }
        let (mut servers, mut sign_in_only) = (BTreeMap::new(), BTreeSet::new());
        for (name, json) in file.mcp_servers.into_iter().flatten() {
            let Some((name, setup, is_sign_in)) = self.token_setup_of(&name, json) else { continue };
            sign_in_only.extend(is_sign_in.then(|| name.clone()));
            servers.insert(name, setup);
        }
        let session_lifetime =
            self.limits(&file.limits.map(|Object(limits)| limits).unwrap_or_default()).session_lifetime;
        TokenAdmin { token_store, audit, servers, sign_in_only, users, issuers, session_lifetime }
    }

    /// Adds the users whom a way to recognise callers names, or who names them.
    fn users(
        &mut self,
        at: &Path,
        entry: Json,
        users: &mut BTreeSet<UserId>,
        issuers: &mut BTreeSet<String>,
    ) -> Option<()> {
        match self.kind(at, &entry, IDENTITY_KINDS)? {
            "bearer" => {
                let file: file::Bearer = self.read(at, entry)?;
                let issuer = file.issuer.unwrap_or_else(|| LOCAL_ISSUER.to_owned());
                let names = file.tokens.into_iter().flatten().flatten().filter_map(|Object(token)| token.user);
                users.extend(names.filter_map(|name| UserId::new(&issuer, &name).ok()));
            }
            "trustedHeader" => {
                let file: file::TrustedHeader = self.read(at, entry)?;
                issuers.insert(file.issuer.unwrap_or_else(|| LOCAL_ISSUER.to_owned()));
            }
            _ => {
                let file: file::Local = self.read(at, entry)?;
                users.extend(file.user.and_then(|name| UserId::local(&name).ok()));
            }
        }
        Some(())
    }

    /// A server's name, how a person gets a token for it if it takes one, and whether they sign in for that and paste nothing.
    fn token_setup_of(&mut self, name: &str, json: Json) -> Option<(ServerName, Option<TokenSetup>, bool)> {
        let at = Path::root().key("mcpServers").key(name);
        let takes_token = self.takes_credential(&at);
        let file: file::Server = self.read(&at, json)?;
        let setup = self.token_setup(&at.key("tokenSetup"), file.token_setup.map(|Object(setup)| setup));
        let (signs_in, may_paste) = match &file.oauth {
            None | Some(file::OAuth::Found(false)) => (false, true),
            Some(file::OAuth::Found(true)) => (true, false),
            Some(file::OAuth::Written(written)) => (true, written.also.is_some()),
        };
        let setup = (takes_token || signs_in).then(|| setup.unwrap_or_default());
        Some((ServerName::parse(name)?, setup, !may_paste))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::given;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<TokenAdmin, Problems> {
        parse(text, FilePath::new("/etc/tollbridge.json"), &given(variables))
    }

    #[test]
    fn only_the_variables_of_the_token_store_are_looked_up() {
        let text = r#"{
            "listen": { "$env": "A" },
            "identity": [{ "kind": "bearer", "tokens": [{ "user": "alice", "sha256": { "$env": "B" } }] }],
            "tokenStore": { "kind": "redis", "url": { "$env": "URL" }, "keys": [{ "id": "k1", "value": { "$env": "KEY" } }] },
            "mcpServers": {
                "notion": { "command": { "$env": "C" }, "env": { "T": { "$userToken": "<<token>>" }, "U": { "$env": "D" } },
                            "tokenSetup": { "tokenFormat": "^ntn_" } },
                "time": { "command": "no-such-program", "disabled": true } } }"#;
        let admin = read(text, &[("URL", "redis://r"), ("KEY", "k")]).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(admin.token_store.is_some());
        let servers: Vec<_> = admin.servers.iter().map(|(name, setup)| (name.as_str(), setup.is_some())).collect();
        assert_eq!(servers, [("notion", true), ("time", false)]);
        assert!(admin.may_call(&UserId::local("alice").unwrap()) && !admin.may_call(&UserId::local("alicee").unwrap()));
        let problems = read(text, &[("KEY", "k")]).unwrap_err();
        assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["tokenStore.url"]);
    }

    #[test]
    fn a_proxy_names_users_of_its_issuer_and_without_identity_there_is_the_default_user() {
        let proxy = r#"{ "identity": [{ "kind": "trustedHeader", "header": "X-User", "issuer": "https://idp",
            "trustedPeers": ["10.0.0.1"], "secretHeader": "X-S", "secret": { "$env": "S" } }], "mcpServers": {} }"#;
        let admin = read(proxy, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(admin.may_call(&UserId::new("https://idp", "anybody").unwrap()));
        assert!(!admin.may_call(&UserId::local("anybody").unwrap()));
        let nobody = read(r#"{ "mcpServers": {} }"#, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(nobody.users, [UserId::local("local").unwrap()].into());
    }
}
