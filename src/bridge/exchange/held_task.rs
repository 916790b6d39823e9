//! A task that a server is held for: what its client calls it, for how long it is there, and who waits for a word about
//! it. Its id is one that only the bridge makes, and opens for its own user and server alone.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::questions::{Owner, PREFIX};
use crate::bridge::error::BridgeError;
use crate::bridge::response::sse::Outbox;
use crate::keyring::{Keyring, Place, Purpose};
use crate::mcp::tasks::Told;
use crate::relay::Address;

/// How long a task can still be asked about that has come to its end, or that its client has cancelled.
const AFTERWARDS: Duration = Duration::from_mins(1);

/// A task that a server is held for.
pub(super) struct Task {
    /// Its id as the server wrote it.
    pub(super) id: String,
    /// Its id as its client knows it.
    sealed: String,
    began: Instant,
    /// For how long it is held, from its beginning.
    lease: Duration,
    /// When it was first known to need its process no more.
    over: Option<Instant>,
    /// Requests that the server has not answered, the oldest first.
    pub(super) open: VecDeque<Open>,
    /// The newest id under which the server was asked something.
    pub(super) newest: u32,
}

/// A request about a task that the server has not answered.
pub(super) struct Open {
    /// Its id as the server knows it.
    pub(super) id: String,
    /// Its id as its client wrote it.
    pub(super) client_id: String,
    /// Whether it says that the task is no longer wanted.
    pub(super) cancels: bool,
    /// Leads to its client.
    pub(super) outbox: Outbox,
    /// When it has waited for too long.
    pub(super) until: Instant,
}

impl Task {
    /// A task that has just begun, by its id as its server wrote it and as its client knows it.
    pub(super) fn new(id: &str, sealed: String, lease: Duration, newest: u32) -> Self {
        let (began, open) = (Instant::now(), VecDeque::new());
        Self { id: id.to_owned(), sealed, began, lease, over: None, open, newest }
    }

    /// What the server tells of the task, with the id that its client knows, and with no promise to keep it for longer
    /// than its server is held.
    pub(super) fn retell(&mut self, told: Told<'_>) -> String {
        if told.is_over() {
            self.needs_no_more();
        }
        let held = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let lifetime = told.lifetime().map_or(held, |own| own.min(held));
        told.retold(&self.sealed, lifetime)
    }

    /// The task has come to its end, or its client does not want it any more.
    pub(super) fn needs_no_more(&mut self) {
        let over = *self.over.get_or_insert_with(Instant::now);
        self.lease = self.lease.min(over - self.began + AFTERWARDS);
    }

    /// Whether it needs its server no more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// When it is held no longer.
    pub(super) fn until(&self) -> Instant {
        self.began + self.lease
    }

    /// Until the oldest request has waited for too long.
    pub(super) fn until_overdue(&self) -> impl Future<Output = ()> + use<> {
        let until = self.open.front().map(|open| open.until);
        async move {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Open {
    pub(super) async fn fail(self, error: &BridgeError) {
        self.outbox.finish(error.last(Some(&self.client_id))).await;
    }
}

/// An id for a task that leads whoever asks about it to `address`.
pub(super) fn seal_task(keyring: &Keyring, owner: Owner<'_>, address: &Address) -> String {
    format!("{PREFIX}{}", keyring.seal_text(place(&parts(owner)), address.to_string().as_bytes()))
}

/// Where the task is, if it is one of this user and server.
pub(super) fn open_task(keyring: &Keyring, owner: Owner<'_>, sealed: &str) -> Option<Address> {
    let plain = keyring.open_text(place(&parts(owner)), sealed.strip_prefix(PREFIX)?).ok()?;
    std::str::from_utf8(&plain).ok()?.parse().ok()
}

fn parts(owner: Owner<'_>) -> [&str; 4] {
    ["task", owner.user.issuer(), owner.user.subject(), owner.server.as_str()]
}

fn place<'a>(parts: &'a [&'a str; 4]) -> Place<'a> {
    Place { purpose: Purpose::Route, parts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerName;
    use crate::memory::Memory;
    use crate::metrics::Gauge;
    use crate::relay::Relay;
    use crate::user::UserId;

    const LEASE: Duration = Duration::from_mins(10);

    fn retold(task: &mut Task, status: &str, lifetime: &str) -> serde_json::Value {
        let text = format!(r#"{{"taskId":"own","status":"{status}","ttlMs":{lifetime},"x":1.0}}"#);
        let retold = task.retell(Told::of(&text).unwrap());
        assert!(retold.ends_with(r#""x":1.0}"#), "{retold}");
        serde_json::from_str(&retold).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_promised_for_as_long_as_its_server_and_its_lease_keep_it() {
        let mut task = Task::new("\"own\"", "sealed".into(), LEASE, 1);
        assert_eq!(retold(&mut task, "working", "null")["ttlMs"], 600_000);
        assert_eq!(retold(&mut task, "working", "900000")["ttlMs"], 600_000);
        let short = retold(&mut task, "working", "1000");
        assert_eq!((&short["ttlMs"], &short["taskId"]), (&1000.into(), &"sealed".into()));
        assert_eq!(task.until(), Instant::now() + LEASE, "its own word is its server's to keep");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_over_is_kept_for_a_moment_whoever_asks_again() {
        for cancelled in [false, true] {
            let mut task = Task::new("\"own\"", "sealed".into(), LEASE, 1);
            tokio::time::advance(Duration::from_secs(100)).await;
            let until = Instant::now() + AFTERWARDS;
            if cancelled {
                task.needs_no_more();
            } else {
                retold(&mut task, "failed", "null");
            }
            tokio::time::advance(Duration::from_secs(30)).await;
            assert_eq!(retold(&mut task, "completed", "null")["ttlMs"], 160_000);
            assert_eq!(task.until(), until);
        }
        let mut short = Task::new("\"own\"", "sealed".into(), Duration::from_secs(5), 1);
        assert_eq!(retold(&mut short, "completed", "null")["ttlMs"], 5000, "a lease ends in any case");
    }

    #[test]
    fn an_id_opens_for_its_own_user_and_server_only() {
        let keyring = Keyring::ephemeral();
        let (alice, bob) = (UserId::local("alice").unwrap(), UserId::local("bob").unwrap());
        let (server, other) = (ServerName::parse("s").unwrap(), ServerName::parse("t").unwrap());
        let owner = Owner { user: &alice, server: &server };
        let memory = Memory::new(None, 1, Gauge::default());
        let mailbox = Relay::local().open(memory.share(&alice, 1));
        let id = seal_task(&keyring, owner, &mailbox.address());
        assert_eq!(open_task(&keyring, owner, &id), Some(mailbox.address()));
        assert_eq!(open_task(&keyring, Owner { user: &bob, ..owner }, &id), None);
        assert_eq!(open_task(&keyring, Owner { server: &other, ..owner }, &id), None);
        for other in ["", "tb1-", "task-1", &id[1..]] {
            assert_eq!(open_task(&keyring, owner, other), None, "{other}");
        }
    }
}
