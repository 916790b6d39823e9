//! A thread that owns a connection to the database: SQLite blocks, and the async runtime must not.

use std::io;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::clock::within;
use crate::store::StoreError;

/// Questions that may wait for the thread; more wait to get in line, within their deadlines.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread and its line of jobs. The thread ends, and closes the database, when the last clone of this is dropped.
#[derive(Clone)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts a thread that owns `connection`.
    pub(super) fn start(name: &str, mut connection: Connection) -> io::Result<Self> {
        let (jobs, mut line) = mpsc::channel::<Job>(QUEUE);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = line.blocking_recv() {
                job(&mut connection);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does `job` on the thread and hands back what it answered. One whose asker has given up is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |connection: &mut Connection| {
            if !reply.is_closed() {
                // An asker who gives up now has no use for the answer.
                let _given_up = reply.send(job(connection));
            }
        });
        let work = async {
            self.jobs.send(job).await.map_err(|_| StoreError::Unreachable)?;
            answer.await.map_err(|_| StoreError::Unreachable)?
        };
        within(deadline, work).await.unwrap_or(Err(StoreError::Timeout))
    }
}
