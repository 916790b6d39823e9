//! A server elsewhere refuses the token that it is called with: where the service renews that, and nothing has been said
//! yet, it is asked once more with a fresh one.

use std::sync::Arc;

use super::child::Child;
use super::{Done, Exchange};
use crate::bridge::Bridge;
use crate::bridge::connect::link::Lack;
use crate::bridge::error::BridgeError;
use crate::config::{Plan, Server};
use crate::secret::Credential;
use crate::tokens::TokenError;
use crate::upstream::UpstreamError;
use crate::user::UserId;

/// Why nothing takes the place of what a server has refused.
#[derive(Debug)]
pub(in crate::bridge) enum NoOther {
    /// Its user must do something first.
    Lack(Lack),
    /// It was no refusal that a fresh token would end, or nobody knows.
    Error(BridgeError),
}

impl Bridge {
    /// What takes the place of `taken`, with which a server was filled that has refused it by this `error`: once, and the
    /// user of one that is refused although it `is_fresh` must sign in again. Who has not allowed enough is asked for more.
    ///
    /// # Errors
    /// Nothing does.
    pub(in crate::bridge) async fn other_token(
        &self,
        (user, server): (&UserId, &Arc<Server>),
        taken: Option<&Credential>,
        (error, is_fresh): (BridgeError, bool),
    ) -> Result<Credential, NoOther> {
        let is_renewable = server.oauth.is_some() && matches!(server.plan, Plan::Http(_));
        let taken = match (&error, taken) {
            (BridgeError::Upstream(UpstreamError::ScopeMissing(scopes)), _) if server.oauth.is_some() => {
                return Err(match self.tokens.demand((user, server), scopes).await {
                    Ok(Some(true)) => NoOther::Lack(Lack::Scopes),
                    Ok(Some(false)) => NoOther::Error(error),
                    Ok(None) => NoOther::Error(UpstreamError::TokenRefused(403).into()),
                    Err(why) => self.no_other(server, &why),
                });
            }
            (BridgeError::Upstream(UpstreamError::TokenRefused(401)), Some(taken)) if is_renewable => taken,
            _ => return Err(NoOther::Error(error)),
        };
        let other = if is_fresh {
            self.tokens.refused_again((user, server), taken).await.map(|()| None)
        } else {
            Box::pin(self.tokens.after_refusal((user, server), taken)).await
        };
        match other {
            Ok(Some(fresh)) => Ok(fresh),
            Ok(None) => Err(NoOther::Error(error)),
            Err(why) => Err(self.no_other(server, &why)),
        }
    }

    fn no_other(&self, server: &Server, why: &TokenError) -> NoOther {
        self.lack(server, why).map_or_else(NoOther::Error, NoOther::Lack)
    }
}

impl Child {
    /// The same of what this server was filled with.
    pub(in crate::bridge) async fn other_token(
        &self,
        error: BridgeError,
        is_fresh: bool,
    ) -> Result<Credential, NoOther> {
        self.bridge.other_token((self.user(), &self.server), self.credential(), (error, is_fresh)).await
    }
}

impl Exchange {
    /// Works until the answer, or until the client must be asked. A token that is refused is renewed once.
    pub(in crate::bridge) async fn run(&mut self) -> Result<Done, BridgeError> {
        let mut is_fresh = false;
        loop {
            let error = match self.work().await {
                Err(error) if self.may_go_on_after(&error) => error,
                done => return done,
            };
            match Box::pin(self.child.other_token(error, is_fresh)).await {
                Ok(fresh) => self.begin_anew(fresh).await?,
                Err(NoOther::Lack(lack)) => return self.lead_to_page(&lack).await,
                Err(NoOther::Error(error)) => return Err(error),
            }
            is_fresh = true;
        }
    }

    /// Whether the server demands more, or has refused its token, has not been at work, and nobody has heard anything of it.
    fn may_go_on_after(&self, error: &BridgeError) -> bool {
        match error {
            BridgeError::Upstream(UpstreamError::ScopeMissing(_)) => true,
            BridgeError::Upstream(UpstreamError::TokenRefused(_)) => {
                !self.has_said && self.open.is_empty() && self.required.is_none() && self.round == 0
            }
            _ => false,
        }
    }

    async fn begin_anew(&mut self, fresh: Credential) -> Result<(), BridgeError> {
        (self.handshake, self.asked, self.changes) = (None, false, None);
        self.child.refill(fresh).await
    }

    async fn lead_to_page(&mut self, lack: &Lack) -> Result<Done, BridgeError> {
        let answer = self.bridge.without_token((&self.caller.user, &self.server), &self.call, lack);
        self.last(answer).await;
        Ok(Done::Answered)
    }
}
