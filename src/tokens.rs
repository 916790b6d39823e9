//! What a user has saved for a server, or exactly why that does not do; what may be saved, and how that is changed.

mod changes;
mod connected;
mod device;
mod entered;
mod granted;
mod refused;
mod renewal;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use crate::audit::Audit;
use crate::clock::{Clock, UnixTime};
use crate::config::Server;
use crate::lifecycle::Lifecycle;
use crate::metrics::Counter;
use crate::oauth::Services;
use crate::secret::{Credential, Field};
use crate::store::{CallKey, Lookup, Record, SessionStatus, SignInReason, StoreError, TokenStore, TooSoon};
use crate::user::UserId;

pub use changes::{By, ChangeError, ChangeListener};
pub use connected::NotConnected;
pub use device::DeviceSignIn;
pub use entered::{Entered, Fault, FieldFault};
use granted::Standing;
pub use granted::{Disconnected, must_sign_in, sign_in_ended};
pub use trial::{Probed, Prober, TRIAL_DEADLINE};

/// The longest value, bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Where a request's token comes from. Asks anew for every request.
#[derive(Debug, Clone)]
pub struct TokenSource {
    store: Arc<TokenStore>,
    clock: Clock,
    /// Writes down what is changed.
    audit: Audit,
    /// Who hears of changes.
    listener: Option<Arc<dyn ChangeListener>>,
    /// Renews what services gave.
    renewals: Option<renewal::Renewals>,
}

/// Why a request that needs a token goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The user has saved none for this server.
    #[error("no token is saved for this user and server")]
    Absent,
    /// What they have saved does not do any more, although nobody has refused it.
    #[error(transparent)]
    NeedsAnother(#[from] Why),
    /// Nobody knows whether the user has one.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// It must be renewed, and the service that does so cannot now.
    #[error("the service that renews it cannot now")]
    Later(Duration),
}

/// Why what a user has saved does not do, although it is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It was good until a time that is past.
    #[error("what the user saved has expired")]
    Expired,
    /// The server asks for fields, of these names, that were not asked for when it was saved.
    #[error("what the user saved lacks: {0}")]
    Incomplete(Arc<str>),
    /// Its user must sign in at the service again, since then.
    #[error("the user must sign in at the service again ({})", .0.as_str())]
    SignIn(SignInReason, UnixTime),
}

impl TokenSource {
    /// The tokens in `store`, as good as they are by `clock`; `audit` writes down what is changed.
    #[must_use]
    pub fn new(store: Arc<TokenStore>, clock: Clock, audit: Audit) -> Self {
        Self { store, clock, audit, listener: None, renewals: None }
    }

    /// The same, with somebody who hears of changes.
    #[must_use]
    pub fn heard_by(self, listener: Arc<dyn ChangeListener>) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// The same, which renews what `services` gave. A renewal goes on when whoever needed it has left; `client_refused`
    /// counts services that do not know the configured client.
    #[must_use]
    pub fn renewed_by(self, services: Arc<Services>, lifecycle: Lifecycle, client_refused: Counter) -> Self {
        Self { renewals: Some(renewal::Renewals { services, lifecycle, client_refused }), ..self }
    }

    /// The token of `user` for `server`; none if the server needs none, in which case the store is not asked.
    ///
    /// # Errors
    /// The server needs a token and there is none, or nobody knows: [`TokenError`] says which.
    pub async fn access_token(&self, user: &UserId, server: &Arc<Server>) -> Result<Option<Credential>, TokenError> {
        if !server.requires_user_token {
            return Ok(None);
        }
        self.found(user, server, self.store.lookup(user, &server.name).await).await
    }

    /// [`TokenSource::access_token`] for a call of `server`, and the status of its session: one command to the store, which
    /// counts the call too.
    ///
    /// # Errors
    /// The call may not be made yet.
    pub async fn for_call(
        &self,
        server: &Arc<Server>,
        call: &CallKey<'_>,
    ) -> Result<(Result<Option<Credential>, TokenError>, Result<Option<SessionStatus>, StoreError>), TooSoon> {
        if !server.requires_user_token {
            return Ok((Ok(None), self.store.status_for_call(call).await?));
        }
        let (token, status) = self.store.lookup_for_call(call).await?;
        Ok((self.found(call.user, server, token).await, status))
    }

    async fn found(
        &self,
        user: &UserId,
        server: &Arc<Server>,
        found: Lookup,
    ) -> Result<Option<Credential>, TokenError> {
        match found {
            Lookup::Found(record, mark) => match granted::standing(server, &record, self.clock.now())? {
                Standing::Good => Ok(Some(credential(server, record)?.of_record(mark))),
                // Rare, and large.
                Standing::Due | Standing::Over => {
                    let renewed = Box::pin(self.renewed((user, server), record, None)).await?;
                    Ok(Some(credential(server, renewed)?.of_record(mark)))
                }
            },
            Lookup::Absent => Err(TokenError::Absent),
            Lookup::Failed(error) => Err(TokenError::Failed(error)),
        }
    }
}

