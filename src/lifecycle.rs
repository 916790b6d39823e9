//! How the process ends: it says so, it drains (take nothing new in), a soft stop (finish what runs), a hard stop (end it), and a tracker of everything that runs.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by everything that must know of the end. Cloning it shares it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Cancelled at the first signal to stop: the bridge says that it is not ready, and goes on for as long as others may
    /// need to hear it.
    pub stopping: CancellationToken,
    /// Cancelled after that: connections are not taken any more, and what still comes on those that are open is answered.
    pub drain: CancellationToken,
    /// Cancelled when no new work is wanted; running requests go on. The server does that once it has drained.
    pub soft: CancellationToken,
    /// Cancelled when running requests must end now.
    pub hard: CancellationToken,
    /// Every task of the process; empty means nothing is left behind.
    pub tasks: TaskTracker,
    /// Of these, the connections of clients: also at the hard stop they bound by themselves how long they go on.
    pub connections: TaskTracker,
}

impl Lifecycle {
    /// Starts a task that the end of the process waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Starts a task that the end of the process waits for, and answers with what comes of it: it goes on to its end also if
    /// nobody waits for that any more, where a client that leaves would have cut it off in the middle. Nothing if it
    /// panicked.
    pub fn to_the_end<T, F>(&self, work: F) -> impl Future<Output = Option<T>> + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = self.tasks.spawn(work);
        async { task.await.ok() }
    }

    /// Ends what has been started, which takes so long at most to clear up after itself.
    pub async fn end_within(&self, time: Duration) {
        self.soft.cancel();
        self.tasks.close();
        // What is not gone by then is ended without another word.
        let _ = timeout(time, self.tasks.wait()).await;
        self.hard.cancel();
    }

    /// Starts a task that serves the others: the end does not wait for it, it goes on as long as they may need it and
    /// is dropped at the hard stop.
    #[expect(clippy::disallowed_methods, reason = "tracked, it would keep a soft stop from ever being complete")]
    pub fn accompany<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hard = self.hard.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = hard.cancelled() => {}
            }
        });
    }
}
