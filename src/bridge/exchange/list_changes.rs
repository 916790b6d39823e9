//! Changed lists: what the server of a call says of them is no part of its answer, and goes to the session's listener,
//! on whichever node that is.
//!
//! Many servers announce a change whenever they have been initialized, as every fresh one is; a client that was told
//! would list again, and with that start the next. So a ping goes before the request, and what comes before its answer
//! is not told.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::Exchange;
use super::call::Call;
use super::notes::Note;
use crate::bridge::Bridge;
use crate::bridge::incoming::session::key;
use crate::mcp::legacy::{self, Initialized};
use crate::mcp::lists::List;
use crate::mcp::session::Session;
use crate::relay::{Address, NotDelivered};
use crate::user::UserId;

/// How often one list may be said to have changed.
const PACE: Duration = Duration::from_secs(1);

/// Changes of lists on their way: each list at most once in a second, and the last change in any case.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Pace {
    last: [Option<Instant>; List::ALL.len()],
    due: [bool; List::ALL.len()],
}

impl Pace {
    /// Takes note of a change.
    pub(in crate::bridge) fn happened(&mut self, list: List) {
        self.due[list as usize] = true;
    }

    /// The next change that is to be told, once it may be. Cancel safe.
    pub(in crate::bridge) async fn next(&mut self) -> List {
        let from = |list: List| self.last[list as usize].map_or_else(Instant::now, |last| last + PACE);
        let due = List::ALL.into_iter().filter(|list| self.due[*list as usize]).map(|list| (from(list), list));
        let Some((from, list)) = due.min_by_key(|(from, _)| *from) else { return std::future::pending().await };
        tokio::time::sleep_until(from).await;
        self.told(list);
        list
    }

    /// The next change that is to be told, whenever the last was.
    fn rest(&mut self) -> Option<List> {
        let list = List::ALL.into_iter().find(|list| self.due[*list as usize])?;
        self.told(list);
        Some(list)
    }

    fn told(&mut self, list: List) {
        self.due[list as usize] = false;
        self.last[list as usize] = Some(Instant::now());
    }
}

/// What the server of one call says of its lists, and who is told.
#[derive(Debug)]
pub(in crate::bridge) struct Changes {
    listener: Address,
    user: UserId,
    session: Session,
    /// Whether the server has answered the ping that stands before the request.
    counts: bool,
    pace: Pace,
}

impl Changes {
    /// Those of a call whose session has a listener, of a server that promises to tell them.
    pub(in crate::bridge) fn of(user: &UserId, call: &Call, server: &Initialized) -> Option<Box<Self>> {
        let (listener, session) = (call.listener?, call.session()?);
        let promised = List::ALL.into_iter().any(|list| server.promises(list.area(), "listChanged"));
        let (user, session) = (user.clone(), session.clone());
        promised.then(|| Box::new(Self { listener, user, session, counts: false, pace: Pace::default() }))
    }

    /// The ping that goes before the request.
    pub(in crate::bridge) fn ping() -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{},"method":"ping"}}"#, legacy::PING_ID)
    }

    /// The server has answered the ping.
    pub(in crate::bridge) fn begin(&mut self) {
        self.counts = true;
    }

    /// Takes note of what the server says by this method, if it is a change.
    pub(in crate::bridge) fn heard(&mut self, method: &str) {
        if let Some(list) = List::changed_by(method).filter(|_| self.counts) {
            self.pace.happened(list);
        }
    }

    /// Tells the listener of a change while nobody waits for it.
    pub(in crate::bridge) fn tell(&self, bridge: &Arc<Bridge>, list: List) {
        let (bridge, listener) = (Arc::clone(bridge), self.listener);
        let (user, session) = (self.user.clone(), self.session.clone());
        bridge.clone().lifecycle.spawn(async move {
            if bridge.relay.deliver(&listener, Note::Changed(list).write()).await == Err(NotDelivered::Gone)
                && let Ok(Some(now)) = bridge.store.session_status(&key(&user, &session)).await
            {
                // Another may have taken its place since the call began.
                let address = now.listener.map(|listener| listener.address);
                bridge.tell_listener(address.as_deref(), Note::Changed(list)).await;
            }
        });
    }
}

/// The next change of a list that is to be told; waits for ever where nobody is told.
pub(super) async fn next_change(changes: &mut Option<Box<Changes>>) -> List {
    match changes {
        Some(changes) => changes.pace.next().await,
        None => std::future::pending().await,
    }
}

impl Exchange {
    /// Tells what is left: the server will say no more.
    pub(super) fn end_changes(&mut self) {
        let Some(mut changes) = self.changes.take() else { return };
        while let Some(list) = changes.pace.rest() {
            changes.tell(&self.bridge, list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_is_said_to_change_once_a_second_and_the_last_change_is_not_lost() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            pace.happened(List::Tools);
        }
        pace.happened(List::Prompts);
        assert_eq!([pace.next().await, pace.next().await], [List::Tools, List::Prompts]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        pace.happened(List::Tools);
        assert_eq!(pace.next().await, List::Tools);
        assert_eq!(began.elapsed(), PACE);
        assert!(tokio::time::timeout(2 * PACE, pace.next()).await.is_err(), "nothing is due");
        pace.happened(List::Resources);
        assert_eq!((pace.rest(), pace.rest()), (Some(List::Resources), None));
    }
}
