//! One task owns a call to its end: its answer, a deadline, a cancellation, a client that has left, or a stop. What the log
//! says of the call is said here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::course::span;
use super::final_answer::failed;
use super::notes::Note;
use super::questions::call_key;
use super::{Done, Exchange};
use crate::bridge::error::BridgeError;
use crate::bridge::response::sse::Guard;
use crate::bridge::{Bridge, Connection};
use crate::limits::Permit;
use crate::mcp::legacy;
use crate::metrics::{Counted, End, Phase};
use crate::relay::{Address, UNANNOUNCED};
use crate::request_id::RequestId;
use crate::upstream::UpstreamError;

/// How long a server has to take note of a cancellation before it is ended.
const CANCEL_GRACE: Duration = Duration::from_millis(300);

/// How long a server has to end by itself when the bridge stops at once.
const FORCED_GRACE: Duration = Duration::from_millis(200);

/// A call, its client, and the right to run.
pub(super) struct Conversation {
    /// The work.
    pub(super) exchange: Exchange,
    /// Cancelled when the client has left.
    gone: CancellationToken,
    /// Cancelled when the bridge stops at once.
    pub(super) hard: CancellationToken,
    /// The right to run, given back when nothing of the server is left and the answer is delivered.
    permit: Arc<Permit>,
    /// Whether the other nodes have been told of the call.
    announced: bool,
}

/// Where a call has come to.
enum Stage {
    Ended(End),
    Parked,
}

impl Bridge {
    /// One task owns the call to its end. It knows by the guard when the client has left, or has been answered.
    pub(in crate::bridge) fn run_exchange(
        self: &Arc<Self>,
        exchange: Exchange,
        permit: Permit,
        connection: &Connection,
    ) -> Guard {
        let (gone, permit) = (connection.gone.child_token(), Arc::new(permit));
        let guard = Guard::new(&gone, &permit);
        let span = span(&exchange.caller, &exchange.server, &exchange.call.message);
        let conversation = Conversation { exchange, gone, hard: self.lifecycle.hard.clone(), permit, announced: false };
        self.lifecycle.spawn(RequestId::handed_on(conversation.run()).instrument(span));
        guard
    }
}

impl Conversation {
    /// Runs the call to its end and returns when nothing of its server is left.
    async fn run(mut self) {
        let live = Counted::new(&self.exchange.bridge.metrics.live_requests);
        self.listen();
        let end = loop {
            match self.run_until_an_end().await {
                Stage::Ended(end) => break end,
                Stage::Parked => {
                    if let Some(task) = self.exchange.task.take() {
                        break Box::pin(self.hold(*task)).await;
                    }
                    if let Some(end) = self.wait_until_called_again().await {
                        break end;
                    }
                }
            }
        };
        self.exchange.end_changes();
        if end == End::Answered {
            self.exchange.child.answered();
        }
        drop(live);
        // The answer goes out first: what is done from here on, nobody waits for.
        tokio::task::yield_now().await;
        let Exchange { bridge, server, call, course, .. } = &mut self.exchange;
        course.report(&bridge.metrics, server, (&call.message, call.is_modern()), end);
        let (counts, ending) = (bridge.metrics.servers.of(server.name.as_str()), Instant::now());
        Box::pin(self.close(end)).await;
        if let Some(counts) = counts {
            counts.took(Phase::Ending, ending.elapsed());
        }
    }

    /// A legacy client's cancellation names its request by an id of its own: from now on it finds this call, also
    /// while its server starts.
    fn listen(&mut self) {
        if let Some(session) = self.exchange.call.session() {
            let key = call_key(&session.nonce, self.exchange.call.id());
            self.exchange.mailbox().listen_as(key);
        }
    }

    /// By what and where the call is found, if a cancellation may be for it.
    fn found(&self) -> Option<(String, Address)> {
        let (session, mailbox) = (self.exchange.call.session()?, self.exchange.mailbox.as_ref()?);
        Some((call_key(&session.nonce, self.exchange.call.id()), mailbox.address()))
    }

    /// Lets a cancellation that another node takes find the call once it has gone on for a while.
    fn announce(&self) -> impl Future<Output = ()> + use<> {
        let (relay, found) = (self.exchange.bridge.relay.clone(), self.found());
        let lifetime = self.exchange.server.process.request_timeout;
        async move {
            let Some((key, address)) = found else { return std::future::pending().await };
            tokio::time::sleep(UNANNOUNCED).await;
            if let Err(error) = relay.announce(&key, &address, lifetime).await {
                tracing::warn!(%error, "the other nodes could not be told of a call; only this one can cancel it");
            }
        }
    }

