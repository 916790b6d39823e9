//! Whether Redis may be trusted with tokens: it must not evict them, and should keep them across a restart.

use super::Redis;
use super::client::{CommandBatch, field};
use crate::store::{Notice, StoreError};

impl Redis {
    /// An error if Redis is known to be none to trust with tokens.
    pub(in crate::store) async fn check_server_state(&self) -> Result<(), StoreError> {
        match self.link.look().await {
            // Redis answers, only not to this command: the start has said so.
            Err(StoreError::Refused(code)) if *code == *"NOPERM" => Ok(()),
            looked => looked.map(drop),
        }
    }

    /// What an operator should know; an error only if Redis is known to be none to trust with tokens.
    pub(in crate::store) async fn check_policy(&self) -> Result<Vec<Notice>, StoreError> {
        match self.link.look().await {
            Ok(true) => {}
            Ok(false) => return Ok(vec![Notice::NotChecked(StoreError::Shape)]),
            Err(error) if error.is_misfit() => return Err(error),
            Err(error) => return Ok(vec![Notice::NotChecked(error)]),
        }
        Ok(match self.is_persistent().await {
            Ok(true) => Vec::new(),
            Ok(false) => vec![Notice::NotPersistent],
            Err(_) => vec![Notice::PersistenceUnknown],
        })
    }

    async fn is_persistent(&self) -> Result<bool, StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("INFO").arg("persistence");
        let [info]: [String; 1] = self.link.ask(&batch, Ok).await?;
        if field(&info, "aof_enabled") == Some("1") {
            return Ok(true);
        }
        let mut batch = CommandBatch::new();
        batch.cmd("CONFIG").arg("GET").arg("save");
        let [save]: [Vec<String>; 1] = self.link.ask(&batch, Ok).await?;
        save.get(1).map(|rules| !rules.is_empty()).ok_or(StoreError::Shape)
    }
}
