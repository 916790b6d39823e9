//! Whether Redis may be trusted with tokens: it must not evict them, and should keep them across a restart.

use std::sync::atomic::Ordering;

use super::Redis;
use crate::store::{Notice, StoreError};

impl Redis {
    /// An error if Redis is known to evict.
    pub(in crate::store) async fn check_eviction(&self) -> Result<(), StoreError> {
        if self.policy_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.eviction().await {
            // Redis answers, only not to this question: the start has said so.
            Err(StoreError::Refused(code)) if *code == *"NOPERM" => Ok(()),
            result => result,
        }
    }

    /// What an operator should know; an error only if Redis is known to evict.
    pub(in crate::store) async fn check_policy(&self) -> Result<Vec<Notice>, StoreError> {
        match self.eviction().await {
            Err(error @ StoreError::Evicts(_)) => return Err(error),
            Err(error) => return Ok(vec![Notice::NotChecked(error)]),
            Ok(()) => {}
        }
        Ok(match self.is_persistent().await {
            Ok(true) => Vec::new(),
            Ok(false) => vec![Notice::NotPersistent],
            Err(_) => vec![Notice::PersistenceUnknown],
        })
    }

    async fn eviction(&self) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("memory");
        let [info]: [String; 1] = self.link.ask(&pipe, Ok).await?;
        match field(&info, "maxmemory_policy") {
            Some("noeviction") => {
                self.policy_seen.store(true, Ordering::Relaxed);
                Ok(())
            }
            Some(policy) => Err(StoreError::Evicts(policy.chars().filter(|c| !c.is_control()).take(32).collect())),
            None => Err(StoreError::Shape),
        }
    }

    async fn is_persistent(&self) -> Result<bool, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("persistence");
        let [info]: [String; 1] = self.link.ask(&pipe, Ok).await?;
        if field(&info, "aof_enabled") == Some("1") {
            return Ok(true);
        }
        let mut pipe = redis::pipe();
        pipe.cmd("CONFIG").arg("GET").arg("save");
        let [save]: [Vec<String>; 1] = self.link.ask(&pipe, Ok).await?;
        save.get(1).map(|rules| !rules.is_empty()).ok_or(StoreError::Shape)
    }
}

/// The value of `name` in what `INFO` answers.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
