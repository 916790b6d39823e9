//! A call whose person has agreed to go to the page goes on once they have saved their token. Its client calls again as soon
//! as they have agreed, and gives up after some rounds: so this call waits.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::link::Lack;
use crate::bridge::error::BridgeError;
use crate::bridge::exchange::call::Call;
use crate::bridge::{Bridge, Connection, IncomingMessage};
use crate::secret::Credential;

/// How long it waits: less than clients and proxies do. Then its person is asked again.
const PATIENCE: Duration = Duration::from_secs(45);

/// How often it looks whether the token is there.
const LOOK: Duration = Duration::from_secs(1);

impl Bridge {
    /// What the person of such a call has saved, once they have, or what is lacking still. Any other call does not wait.
    ///
    /// # Errors
    /// The store failed when it was asked last: nobody knows what is lacking.
    pub(in crate::bridge) async fn awaited_credential(
        &self,
        incoming: &IncomingMessage,
        (call, lack): (&Call, Lack),
        connection: &Connection,
    ) -> Result<Result<Option<Credential>, Lack>, BridgeError> {
        if call.agreed != Some(true) {
            return Ok(Err(lack));
        }
        let mut lacking = Ok(lack);
        let saved = async {
            loop {
                sleep(LOOK).await;
                match self.tokens.awaited_access_token(&incoming.caller.user, &incoming.server).await {
                    Ok(credential) => return credential,
                    Err(error) => lacking = self.lack(&incoming.server, &error),
                }
            }
        };
        let saved = tokio::select! {
            saved = timeout(PATIENCE, saved) => saved.ok(),
            () = connection.gone.cancelled() => None,
            () = self.lifecycle.soft.cancelled() => None,
        };
        saved.map_or_else(|| lacking.map(Err), |credential| Ok(Ok(credential)))
    }
}