    /// The one place where everything that can end a call is waited for.
    async fn run_until_an_end(&mut self) -> Stage {
        let announce = self.announce();
        let announced = &mut self.announced;
        let limits = self.exchange.server.process.clone();
        let (modern, gone, hard) = (self.exchange.call.is_modern(), self.gone.clone(), self.hard.clone());
        let deadline = tokio::time::sleep(limits.request_timeout);
        let abandoned = tokio::time::sleep(limits.abandoned_grace);
        let (waits, mut left) = (Arc::clone(&self.exchange.waits), false);
        let (end, error) = {
            let exchange = self.exchange.run();
            tokio::pin!(deadline, abandoned, exchange, announce);
            loop {
                tokio::select! {
                    biased;
                    done = &mut exchange => break match done {
                        Ok(Done::Answered) => (End::Answered, None),
                        Ok(Done::Parked) => return Stage::Parked,
                        Err(error) => (end_of(&error), Some(error)),
                    },
                    () = gone.cancelled(), if !left => {
                        if modern || limits.abandoned_grace.is_zero() || waits.load(Ordering::Relaxed) {
                            break (End::ClientLeft, None);
                        }
                        left = true;
                        abandoned.as_mut().reset(Instant::now() + limits.abandoned_grace);
                    }
                    () = &mut announce, if !*announced => *announced = true,
                    () = &mut abandoned, if left => break (End::ClientLeft, None),
                    () = &mut deadline => break (End::DeadlinePassed, Some(BridgeError::Deadline)),
                    () = hard.cancelled() => break (End::Stopped, Some(BridgeError::Stopped)),
                }
            }
        };
        if let Some(error) = error {
            self.fail(&error).await;
        }
        Stage::Ended(end)
    }

    async fn fail(&mut self, error: &BridgeError) {
        let exchange = &mut self.exchange;
        if matches!(error, BridgeError::Cancelled | BridgeError::Stalled) {
            exchange.outbox.finish_silently();
            return;
        }
        tracing::warn!(%error, "request failed");
        let stopped_at_work = exchange.asked && matches!(error, BridgeError::Stopped);
        let last = failed(exchange, if stopped_at_work { &BridgeError::Interrupted } else { error });
        exchange.last(last).await;
    }

    /// The client has been asked and must call again; its server waits, for as long as its lease.
    async fn wait_until_called_again(&mut self) -> Option<End> {
        tracing::info!("the server waits for the client to call again");
        // The call that was answered with the question is over; who calls again says by a note that they have left.
        self.gone = CancellationToken::new();
        let lease = tokio::time::sleep(self.exchange.server.process.park_lease);
        tokio::pin!(lease);
        loop {
            let mut mailbox = self.exchange.mailbox.take()?;
            let (note, heard) = tokio::select! {
                note = mailbox.receive() => (Note::read(&note), Ok(())),
                heard = self.exchange.wait_parked() => (None, heard),
                () = &mut lease => return Some(End::ClientLeft),
                () = self.hard.cancelled() => return Some(End::Stopped),
            };
            self.exchange.mailbox = Some(mailbox);
            if heard.is_err() {
                return Some(End::UpstreamLeft);
            }
            let Some(Note::Retry(retry)) = note else { continue };
            match self.exchange.resume(retry).await {
                Ok(Done::Answered) => return None,
                Ok(Done::Parked) => {}
                Err(error) => {
                    self.fail(&error).await;
                    return Some(end_of(&error));
                }
            }
        }
    }

    /// Ends the server: told of a cancellation if it was asked and has not answered, then in the usual steps.
    async fn close(self, end: End) {
        let found = self.found().filter(|_| self.announced);
        let Self {
            exchange: Exchange { bridge, caller, server, call, mut child, outbox, mailbox, cancelled, asked, .. },
            hard,
            permit,
            ..
        } = self;
        let used = child.credential_mark();
        let upstream = &mut child.upstream;
        drop((outbox, mailbox));
        let cancel = matches!(end, End::ClientLeft | End::DeadlinePassed | End::Stopped) && asked;
        if cancel {
            let ours = || legacy::cancelled(call.id_at_server(), end.as_str());
            upstream.send(&cancelled.map_or_else(ours, |said| said.text().to_owned()));
            let until_it_leaves = async { while upstream.receive().await.is_ok() {} };
            let _ = tokio::time::timeout(CANCEL_GRACE, until_it_leaves).await;
        }
        if matches!(end, End::UpstreamLeft | End::DeadlinePassed) {
            upstream.explain();
        }
        let withdrawn = async {
            if let Some((key, _)) = &found {
                // What could not be taken back leads nowhere, and not for long.
                let _ = bridge.relay.withdraw(key).await;
            }
        };
        tokio::select! {
            _ = async { tokio::join!(child.close(), withdrawn) } => {}
            // Dropping a server is killing it.
            () = until_forced(&hard) => {}
        }
        drop(permit);
        if let Some(mark) = used {
            bridge.store.used(&caller.user, &server.name, mark).await;
        }
    }
}

fn end_of(error: &BridgeError) -> End {
    match error {
        BridgeError::Stalled | BridgeError::Cancelled | BridgeError::NotAnswered => End::ClientLeft,
        BridgeError::Upstream(UpstreamError::StartTimeout) => End::DeadlinePassed,
        _ => End::UpstreamLeft,
    }
}

/// Until a server that is being ended must be gone at once.
pub(in crate::bridge) async fn until_forced(hard: &CancellationToken) {
    hard.cancelled().await;
    tokio::time::sleep(FORCED_GRACE).await;
}
