//! A token is renewed, and given back. Source: RFC 6749 section 6; RFC 7009.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Services;
use super::breaker::{Pass, Rest};
use super::form_post::{Caller, Posted, form_post};
use super::service::Fault;
use super::token_response::{self, AnswerFault, TokenAnswer};
use crate::config::Server;
use crate::http_client::guard::{CallError, Deadline};
use crate::secret::Secret;
use crate::store::{ClientKind, Grant, StoreError};

/// How long renewing a token may take.
pub const RENEWAL: Duration = Duration::from_secs(8);

/// How long giving a token back may take, and how often it is tried.
const REVOCATION: Duration = Duration::from_secs(3);
const TRIES: usize = 3;

/// Why a token was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRenewed {
    /// The service takes what renews it no more.
    #[error("the service refuses to renew it")]
    Rejected,
    /// The service does not know the client to which it was granted.
    #[error("the service does not know the client that it was granted to")]
    Client {
        /// Whether nobody can mend that: the client was the bridge's own registration, or is configured no more.
        is_gone: bool,
    },
    /// The service refuses for another reason, by a code of the standard's or by another one.
    #[error("the service refuses{}", .0.map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused(Option<&'static str>),
    /// The service cannot now; it may say when it can.
    #[error("the service cannot renew it now")]
    Later(Option<Duration>),
    /// There was no answer: nobody knows whether it was renewed.
    #[error("the service did not answer")]
    Lost,
    /// The service was not called: there was no connection to it, or it must not be called.
    #[error("the service could not be called")]
    Unsent,
    /// The service was not called: this node was held up for too long.
    #[error("this node was held up before it could call the service")]
    Late,
    /// What is needed for it cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Whether the service that renews this is called now.
    #[must_use]
    pub fn rest(&self, grant: &Grant) -> Rest {
        self.limits.breakers.rest(&grant.token_endpoint)
    }

    /// The right to have this renewed now.
    ///
    /// # Errors
    /// The service is left alone, for this long.
    pub fn enter(&self, grant: &Grant) -> Result<Pass, Duration> {
        self.limits.breakers.enter(&grant.token_endpoint)
    }

    /// Renews what was granted, with one call, as the client and at the place to which it was. What renews it leaves this
    /// node before `leaves_by` or not at all.
    ///
    /// # Errors
    /// Says why it is not renewed.
    pub async fn renew(
        &self,
        (server, grant): (&Server, &Grant),
        pass: Pass,
        leaves_by: Instant,
    ) -> Result<TokenAnswer, NotRenewed> {
        let refresh_token = grant.refresh_token.as_ref().ok_or(NotRenewed::Rejected)?;
        let secret = self.secret(server, grant).await?;
        let caller = Caller { id: &grant.client.id, auth: grant.client.auth, secret: secret.as_ref() };
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose())];
        fields.extend(grant.resource.as_deref().map(|resource| ("resource", resource)));
        let oauth = server.oauth.as_ref().filter(|oauth| oauth.audience_on_refresh);
        fields.extend(oauth.and_then(|oauth| Some(("audience", oauth.audience.as_deref()?))));
        let deadline = Deadline { within: RENEWAL, leaves_by: Some(leaves_by) };
        let posted = form_post(self.guarded(server), &grant.token_endpoint, &caller, &fields, deadline).await;
        let answer = match posted {
            Ok(Posted::Answer(answer)) => token_response::read(&Zeroizing::new(answer.into_body())),
            Ok(Posted::Later(after)) => {
                pass.failed();
                return Err(NotRenewed::Later(after));
            }
            Err(CallError::Unsent) if Instant::now() > leaves_by => return Err(NotRenewed::Late),
            Err(CallError::Blocked) => return Err(NotRenewed::Unsent),
            Err(error) => {
                pass.failed();
                return Err(if error == CallError::Unsent { NotRenewed::Unsent } else { NotRenewed::Lost });
            }
        };
        if matches!(answer, Err(AnswerFault::Unreadable)) {
            pass.failed();
        } else {
            pass.answered();
        }
        answer.map_err(|fault| match fault {
            AnswerFault::Refused(Some("invalid_grant")) => NotRenewed::Rejected,
            AnswerFault::Refused(Some("invalid_client")) => NotRenewed::Client { is_gone: is_registered(grant) },
            AnswerFault::Refused(code) => NotRenewed::Refused(code),
            // It may have renewed it all the same.
            AnswerFault::Unreadable => NotRenewed::Lost,
        })
    }

    /// Gives back what was granted: first what renews it, then the token itself. Whether the service has confirmed the
    /// first: many take back all that belongs to it then, and cannot take back a token that says itself what it is good for.
    pub async fn revoke(&self, server: &Server, grant: &Grant, access_token: &Secret) -> bool {
        let Some(endpoint) = &grant.revocation_endpoint else { return false };
        let Ok(secret) = self.secret(server, grant).await else { return false };
        let caller = Caller { id: &grant.client.id, auth: grant.client.auth, secret: secret.as_ref() };
        let renewing = grant.refresh_token.as_ref().map(|token| (token, "refresh_token"));
        let mut confirmed = None;
        for (token, kind) in renewing.into_iter().chain([(access_token, "access_token")]) {
            let fields = [("token", token.expose()), ("token_type_hint", kind)];
            let mut is_done = false;
            for _ in 0..TRIES {
                let posted = form_post(self.guarded(server), endpoint, &caller, &fields, REVOCATION).await;
                if let Ok(Posted::Answer(answer)) = posted {
                    is_done = answer.status().is_success();
                    break;
                }
            }
            confirmed = confirmed.or(Some(is_done));
        }
        confirmed.unwrap_or_default()
    }

    async fn secret(&self, server: &Server, grant: &Grant) -> Result<Option<Secret>, NotRenewed> {
        self.secret_of(&grant.client, server).await.map_err(|fault| match fault {
            Fault::Store(error) => NotRenewed::Store(error),
            _ => NotRenewed::Client { is_gone: true },
        })
    }
}

fn is_registered(grant: &Grant) -> bool {
    matches!(grant.client.kind, ClientKind::Registered(_))
}

/// The host at which something is renewed, for the log.
pub(crate) fn host_of(grant: &Grant) -> String {
    super::service::host_of(&grant.token_endpoint)
}