/// What people call those fields of `server` that are not saved, by their names; none if all are.
pub fn missing_fields(server: &Server, is_saved: impl Fn(&str) -> bool) -> Option<Arc<str>> {
    let missing = server.token_setup.fields.iter().filter(|field| !is_saved(&field.name));
    let names: Vec<&str> = missing.map(|field| field.label.as_deref().unwrap_or(&field.name)).collect();
    (!names.is_empty()).then(|| names.join(", ").into())
}

/// What `record` holds of what `server` asks for.
fn credential(server: &Server, record: Record) -> Result<Credential, Why> {
    let mut saved = record.fields;
    if let Some(missing) = missing_fields(server, |name| saved.iter().any(|(saved, _)| **saved == *name)) {
        return Err(Why::Incomplete(missing));
    }
    let fields = server.token_setup.fields.iter().filter_map(|field| {
        let place = saved.iter().position(|(name, _)| *name == field.name)?;
        let (name, value) = saved.swap_remove(place);
        Some(Field { name, value, is_secret: field.is_secret })
    });
    Ok(Credential::new(fields.collect()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, LoadOptions};
    use crate::secret::Secret;
    use crate::store::RecordKind;

    fn server(setup: &str, key: &str) -> Arc<Server> {
        let text = format!(
            r#"{{ "tokenStore": {{ "kind": "embedded", "path": "data", "keys": [{{ "id": "k1", "file": "k1.key" }}] }},
                "mcpServers": {{ "s": {{ "url": "http://127.0.0.1:1/mcp", "tokenSetup": {setup},
                    "headers": {{ "X-Key": {{ "$userToken": "{key}" }} }} }} }} }}"#
        );
        let config = config::parse(&text, Path::new("/etc/tollbridge.json"), &LoadOptions::default());
        Arc::clone(&config.unwrap_or_else(|problems| panic!("{problems}")).servers["s"])
    }

    fn record(fields: &[(&str, &str)], expires_at: Option<u64>) -> Record {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), Secret::new((*value).to_owned()))).collect();
        let (kind, saved_at) = (RecordKind::Fields, UnixTime(0));
        Record { kind, saved_at, saved_by: None, expires_at: expires_at.map(UnixTime), fields, grant: None }
    }

    #[test]
    fn an_expired_token_is_told_as_needing_another() {
        let server = server("{}", "<<token>>");
        let outcome = |expires_at, now| {
            let record = record(&[("token", "t")], expires_at);
            let standing = granted::standing(&server, &record, UnixTime(now));
            standing
                .and_then(|_| credential(&server, record))
                .map(|credential| credential.get("token").unwrap().expose().to_owned())
        };
        assert_eq!(outcome(None, u64::MAX).unwrap(), "t");
        assert_eq!(outcome(Some(100), 99).unwrap(), "t");
        assert_eq!(outcome(Some(100), 100), Err(Why::Expired));
    }

    #[test]
    fn why_a_sign_in_ended_is_one_sentence_with_the_service_and_the_day() {
        use SignInReason::{Changed, Client, Expired, Lost, Refused, Rejected};
        let server = server(r#"{ "displayName": "Linear" }"#, "<<token>>");
        let said = |reason| sign_in_ended(&server, (reason, UnixTime(1_777_800_000)), UnixTime(1_780_000_000));
        assert_eq!(said(Rejected), "Your sign-in to Linear ended on 3 May because Linear withdrew it.");
        for reason in [Lost, Client, Expired, Refused] {
            let said = said(reason);
            assert!(said.starts_with("Your sign-in to Linear ended on 3 May because "), "{said}");
            assert_eq!(said.find('.'), Some(said.len() - 1), "{said}");
        }
        assert!(said(Changed).starts_with("Your sign-in to Linear has ended because "), "nobody knows when");
    }

    #[test]
    fn a_server_gets_all_fields_that_it_asks_for_and_no_others() {
        let fields = r#"{ "fields": { "email": { "label": "E-mail address", "secret": false }, "apiKey": {} } }"#;
        let server = server(fields, "<<email>>:<<apiKey>>");
        let all = [("old", "x"), ("apiKey", "k"), ("email", "a@b")];
        let credential = |fields: &[_]| super::credential(&server, record(fields, None));
        let filled = credential(&all).unwrap();
        let told: Vec<_> = filled.fields().iter().map(|field| (&*field.name, field.is_secret)).collect();
        assert_eq!(told, [("email", false), ("apiKey", true)]);
        let lacks = |fields: &[_]| match credential(fields) {
            Err(Why::Incomplete(missing)) => missing.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(lacks(&all[..2]), "E-mail address");
        assert_eq!(lacks(&[("token", "t")]), "E-mail address, apiKey", "saved before there were fields");
    }
}
