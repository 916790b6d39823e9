//! A connection that listens to channels.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::errors::classify;
use super::{RedisClient, connecting, server_state, vanished};
use crate::store::StoreError;

/// Messages that may wait to be taken. What comes beyond is dropped, so who sends must ask for receipts.
const WAITING: usize = 1024;
/// How long a silent connection is trusted before Redis is asked whether it is still there, and still a master.
const SILENCE: Duration = Duration::from_secs(2);

/// Hears what is published on some channels, until the connection is lost.
pub(crate) struct Subscription {
    connection: MultiplexedConnection,
    messages: mpsc::Receiver<Message>,
    lost: CancellationToken,
}

/// What was published, as it came.
pub(crate) struct Message {
    /// On which channel.
    pub(crate) channel: Vec<u8>,
    /// What.
    pub(crate) payload: Vec<u8>,
}

impl RedisClient {
    /// Listens to `channels` on a connection of its own, from now until it is lost; nothing is sent again.
    pub(crate) async fn subscribe(&self, channels: &[String]) -> Result<Subscription, StoreError> {
        let (sender, messages) = mpsc::channel(WAITING);
        let lost = CancellationToken::new();
        let cut = lost.clone();
        let hear = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                cut.cancel();
            } else if let Some(message) = Message::from_push(push) {
                return sender.try_send(message).map_err(drop);
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connecting(self.timeout)))
            // A connection given up in vain loses messages.
            .set_response_timeout(Some(vanished(self.timeout)))
            .set_push_sender(hear);
        // Messages come between answers only in RESP3.
        let info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let connect = async {
            let client = Client::open(info.set_redis_settings(settings))?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            connection.subscribe(channels).await?;
            Ok(connection)
        };
        let connection = connect.await.map_err(|error| classify(&error))?;
        Ok(Subscription { connection, messages, lost })
    }
}

impl Subscription {
    /// The next message; `None` once the connection is lost. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                message = self.messages.recv() => return message,
                () = self.lost.cancelled() => return None,
                () = sleep(SILENCE) => {
                    // Nobody publishes any more where a master was demoted.
                    match server_state::look(&self.connection).await {
                        Ok(_) | Err(StoreError::Refused(_)) => {}
                        Err(_) => return None,
                    }
                }
            }
        }
    }
}

impl Message {
    fn from_push(push: PushInfo) -> Option<Self> {
        match (push.kind, <[Value; 2]>::try_from(push.data)) {
            (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(payload)])) => {
                Some(Self { channel, payload })
            }
            _ => None,
        }
    }
}
