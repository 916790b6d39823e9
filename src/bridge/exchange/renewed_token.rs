//! A server elsewhere refuses the token that it is called with: where the service renews that, and nothing has been said
//! yet, the request is sent once more with a fresh one.

use super::{Done, Exchange};
use crate::bridge::connect::link::Lack;
use crate::bridge::error::BridgeError;
use crate::secret::Credential;
use crate::tokens::TokenError;
use crate::upstream::{Upstream, UpstreamError};

impl Exchange {
    /// Works until the answer, or until the client must be asked. A token that is refused is renewed once; the user of one
    /// that is refused then, too, must sign in again; and who has not allowed enough is asked for more.
    pub(in crate::bridge) async fn run(&mut self) -> Result<Done, BridgeError> {
        match self.work_with_a_good_token().await {
            Err(BridgeError::Upstream(UpstreamError::ScopeMissing(scopes))) if self.server.oauth.is_some() => {
                self.ask_for_more(scopes).await
            }
            done => done,
        }
    }

    async fn ask_for_more(&mut self, scopes: Vec<String>) -> Result<Done, BridgeError> {
        let (user, server) = (&self.caller.user, &self.server);
        match self.bridge.tokens.demand((user, server), &scopes).await {
            Ok(Some(true)) => self.lead_to_page(&Lack::Scopes).await,
            Ok(Some(false)) => Err(UpstreamError::ScopeMissing(scopes).into()),
            Ok(None) => Err(UpstreamError::TokenRefused(403).into()),
            Err(error) => self.without_token(&error).await,
        }
    }

    async fn work_with_a_good_token(&mut self) -> Result<Done, BridgeError> {
        let refused = match self.work().await {
            Err(error) if self.may_begin_anew_after(&error) => error,
            done => return done,
        };
        let Some(taken) = self.child.credential().cloned() else { return Err(refused) };
        let (user, server) = (&self.caller.user, &self.server);
        let fresh = match Box::pin(self.bridge.tokens.after_refusal((user, server), &taken)).await {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Err(refused),
            Err(error) => return self.without_token(&error).await,
        };
        self.begin_anew(fresh.clone()).await?;
        match self.work().await {
            Err(error) if self.may_begin_anew_after(&error) => {
                let (user, server) = (&self.caller.user, &self.server);
                match self.bridge.tokens.refused_again((user, server), &fresh).await {
                    Ok(()) => Err(error),
                    Err(lack) => self.without_token(&lack).await,
                }
            }
            done => done,
        }
    }

    /// Whether the server has refused its token, has not been at work, and nobody has heard anything of it.
    fn may_begin_anew_after(&self, error: &BridgeError) -> bool {
        let is_refused = matches!(error, BridgeError::Upstream(UpstreamError::TokenRefused(401)));
        let is_untold = !self.has_said && self.open.is_empty() && self.required.is_none() && self.round == 0;
        is_refused && is_untold && self.server.oauth.is_some() && matches!(self.child.upstream, Upstream::Http(_))
    }

    async fn begin_anew(&mut self, fresh: Credential) -> Result<(), BridgeError> {
        (self.handshake, self.asked, self.changes) = (None, false, None);
        self.child.refill(fresh).await
    }

    /// What there is instead of an answer.
    async fn without_token(&mut self, error: &TokenError) -> Result<Done, BridgeError> {
        let lack = self.bridge.lack(error)?;
        self.lead_to_page(&lack).await
    }

    async fn lead_to_page(&mut self, lack: &Lack) -> Result<Done, BridgeError> {
        let answer = self.bridge.without_token((&self.caller.user, &self.server), &self.call, lack);
        self.last(answer).await;
        Ok(Done::Answered)
    }
}
