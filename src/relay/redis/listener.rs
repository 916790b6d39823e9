//! The listening half of a node: hears what is meant for it, hands it to its exchanges, sends receipts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Peers, Verdict};
use crate::relay::NodeId;
use crate::relay::local::Local;
use crate::relay::replay_filter::ReplayFilter;
use crate::relay::wire::{self, Body, Frame};
use crate::store::{CommandBatch, Message, RECONNECT, StoreError};

/// A connection that lasted as long was a good one.
const GOOD: Duration = Duration::from_secs(1);
/// Receipts that are sent together.
const TOGETHER: usize = 64;

/// What is to be said of a frame, to whom.
pub(super) struct Receipt {
    to: NodeId,
    of: u64,
    verdict: Verdict,
}

/// Listens, for ever and through every outage.
pub(super) async fn listen(peers: Arc<Peers>, local: Arc<Local>, receipts: mpsc::Sender<Receipt>) {
    let mut receiver =
        Receiver { peers: &peers, local: &local, receipts, replay_filter: ReplayFilter::default(), strange: false };
    let (mut pause, mut told) = (RECONNECT[0], None);
    loop {
        match receiver.until_lost().await {
            Ok(lasted) => {
                tracing::warn!("the relay lost its connection to Redis");
                told = None;
                if lasted > GOOD {
                    pause = RECONNECT[0];
                }
            }
            // The same failure is logged once.
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the relay cannot listen on Redis");
                told = Some(error);
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(RECONNECT[1]);
    }
}

/// What hears, and what it remembers through outages.
struct Receiver<'a> {
    peers: &'a Peers,
    local: &'a Local,
    receipts: mpsc::Sender<Receipt>,
    replay_filter: ReplayFilter,
    /// Whether something that does not open was heard and told of.
    strange: bool,
}

impl Receiver<'_> {
    /// Listens until the connection is lost; answers how long that was.
    async fn until_lost(&mut self) -> Result<Duration, StoreError> {
        let channel = self.peers.channel_of(self.peers.node);
        let channels = [channel, self.peers.channel_of_all.clone()];
        let mut subscription = self.peers.link.subscribe(&channels).await?;
        let since = Instant::now();
        tracing::info!("the relay listens on Redis");
        self.peers.listening.send_replace(Some(since));
        while let Some(message) = subscription.next().await {
            if let Some(channel) = channels.iter().find(|channel| channel.as_bytes() == message.channel) {
                self.receive(channel, &message);
            }
        }
        self.peers.listening.send_replace(None);
        Ok(since.elapsed())
    }

    /// Takes in what was published on `channel`. What none of us sealed, or what was heard before, is passed over.
    fn receive(&mut self, channel: &str, message: &Message) {
        let Some(plain) = wire::open(&self.peers.keyring, channel, &message.payload) else {
            if !std::mem::replace(&mut self.strange, true) {
                tracing::warn!(
                    "what is published on the relay's channels does not open; have all nodes the same keys?"
                );
            }
            return;
        };
        let Some(Frame { from, number, body }) = Frame::parse(&plain) else { return };
        if from == self.peers.node || !self.replay_filter.first_time(from, number) {
            return;
        }
        match body {
            Body::Part(part) => self.receipt(from, number, self.local.deliver_part(from, part)),
            Body::Probe { exchange } => self.receipt(from, number, self.local.probe(exchange)),
            Body::Receipt { of, verdict } => self.peers.settle(of, verdict),
            Body::Topic { topic, payload } => self.local.tell_topic(topic, &Bytes::copy_from_slice(payload)),
        }
    }

    fn receipt(&self, to: NodeId, of: u64, verdict: Verdict) {
        if self.receipts.try_send(Receipt { to, of, verdict }).is_err() {
            tracing::warn!("too many receipts wait; one is not sent");
        }
    }
}

/// Sends receipts, as many together as wait.
pub(super) async fn send_receipts(peers: Arc<Peers>, mut receipts: mpsc::Receiver<Receipt>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while receipts.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut commands = CommandBatch::new();
        for Receipt { to, of, verdict } in batch.drain(..) {
            let channel = peers.channel_of(to);
            let body = Body::Receipt { of, verdict };
            let frame = Frame { from: peers.node, number: peers.next_number(), body };
            commands.cmd("PUBLISH").arg(&channel).arg(frame.seal(&peers.keyring, &channel));
        }
        if let Err(error) = peers.link.ask(&commands, |_: Vec<Value>| Ok(())).await {
            tracing::warn!(%error, "the relay could not send receipts");
        }
    }
}
