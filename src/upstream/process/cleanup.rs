//! Removes in the background what could not be removed at once: a directory that still holds files, a control group
//! whose last processes are still ending.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::lifecycle::Lifecycle;

/// How long after a try the next one is.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the removal of one request's files goes on before that of others has its turn.
pub(super) const TURN: Duration = Duration::from_millis(50);

/// After how many tries to give up: what is left then is removed with everything else of this instance, at its end.
const TRIES: u32 = 250;

/// Takes jobs; cloning it shares it.
#[derive(Debug, Clone)]
pub(super) struct BackgroundCleanup(UnboundedSender<Job>);

/// What to do until it says that it is done, and how often it has been tried.
struct Job {
    done: Box<dyn FnMut() -> bool + Send>,
    tries: u32,
}

impl BackgroundCleanup {
    /// Works in a task of `lifecycle`.
    pub(super) fn new(lifecycle: &Lifecycle) -> Self {
        let (sender, receiver) = unbounded_channel();
        lifecycle.accompany(work(receiver));
        Self(sender)
    }

    /// Does this, which may block, until it says that it is done.
    pub(super) fn retry_until(&self, done: impl FnMut() -> bool + Send + 'static) {
        // At the very end nobody listens any more, and everything of this instance is removed as a whole.
        let _ = self.0.send(Job { done: Box::new(done), tries: 0 });
    }
}

async fn work(mut jobs: UnboundedReceiver<Job>) {
    let mut pending = Vec::new();
    loop {
        if pending.is_empty() {
            let Some(job) = jobs.recv().await else { return };
            pending.push(job);
        }
        while let Ok(job) = jobs.try_recv() {
            pending.push(job);
        }
        let pass = tokio::task::spawn_blocking(move || {
            pending.retain_mut(Job::goes_on);
            pending
        });
        pending = pass.await.unwrap_or_default();
        if !pending.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Job {
    fn goes_on(&mut self) -> bool {
        if (self.done)() {
            return false;
        }
        self.tries += 1;
        if self.tries == TRIES {
            tracing::warn!(
                "a directory or control group of a request that has ended could not be removed; it is removed when the bridge ends"
            );
        }
        self.tries < TRIES
    }
}
