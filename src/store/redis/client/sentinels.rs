//! The Sentinels of a primary: asked where it is before each connection, and every second from then on, so that nobody
//! goes on with one that was replaced and has not heard of it. Of several answers the one of the latest failover counts.
//! Source: redis.io, "Guidelines for Redis clients with support for Redis Sentinel".

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{CommandBatch, RedisClient};
use crate::config::RedisStore;
use crate::store::{SetupError, StoreError};

/// How often they are asked while there may be a connection.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the others are waited for once most of them have answered: one of those may know of a later failover.
const OTHERS: Duration = Duration::from_millis(50);

/// The host and port of a server, as the Sentinels write them.
pub(super) type Address = (String, u16);

/// The Sentinels of a primary.
pub(super) struct Sentinels {
    asked: Arc<Asked>,
    watcher: OnceLock<AbortOnDropHandle<()>>,
}

struct Asked {
    /// The name of the primary.
    primary: Box<str>,
    links: Vec<RedisClient>,
    /// Where most of them said last that it is.
    address: watch::Sender<Option<Address>>,
}

/// Where a connection leads, and where it should.
pub(super) struct Place {
    address: Address,
    now: watch::Receiver<Option<Address>>,
}

impl Sentinels {
    /// Those of `store`, if it has any.
    pub(super) fn open(store: &RedisStore) -> Result<Option<Self>, SetupError> {
        let Some(sentinels) = &store.sentinels else { return Ok(None) };
        let links = sentinels.urls.iter().map(|url| RedisClient::of_sentinel(url, store));
        let asked = Asked {
            primary: sentinels.primary.as_str().into(),
            links: links.collect::<Result<_, _>>()?,
            address: watch::Sender::new(None),
        };
        Ok(Some(Self { asked: Arc::new(asked), watcher: OnceLock::new() }))
    }

    /// Where the primary is.
    ///
    /// # Errors
    /// None of them could be asked or knows it, or one is no Sentinel.
    #[expect(clippy::disallowed_methods, reason = "the task ends with its owner and leaves nothing to wait for")]
    pub(super) async fn find(&self) -> Result<(Address, Place), StoreError> {
        let (address, _) = self.asked.ask().await?;
        self.asked.address.send_replace(Some(address.clone()));
        self.watcher.get_or_init(|| {
            let asked = Arc::clone(&self.asked);
            AbortOnDropHandle::new(tokio::spawn(async move { asked.watch().await }))
        });
        let place = Place { address: address.clone(), now: self.asked.address.subscribe() };
        Ok((address, place))
    }
}

impl Asked {
    /// Asks again and again. A few who are cut off from the others are not believed, since they may have missed a failover.
    async fn watch(&self) {
        loop {
            sleep(AGAIN).await;
            if let Ok((address, true)) = self.ask().await {
                self.address.send_if_modified(|last| last.replace(address.clone()).as_ref() != Some(&address));
            }
        }
    }

    /// Where the primary is, and whether most of the Sentinels have answered.
    async fn ask(&self) -> Result<(Address, bool), StoreError> {
        let mut questions: FuturesUnordered<_> = self.links.iter().map(|link| self.ask_one(link)).collect();
        let (mut answers, mut latest, mut failure) = (0, None::<(u64, Address)>, StoreError::NoSentinel);
        loop {
            let most = answers > self.links.len() / 2;
            let next =
                if most { timeout(OTHERS, questions.next()).await.unwrap_or(None) } else { questions.next().await };
            match next {
                None => return latest.map(|(_, address)| (address, most)).ok_or(failure),
                Some(Ok(found)) => {
                    answers += 1;
                    if latest.as_ref().is_none_or(|(epoch, _)| found.0 > *epoch) {
                        latest = Some(found);
                    }
                }
                Some(Err(StoreError::NotSentinel)) => return Err(StoreError::NotSentinel),
                Some(Err(StoreError::Unreachable | StoreError::Timeout)) => {}
                Some(Err(error)) => failure = error,
            }
        }
    }

    /// Where a Sentinel says that the primary is, and since which failover.
    async fn ask_one(&self, link: &RedisClient) -> Result<(u64, Address), StoreError> {
        let mut batch = CommandBatch::new();
        batch.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.primary);
        let address = link.ask(&batch, |[address]: [Option<Address>; 1]| Ok(address)).await;
        let address = match address {
            Err(StoreError::Refused(code)) if *code == *"ERR" => return Err(StoreError::NotSentinel),
            address => address?.ok_or(StoreError::UnknownPrimary)?,
        };
        let mut batch = CommandBatch::new();
        batch.cmd("SENTINEL").arg("MASTER").arg(&*self.primary);
        let [fields]: [HashMap<String, String>; 1] = link.ask(&batch, Ok).await?;
        let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        Ok((epoch.ok_or(StoreError::Shape)?, address))
    }
}

impl Place {
    /// Whether the primary is elsewhere now.
    pub(super) fn has_moved(&self) -> bool {
        is_elsewhere(&self.address, self.now.borrow().as_ref())
    }

    /// Waits until the primary is elsewhere.
    pub(super) async fn moved(&mut self) {
        let address = &self.address;
        let _nobody_asks = self.now.wait_for(|now| is_elsewhere(address, now.as_ref())).await;
    }
}

fn is_elsewhere(address: &Address, now: Option<&Address>) -> bool {
    now.is_some_and(|now| now != address)
}
