//! How the process ends: a soft stop (finish what runs), a hard stop (end it), and a tracker of everything that runs.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by everything that must know of the end. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Cancelled when no new work is wanted; running requests go on.
    pub soft: CancellationToken,
    /// Cancelled when running requests must end now.
    pub hard: CancellationToken,
    /// Every task of the process; empty means nothing is left behind.
    pub tasks: TaskTracker,
}

impl Lifecycle {
    /// Starts a task that the end of the process waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }
}
